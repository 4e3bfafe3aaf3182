//! Metadata that people write: names, labels, annotations.

use serde_json::{Value, json};

use super::path::Path;
use crate::kinds::{self, Kind};
use crate::refusal::Cause;

/// RFC 1123 §2.1 and RFC 1035 §2.3.4.
const LONGEST_LABEL: usize = 63;
const LONGEST_SUBDOMAIN: usize = 253;
/// Kubernetes' limit for all annotations together.
const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

/// What is wrong with an object's metadata.
pub fn check_metadata(kind: &Kind, metadata: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = metadata["name"].as_str().unwrap_or_default();
    let path = Path::root("metadata").field("name");
    if name.is_empty() {
        causes.push(Cause::required(path, "name or generateName is required"));
    } else if is_host_name(kind) && !is_label(name) {
        causes.push(Cause::invalid(
            path,
            &json!(name),
            "must be at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends",
        ));
    } else if !is_subdomain(name) {
        causes.push(Cause::invalid(
            path,
            &json!(name),
            "must be lower-case letters, digits, dashes and dots, with a letter or digit at both ends of each part",
        ));
    }
    causes.extend(check_labels(
        &metadata["labels"],
        &Path::root("metadata").field("labels"),
    ));
    causes.extend(check_annotations(&metadata["annotations"]));
    causes
}

/// Its name becomes one label of a DNS name.
fn is_host_name(kind: &Kind) -> bool {
    [&kinds::NAMESPACE, &kinds::SERVICE].contains(&kind)
}

/// Whether it is one label of a DNS name.
pub(super) fn is_label(text: &str) -> bool {
    let is_end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=LONGEST_LABEL).contains(&text.len())
        && text.bytes().all(|byte| is_end(byte) || byte == b'-')
        && text.bytes().next().is_some_and(is_end)
        && text.bytes().last().is_some_and(is_end)
}

/// Whether it is a DNS name in lower case.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= LONGEST_SUBDOMAIN
        && text.split('.').all(|part| {
            // Parts may be longer than DNS allows; Kubernetes does not mind, and names are not resolved.
            let is_end = |byte: Option<u8>| {
                byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            };
            is_end(part.bytes().next())
                && is_end(part.bytes().last())
                && part.bytes().all(|byte| is_end(Some(byte)) || byte == b'-')
        })
}

/// What is wrong with labels.
pub(super) fn check_labels(labels: &Value, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid(
                path.clone(),
                &json!(key),
                "keys of labels are names of at most 63 letters, digits, dashes, underscores and dots, with an optional DNS prefix and slash",
            ));
        }
        let value = value.as_str().unwrap_or_default();
        if !value.is_empty() && !is_label_word(value) {
            causes.push(Cause::invalid(
                path.key(key),
                &json!(value),
                "values of labels are at most 63 letters, digits, dashes, underscores and dots, with a letter or digit at both ends",
            ));
        }
    }
    causes
}

fn check_annotations(annotations: &Value) -> Vec<Cause> {
    let path = Path::root("metadata").field("annotations");
    let Some(annotations) = annotations.as_object() else {
        return Vec::new();
    };
    let bytes: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    let mut causes = Vec::new();
    if bytes > MOST_ANNOTATION_BYTES {
        causes.push(Cause::invalid(
            path.clone(),
            &json!(bytes),
            "must be at most 262144 bytes together",
        ));
    }
    for key in annotations
        .keys()
        .filter(|key| !is_qualified(&key.to_lowercase()))
    {
        causes.push(Cause::invalid(
            path.clone(),
            &json!(key),
            "keys of annotations are names of at most 63 letters, digits, dashes, underscores and dots, with an optional DNS prefix and slash",
        ));
    }
    causes
}

/// `name` or `dns.prefix/name`.
fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_word(name),
        None => is_label_word(key),
    }
}

fn is_label_word(text: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text
            .bytes()
            .last()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{CONFIG_MAP, SERVICE};

    fn is_fine(kind: &Kind, metadata: &Value) -> bool {
        check_metadata(kind, metadata).is_empty()
    }

    #[test]
    fn names_are_what_dns_can_carry() {
        for name in ["a", "reviews-v1", "0a", &"x".repeat(63)] {
            assert!(is_fine(&SERVICE, &json!({"name": name})), "{name}");
        }
        for name in ["", "A", "-a", "a-", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(!is_fine(&SERVICE, &json!({"name": name})), "{name}");
        }
        assert!(is_fine(&CONFIG_MAP, &json!({"name": "a.b"})));
        assert!(!is_fine(&CONFIG_MAP, &json!({"name": "a..b"})));
        assert!(!is_fine(&CONFIG_MAP, &json!({"name": "../b"})));
    }

    #[test]
    fn labels_are_checked_key_and_value() {
        let labels = |key: &str, value: &str| json!({"name": "a", "labels": {key: value}});

        assert!(is_fine(&CONFIG_MAP, &labels("weft.dev/project", "shop")));
        assert!(is_fine(&CONFIG_MAP, &labels("app", "")));
        assert!(!is_fine(&CONFIG_MAP, &labels("a/b/c", "x")));
        assert!(!is_fine(&CONFIG_MAP, &labels("app", "two words")));
    }
}
