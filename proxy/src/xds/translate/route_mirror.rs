//! Copies of requests.

use std::sync::Arc;

use weft_proto::envoy::config::route::v3::route_action::RequestMirrorPolicy;

use super::at::{At, Invalid, harmless, nonempty};
use super::filter::header_mutation::changes;
use super::headers::mutations;
use super::route_hosts::host_value;
use super::share::runtime_fraction;
use super::text::header_name;
use crate::config::filter::header_mutation::Mutations;
use crate::config::percent::Percent;
use crate::config::route::{ClusterName, Mirror};

/// All of a route, of a virtual host, or of the whole configuration.
pub(super) fn mirrors(at: &At<'_>, wire: &[RequestMirrorPolicy]) -> Result<Vec<Mirror>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, policy)| mirror(&at.index(index), policy))
        .collect()
}

fn mirror(at: &At<'_>, wire: &RequestMirrorPolicy) -> Result<Mirror, Invalid> {
    let RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction: fraction,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = wire;
    harmless!(at; trace_sampled);
    let at_mutations = at.field("request_headers_mutations");
    Ok(Mirror {
        cluster: cluster_name(at, ("cluster", cluster), cluster_header)?,
        share: match fraction {
            Some(fraction) => runtime_fraction(&at.field("runtime_fraction"), fraction)?,
            None => Percent::ALL,
        },
        keeps_host: *disable_shadow_host_suffix_append,
        host: match host_rewrite_literal.as_str() {
            "" => None,
            host => Some(host_value(&at.field("host_rewrite_literal"), host)?),
        },
        headers: Arc::new(Mutations {
            request: changes(&at_mutations, request_headers_mutations, mutations)?,
            ..Mutations::default()
        }),
    })
}

/// A cluster by its name, or by a header; one of the two.
pub(super) fn cluster_name(
    at: &At<'_>,
    (field, name): (&str, &str),
    header: &str,
) -> Result<ClusterName, Invalid> {
    let at_header = at.field("cluster_header");
    match (name, header) {
        (name, "") => Ok(ClusterName::Fixed(nonempty(&at.field(field), name)?.into())),
        ("", header) => Ok(ClusterName::Header(header_name(&at_header, header)?)),
        _ => Err(at_header.refuse(format_args!("`{field}` is set, too"))),
    }
}
