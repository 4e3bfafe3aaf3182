//! The trace a request belongs to: W3C Trace Context, read from and written to headers.
//!
//! The data path makes one from the downstream's headers, a child for each attempt, and injects that upstream.
//! What is not exactly of the standard's form is as if absent, and a new trace begins.
//!
//! <https://www.w3.org/TR/trace-context/>

use http::header::{HeaderMap, HeaderName, HeaderValue};
use rand::{Rng, RngExt};

use crate::config::percent::Percent;
use crate::{present, random};

/// The header that names trace, parent and decision.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header that carries what other tracing systems need.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// One span's place in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    parent_span_id: Option<u64>,
    is_parent_remote: bool,
    is_sampled: bool,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// The span that handles a request with these headers: a child of the caller's, or the first of a new trace.
    ///
    /// Where the caller has decided on sampling, that holds; `sampling` is the share of new traces that are recorded.
    pub fn from_headers(headers: &HeaderMap, sampling: Percent) -> Self {
        random::with(|random| match Parent::from_headers(headers) {
            Some(parent) => Self {
                trace_id: parent.trace_id,
                span_id: random_span_id(random),
                parent_span_id: Some(parent.span_id),
                is_parent_remote: true,
                is_sampled: parent.is_sampled,
                state: state(headers),
            },
            None => Self {
                trace_id: random_trace_id(random),
                span_id: random_span_id(random),
                parent_span_id: None,
                is_parent_remote: false,
                is_sampled: sampling.covers(random.random()),
                state: None,
            },
        })
    }

    /// A span inside this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: random::with(random_span_id),
            parent_span_id: Some(self.span_id),
            is_parent_remote: false,
            ..self.clone()
        }
    }

    /// Makes this span the parent of whoever receives the headers.
    pub fn inject(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent());
        match &self.state {
            Some(state) => drop(headers.insert(TRACESTATE, state.clone())),
            None => present::remove(headers, &TRACESTATE),
        }
    }

    /// The trace.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// This span.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// The span it is inside of.
    pub fn parent_span_id(&self) -> Option<u64> {
        self.parent_span_id
    }

    /// Whether the parent is in another process.
    pub fn is_parent_remote(&self) -> bool {
        self.is_parent_remote
    }

    /// Whether it is recorded.
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// Whether the caller has decided on it.
    pub fn is_of_caller(&self) -> bool {
        self.is_parent_remote
    }

    /// The `tracestate` it carries along.
    pub fn state(&self) -> Option<&str> {
        self.state.as_ref()?.to_str().ok()
    }

    fn traceparent(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace_id.to_be_bytes());
        write_hex(&mut text[36..52], &self.span_id.to_be_bytes());
        text[54] = if self.is_sampled { b'1' } else { b'0' };
        random::identifier(&text)
    }
}

/// Length of a `traceparent` of version 00.
const TRACEPARENT_LENGTH: usize = 55;

/// What a caller's `traceparent` says.
#[derive(Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    span_id: u64,
    is_sampled: bool,
}

impl Parent {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        if !present::has(headers, &TRACEPARENT) {
            return None;
        }
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        // §3.2: more than one is as if there was none.
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.as_bytes())
    }

    /// §3.2.2 for version 00; of later versions the part that 00 knows (§3.2.4).
    fn parse(text: &[u8]) -> Option<Self> {
        let known = text.get(..TRACEPARENT_LENGTH)?;
        let version = hex(&known[..2])?;
        let has_known_length = match version {
            0 => text.len() == TRACEPARENT_LENGTH,
            0xff => false,
            _ => matches!(text.get(TRACEPARENT_LENGTH), None | Some(b'-')),
        };
        let is_delimited = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
        if !has_known_length || !is_delimited {
            return None;
        }
        let trace_id = hex(&known[3..35])?;
        let span_id = u64::try_from(hex(&known[36..52])?).ok()?;
        let flags = hex(&known[53..55])?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// All `tracestate` headers as one; none where one of them breaks the standard's form (§3.3).
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let joined = match values.next() {
        None => first.clone(),
        Some(second) => {
            let all: Vec<_> = [first, second]
                .into_iter()
                .chain(values)
                .map(HeaderValue::as_bytes)
                .collect();
            HeaderValue::from_bytes(&all.join(&b","[..])).ok()?
        }
    };
    is_state(joined.to_str().ok()?).then_some(joined)
}

/// No `tracestate` has more members (§3.3.1.1).
const MAX_STATE_MEMBERS: usize = 32;
/// We carry no longer one; the standard asks for at least 512 (§3.3.1.5).
const MAX_STATE_BYTES: usize = 4096;

fn is_state(text: &str) -> bool {
    let members = || {
        text.split(',')
            .map(|member| member.trim_matches([' ', '\t']))
    };
    let is_bounded = text.len() <= MAX_STATE_BYTES && members().count() <= MAX_STATE_MEMBERS;
    is_bounded
        && members().any(|member| !member.is_empty())
        && members().all(|member| member.is_empty() || is_state_member(member))
}

fn is_state_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let is_value = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    is_state_key(key)
        && (1..=256).contains(&value.len())
        && value.bytes().all(is_value)
        && !value.ends_with(' ')
}

/// §3.3.1.3.1: `simple`, or `tenant@system`.
fn is_state_key(key: &str) -> bool {
    let is_tail = |text: &str| {
        text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte)
        })
    };
    let starts_with_letter =
        |text: &str| text.starts_with(|first: char| first.is_ascii_lowercase());
    match key.split_once('@') {
        None => starts_with_letter(key) && key.len() <= 256 && is_tail(key),
        Some((tenant, system)) => {
            let is_tenant = tenant
                .starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
            is_tenant
                && tenant.len() <= 241
                && is_tail(tenant)
                && starts_with_letter(system)
                && system.len() <= 14
                && is_tail(system)
        }
    }
}

/// Lower-case hexadecimal digits; the standard allows no others.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = random::DIGITS[usize::from(*byte)];
    }
}

fn random_trace_id(random: &mut impl Rng) -> u128 {
    not_zero(|| random.random())
}

fn random_span_id(random: &mut impl Rng) -> u64 {
    not_zero(|| random.random())
}

/// Zero is no id (§3.2.2.3).
fn not_zero<T: Default + PartialEq>(mut draw: impl FnMut() -> T) -> T {
    loop {
        let drawn = draw();
        if drawn != T::default() {
            return drawn;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(fields: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).expect("a header value"));
        }
        headers
    }

    #[test]
    fn a_request_continues_the_trace_of_its_caller() {
        let context =
            TraceContext::from_headers(&headers(&[(&TRACEPARENT, PARENT)]), Percent::ZERO);

        assert_eq!(
            context.trace_id(),
            0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c
        );
        assert_eq!(context.parent_span_id(), Some(0xb7ad_6b71_6920_3331));
        assert_ne!(context.span_id(), 0xb7ad_6b71_6920_3331);
        assert!(context.is_parent_remote());
        assert!(
            context.is_sampled(),
            "the caller's decision goes before ours"
        );
    }

    #[test]
    fn a_caller_that_does_not_record_is_obeyed() {
        let parent = PARENT.replace("-01", "-00");

        let context =
            TraceContext::from_headers(&headers(&[(&TRACEPARENT, &parent)]), Percent::ALL);

        assert!(!context.is_sampled());
    }

    #[test]
    fn what_is_injected_reads_back_as_the_parent() {
        let context = TraceContext::from_headers(&HeaderMap::new(), Percent::ALL);
        let mut outgoing = headers(&[(&TRACEPARENT, "stale"), (&TRACESTATE, "stale=1")]);

        let child = context.child();
        child.inject(&mut outgoing);
        let received = TraceContext::from_headers(&outgoing, Percent::ZERO);

        assert_eq!(received.trace_id(), context.trace_id());
        assert_eq!(received.parent_span_id(), Some(child.span_id()));
        assert_eq!(child.parent_span_id(), Some(context.span_id()));
        assert!(!outgoing.contains_key(TRACESTATE));
    }

    #[test]
    fn a_malformed_parent_begins_a_new_trace() {
        for text in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = PARENT.replacen("00", "cc", 1) + "-what-comes-later";

        assert_eq!(
            Parent::parse(later.as_bytes()),
            Parent::parse(PARENT.as_bytes())
        );
    }

    #[test]
    fn two_parents_are_none() {
        let twice = headers(&[(&TRACEPARENT, PARENT), (&TRACEPARENT, PARENT)]);

        assert_eq!(Parent::from_headers(&twice), None);
    }

    #[test]
    fn the_state_of_several_headers_travels_as_one() {
        let incoming = headers(&[
            (&TRACEPARENT, PARENT),
            (&TRACESTATE, "congo=t61rcWkgMzE"),
            (&TRACESTATE, "fw529a3039@dt=FfAAAA"),
        ]);

        let context = TraceContext::from_headers(&incoming, Percent::ZERO);

        assert_eq!(
            context.state(),
            Some("congo=t61rcWkgMzE,fw529a3039@dt=FfAAAA")
        );
    }

    #[test]
    fn a_state_that_breaks_the_form_is_dropped_and_the_trace_goes_on() {
        let long = format!("k={}", "v".repeat(257));
        let many = vec!["a=1"; 33].join(",");
        for text in [
            "novalue", "UPPER=1", "1a=x", "a=", "a=b=c", "a@1b=x", ",", &long, &many,
        ] {
            let incoming = headers(&[(&TRACEPARENT, PARENT), (&TRACESTATE, text)]);

            let context = TraceContext::from_headers(&incoming, Percent::ZERO);

            assert_eq!(context.state(), None, "{text}");
            assert!(context.parent_span_id().is_some());
        }
    }

    #[test]
    fn a_new_trace_is_sampled_as_often_as_told() {
        let sampled = |sampling| {
            (0..2000)
                .filter(|_| TraceContext::from_headers(&HeaderMap::new(), sampling).is_sampled())
                .count()
        };

        assert_eq!(sampled(Percent::ZERO), 0);
        assert_eq!(sampled(Percent::ALL), 2000);
        let half = sampled(Percent::of(50));
        assert!((800..1200).contains(&half), "{half}");
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut random: SmallRng = rand::SeedableRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let mut bytes = PARENT.as_bytes().to_vec();
            let position = random.random_range(0..bytes.len());
            bytes[position] = random.random();
            bytes.truncate(random.random_range(0..=bytes.len()));
            let _ = Parent::parse(&bytes);
        }
    }
}
