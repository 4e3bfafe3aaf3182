//! An object against the schema of its kind: unknown fields, wrong types, missing fields, words not allowed.
//!
//! All findings are collected, each with its path, so that one attempt shows every mistake. Unknown fields are
//! kept apart: for workloads the caller chooses whether they are errors (`fieldValidation`), in policies they always
//! are.

mod clean;
mod scalars;
mod types;

use serde_json::{Map, Value, json};

use super::path::Path;
use super::references::is_close;
use crate::kinds::{Kind, schema};
use crate::refusal::Cause;

pub use clean::{prune, strip_nulls};
use scalars::{check_number, check_string, check_word};
use types::parse;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Fields that the kind does not have.
    pub unknown: Vec<UnknownField>,
    /// Everything else.
    pub causes: Vec<Cause>,
}

/// A field that the kind does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    /// Where it is.
    pub path: String,
    /// A field that is there and is written almost like it.
    pub close: Option<&'static str>,
}

impl std::fmt::Display for UnknownField {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "unknown field {:?}", self.path)?;
        match self.close {
            Some(close) => write!(formatter, "; did you mean {close:?}?"),
            None => Ok(()),
        }
    }
}

impl UnknownField {
    /// The field as something that is wrong.
    pub fn cause(&self) -> Cause {
        let hint = self
            .close
            .map_or_else(String::new, |close| format!("; did you mean {close:?}?"));
        Cause::forbidden(self.path.clone(), format!("unknown field{hint}"))
    }
}

/// No object is nested deeper.
const DEEPEST: usize = 64;

/// Walks an object along the schema of its kind.
pub fn check(kind: &Kind, value: &Value) -> Findings {
    let mut findings = Findings::default();
    walk(schema::of(kind), value, &Path::empty(), 0, &mut findings);
    if findings.causes.is_empty()
        && findings.unknown.is_empty()
        && let Some(cause) = parse(kind, value)
    {
        findings.causes.push(cause);
    }
    findings
}

fn walk(schema: &'static Value, value: &Value, path: &Path, depth: usize, found: &mut Findings) {
    let (_, schema) = schema::resolve(schema);
    if depth > DEEPEST {
        found
            .causes
            .push(Cause::invalid(path, &json!("…"), "nested too deeply"));
        return;
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_i64() && !value.is_u64() && !value.is_string() && !value.is_f64() {
            found
                .causes
                .push(Cause::invalid(path, value, "must be a number or a string"));
        }
        return;
    }
    if let Some(alternatives) = alternatives(schema) {
        walk_any(alternatives, value, path, depth, found);
        return;
    }
    if let Some(words) = schema["enum"].as_array() {
        check_word(words, value, path, found);
        return;
    }
    let Some(expected) = schema["type"].as_str() else {
        return;
    };
    match (expected, value) {
        ("object", Value::Object(fields)) => walk_object(schema, fields, path, depth, found),
        ("array", Value::Array(items)) => walk_array(schema, items, path, depth, found),
        ("string", Value::String(text)) => check_string(schema, text, path, found),
        ("integer", Value::Number(number)) if !number.is_f64() => {
            check_number(schema, value, path, found);
        }
        ("number", Value::Number(_)) => check_number(schema, value, path, found),
        ("boolean", Value::Bool(_)) => {}
        _ => found.causes.push(Cause::invalid(
            path,
            value,
            format!("must be of type {expected}, not {}", type_name(value)),
        )),
    }
}

fn alternatives(schema: &'static Value) -> Option<&'static Vec<Value>> {
    schema["anyOf"]
        .as_array()
        .or_else(|| schema["oneOf"].as_array())
}

/// One alternative must fit; where none does the first one's findings are told.
fn walk_any(
    alternatives: &'static [Value],
    value: &Value,
    path: &Path,
    depth: usize,
    found: &mut Findings,
) {
    let mut first = None;
    for alternative in alternatives {
        let mut findings = Findings::default();
        walk(alternative, value, path, depth + 1, &mut findings);
        if findings == Findings::default() {
            return;
        }
        first.get_or_insert(findings);
    }
    if let Some(first) = first {
        found.unknown.extend(first.unknown);
        found.causes.extend(first.causes);
    }
}

fn walk_object(
    schema: &'static Value,
    fields: &Map<String, Value>,
    path: &Path,
    depth: usize,
    found: &mut Findings,
) {
    let properties = schema["properties"].as_object();
    let additional = match &schema["additionalProperties"] {
        schema @ Value::Object(_) => Some(schema),
        _ => None,
    };
    // An object without any description holds anything.
    let is_open = additional.is_none()
        && properties.is_none()
        && schema["additionalProperties"] != Value::Bool(false);
    for (name, value) in fields {
        match properties.and_then(|properties| properties.get(name)) {
            Some(property) => walk(property, value, &path.field(name), depth + 1, found),
            None => match additional {
                Some(additional) => walk(additional, value, &path.key(name), depth + 1, found),
                None if is_open => {}
                None => found.unknown.push(UnknownField {
                    path: path.field(name).into(),
                    close: properties
                        .into_iter()
                        .flat_map(Map::keys)
                        .map(String::as_str)
                        .find(|known| is_close(known, name)),
                }),
            },
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if let Some(name) = name.as_str()
            && !fields.contains_key(name)
        {
            found.causes.push(Cause::required(path.field(name), ""));
        }
    }
}

fn walk_array(
    schema: &'static Value,
    items: &[Value],
    path: &Path,
    depth: usize,
    found: &mut Findings,
) {
    let count = items.len() as u64;
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        found.causes.push(Cause::invalid(
            path,
            &json!(count),
            format!("must have at least {least} items"),
        ));
    }
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        found.causes.push(Cause::invalid(
            path,
            &json!(count),
            format!("must have at most {most} items"),
        ));
        return;
    }
    for (index, item) in items.iter().enumerate() {
        walk(&schema["items"], item, &path.index(index), depth + 1, found);
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{self, BACKEND_TRAFFIC_POLICY, DEPLOYMENT, HTTP_ROUTE, SERVICE};

    fn paths(findings: &Findings) -> Vec<&str> {
        findings
            .unknown
            .iter()
            .map(|field| field.path.as_str())
            .collect()
    }

    fn texts(findings: &Findings) -> Vec<String> {
        findings.causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn a_typo_is_found_with_its_path() {
        let value = json!({
            "metadata": {"name": "a"},
            "spec": {
                "parentRefs": [{"name": "reviews"}],
                "rules": [{"backendRef": [], "matches": [{"path": {"typ": "Exact"}}]}],
            },
        });

        let findings = check(&HTTP_ROUTE, &value);

        assert_eq!(
            paths(&findings),
            [
                "spec.rules[0].backendRef",
                "spec.rules[0].matches[0].path.typ"
            ]
        );
        assert_eq!(findings.unknown[0].close, Some("backendRefs"));
        assert_eq!(findings.unknown[1].close, Some("type"));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let value = json!({
            "metadata": {"name": "a"},
            "spec": {
                "targetRefs": [{"kind": "Sevice", "name": "reviews"}],
                "loadBalancer": {"type": "Fastest"},
                "timeout": {"http": {"requestTimeout": "3 seconds"}},
                "faultInjection": {"delay": {"percentage": 101}},
                "retry": {"numRetries": -1},
            },
        });

        assert_eq!(
            texts(&check(&BACKEND_TRAFFIC_POLICY, &value)),
            [
                r#"spec.targetRefs[0].kind: Unsupported value: "Sevice": supported values: "Service", "HTTPRoute""#,
                r#"spec.loadBalancer.type: Unsupported value: "Fastest": supported values: "LeastRequest", "RoundRobin", "Random""#,
                r#"spec.timeout.http.requestTimeout: Invalid value: "3 seconds": must be a duration such as 10s, 1m30s or 250ms"#,
                "spec.faultInjection.delay.percentage: Invalid value: 101: must be less than or equal to 100",
                "spec.faultInjection.delay.fixedDelay: Required value",
                "spec.retry.numRetries: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }

    #[test]
    fn workloads_are_checked_against_the_schemas_of_kubernetes() {
        let value = json!({
            "metadata": {"name": "a"},
            "spec": {
                "replicas": "two",
                "selector": {"matchLabels": {"app": 1}},
                "template": {"spec": {"containers": [{"name": "a", "imagePullPolice": "Always"}]}},
            },
        });

        let findings = check(&DEPLOYMENT, &value);

        assert_eq!(
            paths(&findings),
            ["spec.template.spec.containers[0].imagePullPolice"]
        );
        assert_eq!(
            texts(&findings),
            [
                r#"spec.replicas: Invalid value: "two": must be of type integer, not string"#,
                "spec.selector.matchLabels[app]: Invalid value: 1: must be of type string, not integer",
            ]
        );
    }

    #[test]
    fn ports_by_number_and_by_name_are_both_fine() {
        let service = |target: Value| json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "targetPort": target}]}});

        assert_eq!(check(&SERVICE, &service(json!(8080))), Findings::default());
        assert_eq!(
            check(&SERVICE, &service(json!("http"))),
            Findings::default()
        );
        assert_eq!(check(&SERVICE, &service(json!([]))).causes.len(), 1);
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut value = json!(1);
        for _ in 0..1000 {
            value = json!({"spec": value});
        }

        for kind in kinds::ALL {
            assert_ne!(check(kind, &value), Findings::default(), "{kind}");
        }
        std::mem::forget(value);
    }
}
