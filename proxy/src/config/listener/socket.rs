//! How a listening socket is made: what Envoy's `transparent`, `freebind`, `tcp_backlog_size`, `socket_options` and
//! `ipv4_compat` ask for.

use std::time::Duration;

/// How a listening socket is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SocketSettings {
    /// Takes connections to any address that the kernel's rules send here (`IP_TRANSPARENT`, ip(7)).
    pub is_transparent: bool,
    /// May be bound to an address that nobody has yet (`IP_FREEBIND`, ip(7)).
    pub binds_freely: bool,
    /// An IPv6 socket that takes IPv4, too.
    pub is_dual_stack: bool,
    /// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
    pub backlog: Option<u32>,
    /// Of the connections that are accepted; none: the kernel never asks.
    pub keepalive: Option<Keepalive>,
    /// Set as they are, in order.
    pub options: Vec<SocketOption>,
}

/// When the kernel asks whether a silent peer is still there (tcp(7)); what is not said is the system's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Keepalive {
    /// So many questions without an answer end the connection.
    pub probes: Option<u32>,
    /// How long it is silent before the first.
    pub idle: Option<Duration>,
    /// How long between two.
    pub interval: Option<Duration>,
}

/// An option of setsockopt(2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOption {
    /// Such as `SOL_SOCKET`.
    pub level: i32,
    /// Such as `SO_RCVBUF`.
    pub name: i32,
    /// What it is set to.
    pub value: OptionValue,
    /// When.
    pub moment: Moment,
    /// On sockets of one family only; none: of both.
    pub family: Option<Family>,
}

/// What an option is set to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OptionValue {
    /// A number.
    Number(i32),
    /// A structure, as it is in memory.
    Bytes(Vec<u8>),
}

/// When an option is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the socket has an address (`STATE_PREBIND`).
    BeforeBind,
    /// When it has one (`STATE_BOUND`).
    Bound,
    /// When it listens (`STATE_LISTENING`).
    Listening,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}
