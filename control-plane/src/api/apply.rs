//! Server-side apply: who owns which field, and what becomes of fields that their owner no longer wants.
//!
//! After <https://kubernetes.io/docs/reference/using-api/server-side-apply/>: what an applied configuration says is set
//! and owned; what it said the last time and no longer says is removed, unless somebody else owns it; what
//! it would change against another owner is a conflict, unless forced. Other writes own what they change.

mod entries;

use std::ops::Bound;

use serde_json::{Value, json};

use entries::{Entry, is_reset, read, write};

use super::fields::{self, FieldPath, FieldSet};
use crate::kinds::{Kind, schema};
use crate::refusal::{Cause, CauseReason, Refusal};

/// Who writes, and when.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    /// The name of the program.
    pub(crate) name: String,
    /// RFC 3339.
    pub(crate) time: String,
    /// The subresource that is written, or none.
    pub(crate) subresource: Option<&'static str>,
}

/// The object that results when a configuration is applied to what is there.
///
/// # Errors
/// `ApplyConflict` where others own fields that would change, and it is not forced.
pub(crate) fn apply(
    kind: &'static Kind,
    live: Option<&Value>,
    config: &Value,
    manager: &Manager,
    is_forced: bool,
) -> Result<Value, Refusal> {
    let shape = schema::of(kind);
    let empty = json!({});
    let live = live.unwrap_or(&empty);
    let mut entries = read(live);
    let previous = entries
        .iter()
        .find(|entry| entry.is_of(manager, "Apply"))
        .map(|entry| entry.fields.clone())
        .unwrap_or_default();
    entries.retain(|entry| !entry.is_of(manager, "Apply"));

    let applied: FieldSet = fields::leaves(config, shape).into_keys().collect();
    let mut merged = live.clone();
    merge(&mut merged, config, shape);
    let changed = changed(live, &merged, shape);
    resolve_conflicts(&mut entries, &changed, is_forced)?;
    drop_abandoned(&mut merged, &previous, &applied, &entries, shape);

    entries.push(Entry {
        manager: manager.name.clone(),
        operation: "Apply".to_owned(),
        api_version: kind.api_version(),
        time: Some(manager.time.clone()),
        subresource: manager.subresource.map(str::to_owned),
        fields: applied,
    });
    write(&mut merged, entries);
    Ok(merged)
}

/// Notes in `after` who changed what, for a write that is no apply.
pub(crate) fn track(
    kind: &'static Kind,
    before: Option<&Value>,
    after: &mut Value,
    manager: &Manager,
) {
    let shape = schema::of(kind);
    let empty = json!({});
    let before = before.unwrap_or(&empty);
    let mut entries = read(after);
    if entries.is_empty() && !is_reset(after) {
        entries = read(before);
    }
    let is_in_scope = |path: &FieldPath| {
        let is_status = path.first().is_some_and(|first| first == "f:status");
        is_status == (manager.subresource == Some("status"))
    };
    let mut changed = changed(before, after, shape);
    changed.retain(is_in_scope);
    let now: FieldSet = fields::leaves(after, shape).into_keys().collect();
    for entry in &mut entries {
        let is_own = entry.is_of(manager, "Update");
        entry
            .fields
            .retain(|path| now.contains(path) && (is_own || !changed.contains(path)));
    }
    if !changed.is_empty() {
        match entries
            .iter_mut()
            .find(|entry| entry.is_of(manager, "Update"))
        {
            Some(entry) => {
                entry.fields.extend(changed);
                entry.time = Some(manager.time.clone());
            }
            None => entries.push(Entry {
                manager: manager.name.clone(),
                operation: "Update".to_owned(),
                api_version: kind.api_version(),
                time: Some(manager.time.clone()),
                subresource: manager.subresource.map(str::to_owned),
                fields: changed,
            }),
        }
    }
    write(after, entries);
}

/// Leaves of `after` that are new or another than before.
fn changed(before: &Value, after: &Value, shape: &'static Value) -> FieldSet {
    let before = fields::leaves(before, shape);
    fields::leaves(after, shape)
        .into_iter()
        .filter(|(path, value)| before.get(path) != Some(value))
        .map(|(path, _)| path)
        .collect()
}

fn resolve_conflicts(
    entries: &mut Vec<Entry>,
    changed: &FieldSet,
    is_forced: bool,
) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    for entry in entries.iter_mut() {
        let contested: Vec<FieldPath> = entry.fields.intersection(changed).cloned().collect();
        for path in contested {
            if is_forced {
                entry.fields.remove(&path);
                continue;
            }
            causes.push(Cause {
                reason: CauseReason::Conflict,
                field: fields::display(&path),
                message: format!(
                    "conflict with {:?} using {}",
                    entry.manager, entry.api_version
                ),
            });
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::ApplyConflict { causes })
}

/// Removes what the manager applied the last time, does not apply now, and nobody else owns. A struct or list
/// in which nobody owns anything any more goes as a whole, with what was filled in for it: defaults have no owner.
fn drop_abandoned(
    merged: &mut Value,
    previous: &FieldSet,
    applied: &FieldSet,
    others: &[Entry],
    shape: &'static Value,
) {
    let is_owned = |path: &[String]| {
        owns_below(applied, path) || others.iter().any(|entry| owns_below(&entry.fields, path))
    };
    for path in previous.iter().filter(|path| !is_owned(path)) {
        // What is directly in the object, its `metadata` above all, is more than what managers say of it.
        let abandoned = (2..path.len())
            .map(|length| &path[..length])
            .find(|above| !is_owned(above))
            .unwrap_or(path);
        if !is_key(abandoned) {
            fields::remove(merged, abandoned, shape);
        }
    }
}

/// Whether a field, or one in it, is in the set.
fn owns_below(set: &FieldSet, path: &[String]) -> bool {
    set.range::<[String], _>((Bound::Included(path), Bound::Unbounded))
        .next()
        .is_some_and(|next| next.starts_with(path))
}

/// Whether a leaf tells an item of a list apart from the others: it goes with the item, never alone.
fn is_key(path: &[String]) -> bool {
    let [.., item, leaf] = path else {
        return false;
    };
    let keys = item
        .strip_prefix("k:")
        .and_then(|keys| serde_json::from_str::<Value>(keys).ok());
    let name = leaf.strip_prefix("f:");
    keys.zip(name)
        .is_some_and(|(keys, name)| keys.get(name).is_some())
}

/// Lays a configuration over a value: objects and lists that are maps field by field, all else as a whole.
fn merge(value: &mut Value, config: &Value, shape: &'static Value) {
    match (value, config) {
        (Value::Object(fields), Value::Object(wanted)) => {
            for (name, wanted) in wanted {
                match fields.get_mut(name) {
                    Some(field) => merge(field, wanted, schema::field(shape, name)),
                    None => {
                        fields.insert(name.clone(), wanted.clone());
                    }
                }
            }
        }
        (Value::Array(items), Value::Array(wanted)) if schema::map_keys(shape).is_some() => {
            let keys = schema::map_keys(shape).unwrap_or_default();
            for wanted in wanted {
                let key = fields::key_element(wanted, &keys);
                let existing = items
                    .iter_mut()
                    .find(|item| fields::key_element(item, &keys) == key);
                match existing {
                    Some(item) => merge(item, wanted, schema::items(shape)),
                    None => items.push(wanted.clone()),
                }
            }
        }
        (Value::Array(items), Value::Array(wanted)) if schema::is_set(shape) => {
            for wanted in wanted {
                if !items.contains(wanted) {
                    items.push(wanted.clone());
                }
            }
        }
        (value, config) => *value = config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::DEPLOYMENT;

    fn manager(name: &str) -> Manager {
        Manager {
            name: name.to_owned(),
            time: "2026-01-01T00:00:00Z".to_owned(),
            subresource: None,
        }
    }

    fn deployment(replicas: u32, containers: Value) -> Value {
        json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}},
        })
    }

    fn without_managers(mut value: Value) -> Value {
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.shift_remove("managedFields");
        }
        value
    }

    #[test]
    fn what_is_no_longer_applied_is_removed() {
        let both =
            json!([{"name": "a", "image": "a:1", "command": ["x"]}, {"name": "b", "image": "b:1"}]);
        let one = json!([{"name": "a", "image": "a:1"}]);
        let first = apply(
            &DEPLOYMENT,
            None,
            &deployment(1, both),
            &manager("one"),
            false,
        )
        .unwrap();

        let second = apply(
            &DEPLOYMENT,
            Some(&first),
            &deployment(1, one.clone()),
            &manager("one"),
            false,
        )
        .unwrap();

        assert_eq!(without_managers(second), deployment(1, one));
    }

    fn probed(probe: Option<Value>) -> Value {
        let mut container = json!({"name": "a", "image": "a:1"});
        if let Some(probe) = probe {
            container["readinessProbe"] = probe;
        }
        deployment(1, json!([container]))
    }

    #[test]
    fn a_struct_whose_fields_are_all_given_up_goes_with_them_and_with_its_defaults() {
        let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 5});
        let one = manager("one");
        let mut live = apply(&DEPLOYMENT, None, &probed(Some(probe)), &one, false).unwrap();
        // What the API fills in belongs to nobody.
        live["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["timeoutSeconds"] =
            json!(1);

        let after = apply(&DEPLOYMENT, Some(&live), &probed(None), &one, false).unwrap();

        assert_eq!(without_managers(after), probed(None));
    }

    #[test]
    fn a_struct_in_which_another_owns_a_field_stays() {
        let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 5});
        let one = manager("one");
        let live = apply(&DEPLOYMENT, None, &probed(Some(probe)), &one, false).unwrap();
        let theirs = json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": [
            {"name": "a", "readinessProbe": {"exec": {"command": ["true"]}, "failureThreshold": 9}},
        ]}}}});
        let shared = apply(&DEPLOYMENT, Some(&live), &theirs, &manager("two"), false).unwrap();

        let after = apply(&DEPLOYMENT, Some(&shared), &probed(None), &one, false).unwrap();

        assert_eq!(
            after["spec"]["template"]["spec"]["containers"][0]["readinessProbe"],
            json!({"exec": {"command": ["true"]}, "failureThreshold": 9})
        );
    }

    #[test]
    fn what_others_own_stays() {
        let one = json!([{"name": "a", "image": "a:1"}]);
        let two = json!([{"name": "b", "image": "b:1"}]);
        let first = apply(
            &DEPLOYMENT,
            None,
            &deployment(1, one),
            &manager("one"),
            false,
        )
        .unwrap();
        let config = json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": two}}}});
        let second = apply(&DEPLOYMENT, Some(&first), &config, &manager("two"), false).unwrap();

        let nothing = json!({"metadata": {"name": "web"}});
        let third = apply(&DEPLOYMENT, Some(&second), &nothing, &manager("one"), false).unwrap();

        assert_eq!(third["spec"], config["spec"]);
    }

    #[test]
    fn changing_what_another_owns_is_a_conflict_unless_forced() {
        let one = json!([{"name": "a", "image": "a:1"}]);
        let first = apply(
            &DEPLOYMENT,
            None,
            &deployment(1, one.clone()),
            &manager("one"),
            false,
        )
        .unwrap();
        let config = deployment(2, one);

        let refused = apply(&DEPLOYMENT, Some(&first), &config, &manager("two"), false);
        let forced = apply(&DEPLOYMENT, Some(&first), &config, &manager("two"), true).unwrap();

        let Err(Refusal::ApplyConflict { causes }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(causes.len(), 1);
        assert_eq!(causes[0].field, ".spec.replicas");
        assert_eq!(forced["spec"]["replicas"], 2);
        // The first manager has lost the field: it may leave it out without taking it away.
        let rest =
            json!({"metadata": {"name": "web"}, "spec": {"template": config["spec"]["template"]}});
        let later = apply(&DEPLOYMENT, Some(&forced), &rest, &manager("one"), false).unwrap();
        assert_eq!(later["spec"]["replicas"], 2);
    }

    #[test]
    fn the_same_value_is_shared_without_conflict() {
        let one = json!([{"name": "a", "image": "a:1"}]);
        let first = apply(
            &DEPLOYMENT,
            None,
            &deployment(1, one.clone()),
            &manager("one"),
            false,
        )
        .unwrap();

        let second = apply(
            &DEPLOYMENT,
            Some(&first),
            &deployment(1, one),
            &manager("two"),
            false,
        )
        .unwrap();

        assert_eq!(
            second["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn an_update_takes_over_what_it_changes() {
        let one = json!([{"name": "a", "image": "a:1"}]);
        let first = apply(
            &DEPLOYMENT,
            None,
            &deployment(1, one.clone()),
            &manager("one"),
            false,
        )
        .unwrap();
        let mut scaled = first.clone();
        scaled["spec"]["replicas"] = json!(5);

        track(&DEPLOYMENT, Some(&first), &mut scaled, &manager("scaler"));

        let again = apply(
            &DEPLOYMENT,
            Some(&scaled),
            &deployment(1, one),
            &manager("one"),
            false,
        );
        assert!(matches!(again, Err(Refusal::ApplyConflict { .. })));
    }
}
