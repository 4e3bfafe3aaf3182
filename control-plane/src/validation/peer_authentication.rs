//! What is wrong with a `PeerAuthentication`: labels, and others for the same pods.

use std::sync::Arc;

use serde_json::json;

use super::names::check_labels;
use super::path::Path;
use crate::kinds::PEER_AUTHENTICATION;
use crate::kinds::peer_authentication::PeerAuthentication;
use crate::refusal::Cause;
use crate::store::{Object, Snapshot};

/// All that is wrong with it.
pub(super) fn causes(state: &Snapshot, object: &Object) -> Vec<Cause> {
    let Some(policy) = object.typed::<PeerAuthentication>() else {
        return Vec::new();
    };
    let path = Path::root("spec").field("selector");
    let labels = policy
        .spec
        .selector
        .iter()
        .map(|selector| &selector.match_labels);
    let mut causes: Vec<Cause> = labels
        .flat_map(|labels| check_labels(&json!(labels), &path.field("matchLabels")))
        .collect();
    causes.extend(rival(state, &policy).map(|rival| {
        let whom = if policy.spec.is_namespace_wide() {
            "the whole namespace"
        } else {
            "the same labels"
        };
        Cause::duplicate(
            &path,
            rival.name(),
            format!(
                "PeerAuthentication {:?} is for {whom} already",
                rival.name()
            ),
        )
    }));
    causes
}

fn rival(state: &Snapshot, policy: &PeerAuthentication) -> Option<Arc<PeerAuthentication>> {
    let labels = |policy: &PeerAuthentication| {
        let selector = policy.spec.selector.clone().unwrap_or_default();
        selector.match_labels
    };
    state
        .list(&PEER_AUTHENTICATION, Some(policy.namespace()))
        .filter_map(|object| object.typed::<PeerAuthentication>())
        .find(|other| other.name() != policy.name() && labels(other) == labels(policy))
}
