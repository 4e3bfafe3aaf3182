//! LDS: listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::core::v3::TrafficDirection;
use weft_proto::envoy::config::core::v3::proxy_protocol_config::Version as WireVersion;
use weft_proto::envoy::config::listener::v3::listener::{DeprecatedV1, DrainType};
use weft_proto::envoy::config::listener::v3::listener_filter::ConfigType;
use weft_proto::envoy::config::listener::v3::{AdditionalAddress, Listener, ListenerFilter};
use weft_proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use weft_proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use weft_proto::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use weft_proto::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use weft_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

use super::access_log::access_logs;
use super::address::socket_address;
use super::at::{
    At, Invalid, duration, enumeration, harmless, holds, opened, required, unsupported,
};
use super::filter_chain::filter_chain;
use super::listener_socket::sockets;
use super::metadata::network;
use crate::config::http::HttpConfig;
use crate::config::listener::{
    Binding, Direction, FilterChain, ListenerConfig, NetworkFilter, OriginalSourceOf,
    OverloadPolicy, ProxyHeader,
};
use crate::config::upstream_socket::OriginalSource;
use crate::proxy_protocol::Version;

/// Envoy's, where none is said.
const FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

/// A listener.
pub(super) fn listener(at: &At<'_>, wire: &Listener) -> Result<ListenerConfig, Invalid> {
    let Listener {
        name,
        address,
        additional_addresses,
        stat_prefix,
        filter_chains,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        fcds_config,
        tcp_keepalive,
        listener_specifier,
        stats_matcher,
    } = wire;
    unsupported!(at; api_listener, enable_mptcp, fcds_config, listener_specifier);
    harmless!(at; stats_matcher, per_connection_buffer_high_watermark_timeout,
        tcp_fast_open_queue_length, connection_balance_config,
        max_connections_to_accept_per_socket_event);
    // Detection waits for nobody and sockets are always shared among workers: these have nothing to decide.
    let _ = (
        continue_on_listener_filters_timeout,
        reuse_port,
        enable_reuse_port,
        // `listener_socket` reads these.
        (freebind, socket_options, tcp_backlog_size, tcp_keepalive),
    );
    let binds = bind_to_port.or(deprecated_v1
        .as_ref()
        .and_then(|DeprecatedV1 { bind_to_port }| *bind_to_port));
    let mut filters = inspections(&at.field("listener_filters"), listener_filters)?;
    if let Some(header) = &mut filters.proxy_header {
        let at = at.field("listener_filters_timeout");
        header.timeout = duration(&at, listener_filters_timeout.as_ref())?
            .map_or(Some(FILTERS_TIMEOUT), |limit| {
                (!limit.is_zero()).then_some(limit)
            });
    }
    let addresses = addresses(at, address.as_ref(), additional_addresses)?;
    let direction = enumeration(&at.field("traffic_direction"), *traffic_direction)?;
    let common = OfListener {
        buffer_bytes: buffer_bytes(*per_connection_buffer_limit_bytes),
        ends_when_failed: DrainType::Default == enumeration(&at.field("drain_type"), *drain_type)?,
        is_egress: direction == TrafficDirection::Outbound,
        heeds_overload: !*bypass_overload_manager,
    };
    let limit = format!("envoy.resource_limits.listener.{name}.connection_limit");
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        return Err(at
            .field("filter_chains")
            .refuse("missing: nothing would be served"));
    }
    let mut filter_chains = chains(&at.field("filter_chains"), filter_chains)?;
    let mut default_chain = default_filter_chain
        .as_ref()
        .map(|chain| filter_chain(&at.field("default_filter_chain"), chain))
        .transpose()?;
    for chain in filter_chains.iter_mut().chain(&mut default_chain) {
        common.tell(&mut chain.filter);
    }
    Ok(ListenerConfig {
        // One without a name is called by where it listens.
        name: match (&**name, addresses.first()) {
            ("", Some(address)) => address.to_string().into(),
            (name, _) => name.into(),
        },
        addresses,
        sockets: sockets(at, wire)?,
        is_transparent: transparent.unwrap_or(false),
        binding: match binds {
            Some(false) => Binding::Virtual,
            _ => Binding::Bound,
        },
        network: network(&at.field("metadata"), metadata.as_ref())?,
        direction: match direction {
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound | TrafficDirection::Unspecified => Direction::Outbound,
        },
        use_original_destination: use_original_dst.unwrap_or(false) || filters.original_destination,
        proxy_header: filters.proxy_header,
        original_source: filters.original_source,
        filter_chains,
        default_chain,
        inspect_http: filters.http,
        inspect_tls: filters.tls,
        stat_name: (!stat_prefix.is_empty()).then(|| stat_prefix.as_str().into()),
        max_connections: at.runtime().count(&limit).map(u64::from),
        overload: match (*bypass_overload_manager, *ignore_global_conn_limit) {
            (true, _) => OverloadPolicy::Bypassed,
            (false, true) => OverloadPolicy::Uncounted,
            (false, false) => OverloadPolicy::Heeded,
        },
        access_logs: access_logs(&at.field("access_log"), access_log)?,
    })
}

/// What a listener says for all of its filter chains.
struct OfListener {
    buffer_bytes: Option<usize>,
    ends_when_failed: bool,
    is_egress: bool,
    heeds_overload: bool,
}

impl OfListener {
    fn tell(&self, filter: &mut NetworkFilter) {
        match filter {
            NetworkFilter::Http(http) => self.tell_http(Arc::make_mut(http)),
            NetworkFilter::Tcp(tcp) => {
                let tcp = Arc::make_mut(tcp);
                tcp.buffer_bytes = self.buffer_bytes.unwrap_or(tcp.buffer_bytes);
            }
        }
    }

    fn tell_http(&self, http: &mut HttpConfig) {
        http.ends_when_failed = self.ends_when_failed;
        http.heeds_overload = self.heeds_overload;
        if let Some(bytes) = self.buffer_bytes {
            http.buffer_bytes = bytes;
            http.http2.bound(bytes);
        }
        if let Some(tracing) = &mut http.tracing {
            Arc::make_mut(tracing).is_egress = self.is_egress;
        }
    }
}

/// Envoy: zero is no limit. There is one: the default.
pub(super) fn buffer_bytes(wire: Option<u32>) -> Option<usize> {
    wire.filter(|bytes| *bytes > 0).map(|bytes| bytes as usize)
}

fn addresses(
    at: &At<'_>,
    address: Option<&weft_proto::envoy::config::core::v3::Address>,
    additional: &[AdditionalAddress],
) -> Result<Vec<SocketAddr>, Invalid> {
    let at_address = at.field("address");
    let mut addresses = vec![socket_address(
        &at_address,
        required(&at_address, address)?,
    )?];
    let at = at.field("additional_addresses");
    for (index, wire) in additional.iter().enumerate() {
        let AdditionalAddress {
            address,
            // `listener_socket` reads them.
            socket_options: _,
            tcp_keepalive: _,
        } = wire;
        let at = at.index(index);
        let at = at.field("address");
        addresses.push(socket_address(&at, required(&at, address.as_ref())?)?);
    }
    Ok(addresses)
}

fn chains(
    at: &At<'_>,
    wire: &[weft_proto::envoy::config::listener::v3::FilterChain],
) -> Result<Vec<FilterChain>, Invalid> {
    let mut chains: Vec<FilterChain> = Vec::with_capacity(wire.len());
    for (index, chain) in wire.iter().enumerate() {
        let at = at.index(index);
        let chain = filter_chain(&at, chain)?;
        let at = at.field("filter_chain_match");
        if chain.matches.repeats() {
            return Err(at.refuse("names something twice"));
        }
        let mut others = chains.iter();
        if others.any(|other| other.matches.overlaps(&chain.matches)) {
            return Err(at.refuse("another chain has the same, too"));
        }
        chains.push(chain);
    }
    Ok(chains)
}

/// What is looked at before a chain is chosen.
#[derive(Debug, Default)]
struct Inspections {
    original_destination: bool,
    http: bool,
    tls: bool,
    proxy_header: Option<ProxyHeader>,
    original_source: Option<(OriginalSourceOf, OriginalSource)>,
}

fn inspections(at: &At<'_>, wire: &[ListenerFilter]) -> Result<Inspections, Invalid> {
    let mut found = Inspections::default();
    for (index, filter) in wire.iter().enumerate() {
        let at = at.index(index);
        let ListenerFilter {
            name,
            filter_disabled,
            config_type,
        } = filter;
        unsupported!(at; filter_disabled);
        let any = match config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(at.field("config_discovery").refuse("not supported"));
            }
            None => return Err(at.field("typed_config").refuse_value(name)),
        };
        let at = at.field("typed_config");
        if holds::<OriginalDst>(any) {
            let OriginalDst {} = opened(&at, any)?;
            found.original_destination = true;
        } else if holds::<OriginalSrc>(any) {
            let OriginalSrc { bind_port, mark } = &opened(&at, any)?;
            unsupported!(at; bind_port);
            found.original_source = Some((
                // What an earlier filter has said of the connection is what this one sees.
                match &found.proxy_header {
                    Some(_) => OriginalSourceOf::Client,
                    None => OriginalSourceOf::Peer,
                },
                OriginalSource { mark: *mark },
            ));
        } else if holds::<HttpInspector>(any) {
            let HttpInspector {} = opened(&at, any)?;
            found.http = true;
        } else if holds::<TlsInspector>(any) {
            tls_inspector(&at, &opened(&at, any)?);
            found.tls = true;
        } else if holds::<ProxyProtocol>(any) {
            found.proxy_header = Some(proxy_header(&at, &opened(&at, any)?)?);
        } else {
            return Err(at.refuse_value(&any.type_url));
        }
    }
    Ok(found)
}

fn proxy_header(at: &At<'_>, wire: &ProxyProtocol) -> Result<ProxyHeader, Invalid> {
    let ProxyProtocol {
        rules,
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
        tlv_location,
    } = wire;
    unsupported!(at; rules, pass_through_tlvs);
    harmless!(at; stat_prefix, tlv_location);
    let at = at.field("disallowed_versions");
    let version = |(index, wire): (usize, &i32)| {
        Ok(match enumeration(&at.index(index), *wire)? {
            WireVersion::V1 => Version::V1,
            WireVersion::V2 => Version::V2,
        })
    };
    Ok(ProxyHeader {
        is_optional: *allow_requests_without_proxy_protocol,
        disallowed: disallowed_versions
            .iter()
            .enumerate()
            .map(version)
            .collect::<Result<_, _>>()?,
        timeout: None,
    })
}

fn tls_inspector(at: &At<'_>, wire: &TlsInspector) {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        max_client_hello_size,
        close_connection_on_client_hello_parsing_errors,
    } = wire;
    harmless!(at; enable_ja3_fingerprinting, enable_ja4_fingerprinting, initial_read_buffer_size,
        max_client_hello_size, close_connection_on_client_hello_parsing_errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;
    use crate::config::Network;
    use crate::config::listener::{NetworkFilter, TcpTarget};

    fn translated(json: serde_json::Value) -> Result<ListenerConfig, Invalid> {
        let wire: Listener = from_json(json).expect("a listener");
        let notes = Notes::default();
        listener(&At::root(&notes), &wire)
    }

    fn outbound() -> serde_json::Value {
        json!({
            "name": "outbound",
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15001}},
            "additional_addresses": [
                {"address": {"socket_address": {"address": "::", "port_value": 15001}}},
            ],
            "use_original_dst": true,
            "traffic_direction": "OUTBOUND",
            "metadata": {"filter_metadata": {"weft.dev": {"network": "host"}}},
            "listener_filters": [{"name": "http", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
            }}],
            "default_filter_chain": {"filters": [{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "passthrough",
                "cluster": "passthrough",
            }}]},
        })
    }

    #[test]
    fn the_outbound_listener_of_the_mesh_is_understood() {
        let config = translated(outbound()).expect("valid");

        assert_eq!(config.addresses.len(), 2);
        assert_eq!(config.binding, Binding::Bound);
        assert_eq!(config.network, Network::Host);
        assert_eq!(config.direction, Direction::Outbound);
        assert!(config.use_original_destination && config.inspect_http && !config.inspect_tls);
        let Some(FilterChain {
            filter: NetworkFilter::Tcp(tcp),
            ..
        }) = config.default_chain
        else {
            panic!("no chain of bytes");
        };
        assert_eq!(tcp.target, TcpTarget::Cluster("passthrough".into()));
    }

    #[test]
    fn a_listener_that_binds_nothing_is_virtual() {
        let mut json = outbound();
        json["bind_to_port"] = false.into();

        assert_eq!(translated(json).expect("valid").binding, Binding::Virtual);
    }

    #[test]
    fn two_chains_that_match_the_same_are_refused() {
        let mut json = outbound();
        let chain = json["default_filter_chain"].clone();
        json["filter_chains"] = json!([chain, chain]);

        assert_eq!(
            translated(json).expect_err("refused").to_string(),
            "filter_chains[1].filter_chain_match: another chain has the same, too"
        );
    }

    #[test]
    fn chains_may_not_have_a_connection_in_common() {
        let refused = |one: serde_json::Value, other: serde_json::Value| {
            let mut json = outbound();
            let mut chains = [
                json["default_filter_chain"].clone(),
                json["default_filter_chain"].clone(),
            ];
            chains[0]["filter_chain_match"] = one;
            chains[1]["filter_chain_match"] = other;
            json["filter_chains"] = json!(chains);
            translated(json).err().map(|error| error.to_string())
        };
        let names = |names: &[&str]| json!({"server_names": names, "transport_protocol": "tls"});
        let same = "filter_chains[1].filter_chain_match: another chain has the same, too";
        let networks = |network: &str, bits: u8| json!({"prefix_ranges": [{"address_prefix": network, "prefix_len": bits}]});

        assert_eq!(
            refused(names(&["a", "b"]), names(&["b", "c"])).as_deref(),
            Some(same)
        );
        assert_eq!(
            refused(networks("10.0.0.0", 8), networks("10.1.0.0", 8)).as_deref(),
            Some(same)
        );
        assert_eq!(
            refused(names(&["a"]), names(&["b", "b"])).as_deref(),
            Some("filter_chains[1].filter_chain_match: names something twice")
        );
        assert_eq!(refused(names(&["a"]), names(&["b"])), None);
        assert_eq!(refused(names(&["a"]), names(&[])), None);
        assert_eq!(
            refused(networks("10.0.0.0", 8), networks("10.0.0.0", 16)),
            None
        );
    }

    #[test]
    fn a_refusal_inside_a_filter_names_its_whole_path() {
        let mut json = outbound();
        json["default_filter_chain"]["filters"][0]["typed_config"]["on_demand"] = json!({});

        let error = translated(json).expect_err("refused").to_string();

        assert!(
            error.starts_with("default_filter_chain.filters[0].typed_config.on_demand: "),
            "{error}"
        );
    }

    #[test]
    fn the_address_that_is_kept_is_the_one_that_filters_before_have_found() {
        const TYPES: &str = "type.googleapis.com/envoy.extensions.filters.listener";
        let source = json!({"name": "source", "typed_config":
            {"@type": format!("{TYPES}.original_src.v3.OriginalSrc"), "mark": 7}});
        let named = json!({"name": "named", "typed_config":
            {"@type": format!("{TYPES}.proxy_protocol.v3.ProxyProtocol")}});
        let whose = |filters: serde_json::Value| {
            let mut json = outbound();
            json["listener_filters"] = filters;
            translated(json).expect("valid").original_source
        };
        let marked = OriginalSource { mark: 7 };

        assert_eq!(whose(json!([named])), None);
        assert_eq!(
            whose(json!([named, source])),
            Some((OriginalSourceOf::Client, marked))
        );
        assert_eq!(
            whose(json!([source, named])),
            Some((OriginalSourceOf::Peer, marked))
        );
    }
}
