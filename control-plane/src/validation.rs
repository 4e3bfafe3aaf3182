//! What the mesh accepts: single objects against their schema, and the whole they make together.
//!
//! Every write is checked before it is stored, and nothing is stored when any object that it changes has
//! something wrong. Objects that it does not change never stand in its way: where a change breaks one of them (a
//! deleted Service that a route still names), it is allowed and the caller is warned.

mod backend_traffic_policy;
mod http_route;
mod http_syntax;
mod names;
mod path;
mod peer_authentication;
mod pods;
mod references;
pub mod schema;
mod services;
mod telemetry;
mod workloads;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::kinds::{self, Kind, Role};
use crate::refusal::{Cause, Refusal};
use crate::store::{Change, Name, Object, Snapshot, Transaction};

pub use names::check_metadata;
pub use path::Path;

/// Checks the state that a transaction leads to, and warns of what it leaves broken.
///
/// # Errors
/// `Refusal::Invalid` for the first object of the transaction with something wrong.
pub fn check(transaction: &mut Transaction) -> Result<(), Refusal> {
    let changed: Vec<Arc<Change>> = transaction
        .changes()
        .iter()
        .filter(|change| change.is_of_intent() && is_checked(change.object().kind()))
        .map(Arc::clone)
        .collect();
    let mut seen = BTreeSet::new();
    for change in &changed {
        let object = change.object();
        let is_new = seen.insert((object.kind(), object.name().clone()));
        if is_new && let Some(current) = transaction.state().find(object.kind(), object.name()) {
            refuse(current, causes(transaction.state(), current))?;
        }
    }
    if changed.iter().any(|change| is_referred_to(change)) {
        for warning in broken_policies(transaction.state(), &seen) {
            transaction.warn(warning);
        }
    }
    Ok(())
}

fn is_checked(kind: &Kind) -> bool {
    kind.role != Role::Derived && *kind != kinds::EVENT
}

fn refuse(object: &Object, causes: Vec<Cause>) -> Result<(), Refusal> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(object.kind(), &object.name().name, causes))
}

fn is_referred_to(change: &Change) -> bool {
    let kind = change.object().kind();
    change.before().is_some() && [&kinds::SERVICE, &kinds::HTTP_ROUTE].contains(&kind)
}

/// What is wrong with policies that the transaction does not touch.
fn broken_policies(state: &Snapshot, touched: &BTreeSet<(&'static Kind, Name)>) -> Vec<String> {
    state
        .all()
        .filter(|object| object.kind().role == Role::Policy)
        .filter(|object| !touched.contains(&(object.kind(), object.name().clone())))
        .flat_map(|object| {
            causes(state, object)
                .into_iter()
                .map(move |cause| format!("{} {}: {cause}", object.kind(), object.name()))
        })
        .collect()
}

/// All that is wrong with one object, given all others.
pub fn causes(state: &Snapshot, object: &Object) -> Vec<Cause> {
    let kind = object.kind();
    if *kind == kinds::HTTP_ROUTE {
        http_route::causes(state, object)
    } else if *kind == kinds::BACKEND_TRAFFIC_POLICY {
        backend_traffic_policy::causes(state, object)
    } else if *kind == kinds::PEER_AUTHENTICATION {
        peer_authentication::causes(state, object)
    } else if *kind == kinds::TELEMETRY {
        telemetry::causes(state, object)
    } else if *kind == kinds::SERVICE {
        services::causes(object)
    } else if [&kinds::DEPLOYMENT, &kinds::JOB, &kinds::POD].contains(&kind) {
        workloads::causes(state, object)
    } else {
        Vec::new()
    }
}
