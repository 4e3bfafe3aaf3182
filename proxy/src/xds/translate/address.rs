//! Addresses and networks.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use weft_proto::envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use weft_proto::envoy::config::core::v3::{Address, CidrRange, SocketAddress, address};

use super::at::{At, Invalid, enumeration, required, unsupported};

/// A host, which may be a name, and a port.
pub(super) fn host_and_port<'wire>(
    at: &At<'_>,
    wire: &'wire Address,
) -> Result<(&'wire str, u16), Invalid> {
    let Address { address } = wire;
    match required(&at.field("address"), address.as_ref())? {
        address::Address::SocketAddress(socket) => tcp(&at.field("socket_address"), socket),
        address::Address::Pipe(pipe) => Err(at.field("pipe").refuse_value(&pipe.path)),
        address::Address::EnvoyInternalAddress(_) => {
            Err(at.field("envoy_internal_address").refuse("not supported"))
        }
    }
}

/// An IP address and a port.
pub(super) fn socket_address(at: &At<'_>, wire: &Address) -> Result<SocketAddr, Invalid> {
    let (host, port) = host_and_port(at, wire)?;
    let at = at.field("socket_address");
    Ok(SocketAddr::new(ip(&at.field("address"), host)?, port))
}

/// An IP address.
pub(super) fn ip(at: &At<'_>, text: &str) -> Result<IpAddr, Invalid> {
    text.parse()
        .map_err(|_| at.refuse(format_args!("{text:?} is no IP address")))
}

/// The address that a socket is bound to before it connects.
pub(super) fn source(at: &At<'_>, wire: &SocketAddress) -> Result<SocketAddr, Invalid> {
    let (host, port) = tcp(at, wire)?;
    Ok(SocketAddr::new(ip(&at.field("address"), host)?, port))
}

fn tcp<'wire>(at: &At<'_>, wire: &'wire SocketAddress) -> Result<(&'wire str, u16), Invalid> {
    let SocketAddress {
        protocol,
        address,
        resolver_name,
        // Listeners ask for it; elsewhere there is nothing to be compatible with.
        ipv4_compat: _,
        network_namespace_filepath,
        port_specifier,
    } = wire;
    unsupported!(at; resolver_name, network_namespace_filepath);
    match enumeration(&at.field("protocol"), *protocol)? {
        Protocol::Tcp => {}
        Protocol::Udp => return Err(at.field("protocol").refuse_value(Protocol::Udp)),
    }
    let port = match port_specifier {
        None => return Err(at.field("port_value").refuse("missing")),
        Some(PortSpecifier::PortValue(port)) => {
            let at = at.field("port_value");
            u16::try_from(*port).map_err(|_| at.refuse(format_args!("{port} is no port")))?
        }
        Some(PortSpecifier::NamedPort(name)) => {
            return Err(at.field("named_port").refuse_value(name));
        }
    };
    Ok((address, port))
}

/// Networks.
pub(super) fn networks(at: &At<'_>, wire: &[CidrRange]) -> Result<Vec<IpNet>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, range)| network(&at.index(index), range))
        .collect()
}

/// A network.
pub(super) fn network(at: &At<'_>, wire: &CidrRange) -> Result<IpNet, Invalid> {
    let CidrRange {
        address_prefix,
        prefix_len,
    } = wire;
    let address = ip(&at.field("address_prefix"), address_prefix)?;
    let length = prefix_len.unwrap_or(0);
    let network = u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(address, length).ok());
    network.map(|network| network.trunc()).ok_or_else(|| {
        at.field("prefix_len")
            .refuse(format_args!("{length} is too long"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn a_network_is_cut_to_its_prefix() {
        let notes = Notes::default();
        let wire = CidrRange {
            address_prefix: "10.1.2.3".into(),
            prefix_len: Some(8),
        };

        let network = network(&At::root(&notes), &wire).expect("valid");

        assert_eq!(network.to_string(), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let notes = Notes::default();
        let at = At::root(&notes);
        let wire = |socket: SocketAddress| Address {
            address: Some(address::Address::SocketAddress(socket)),
        };
        let name = wire(SocketAddress {
            address: "reviews".into(),
            port_specifier: Some(PortSpecifier::PortValue(80)),
            ..SocketAddress::default()
        });
        let portless = wire(SocketAddress {
            address: "::1".into(),
            ..SocketAddress::default()
        });
        let port = wire(SocketAddress {
            address: "::1".into(),
            port_specifier: Some(PortSpecifier::PortValue(65536)),
            ..SocketAddress::default()
        });

        assert_eq!(
            socket_address(&at, &name).expect_err("a name").to_string(),
            "socket_address.address: \"reviews\" is no IP address"
        );
        assert_eq!(
            socket_address(&at, &port).expect_err("a port").to_string(),
            "socket_address.port_value: 65536 is no port"
        );
        assert_eq!(
            socket_address(&at, &portless)
                .expect_err("no port")
                .to_string(),
            "socket_address.port_value: missing"
        );
    }
}
