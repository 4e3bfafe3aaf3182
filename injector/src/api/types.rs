//! What calls are given and what they answer with, beside the objects themselves.

use serde::{Deserialize, Serialize};

/// The kinds of patch that the API knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' own: lists merge by their keys.
    Strategic,
}

impl Patch {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Patch::Merge => "application/merge-patch+json",
            Patch::Json => "application/json-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// How [`super::Client::apply`] treats fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply<'a> {
    /// Who owns the fields from now on.
    pub field_manager: &'a str,
    /// Takes fields from other owners.
    pub force: bool,
    /// Validates without storing.
    pub dry_run: bool,
}

impl Default for Apply<'_> {
    fn default() -> Self {
        Self {
            field_manager: super::FIELD_MANAGER,
            force: true,
            dry_run: false,
        }
    }
}

/// A list of objects.
#[derive(Debug, Clone, Deserialize)]
pub struct List<T> {
    /// Of the list: where a watch goes on.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The objects.
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
}

/// What a list says about itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// Where a watch goes on.
    #[serde(default)]
    pub resource_version: String,
}

/// How an object is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOptions {
    /// 0: at once, without waiting for anyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<u32>,
    /// `Background`, `Foreground`, `Orphan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<String>,
    /// Only the object of this uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
}

/// What must hold for a deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preconditions {
    /// The uid the object must have.
    pub uid: String,
}
