//! Selectors of lists and watches: by labels, and by the few fields that Kubernetes allows everywhere.

use crate::refusal::Refusal;
use crate::store::Object;

/// What an object must be to be listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<(String, Condition)>,
    fields: Vec<(String, Condition)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`.
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, Refusal> {
        let unreadable = |text: &str| {
            Refusal::BadRequest(format!(
                "unable to parse selector {text:?}: write key=value, key!=value, key in (a,b), key notin (a,b), key, !key, separated by commas"
            ))
        };
        let labels = labels.unwrap_or_default();
        let fields = fields.unwrap_or_default();
        Ok(Self {
            labels: requirements(labels).ok_or_else(|| unreadable(labels))?,
            fields: field_requirements(fields)?.ok_or_else(|| unreadable(fields))?,
        })
    }

    /// Whether an object is meant.
    pub(super) fn matches(&self, object: &Object) -> bool {
        self.labels
            .iter()
            .all(|(key, condition)| condition.holds(object.label(key)))
            && self
                .fields
                .iter()
                .all(|(field, condition)| condition.holds(field_of(object, field).as_deref()))
    }
}

impl Condition {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
        }
    }
}

/// Fields that can be selected by. Objects without the field have it empty.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "status.phase",
    "type",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.kind",
    "involvedObject.uid",
];

fn field_of(object: &Object, field: &str) -> Option<String> {
    let mut value = object.value();
    for part in field.split('.') {
        value = value.get(part)?;
    }
    value.as_str().map(str::to_owned)
}

fn field_requirements(text: &str) -> Result<Option<Vec<(String, Condition)>>, Refusal> {
    let Some(requirements) = requirements(text) else {
        return Ok(None);
    };
    for (field, _) in &requirements {
        if !FIELDS.contains(&field.as_str()) {
            return Err(Refusal::BadRequest(format!(
                "field label not supported: {field}; supported are {}",
                FIELDS.join(", ")
            )));
        }
    }
    Ok(Some(requirements))
}

fn requirements(text: &str) -> Option<Vec<(String, Condition)>> {
    split(text)
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(requirement)
        .collect()
}

/// At commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (index, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Option<(String, Condition)> {
    if let Some(list) = text.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let values = list
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let condition = match operator {
            "in" => Condition::In(values),
            "notin" => Condition::NotIn(values),
            _ => return None,
        };
        return key_of(key).map(|key| (key, condition));
    }
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = text.split_once("!=") {
        return key_of(key).map(|key| (key, Condition::NotIn(one(value))));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return key_of(key).map(|key| (key, Condition::In(one(value))));
    }
    if let Some(key) = text.strip_prefix('!') {
        return key_of(key).map(|key| (key, Condition::Missing));
    }
    key_of(text).map(|key| (key, Condition::Exists))
}

fn key_of(key: &str) -> Option<String> {
    let key = key.trim();
    let is_fine = !key.is_empty()
        && !key.contains(|letter: char| letter.is_whitespace() || "()=!,".contains(letter));
    is_fine.then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::POD;

    fn pod() -> Object {
        Object::new(
            &POD,
            json!({"metadata": {"name": "a", "namespace": "n", "labels": {"app": "web", "tier": "front"}}}),
        )
    }

    #[test]
    fn labels_are_selected_as_kubectl_writes_them() {
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (web, api)", true),
            ("app notin (web,api)", false),
            ("app", true),
            ("!app", false),
            ("!missing,app in (web)", true),
            ("app=", false),
        ] {
            let selector = Selector::parse(Some(text), None).unwrap();
            assert_eq!(selector.matches(&pod()), expected, "{text}");
        }
    }

    #[test]
    fn fields_are_selected_by_name_and_namespace() {
        let named = |text| Selector::parse(None, Some(text)).unwrap().matches(&pod());

        assert!(named("metadata.name=a,metadata.namespace=n"));
        assert!(!named("metadata.name=b"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["=a", "a b", "a in b", "a of (b)", "in (b)", "a in (b"] {
            assert!(Selector::parse(Some(text), None).is_err(), "{text}");
        }
        assert!(Selector::parse(None, Some("spec.x=1")).is_err());
    }
}
