//! Filter chains: which connections they are for, their TLS, and what is inside.

use std::sync::Arc;

use weft_proto::envoy::config::listener::v3::filter::ConfigType;
use weft_proto::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use weft_proto::envoy::config::listener::v3::{Filter, FilterChain as WireChain, FilterChainMatch};
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

use super::address::networks;
use super::at::{
    At, Invalid, duration, enumeration, harmless, holds, nonempty, opened, unsupported,
};
use super::filter::gate::gates;
use super::http::http;
use super::tcp_proxy::tcp_proxy;
use super::tls::downstream_transport;
use crate::config::listener::{
    ChainMatch, FilterChain, NetworkFilter, ServerNameMatch, SourceType, TransportProtocol,
};

/// A chain.
pub(super) fn filter_chain(at: &At<'_>, wire: &WireChain) -> Result<FilterChain, Invalid> {
    let WireChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata: _,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = wire;
    unsupported!(at; use_proxy_proto);
    let mut tls = downstream_transport(&at.field("transport_socket"), transport_socket.as_ref())?;
    match &mut tls {
        Some(tls) => {
            let at = at.field("transport_socket_connect_timeout");
            let timeout = duration(&at, transport_socket_connect_timeout.as_ref())?;
            Arc::make_mut(tls).handshake_timeout = timeout.filter(|timeout| !timeout.is_zero());
        }
        None => {
            harmless!(at; transport_socket_connect_timeout);
        }
    }
    Ok(FilterChain {
        name: name.as_str().into(),
        matches: filter_chain_match
            .as_ref()
            .map(|wire| chain_match(&at.field("filter_chain_match"), wire))
            .transpose()?
            .unwrap_or_default(),
        tls,
        gates: gates(
            &at.field("filters"),
            &filters[..filters.len().saturating_sub(1)],
        )?,
        filter: network_filter(&at.field("filters"), filters)?,
    })
}

fn chain_match(at: &At<'_>, wire: &FilterChainMatch) -> Result<ChainMatch, Invalid> {
    let FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = wire;
    unsupported!(at; address_suffix, suffix_len);
    let at_sources = at.field("source_ports");
    let source_port = |(index, number): (usize, &u32)| port(&at_sources.index(index), *number);
    Ok(ChainMatch {
        destination_port: destination_port
            .map(|number| port(&at.field("destination_port"), number))
            .transpose()?,
        destination_prefixes: networks(&at.field("prefix_ranges"), prefix_ranges)?,
        transport: match transport_protocol.as_str() {
            "" => None,
            "tls" => Some(TransportProtocol::Tls),
            "raw_buffer" => Some(TransportProtocol::Raw),
            other => return Err(at.field("transport_protocol").refuse_value(other)),
        },
        application_protocols: application_protocols
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        server_names: server_names
            .iter()
            .enumerate()
            .map(|(index, name)| server_name(&at.field("server_names").index(index), name))
            .collect::<Result<_, _>>()?,
        direct_source_prefixes: networks(
            &at.field("direct_source_prefix_ranges"),
            direct_source_prefix_ranges,
        )?,
        source_type: match enumeration(&at.field("source_type"), *source_type)? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameAddressOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_prefixes: networks(&at.field("source_prefix_ranges"), source_prefix_ranges)?,
        source_ports: source_ports
            .iter()
            .enumerate()
            .map(source_port)
            .collect::<Result<_, _>>()?,
    })
}

fn port(at: &At<'_>, number: u32) -> Result<u16, Invalid> {
    u16::try_from(number).map_err(|_| at.refuse(format_args!("{number} is no port")))
}

/// Exact, or with a star for the leftmost label.
fn server_name(at: &At<'_>, name: &str) -> Result<ServerNameMatch, Invalid> {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') && !suffix.contains('*') => {
            Ok(ServerNameMatch::Suffix(suffix.into()))
        }
        None if !name.is_empty() && !name.contains('*') => Ok(ServerNameMatch::Exact(name.into())),
        _ => Err(at.refuse_value(name)),
    }
}

/// The filter that ends the chain.
fn network_filter(at: &At<'_>, wire: &[Filter]) -> Result<NetworkFilter, Invalid> {
    let Some((Filter { name, config_type }, before)) = wire.split_last() else {
        return Err(at.refuse("must end with an HTTP connection manager or a TCP proxy"));
    };
    let at = at.index(before.len());
    let name = nonempty(&at.field("name"), name)?;
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(at.field("config_discovery").refuse("not supported"));
        }
        None => return Err(at.field("typed_config").refuse_value(name)),
    };
    let at = at.field("typed_config");
    if holds::<HttpConnectionManager>(any) {
        Ok(NetworkFilter::Http(Arc::new(http(
            &at,
            &opened(&at, any)?,
        )?)))
    } else if holds::<TcpProxy>(any) {
        Ok(NetworkFilter::Tcp(Arc::new(tcp_proxy(
            &at,
            &opened(&at, any)?,
        )?)))
    } else {
        Err(at.refuse_value(&any.type_url))
    }
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn a_server_name_is_exact_or_has_one_star_in_front() {
        let notes = Notes::default();
        let at = At::root(&notes);

        assert_eq!(
            server_name(&at, "A.example"),
            Ok(ServerNameMatch::Exact("a.example".into()))
        );
        assert_eq!(
            server_name(&at, "*.example"),
            Ok(ServerNameMatch::Suffix(".example".into()))
        );
        for name in ["", "*", "*example", "a.*", "*.*.b"] {
            assert!(server_name(&at, name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_chain_without_a_filter_is_refused() {
        let notes = Notes::default();

        let error = filter_chain(&At::root(&notes), &WireChain::default()).expect_err("refused");

        assert_eq!(
            error.to_string(),
            "filters: must end with an HTTP connection manager or a TCP proxy"
        );
    }
}
