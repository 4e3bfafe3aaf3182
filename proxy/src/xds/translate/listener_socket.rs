//! How the sockets of a listener are made.

use std::time::Duration;

use weft_proto::envoy::config::core::v3::address::Address as AnyAddress;
use weft_proto::envoy::config::core::v3::socket_option::{
    SocketIpVersion, SocketState, SocketType, Value,
};
use weft_proto::envoy::config::core::v3::{
    Address, SocketAddress, SocketOption as WireOption, TcpKeepalive,
};
use weft_proto::envoy::config::listener::v3::Listener;

use super::at::{At, Invalid, enumeration};
use crate::config::listener::socket::{
    Family, Keepalive, Moment, OptionValue, SocketOption, SocketSettings,
};

/// How each socket of a listener is made: of its address, then of the additional ones.
pub(super) fn sockets(at: &At<'_>, wire: &Listener) -> Result<Vec<SocketSettings>, Invalid> {
    let of_listener = options(&at.field("socket_options"), &wire.socket_options)?;
    let settings = |address: Option<&Address>, keepalive, options| SocketSettings {
        is_transparent: wire.transparent.unwrap_or(false),
        binds_freely: wire.freebind.unwrap_or(false),
        is_dual_stack: is_dual_stack(address),
        backlog: wire.tcp_backlog_size,
        keepalive,
        options,
    };
    let keepalive = wire.tcp_keepalive.as_ref().map(kept_alive);
    let mut all = vec![settings(
        wire.address.as_ref(),
        keepalive,
        of_listener.clone(),
    )];
    let at = at.field("additional_addresses");
    for (index, additional) in wire.additional_addresses.iter().enumerate() {
        let at = at.index(index);
        // An address with options of its own has none of the listener's, even where there are none.
        let own = additional.socket_options.as_ref().map(|own| {
            let at = at.field("socket_options");
            options(&at.field("socket_options"), &own.socket_options)
        });
        let own = own.transpose()?.unwrap_or_else(|| of_listener.clone());
        let own_keepalive = additional.tcp_keepalive.as_ref().map(kept_alive);
        all.push(settings(
            additional.address.as_ref(),
            own_keepalive.or(keepalive),
            own,
        ));
    }
    Ok(all)
}

fn is_dual_stack(address: Option<&Address>) -> bool {
    let wire = address.and_then(|address| address.address.as_ref());
    matches!(
        wire,
        Some(AnyAddress::SocketAddress(SocketAddress {
            ipv4_compat: true,
            ..
        }))
    )
}

/// When the kernel asks after silent peers.
pub(super) fn kept_alive(wire: &TcpKeepalive) -> Keepalive {
    let TcpKeepalive {
        keepalive_probes,
        keepalive_time,
        keepalive_interval,
    } = wire;
    let seconds = |number: &u32| Duration::from_secs((*number).into());
    Keepalive {
        probes: *keepalive_probes,
        idle: keepalive_time.as_ref().map(seconds),
        interval: keepalive_interval.as_ref().map(seconds),
    }
}

/// Options of sockets as they are written.
pub(super) fn options(at: &At<'_>, wire: &[WireOption]) -> Result<Vec<SocketOption>, Invalid> {
    let options = wire
        .iter()
        .enumerate()
        .map(|(index, wire)| option(&at.index(index), wire));
    let options: Result<Vec<_>, _> = options.collect();
    Ok(options?.into_iter().flatten().collect())
}

/// None where it is for datagrams alone.
fn option(at: &At<'_>, wire: &WireOption) -> Result<Option<SocketOption>, Invalid> {
    let WireOption {
        // For people who read the configuration.
        description: _,
        level,
        name,
        value,
        state,
        r#type,
        ip_version,
    } = wire;
    if let Some(SocketType {
        stream: None,
        datagram: Some(_),
    }) = r#type
    {
        at.field("type").note();
        return Ok(None);
    }
    let value = match value {
        Some(Value::IntValue(number)) => {
            OptionValue::Number(small(&at.field("int_value"), *number)?)
        }
        Some(Value::BufValue(bytes)) => OptionValue::Bytes(bytes.to_vec()),
        None => return Err(at.refuse("has no value: give int_value or buf_value")),
    };
    Ok(Some(SocketOption {
        level: small(&at.field("level"), *level)?,
        name: small(&at.field("name"), *name)?,
        value,
        moment: match enumeration(&at.field("state"), *state)? {
            SocketState::StatePrebind => Moment::BeforeBind,
            SocketState::StateBound => Moment::Bound,
            SocketState::StateListening => Moment::Listening,
        },
        family: match enumeration(&at.field("ip_version"), *ip_version)? {
            SocketIpVersion::Unspecified => None,
            SocketIpVersion::Ipv4 => Some(Family::V4),
            SocketIpVersion::Ipv6 => Some(Family::V6),
        },
    }))
}

/// The kernel knows 32 bits.
fn small(at: &At<'_>, number: i64) -> Result<i32, Invalid> {
    i32::try_from(number).map_err(|_| at.refuse(format_args!("{number} is too large")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<Vec<SocketSettings>, Invalid> {
        let wire: Listener = from_json(json).expect("a listener");
        let notes = Notes::default();
        sockets(&At::root(&notes), &wire)
    }

    #[test]
    fn an_additional_address_may_have_options_of_its_own() {
        let address = |host: &str| json!({"socket_address": {"address": host, "port_value": 1, "ipv4_compat": true}});
        let option = |name: u32| json!({"level": 1, "name": name, "int_value": 2, "state": "STATE_LISTENING"});

        let sockets = translated(json!({
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
            "additional_addresses": [
                {"address": address("::"), "socket_options": {"socket_options": [option(9)]}},
                {"address": address("::1")},
            ],
            "socket_options": [option(8)],
            "transparent": true, "freebind": true, "tcp_backlog_size": 5,
        }))
        .expect("valid");

        let names: Vec<_> = sockets
            .iter()
            .map(|socket| socket.options[0].name)
            .collect();
        assert_eq!(names, [8, 9, 8]);
        assert!(!sockets[0].is_dual_stack && sockets[1].is_dual_stack);
        assert!(
            sockets
                .iter()
                .all(|socket| socket.is_transparent && socket.binds_freely)
        );
        assert_eq!(sockets[2].backlog, Some(5));
        assert_eq!(sockets[0].options[0].moment, Moment::Listening);
    }

    #[test]
    fn an_option_that_the_kernel_cannot_know_is_refused() {
        let refused = |option: serde_json::Value| {
            let error = translated(json!({"socket_options": [option]}));
            error.expect_err("refused").to_string()
        };

        assert_eq!(
            refused(json!({"level": 1, "name": "4294967296", "int_value": 1})),
            "socket_options[0].name: 4294967296 is too large"
        );
        assert_eq!(
            refused(json!({"level": 1, "name": 2})),
            "socket_options[0]: has no value: give int_value or buf_value"
        );
    }
}
