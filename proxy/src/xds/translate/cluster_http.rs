//! Which HTTP a cluster speaks: Envoy's older fields, and `HttpProtocolOptions` that replace them.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_proto::Any;
use weft_proto::envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use weft_proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonProtocolOptions,
};
use weft_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use weft_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use weft_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

use super::at::{At, Invalid, enumeration, harmless, holds, opened, required, unsupported};
use super::http_options::{common_options, http2_options};
use super::http1_options::http1_options;
use crate::config::cluster::UpstreamProtocol;
use crate::config::http::Http2Options;
use crate::config::http1::Http1Options;

/// Envoy's: an unused connection is kept for an hour.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Stands for no limit: a year.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The HTTP side of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClusterHttp {
    /// What is spoken.
    pub(super) protocol: UpstreamProtocol,
    /// HTTP/1.1 where it is spoken.
    pub(super) http1: Http1Options,
    /// HTTP/2 where it is spoken.
    pub http2: Http2Options,
    /// How long an unused connection is kept.
    pub(super) idle_timeout: Duration,
    /// How many requests a connection may carry.
    pub(super) max_requests: Option<u32>,
    /// How long a connection is used at most.
    pub(super) max_connection_duration: Option<Duration>,
    /// Headers of a response.
    pub(super) max_headers: usize,
    /// Header bytes of a response.
    pub(super) max_header_bytes: u32,
}

/// From all the fields that say it; the newer go before the older.
pub(super) fn cluster_http(
    at: &At<'_>,
    common: Option<&CommonProtocolOptions>,
    http1: Option<&Http1ProtocolOptions>,
    http2: Option<&Http2ProtocolOptions>,
    selection: i32,
    extensions: &BTreeMap<String, Any>,
) -> Result<ClusterHttp, Invalid> {
    let at_extensions = at.field("typed_extension_protocol_options");
    let mut found = None;
    for (name, any) in extensions {
        let at = at_extensions.key(name);
        if !holds::<HttpProtocolOptions>(any) {
            return Err(at.refuse_value(&any.type_url));
        }
        found = Some(newer(&at, &opened(&at, any)?)?);
    }
    match found {
        Some(found) => Ok(found),
        None => older(at, common, http1, http2, selection),
    }
}

fn older(
    at: &At<'_>,
    common: Option<&CommonProtocolOptions>,
    http1: Option<&Http1ProtocolOptions>,
    http2: Option<&Http2ProtocolOptions>,
    selection: i32,
) -> Result<ClusterHttp, Invalid> {
    let http1 = http1_options(&at.field("http_protocol_options"), http1)?;
    let at_selection = at.field("protocol_selection");
    let protocol = match (enumeration(&at_selection, selection)?, http2) {
        (ClusterProtocolSelection::UseDownstreamProtocol, _) => UpstreamProtocol::Downstream,
        (ClusterProtocolSelection::UseConfiguredProtocol, Some(_)) => UpstreamProtocol::Http2,
        (ClusterProtocolSelection::UseConfiguredProtocol, None) => UpstreamProtocol::Http1,
    };
    let at_common = at.field("common_http_protocol_options");
    together(
        &at_common,
        common,
        (protocol, http1),
        &at.field("http2_protocol_options"),
        http2,
    )
}

fn newer(at: &At<'_>, wire: &HttpProtocolOptions) -> Result<ClusterHttp, Invalid> {
    let HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = wire;
    unsupported!(at; upstream_http_protocol_options, http_filters, header_validation_config,
        request_mirror_policies, hash_policy, retry_policy);
    let (place, protocol, http1, http2) = match required(
        &at.field("upstream_protocol_options"),
        upstream_protocol_options.as_ref(),
    )? {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config }) => {
            let place = "explicit_http_config";
            match required(&at.field(place), protocol_config.as_ref())? {
                ProtocolConfig::HttpProtocolOptions(http1) => {
                    (place, UpstreamProtocol::Http1, Some(http1), None)
                }
                ProtocolConfig::Http2ProtocolOptions(http2) => {
                    (place, UpstreamProtocol::Http2, None, Some(http2))
                }
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options,
            http2_protocol_options,
        }) => (
            "use_downstream_protocol_config",
            UpstreamProtocol::Downstream,
            http_protocol_options.as_ref(),
            http2_protocol_options.as_ref(),
        ),
        UpstreamProtocolOptions::AutoConfig(_) => {
            return Err(at
                .field("auto_config")
                .refuse("not supported: say which protocol is spoken"));
        }
    };
    let at_place = at.field(place);
    let http1 = http1_options(&at_place.field("http_protocol_options"), http1)?;
    let at_common = at.field("common_http_protocol_options");
    let at_http2 = at_place.field("http2_protocol_options");
    together(
        &at_common,
        common_http_protocol_options.as_ref(),
        (protocol, http1),
        &at_http2,
        http2,
    )
}

fn together(
    at_common: &At<'_>,
    common: Option<&CommonProtocolOptions>,
    (protocol, http1): (UpstreamProtocol, Http1Options),
    at_http2: &At<'_>,
    http2: Option<&Http2ProtocolOptions>,
) -> Result<ClusterHttp, Invalid> {
    if let Some(CommonProtocolOptions {
        max_connection_duration_jitter,
        ..
    }) = common
    {
        harmless!(at_common; max_connection_duration_jitter);
    }
    let common = common_options(at_common, common, Some(DEFAULT_IDLE_TIMEOUT))?;
    if let Some(limit) = common.max_stream_duration {
        return Err(at_common.field("max_stream_duration").refuse_value(limit));
    }
    Ok(ClusterHttp {
        protocol,
        http1,
        http2: http2_options(at_http2, http2)?,
        idle_timeout: common.idle_timeout.unwrap_or(NO_LIMIT),
        max_requests: common.lifespan.max_requests,
        max_connection_duration: common.lifespan.max_duration,
        max_headers: common.max_headers,
        max_header_bytes: common.max_response_header_bytes,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::envoy::config::cluster::v3::Cluster;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::super::cluster::cluster;
    use super::*;
    use crate::config::cluster::ClusterConfig;

    fn translated(options: serde_json::Value) -> Result<ClusterConfig, Invalid> {
        let mut options = options;
        options["@type"] =
            "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into();
        let wire: Cluster = from_json(json!({
            "name": "reviews",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "typed_extension_protocol_options":
                {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        }))
        .expect("a cluster");
        let notes = Notes::default();
        cluster(&At::root(&notes), &wire)
    }

    #[test]
    fn a_cluster_may_speak_what_its_caller_speaks() {
        let config = translated(json!({"use_downstream_protocol_config": {
            "http2_protocol_options": {"max_concurrent_streams": 9},
        }}))
        .expect("valid");

        assert_eq!(config.protocol, UpstreamProtocol::Downstream);
        assert_eq!(config.http2.max_concurrent_streams, Some(9));
    }

    #[test]
    fn negotiating_the_version_is_refused() {
        let error = translated(json!({"auto_config": {}})).expect_err("refused");

        assert!(
            error.to_string().contains(".auto_config: not supported"),
            "{error}"
        );
    }
}
