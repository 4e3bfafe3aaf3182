//! How the sockets of connections to upstreams are made (Envoy's `upstream_bind_config` and
//! `upstream_connection_options`).

use std::net::{IpAddr, SocketAddr};

use super::listener::socket::SocketOption;

/// What connections are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The first of the endpoint's address family is taken, else the one without an address, else the first, whose
    /// address cannot be had: as in Envoy, no connection is made from an address that nobody has chosen.
    pub all: Vec<Source>,
    /// Whether they may be bound to an address that nobody has (`IP_FREEBIND`, ip(7)).
    pub binds_freely: bool,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its address; port 0 is whatever is free. `None`: what the kernel takes.
    pub address: Option<SocketAddr>,
    /// Set as they are, in order.
    pub options: Vec<SocketOption>,
}

impl Sources {
    /// What connections to an address are made from; `None` only where there are none.
    pub fn towards(&self, address: SocketAddr) -> Option<&Source> {
        let is_of_family = |source: &&Source| {
            let is_ipv4 = source.address.map(|address| address.is_ipv4());
            is_ipv4.is_some_and(|is_ipv4| is_ipv4 == address.is_ipv4())
        };
        let mut sources = self.all.iter();
        let found = sources.find(is_of_family);
        found
            .or_else(|| self.all.iter().find(|source| source.address.is_none()))
            .or(self.all.first())
    }
}

/// Connections are made from the address of the client that they are for (Envoy's `original_src`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginalSource {
    /// How what they send is marked (`SO_MARK`); 0: not at all.
    pub mark: u32,
}

impl OriginalSource {
    /// The source of connections for a client.
    pub fn of(self, client: IpAddr) -> ClientSource {
        ClientSource {
            address: client,
            mark: self.mark,
        }
    }
}

/// A client's address, as the source of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSource {
    /// Its address.
    pub address: IpAddr,
    /// How what they send is marked; 0: not at all.
    pub mark: u32,
}

impl ClientSource {
    /// The end of a connection, of which the port is left to the kernel.
    pub fn end(self) -> SocketAddr {
        SocketAddr::new(self.address, 0)
    }
}
