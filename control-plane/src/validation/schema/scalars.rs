//! Words, texts and numbers against their schemas.

use std::collections::HashMap;

use parking_lot::Mutex;
use regex::Regex;
use serde_json::{Value, json};

use super::Findings;
use crate::kinds;
use crate::refusal::Cause;
use crate::validation::path::Path;

pub(super) fn check_word(words: &[Value], value: &Value, path: &Path, found: &mut Findings) {
    if !words.contains(value) {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        found.causes.push(Cause::not_supported(path, value, &words));
    }
}

pub(super) fn check_string(schema: &'static Value, text: &str, path: &Path, found: &mut Findings) {
    let length = text.chars().count() as u64;
    if schema["minLength"]
        .as_u64()
        .is_some_and(|least| length < least)
    {
        found
            .causes
            .push(Cause::required(path, "must not be empty"));
    }
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        found.causes.push(Cause::invalid(
            path,
            &json!(text),
            format!("must have at most {most} characters"),
        ));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !is_match(pattern, text)
    {
        let hint = if pattern == kinds::duration::PATTERN {
            "must be a duration such as 10s, 1m30s or 250ms".to_owned()
        } else {
            format!("must match {pattern}")
        };
        found.causes.push(Cause::invalid(path, &json!(text), hint));
    }
    if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        found.causes.push(Cause::invalid(
            path,
            &json!(text),
            "must be a time such as 2026-01-31T12:00:00Z",
        ));
    }
}

/// Patterns come from our own schemas, so there are few, and all of them compile.
fn is_match(pattern: &'static str, text: &str) -> bool {
    static COMPILED: Mutex<Option<HashMap<&'static str, Regex>>> = Mutex::new(None);
    let mut compiled = COMPILED.lock();
    let compiled = compiled.get_or_insert_with(HashMap::new);
    if let Some(regex) = compiled.get(pattern) {
        return regex.is_match(text);
    }
    match Regex::new(pattern) {
        Ok(regex) => compiled.entry(pattern).or_insert(regex).is_match(text),
        Err(error) => {
            tracing::error!(pattern, %error, "a schema has a pattern that does not compile");
            false
        }
    }
}

pub(super) fn check_number(
    schema: &'static Value,
    value: &Value,
    path: &Path,
    found: &mut Findings,
) {
    let Some(number) = value.as_f64() else { return };
    let (format_least, format_most) = match schema["format"].as_str() {
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        Some("uint16") => (Some(0.0), Some(65535.0)),
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        _ => (None, None),
    };
    let least = schema["minimum"].as_f64().or(format_least);
    let most = schema["maximum"].as_f64().or(format_most);
    if let Some(least) = least.filter(|least| number < *least) {
        found.causes.push(Cause::invalid(
            path,
            value,
            format!("must be greater than or equal to {least}"),
        ));
    }
    if let Some(most) = most.filter(|most| number > *most) {
        found.causes.push(Cause::invalid(
            path,
            value,
            format!("must be less than or equal to {most}"),
        ));
    }
}
