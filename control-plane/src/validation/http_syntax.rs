//! The parts of HTTP that routes are written with: header names, values, paths, hosts, expressions.

use serde_json::json;

use super::names::is_subdomain;
use super::path::Path;
use crate::refusal::Cause;

/// A header's name (RFC 9110 §5.1), not a pseudo header.
pub(super) fn header_name(name: &str, path: &Path) -> Option<Cause> {
    let is_fine = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    (!is_fine).then(|| Cause::invalid(path, &json!(name), "is no name of an HTTP header"))
}

/// A header's value (RFC 9110 §5.5).
pub(super) fn header_value(value: &str, path: &Path) -> Option<Cause> {
    let is_fine = http::HeaderValue::from_str(value).is_ok();
    (!is_fine).then(|| Cause::invalid(path, &json!(value), "is no value of an HTTP header"))
}

/// An absolute path without query, as Gateway API wants it.
pub(super) fn absolute_path(value: &str, path: &Path) -> Option<Cause> {
    let why = if !value.starts_with('/') {
        "must begin with /"
    } else if value.contains("//") {
        "must not contain //"
    } else if value.contains(['?', '#']) {
        "must not contain ? or #; match query parameters with queryParams"
    } else if value
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        "must not contain the segments . and .."
    } else if value.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        "must not contain white space"
    } else {
        return None;
    };
    Some(Cause::invalid(path, &json!(value), why))
}

/// An expression that compiles within bounds.
pub(super) fn expression(value: &str, path: &Path) -> Option<Cause> {
    let error = regex::RegexBuilder::new(value)
        .size_limit(1 << 20)
        .build()
        .err()?;
    let why = match error {
        regex::Error::CompiledTooBig(_) => "is too large an expression".to_owned(),
        // The last line of the parser's report says what is wrong; the others draw where.
        error => error
            .to_string()
            .lines()
            .last()
            .unwrap_or("does not compile")
            .trim()
            .to_owned(),
    };
    Some(Cause::invalid(path, &json!(value), why))
}

/// A host name without port.
pub(super) fn host_name(value: &str, path: &Path) -> Option<Cause> {
    (!is_subdomain(value))
        .then(|| Cause::invalid(path, &json!(value), "must be a DNS name in lower case"))
}
