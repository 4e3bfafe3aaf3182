//! What goes because something else is gone: dependents of owners, namespaces without content.

use std::collections::HashSet;
use std::sync::Arc;

use super::deletion::{self, Deletion, FOREGROUND};
use crate::kinds;
use crate::store::{Change, Object, Transaction};

/// Deletes until nothing more follows.
pub(super) fn settle(transaction: &mut Transaction) {
    // Each round goes one level down a tree of owners, which is two levels deep; the bound is against surprises.
    for _ in 0..8 {
        let before = transaction.changes().len();
        if transaction
            .changes()
            .iter()
            .any(|change| may_follow(change))
        {
            collect_orphans(transaction);
            finish_foreground(transaction);
            finish_namespaces(transaction);
        }
        if transaction.changes().len() == before {
            return;
        }
    }
}

fn may_follow(change: &Change) -> bool {
    matches!(change, Change::Deleted { .. }) || change.object().is_deleting()
}

fn live_uids(transaction: &Transaction) -> HashSet<String> {
    let all = transaction.state().all();
    all.map(|object| object.uid().to_owned()).collect()
}

fn collect_orphans(transaction: &mut Transaction) {
    let live = live_uids(transaction);
    let orphans: Vec<Arc<Object>> = transaction
        .state()
        .all()
        .filter(|object| object.owners().next().is_some() && !object.is_deleting())
        .filter(|object| !object.owners().any(|owner| live.contains(owner)))
        .map(Arc::clone)
        .collect();
    for orphan in orphans {
        deletion::remove_or_mark(transaction, &orphan, Deletion::BACKGROUND);
    }
}

/// Owners that wait for their dependents: first these are told, then, when none is left, the owner goes.
fn finish_foreground(transaction: &mut Transaction) {
    let waiting: Vec<Arc<Object>> = transaction
        .state()
        .all()
        .filter(|object| object.is_deleting() && waits_for_dependents(object))
        .map(Arc::clone)
        .collect();
    for owner in waiting {
        let dependents: Vec<Arc<Object>> = transaction
            .state()
            .all()
            .filter(|object| object.owners().any(|uid| uid == owner.uid()))
            .map(Arc::clone)
            .collect();
        for dependent in dependents
            .iter()
            .filter(|dependent| !dependent.is_deleting())
        {
            deletion::remove_or_mark(transaction, dependent, Deletion::BACKGROUND);
        }
        let is_alone = !transaction
            .state()
            .all()
            .any(|object| object.owners().any(|uid| uid == owner.uid()));
        if is_alone {
            let mut value = owner.value().clone();
            deletion::without_own_finalizers(&mut value);
            let object = transaction.put(owner.kind(), value);
            deletion::finish(transaction, object);
        }
    }
}

fn waits_for_dependents(object: &Object) -> bool {
    let finalizers = object.value()["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FOREGROUND))
}

fn finish_namespaces(transaction: &mut Transaction) {
    let empty: Vec<Arc<Object>> = transaction
        .state()
        .list(&kinds::NAMESPACE, None)
        .filter(|namespace| namespace.is_deleting() && !deletion::has_finalizers(namespace))
        .filter(|namespace| {
            let name = namespace.name().name.as_str();
            !transaction
                .state()
                .all()
                .any(|object| object.name().namespace == name)
        })
        .map(Arc::clone)
        .collect();
    for namespace in empty {
        let name = namespace.name().clone();
        transaction.remove(&kinds::NAMESPACE, &name);
    }
}
