//! What may not change once it is there.

use serde_json::Value;

use crate::kinds;
use crate::refusal::{Cause, Refusal};
use crate::store::Object;

/// Refuses changes of what others already rely on.
pub(super) fn check(existing: &Object, value: &Value) -> Result<(), Refusal> {
    let kind = existing.kind();
    let before = existing.value();
    let mut causes = Vec::new();
    if *kind == kinds::DEPLOYMENT {
        causes.extend(changed(before, value, "selector"));
    } else if *kind == kinds::JOB {
        causes.extend(changed(before, value, "template"));
    } else if *kind == kinds::SERVICE {
        causes.extend(changed(before, value, "clusterIP"));
        causes.extend(changed(before, value, "clusterIPs"));
    } else if *kind == kinds::POD && before["spec"] != value["spec"] {
        causes.push(Cause::forbidden(
            "spec",
            "pods do not change: change the Deployment, or delete the pod and create it anew",
        ));
    }
    if before["immutable"] == true && before["data"] != value["data"] {
        causes.push(Cause::forbidden(
            "data",
            "field is immutable when `immutable` is set",
        ));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(kind, &existing.name().name, causes))
}

fn changed(before: &Value, after: &Value, field: &str) -> Option<Cause> {
    let (before, after) = (&before["spec"][field], &after["spec"][field]);
    (before != after).then(|| Cause::invalid(format!("spec.{field}"), after, "field is immutable"))
}
