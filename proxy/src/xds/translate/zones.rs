//! How much of the requests stays in the proxy's own locality.

use weft_proto::envoy::r#type::v3::Percent as WirePercent;

use super::at::{At, Invalid};
use super::share::percent;
use crate::config::balancing::ZoneRouting;

/// What older and newer fields have in common.
pub(super) fn zones(
    at: &At<'_>,
    enabled: Option<&WirePercent>,
    min_cluster_size: Option<u64>,
) -> Result<ZoneRouting, Invalid> {
    let usual = ZoneRouting::default();
    let at = at.field("routing_enabled");
    Ok(ZoneRouting {
        enabled: enabled.map_or(Ok(usual.enabled), |wire| percent(&at, wire))?,
        min_cluster_size: min_cluster_size.unwrap_or(usual.min_cluster_size),
        ..usual
    })
}
