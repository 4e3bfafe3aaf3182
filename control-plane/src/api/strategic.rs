//! Strategic merge patches: merge patches that know which lists are maps.
//!
//! After <https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md>,
//! with its directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…` and `$setElementOrder/…`.

use serde_json::{Map, Value};

use crate::kinds::lists::default_key;
use crate::kinds::schema;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a patch to a value of the given shape.
pub(super) fn patch(value: &mut Value, patch: &Value, shape: &'static Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *value, patch) else {
        *value = without_directives(patch.clone());
        return;
    };
    match changes.get(PATCH).and_then(Value::as_str) {
        Some("replace") => {
            *value = without_directives(patch.clone());
            return;
        }
        Some("delete") => {
            fields.clear();
            return;
        }
        _ => {}
    }
    if let Some(Value::Array(keys)) = changes.get(RETAIN_KEYS) {
        fields.retain(|name, _| keys.iter().any(|key| key == name));
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            delete_values(fields, list, change);
        } else if name.starts_with(ORDER) || name == PATCH || name == RETAIN_KEYS {
            // Order is set when all items are there.
        } else if change.is_null() {
            fields.shift_remove(name);
        } else {
            patch_field(fields, name, change, schema::field(shape, name));
        }
    }
    for (name, order) in changes {
        if let (Some(list), Value::Array(order)) = (name.strip_prefix(ORDER), order)
            && let Some(Value::Array(items)) = fields.get_mut(list)
        {
            sort(items, order, merge_key(schema::field(shape, list)));
        }
    }
}

fn patch_field(fields: &mut Map<String, Value>, name: &str, change: &Value, shape: &'static Value) {
    let field = fields.entry(name.to_owned()).or_insert(Value::Null);
    match (change, merge_key(shape)) {
        (Value::Array(changes), Some(key)) => patch_list(field, changes, key, shape),
        (Value::Array(changes), None) if schema::is_set(shape) => {
            let items = list_of(field);
            for change in changes {
                if !items.contains(change) {
                    items.push(change.clone());
                }
            }
        }
        (Value::Object(_), _) if field.is_null() => {
            *field = Value::Object(Map::new());
            patch(field, change, shape);
        }
        _ => patch(field, change, shape),
    }
}

fn patch_list(field: &mut Value, changes: &[Value], key: &'static str, shape: &'static Value) {
    let items = list_of(field);
    if changes.iter().any(|change| change[PATCH] == "replace") {
        *items = changes
            .iter()
            .filter(|change| change[PATCH].is_null())
            .map(|change| without_directives(change.clone()))
            .collect();
        return;
    }
    for change in changes {
        let wanted = key_of(change, key);
        if change[PATCH] == "delete" {
            items.retain(|item| key_of(item, key) != wanted);
            continue;
        }
        let existing = items.iter_mut().find(|item| key_of(item, key) == wanted);
        match existing.filter(|_| !wanted.is_null()) {
            Some(item) => patch(item, change, schema::items(shape)),
            None => items.push(without_directives(change.clone())),
        }
    }
}

fn list_of(field: &mut Value) -> &mut Vec<Value> {
    if !field.is_array() {
        *field = Value::Array(Vec::new());
    }
    field.as_array_mut().expect("it was made a list above")
}

/// Strategic merge patches know one key for each list, the first.
fn merge_key(shape: &'static Value) -> Option<&'static str> {
    schema::map_keys(shape)?.first().copied()
}

fn key_of(item: &Value, key: &str) -> Value {
    match &item[key] {
        Value::Null => default_key(key).map_or(Value::Null, Value::from),
        value => value.clone(),
    }
}

fn delete_values(fields: &mut Map<String, Value>, list: &str, values: &Value) {
    if let (Some(Value::Array(items)), Value::Array(values)) = (fields.get_mut(list), values) {
        items.retain(|item| !values.contains(item));
    }
}

/// Those that the order names come in its order; the others stay behind them as they were.
fn sort(items: &mut [Value], order: &[Value], key: Option<&str>) {
    let place = |item: &Value| {
        order
            .iter()
            .position(|named| match key {
                Some(key) => key_of(named, key) == key_of(item, key),
                None => named == item,
            })
            .unwrap_or(usize::MAX)
    };
    items.sort_by_key(place);
}

/// A patch as content: what was only meant as an instruction is left out.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
            .map(|(name, value)| (name, without_directives(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_directives).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{DEPLOYMENT, SERVICE};

    fn containers(change: Value) -> Value {
        let mut value = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
            {"name": "b", "image": "b:1"},
        ]}}}});
        let change = json!({"spec": {"template": {"spec": change}}});
        patch(&mut value, &change, schema::of(&DEPLOYMENT));
        value["spec"]["template"]["spec"]["containers"].clone()
    }

    #[test]
    fn items_are_merged_by_their_key() {
        let merged = containers(json!({"containers": [
            {"name": "b", "image": "b:2"},
            {"name": "a", "env": [{"name": "Y", "value": "2"}]},
        ]}));

        assert_eq!(
            merged,
            json!([
                {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                {"name": "b", "image": "b:2"},
            ])
        );
    }

    #[test]
    fn items_are_deleted_and_ordered_as_the_patch_says() {
        let merged = containers(json!({
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "containers": [{"name": "c", "image": "c:1"}, {"name": "a", "$patch": "delete"}],
        }));

        assert_eq!(
            merged,
            json!([{"name": "c", "image": "c:1"}, {"name": "b", "image": "b:1"}])
        );
    }

    #[test]
    fn keys_that_are_not_retained_go() {
        let mut value = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let change = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});

        patch(&mut value, &change, schema::of(&DEPLOYMENT));

        assert_eq!(value, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    }

    #[test]
    fn ports_of_a_service_are_merged_by_number() {
        let mut value =
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}});
        let change = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]}});

        patch(&mut value, &change, schema::of(&SERVICE));

        assert_eq!(
            value["spec"]["ports"],
            json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}, {"port": 81}])
        );
    }

    #[test]
    fn no_patch_makes_it_panic() {
        for change in [
            json!(null),
            json!([]),
            json!({"spec": []}),
            json!({"spec": {"ports": {}}}),
            json!({"$patch": 1}),
        ] {
            let mut value = json!({"spec": {"ports": [1, null]}});
            patch(&mut value, &change, schema::of(&SERVICE));
        }
    }
}
