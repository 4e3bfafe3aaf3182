//! Whether a configuration is another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Configuration;

/// Whether two configurations say the same. What is shared by both is not looked into.
pub fn is_same(one: &Configuration, other: &Configuration) -> bool {
    let Configuration {
        listeners,
        routes,
        clusters,
        endpoints,
        secrets,
    } = one;
    has_same(listeners, &other.listeners)
        && has_same(routes, &other.routes)
        && has_same(clusters, &other.clusters)
        && has_same(endpoints, &other.endpoints)
        && has_same(secrets, &other.secrets)
}

fn has_same<T: PartialEq>(
    one: &BTreeMap<Arc<str>, Arc<T>>,
    other: &BTreeMap<Arc<str>, Arc<T>>,
) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|((name, value), (other_name, other_value))| {
                name == other_name && (Arc::ptr_eq(value, other_value) || value == other_value)
            })
}
