//! Headers and cookies that become metadata.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{self, HeaderMap, HeaderName};
use prost::Message;
use serde_json::Value;

use super::Passing;
use crate::config::filter::header_to_metadata::{
    HeaderRule, HeaderSource, HeaderToMetadataConfig, MetadataEntry, ValueKind,
};
use crate::config::matching::{RequestLine, Subject};
use crate::config::metadata::Metadata;
use crate::http::headers;

/// No longer values become metadata, as in Envoy.
const MAX_VALUE_BYTES: usize = 8 * 1024;

/// With or without padding, as in Envoy.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a request's headers, and its response's when it comes.
pub(super) fn request(config: &Arc<HeaderToMetadataConfig>, passing: &mut Passing<'_>) {
    let head = &mut *passing.head;
    let line = RequestLine {
        method: head.method.as_str(),
        path: head.path.as_str(),
        authority: headers::text(head.authority.as_ref()),
        scheme: head.scheme,
    };
    passing
        .completion
        .with_metadata(|metadata| read(&config.request, Some(line), &mut head.headers, metadata));
    if !config.response.is_empty() {
        let rules = Arc::clone(&config.response);
        passing.passage.on_response(move |returning| {
            let headers = returning.response.headers_mut();
            let completion = &mut *returning.completion;
            completion.with_metadata(|metadata| read(&rules, None, headers, metadata));
        });
    }
}

/// `line` is that of the request whose headers are read.
fn read(
    rules: &[HeaderRule],
    line: Option<RequestLine<'_>>,
    headers: &mut HeaderMap,
    metadata: &mut Metadata,
) {
    for rule in rules {
        let found = found(&rule.source, line, headers);
        if let (true, HeaderSource::Header(Subject::Header(name))) = (rule.is_removed, &rule.source)
        {
            headers.remove(name);
        }
        let (entry, text) = match (&found, &rule.present, &rule.missing) {
            (Some(text), Some(entry), _) => (entry, text.as_str()),
            (None, _, Some(entry)) => (entry, ""),
            _ => continue,
        };
        if let Some(value) = value(entry, text) {
            metadata.put(&entry.namespace, &entry.key, value);
        }
    }
}

fn found(
    source: &HeaderSource,
    line: Option<RequestLine<'_>>,
    headers: &HeaderMap,
) -> Option<String> {
    match source {
        HeaderSource::Header(Subject::Header(name)) => all_values(headers, name),
        HeaderSource::Header(other) => other.of_line(line?).map(str::to_owned),
        HeaderSource::Cookie(name) => {
            let cookies = headers.get_all(header::COOKIE).iter();
            let cookies = cookies.filter_map(|value| value.to_str().ok());
            let mut pairs = cookies.flat_map(|value| value.split(';'));
            let found = pairs.find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == &**name).then_some(value)
            });
            let found = found.map(|value| value.trim_matches('"'));
            found.filter(|value| !value.is_empty()).map(str::to_owned)
        }
    }
}

fn all_values(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let texts: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// The value of an entry; none where there is nothing in it, or it is not what it should be.
fn value(entry: &MetadataEntry, text: &str) -> Option<Value> {
    let rewritten = match &entry.rewrite {
        Some(rewrite) => rewrite.apply(text),
        None if entry.value.is_empty() => text.into(),
        None => (&*entry.value).into(),
    };
    if rewritten.is_empty() || rewritten.len() >= MAX_VALUE_BYTES {
        return None;
    }
    let bytes = match entry.is_base64 {
        true => BASE64.decode(rewritten.as_bytes()).ok()?,
        false => rewritten.into_owned().into_bytes(),
    };
    match entry.kind {
        ValueKind::Text => String::from_utf8(bytes).ok().map(Value::String),
        ValueKind::Number => {
            let number: f64 = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
            match whole(number) {
                Some(whole) => Some(whole.into()),
                None => serde_json::Number::from_f64(number).map(Value::Number),
            }
        }
        ValueKind::Protobuf => {
            let value = prost_types::Value::decode(&bytes[..]).ok()?;
            Some(weft_proto::wkt::value_to_json(&value))
        }
    }
}

/// A number without a fraction is written without one.
fn whole(number: f64) -> Option<i64> {
    /// Up to here, floats hold every whole number.
    const MOST: f64 = 9_007_199_254_740_992.0;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "it has no fraction, and is small enough"
    )]
    (number.fract() == 0.0 && number.abs() <= MOST).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn entry(value: &str, kind: ValueKind, is_base64: bool) -> MetadataEntry {
        MetadataEntry {
            namespace: "n".into(),
            key: "k".into(),
            value: value.into(),
            rewrite: None,
            kind,
            is_base64,
        }
    }

    fn rule(present: Option<MetadataEntry>, missing: Option<MetadataEntry>) -> HeaderRule {
        HeaderRule {
            source: HeaderSource::Header(Subject::Header(HeaderName::from_static("x-a"))),
            present,
            missing,
            is_removed: true,
        }
    }

    #[test]
    fn a_header_becomes_a_value_and_goes_where_asked() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("7"));
        let mut metadata = Metadata::default();

        let rules = [rule(Some(entry("", ValueKind::Number, false)), None)];
        read(&rules, None, &mut headers, &mut metadata);

        assert_eq!(metadata.at("n", ["k"]), Some(&json!(7)));
        assert!(headers.is_empty());
    }

    #[test]
    fn absence_becomes_a_value_where_asked() {
        let mut metadata = Metadata::default();

        let rules = [rule(None, Some(entry("none", ValueKind::Text, false)))];
        read(&rules, None, &mut HeaderMap::new(), &mut metadata);

        assert_eq!(metadata.at("n", ["k"]), Some(&json!("none")));
    }

    #[test]
    fn what_is_not_what_it_should_be_becomes_nothing() {
        assert_eq!(value(&entry("", ValueKind::Number, false), "seven"), None);
        assert_eq!(value(&entry("", ValueKind::Text, true), "%%"), None);
        assert_eq!(value(&entry("", ValueKind::Text, false), ""), None);
        assert_eq!(
            value(&entry("", ValueKind::Text, true), "aGk="),
            Some(json!("hi"))
        );
        assert_eq!(
            value(&entry("", ValueKind::Text, true), "aGk"),
            Some(json!("hi"))
        );
        assert_eq!(
            value(&entry("", ValueKind::Number, false), " 7 "),
            Some(json!(7))
        );
    }

    #[test]
    fn a_header_that_only_its_absence_is_read_of_goes_where_asked_too() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("7"));
        let mut metadata = Metadata::default();

        let rules = [rule(None, Some(entry("none", ValueKind::Text, false)))];
        read(&rules, None, &mut headers, &mut metadata);

        assert!(metadata.is_empty());
        assert!(headers.is_empty());
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("ab=1; b=\"2\"; e="));

        let found = |name: &str| found(&HeaderSource::Cookie(name.into()), None, &headers);

        assert_eq!(found("b"), Some("2".to_owned()));
        assert_eq!(found("a"), None);
        assert_eq!(found("e"), None);
    }
}
