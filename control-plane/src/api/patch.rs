//! The kinds of patches, by media type.

use serde_json::Value;

use super::body::OBJECT_BYTES;
use super::strategic;
use crate::kinds::{Kind, schema};
use crate::refusal::Refusal;

/// How a patch is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Merge, with lists that are maps.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    pub(super) fn of(content_type: &str) -> Result<Self, Refusal> {
        match content_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(Refusal::UnsupportedMediaType(format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml; not {other:?}"
            ))),
        }
    }
}

/// The value that a patch makes of another. Apply is not among them: it needs to know who applies.
pub(super) fn patched(
    kind: &'static Kind,
    value: &Value,
    patch: &Value,
    how: PatchType,
) -> Result<Value, Refusal> {
    let mut value = value.clone();
    match how {
        PatchType::Json => {
            let patch: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|error| {
                    Refusal::BadRequest(format!("the body is no JSON patch: {error}"))
                })?;
            apply_operations(&mut value, patch)?;
        }
        PatchType::Merge => json_patch::merge(&mut value, patch),
        PatchType::Strategic | PatchType::Apply => {
            strategic::patch(&mut value, patch, schema::of(kind));
        }
    }
    if !value.is_object() {
        return Err(Refusal::BadRequest("the patch leaves no object".to_owned()));
    }
    Ok(value)
}

/// One operation after the other, so that copies of copies do not grow without end.
fn apply_operations(value: &mut Value, patch: json_patch::Patch) -> Result<(), Refusal> {
    const MOST_OPERATIONS: usize = 1000;
    let json_patch::Patch(operations) = patch;
    if operations.len() > MOST_OPERATIONS {
        return Err(Refusal::BadRequest(format!(
            "the JSON patch has more than {MOST_OPERATIONS} operations"
        )));
    }
    for operation in operations {
        let is_copy = matches!(operation, json_patch::PatchOperation::Copy(_));
        json_patch::patch(value, &[operation]).map_err(|error| {
            Refusal::BadRequest(format!("the JSON patch cannot be applied: {error}"))
        })?;
        if is_copy && value.to_string().len() > OBJECT_BYTES {
            return Err(Refusal::TooLarge {
                limit: OBJECT_BYTES,
            });
        }
    }
    Ok(())
}
