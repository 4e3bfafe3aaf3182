//! What a case says that Envoy does; so a case shows what it means, and fails where its configuration is not what it meant.
//!
//! Short: a status, several, `closed`, `nothing`, TCP bytes, or `any`. In full: `{answer, end, goaway, reset}`, of which those
//! are compared that are there; `null` says that there is none.

use serde_json::{Map, Value, json};

use crate::compare::Difference;
use crate::outcome::{End, Outcome};
use crate::text::shown;

/// Compares with what Envoy did.
pub(crate) fn check(expected: Option<&Value>, envoy: &Outcome) -> Result<(), String> {
    let Some(expected) = expected else {
        return Err("an exchange does not say what it expects".into());
    };
    let is_met = match expected {
        Value::Object(parts) => {
            let all = in_full(envoy);
            parts.iter().all(|(name, part)| all.get(name) == Some(part))
        }
        short => *short == json!("any") || *short == answer(envoy),
    };
    match is_met {
        true => Ok(()),
        false => Err(format!(
            "Envoy was expected to answer {expected}, and answered {}",
            Value::Object(in_full(envoy))
        )),
    }
}

fn answer(envoy: &Outcome) -> Value {
    let statuses: Vec<u16> = envoy.responses.iter().map(|each| each.status).collect();
    match (statuses.as_slice(), envoy.end) {
        ([], _) if !envoy.received.is_empty() => json!(shown(&envoy.received)),
        ([], End::Closed) => json!("closed"),
        ([], End::Open) => json!("nothing"),
        ([one], _) => json!(one),
        (many, _) => json!(many),
    }
}

fn in_full(envoy: &Outcome) -> Map<String, Value> {
    let resets: Vec<u32> = envoy
        .responses
        .iter()
        .filter_map(|each| each.reset)
        .collect();
    let reset = match resets.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    };
    let end = match envoy.end {
        End::Open => "open",
        End::Closed => "closed",
    };
    Map::from_iter([
        ("answer".to_owned(), answer(envoy)),
        ("end".to_owned(), json!(end)),
        ("goaway".to_owned(), json!(envoy.goaway)),
        ("reset".to_owned(), reset),
    ])
}

/// What a case could say, on a line of JSON: for whoever makes one precise.
pub(crate) fn recorded(title: &str, envoy: &Outcome, found: &[Difference]) -> String {
    let differs: Vec<Value> = found
        .iter()
        .map(|one| json!({"where": one.place, "weft": one.weft}))
        .collect();
    let record = json!({"case": title, "expect": in_full(envoy), "differs": differs});
    format!("RECORD {record}")
}
