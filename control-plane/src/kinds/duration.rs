//! Durations as Gateway API writes them: `1h30m`, `250ms`, `0s` (GEP-2257).
//!
//! At most four pairs of a number of up to five digits and a unit out of `h`, `m`, `s`, `ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The pattern that Gateway API publishes for its durations.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A duration of a policy, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayDuration(Duration);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write up to four numbers with a unit out of h, m, s, ms, as in 1m30s or 250ms"
)]
pub struct InvalidDuration {
    text: String,
}

impl GatewayDuration {
    /// The duration itself.
    pub fn get(self) -> Duration {
        self.0
    }

    /// Zero switches off what it limits, by Gateway API's rule for timeouts.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<GatewayDuration> for Duration {
    fn from(duration: GatewayDuration) -> Self {
        duration.0
    }
}

impl FromStr for GatewayDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        parse(text).map(Self).ok_or_else(|| InvalidDuration {
            text: text.chars().take(64).collect(),
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit_millis, unit_bytes) = unit(rest)?;
        total += Duration::from_millis(number * unit_millis);
        rest = &rest[unit_bytes..];
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

fn unit(text: &str) -> Option<(u64, usize)> {
    if text.starts_with("ms") {
        return Some((1, 2));
    }
    match text.bytes().next()? {
        b'h' => Some((3_600_000, 1)),
        b'm' => Some((60_000, 1)),
        b's' => Some((1_000, 1)),
        _ => None,
    }
}

impl fmt::Display for GatewayDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return formatter.write_str("0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                write!(formatter, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for GatewayDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for GatewayDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for GatewayDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": PATTERN,
            "description": "A duration such as 10s, 1m30s or 250ms.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gateway_api_writes_them() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h2m3s4ms", 3_723_004),
            ("99999h", 359_996_400_000),
        ] {
            let duration: GatewayDuration = text.parse().expect(text);
            assert_eq!(duration.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in [
            "",
            "s",
            "1",
            "1.5s",
            "-1s",
            "100000s",
            "1d",
            "1s1s1s1s1s",
            "1s ",
            "١s",
        ] {
            assert!(text.parse::<GatewayDuration>().is_err(), "{text}");
        }
    }
}
