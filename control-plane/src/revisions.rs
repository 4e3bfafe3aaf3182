//! Numbered revisions of the mesh: who changed what, and when.
//!
//! Every accepted transaction that changes what people wrote (policies, workloads) makes one; what weft's own parts
//! write (pods, endpoints, statuses) makes none. Each keeps the objects it changed as they were before and
//! after.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::{Change, Transaction, seconds};

/// One revision.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Counts from 1.
    pub number: u64,
    /// RFC 3339.
    pub time: String,
    /// Who asked for it: a user of this machine, or who holds the token.
    pub author: String,
    /// The program it was asked with, in its own words.
    #[serde(default)]
    pub manager: String,
    /// For people: `configured HTTPRoute default/reviews`.
    pub summary: String,
    /// What it changed.
    pub changes: Vec<ObjectChange>,
}

/// What a revision did to one object.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// `created`, `configured` or `deleted`.
    pub operation: Operation,
    /// The object's `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Empty where the kind has none.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The object before; none where it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The object after; none where it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// It is new.
    Created,
    /// It is another now.
    Configured,
    /// It is gone.
    Deleted,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Deleted => "deleted",
        }
    }
}

/// Who changes something, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Author {
    /// A user of this machine, or who holds the token.
    pub user: String,
    /// The field manager.
    pub manager: String,
}

/// The revision that a transaction makes; `None` where it changes nothing that people wrote.
pub fn of(transaction: &Transaction, author: &Author) -> Option<Revision> {
    let changes: Vec<ObjectChange> = transaction
        .changes()
        .iter()
        .filter(|change| change.object().kind().is_revisioned() && change.is_of_intent())
        .map(|change| describe(change))
        .collect();
    if changes.is_empty() {
        return None;
    }
    Some(Revision {
        number: transaction.state().revision() + 1,
        time: time(transaction.now()),
        author: author.user.clone(),
        manager: author.manager.clone(),
        summary: summary(&changes),
        changes,
    })
}

fn time(now: Timestamp) -> String {
    seconds(now)
}

fn describe(change: &Change) -> ObjectChange {
    let object = change.object();
    let (operation, after) = match change {
        Change::Added(object) => (Operation::Created, Some(object)),
        Change::Modified { after, .. } => (Operation::Configured, Some(after)),
        Change::Deleted { .. } => (Operation::Deleted, None),
    };
    ObjectChange {
        operation,
        api_version: object.kind().api_version(),
        kind: object.kind().name.to_owned(),
        namespace: object.name().namespace.clone(),
        name: object.name().name.clone(),
        before: change.before().map(|object| object.value().clone()),
        after: after.map(|object| object.value().clone()),
    }
}

/// Names the first three changes and counts the rest.
fn summary(changes: &[ObjectChange]) -> String {
    const NAMED: usize = 3;
    let mut parts: Vec<String> = changes
        .iter()
        .take(NAMED)
        .map(ObjectChange::summary)
        .collect();
    if changes.len() > NAMED {
        parts.push(format!("and {} more", changes.len() - NAMED));
    }
    parts.join(", ")
}

impl ObjectChange {
    fn summary(&self) -> String {
        let operation = self.operation.as_str();
        if self.namespace.is_empty() {
            format!("{operation} {} {}", self.kind, self.name)
        } else {
            format!("{operation} {} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}
