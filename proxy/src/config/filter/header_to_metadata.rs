//! Headers that become metadata.

use std::sync::Arc;

use crate::config::matching::{Subject, Substitution};

/// What becomes metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderToMetadataConfig {
    /// Of requests.
    pub request: Vec<HeaderRule>,
    /// Of responses.
    pub response: Arc<[HeaderRule]>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderRule {
    /// Where it is found.
    pub source: HeaderSource,
    /// What it becomes.
    pub present: Option<MetadataEntry>,
    /// What its absence becomes.
    pub missing: Option<MetadataEntry>,
    /// Whether it is removed where it was found.
    pub is_removed: bool,
}

/// Where a value is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// In a header, or in the line of a request.
    Header(Subject),
    /// In a cookie.
    Cookie(Arc<str>),
}

/// What a value becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataEntry {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The value in place of the header's; empty: the header's.
    pub value: Arc<str>,
    /// What is done with the header's.
    pub rewrite: Option<Substitution>,
    /// What it is read as.
    pub kind: ValueKind,
    /// Whether it is base64.
    pub is_base64: bool,
}

/// What a text is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// An encoded `google.protobuf.Value`.
    Protobuf,
}
