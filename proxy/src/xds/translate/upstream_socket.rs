//! How the sockets of connections to upstreams are made.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_proto::envoy::config::cluster::v3::UpstreamConnectionOptions;
use weft_proto::envoy::config::core::v3::{BindConfig, ExtraSourceAddress, SocketOptionsOverride};

use super::address::source;
use super::at::{At, Invalid, Notes, harmless, required, unsupported};
use super::listener_socket::{kept_alive, options};
use crate::config::listener::socket::{Keepalive, SocketOption};
use crate::config::upstream_socket::{Source, Sources};

/// What connections of all clusters are made from that do not say so themselves (`cluster_manager` of a bootstrap), and
/// its fields without effect.
///
/// # Errors
/// A field has a value that is not possible, or asks for what is not supported; its path is relative to it.
pub fn upstream_sources(
    wire: &BindConfig,
) -> Result<(Option<Arc<Sources>>, BTreeSet<String>), Invalid> {
    let notes = Notes::default();
    let sources = sources(&At::root(&notes), Some(wire))?;
    Ok((sources, notes.into_paths()))
}

/// What connections are made from; Envoy's rules: one address, and one more of the other family.
pub(super) fn sources(
    at: &At<'_>,
    wire: Option<&BindConfig>,
) -> Result<Option<Arc<Sources>>, Invalid> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    let BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = wire;
    unsupported!(at; local_address_selector);
    harmless!(at; validate_network_namespaces);
    let own = options(&at.field("socket_options"), socket_options)?;
    let mut all = Vec::new();
    if let Some(wire) = source_address {
        let address = source(&at.field("source_address"), wire)?;
        all.push(bound(address, own.clone()));
    }
    let at_additional = at.field("additional_source_addresses");
    for (index, wire) in additional_source_addresses.iter().enumerate() {
        let at = at_additional.index(index);
        let address = source(&at, wire)?;
        add(&at, &mut all, bound(address, own.clone()))?;
    }
    let at_extra = at.field("extra_source_addresses");
    for (index, wire) in extra_source_addresses.iter().enumerate() {
        let at = at_extra.index(index);
        add(&at, &mut all, extra(&at, wire, &own)?)?;
    }
    if all.is_empty() {
        all.push(Source {
            address: None,
            options: own,
        });
    }
    Ok(Some(Arc::new(Sources {
        all,
        binds_freely: freebind.unwrap_or(false),
    })))
}

fn bound(address: SocketAddr, options: Vec<SocketOption>) -> Source {
    Source {
        address: Some(address),
        options,
    }
}

/// An address with options of its own has none of the others, even where there are none.
fn extra(
    at: &At<'_>,
    wire: &ExtraSourceAddress,
    others: &[SocketOption],
) -> Result<Source, Invalid> {
    let ExtraSourceAddress {
        address,
        socket_options,
    } = wire;
    let at_address = at.field("address");
    let address = source(&at_address, required(&at_address, address.as_ref())?)?;
    let options = match socket_options {
        None => others.to_vec(),
        Some(SocketOptionsOverride { socket_options }) => {
            let at = at.field("socket_options");
            let at = at.field("socket_options");
            options(&at, socket_options)?
        }
    };
    Ok(bound(address, options))
}

fn add(at: &At<'_>, sources: &mut Vec<Source>, another: Source) -> Result<(), Invalid> {
    let is_other_family = |first: &Source| {
        let families = (first.address, another.address);
        matches!(families, (Some(one), Some(other)) if one.is_ipv4() != other.is_ipv4())
    };
    match sources.as_slice() {
        [first] if is_other_family(first) => {
            sources.push(another);
            Ok(())
        }
        [] => Err(at.refuse("there is no `source_address` that it adds to")),
        [_] => Err(at.refuse("it is of the same family as `source_address`")),
        _ => Err(at.refuse("there is one for each family already")),
    }
}

/// When the kernel asks whether a silent peer is still there.
pub(super) fn keepalive(
    at: &At<'_>,
    wire: Option<&UpstreamConnectionOptions>,
) -> Option<Keepalive> {
    let UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    } = wire?;
    harmless!(at; set_local_interface_name_on_upstream_connections, happy_eyeballs_config);
    tcp_keepalive.as_ref().map(kept_alive)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_proto::json::from_json;

    use super::*;

    fn translated(json: Value) -> Result<Sources, Invalid> {
        let wire: BindConfig = from_json(json).expect("a configuration");
        let (sources, _) = upstream_sources(&wire)?;
        Ok((*sources.expect("one")).clone())
    }

    fn host(address: &str) -> Value {
        json!({"address": address, "port_value": 0})
    }

    fn option(name: u32) -> Value {
        json!({"level": 1, "name": name, "int_value": 2, "state": "STATE_PREBIND"})
    }

    #[test]
    fn an_address_of_the_other_family_may_have_options_of_its_own() {
        let sources = translated(json!({
            "source_address": host("127.0.0.6"),
            "extra_source_addresses": [
                {"address": host("::6"), "socket_options": {"socket_options": [option(9)]}},
            ],
            "socket_options": [option(8)],
            "freebind": true,
        }))
        .expect("valid");

        let towards = |address: &str| {
            let address: SocketAddr = address.parse().expect("an address");
            let source = sources.towards(address).expect("one");
            let ip = source.address.map(|address| address.ip().to_string());
            (ip, source.options[0].name)
        };
        assert_eq!(towards("1.2.3.4:5"), (Some("127.0.0.6".into()), 8));
        assert_eq!(towards("[fd00::1]:5"), (Some("::6".into()), 9));
        assert!(sources.binds_freely);
    }

    #[test]
    fn options_without_an_address_are_for_all_connections() {
        let sources = translated(json!({"socket_options": [option(8)]})).expect("valid");

        let address = "1.2.3.4:5".parse().expect("an address");
        let source = sources.towards(address).expect("one");
        assert_eq!((source.address, source.options.len()), (None, 1));
    }

    #[test]
    fn more_addresses_than_one_of_each_family_are_refused() {
        for (json, reason) in [
            (
                json!({"source_address": host("1.1.1.1"), "extra_source_addresses": [{"address": host("1.1.1.2")}]}),
                "extra_source_addresses[0]: it is of the same family as `source_address`",
            ),
            (
                json!({"extra_source_addresses": [{"address": host("1.1.1.2")}]}),
                "extra_source_addresses[0]: there is no `source_address` that it adds to",
            ),
            (
                json!({"source_address": host("1.1.1.1"), "additional_source_addresses": [host("::1")],
                    "extra_source_addresses": [{"address": host("::2")}]}),
                "extra_source_addresses[0]: there is one for each family already",
            ),
        ] {
            assert_eq!(translated(json).expect_err("refused").to_string(), reason);
        }
    }
}
