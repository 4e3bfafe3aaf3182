//! Which workload a bootstrap's node is.

use std::sync::Arc;

use weft_proto::envoy::config::core::v3::Node;

use crate::config::Workload;
use crate::xds::translate::metadata;

/// What the node says of its workload; else what its id and cluster let one guess: `sidecar~<pod>.<namespace>`.
pub(super) fn workload(node: &Node) -> Workload {
    let told = node
        .metadata
        .as_ref()
        .map(metadata::workload_of)
        .unwrap_or_default();
    let guessed = node.id.rsplit_once('~').map_or("", |(_, rest)| rest);
    let (pod, namespace) = guessed.split_once('.').unwrap_or((guessed, ""));
    let name = node
        .cluster
        .split_once('.')
        .map_or(node.cluster.as_str(), |(name, _)| name);
    let or = |told: &Arc<str>, guess: &str| match told.is_empty() {
        true => Arc::from(guess),
        false => Arc::clone(told),
    };
    let name = or(&told.name, name);
    Workload {
        namespace: or(&told.namespace, namespace),
        pod: or(&told.pod, pod),
        // A service is mostly called as the workload behind it.
        service: or(&told.service, &name),
        name,
    }
}
