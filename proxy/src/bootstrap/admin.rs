//! Where a bootstrap says that the admin interface listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_proto::envoy::config::bootstrap::v3::Admin;
use weft_proto::envoy::config::core::v3::{Address, address};

use super::{Problem, problem};
use crate::xds::control_planes::socket_target;

/// Its address, if it has one.
pub(super) fn admin(wire: &Admin) -> Result<Option<SocketAddr>, Problem> {
    let Some(Address {
        address: Some(address),
    }) = &wire.address
    else {
        return Ok(None);
    };
    match address {
        address::Address::SocketAddress(socket) => {
            let address = socket_target(socket)
                .ok_or_else(|| problem("admin.address", "must have an IP address and a port"))?;
            on_loopback(address).map(Some)
        }
        _ => Err(problem("admin.address", "must be a socket address")),
    }
}

/// Whoever reaches the admin interface can change and end the proxy: nobody but the machine itself does.
fn on_loopback(address: SocketAddr) -> Result<SocketAddr, Problem> {
    match address.ip() {
        ip if ip.is_loopback() => Ok(address),
        // Files of Envoy mean to be reachable from everywhere; from the machine itself is what can be had.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ok(told_of_loopback(
            (Ipv4Addr::LOCALHOST, address.port()).into(),
        )),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ok(told_of_loopback(
            (Ipv6Addr::LOCALHOST, address.port()).into(),
        )),
        _ => Err(problem(
            "admin.address.socket_address.address",
            format!(
                "{:?} is not supported: the admin interface is served on loopback only, such as 127.0.0.1",
                address.ip().to_string()
            ),
        )),
    }
}

fn told_of_loopback(address: SocketAddr) -> SocketAddr {
    tracing::warn!(
        field = "admin.address",
        "the admin interface is served on loopback only: at {address}"
    );
    address
}
