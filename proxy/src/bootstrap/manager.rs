//! What a bootstrap says of all clusters (`cluster_manager`).

use std::sync::Arc;

use weft_proto::envoy::config::bootstrap::v3::ClusterManager;
use weft_proto::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use weft_proto::envoy::config::core::v3::{Locality as WireLocality, Node};

use super::{Problem, problem, warn_of, within};
use crate::cluster::zones::vicinity::Vicinity;
use crate::config::endpoints::Locality;
use crate::config::upstream_socket::Sources;
use crate::xds::translate::upstream_socket::upstream_sources;

const FIELD: &str = "cluster_manager";

/// What connections of clusters are made from that do not say so.
pub(super) fn sources(wire: Option<&ClusterManager>) -> Result<Option<Arc<Sources>>, Problem> {
    let Some(ClusterManager {
        local_cluster_name: _,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation,
    }) = wire
    else {
        return Ok(None);
    };
    let ignored = [
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

/// Where the proxy is, and the cluster of those like it, where that is named.
pub(super) fn vicinity(
    wire: Option<&ClusterManager>,
    node: &Node,
    resources: &StaticResources,
) -> Result<Option<Arc<Vicinity>>, Problem> {
    let name = wire.map_or("", |wire| &wire.local_cluster_name);
    if name.is_empty() {
        return Ok(None);
    }
    if !resources.clusters.iter().any(|each| each.name == name) {
        let reason = format!("there is no cluster {name:?} in static_resources");
        return Err(problem(format!("{FIELD}.local_cluster_name"), reason));
    }
    let WireLocality {
        region,
        zone,
        sub_zone,
    } = node.locality.clone().unwrap_or_default();
    let own = Locality {
        region: region.into(),
        zone: zone.into(),
        sub_zone: sub_zone.into(),
    };
    Ok(Some(Arc::new(Vicinity::new(own, name.into()))))
}
