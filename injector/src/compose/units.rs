//! Durations, sizes and shares as Compose writes them.

use std::time::Duration;

/// `90s`, `1m30s`, `100ms`, `1h5m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|letter: char| letter.is_ascii_digit())
            .unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}

/// `64m`, `1.5gb`, `1048576`: bytes, in powers of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size to a few digits, checked to be in range"
    )]
    let (bytes, limit) = ((number * unit as f64) as u64, number * unit as f64 <= 1e18);
    limit.then_some(bytes)
}

/// `0.5` processors: thousandths of one.
pub(super) fn cpu_millis(text: &str) -> Option<u64> {
    let cpus: f64 = text.trim().parse().ok()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be positive and small"
    )]
    (cpus > 0.0 && cpus < 1e6).then_some((cpus * 1000.0).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        for wrong in ["", "5", "s", "5 s", "5x", "-5s", "99999999999999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_count_in_powers_of_1024() {
        assert_eq!(bytes("64m"), Some(64 << 20));
        assert_eq!(bytes("1.5GB"), Some(3 << 29));
        assert_eq!(bytes("512"), Some(512));
        for wrong in ["", "m", "12q", "-1m", "1e30g"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        assert_eq!(cpu_millis("0.5"), Some(500));
        assert_eq!(cpu_millis("0"), None);
        assert_eq!(cpu_millis("many"), None);
    }
}
