//! Where the endpoints of a cluster come from: given, discovered, by name, or wherever a connection was going.

use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbConfig, LbPolicy,
    OriginalDstLbConfig, RefreshRate,
};
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::at::{At, Invalid, duration, enumeration, required, unsupported};
use super::config_source::needs;
use super::endpoints::{Hosts, endpoints};
use super::text::header_name;
use crate::config::cluster::{Discovery, DnsFamily, OriginalDestinationOptions};
use crate::config::endpoints::EndpointsConfig;
use crate::xds::kind::Kind;

/// Envoy's.
pub(super) const DEFAULT_DNS_REFRESH: Duration = Duration::from_secs(5);
/// Envoy's.
const ORIGINAL_DST_HEADER: &str = "x-envoy-original-dst-host";

/// How endpoints are found.
pub(super) fn discovery(
    at: &At<'_>,
    name: &str,
    kind: Option<&ClusterDiscoveryType>,
    eds: Option<&EdsClusterConfig>,
    assignment: Option<&ClusterLoadAssignment>,
) -> Result<Discovery, Invalid> {
    let kind = match kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(number)) => enumeration(&at.field("type"), *number)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(at.field("cluster_type").refuse_value(&custom.name));
        }
    };
    match kind {
        DiscoveryType::Static => given(at, assignment, Hosts::Addresses).map(Discovery::Static),
        DiscoveryType::StrictDns => given(at, assignment, Hosts::Names).map(Discovery::StrictDns),
        DiscoveryType::LogicalDns => {
            let given = given(at, assignment, Hosts::Names)?;
            let count: usize = given
                .localities
                .iter()
                .map(|each| each.endpoints.len())
                .sum();
            match count {
                1 => Ok(Discovery::LogicalDns(given)),
                _ => Err(at
                    .field("load_assignment")
                    .refuse("a cluster of type LOGICAL_DNS has one locality with one endpoint")),
            }
        }
        DiscoveryType::OriginalDst => Ok(Discovery::OriginalDestination),
        DiscoveryType::Eds => {
            let at = at.field("eds_cluster_config");
            let EdsClusterConfig {
                eds_config,
                service_name,
            } = required(&at, eds)?;
            let named = match service_name.is_empty() {
                true => name,
                false => service_name,
            };
            needs(
                &at.field("eds_config"),
                Kind::Endpoints,
                named,
                eds_config.as_ref(),
            )?;
            let service_name = (!service_name.is_empty()).then(|| service_name.as_str().into());
            Ok(Discovery::Eds { service_name })
        }
    }
}

fn given(
    at: &At<'_>,
    assignment: Option<&ClusterLoadAssignment>,
    hosts: Hosts,
) -> Result<Arc<EndpointsConfig>, Invalid> {
    match assignment {
        Some(wire) => endpoints(&at.field("load_assignment"), wire, hosts).map(Arc::new),
        None => Ok(Arc::default()),
    }
}

/// Envoy: an original destination is not balanced.
pub(super) fn check_original_policy(at: &At<'_>, policy: i32) -> Result<(), Invalid> {
    let at = at.field("lb_policy");
    match enumeration(&at, policy)? {
        LbPolicy::ClusterProvided => Ok(()),
        // The default, where nobody has said anything.
        LbPolicy::RoundRobin => Ok(()),
        other => Err(at.refuse(format_args!(
            "{other:?} is not possible: a cluster of type ORIGINAL_DST takes CLUSTER_PROVIDED"
        ))),
    }
}

/// Where original destinations come from.
pub(super) fn original(
    at: &At<'_>,
    wire: Option<&LbConfig>,
    cleanup: Option<Duration>,
) -> Result<OriginalDestinationOptions, Invalid> {
    let Some(LbConfig::OriginalDstLbConfig(wire)) = wire else {
        return Ok(OriginalDestinationOptions {
            cleanup,
            ..OriginalDestinationOptions::default()
        });
    };
    let OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = wire;
    unsupported!(at; metadata_key);
    let header = match (use_http_header, http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(http::HeaderName::from_static(ORIGINAL_DST_HEADER)),
        (true, name) => Some(header_name(&at.field("http_header_name"), name)?),
    };
    let at_port = at.field("upstream_port_override");
    let port = upstream_port_override
        .map(|port| {
            u16::try_from(port).map_err(|_| at_port.refuse(format_args!("{port} is no port")))
        })
        .transpose()?;
    Ok(OriginalDestinationOptions {
        header,
        port,
        cleanup,
    })
}

/// A duration that is not nothing.
pub(super) fn positive(
    at: &At<'_>,
    wire: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, Invalid> {
    match duration(at, wire)? {
        Some(found) if found < Duration::from_millis(1) => {
            Err(at.refuse("must be a millisecond at least"))
        }
        found => Ok(found),
    }
}

/// How soon names are looked up again after a failure, at first and at most.
pub(super) fn failure_refresh(
    at: &At<'_>,
    wire: Option<&RefreshRate>,
) -> Result<Option<(Duration, Duration)>, Invalid> {
    let Some(RefreshRate {
        base_interval,
        max_interval,
    }) = wire
    else {
        return Ok(None);
    };
    let at_base = at.field("base_interval");
    let base = positive(&at_base, base_interval.as_ref())?;
    let base = *required(&at_base, base.as_ref())?;
    let at_max = at.field("max_interval");
    let max = positive(&at_max, max_interval.as_ref())?.unwrap_or(base.saturating_mul(10));
    if max < base {
        return Err(at_max.refuse("shorter than the base interval"));
    }
    Ok(Some((base, max)))
}

/// Which addresses of a name are used.
pub(super) fn dns_family(at: &At<'_>, wire: i32) -> Result<DnsFamily, Invalid> {
    Ok(match enumeration(at, wire)? {
        DnsLookupFamily::Auto => DnsFamily::PreferV6,
        DnsLookupFamily::V4Only => DnsFamily::V4,
        DnsLookupFamily::V6Only => DnsFamily::V6,
        DnsLookupFamily::V4Preferred => DnsFamily::PreferV4,
        DnsLookupFamily::All => DnsFamily::All,
    })
}
