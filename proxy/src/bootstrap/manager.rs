//! What a bootstrap says of all clusters (`cluster_manager`).

use std::sync::Arc;

use weft_proto::envoy::config::bootstrap::v3::ClusterManager;

use super::{Problem, warn_of, within};
use crate::config::upstream_socket::Sources;
use crate::xds::translate::upstream_socket::upstream_sources;

const FIELD: &str = "cluster_manager";

/// What connections of clusters are made from that do not say so.
pub(super) fn sources(wire: Option<&ClusterManager>) -> Result<Option<Arc<Sources>>, Problem> {
    let Some(ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation,
    }) = wire
    else {
        return Ok(None);
    };
    let ignored = [
        ("local_cluster_name", !local_cluster_name.is_empty()),
        ("outlier_detection", outlier_detection.is_some()),
        ("load_stats_config", load_stats_config.is_some()),
        (
            "enable_deferred_cluster_creation",
            *enable_deferred_cluster_creation,
        ),
    ];
    let ignored = ignored.into_iter().filter(|(_, is_set)| *is_set);
    warn_of(FIELD, ignored.map(|(field, _)| field.to_owned()));
    let Some(wire) = upstream_bind_config else {
        return Ok(None);
    };
    let field = format!("{FIELD}.upstream_bind_config");
    let (sources, notes) = upstream_sources(wire).map_err(|invalid| within(&field, &invalid))?;
    warn_of(&field, notes);
    Ok(sources)
}
