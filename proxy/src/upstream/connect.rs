//! Connections of TCP to upstreams: what they are made from, and how their sockets are set.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream};

use super::ConnectFailure;
use crate::config::listener::socket::{Family, Moment};
use crate::config::upstream_socket::{ClientSource, Sources};
use crate::socket_option;

/// What a connection is made from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Origin<'a> {
    /// What those of the cluster are made from.
    pub(super) sources: Option<&'a Sources>,
    /// The client whose address it has instead.
    pub(super) client: Option<ClientSource>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// It cannot be made from where it is to be.
    Bind(io::Error),
    /// It could not be made.
    Connect(io::Error),
}

impl NotConnected {
    /// To an endpoint.
    pub(super) fn towards(self, address: SocketAddr) -> ConnectFailure {
        match self {
            NotConnected::Bind(source) => ConnectFailure::Bind {
                address,
                source: Arc::new(source),
            },
            NotConnected::Connect(source) => ConnectFailure::Io {
                address,
                source: Arc::new(source),
            },
        }
    }
}

/// Connects to an address.
pub(super) async fn connect(
    address: SocketAddr,
    origin: Origin<'_>,
) -> Result<TcpStream, NotConnected> {
    let (socket, family) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4(), Family::V4),
        SocketAddr::V6(_) => (TcpSocket::new_v6(), Family::V6),
    };
    let socket = socket.map_err(NotConnected::Connect)?;
    if origin.sources.is_some() || origin.client.is_some() {
        bind(&socket, family, origin, address).map_err(NotConnected::Bind)?;
    }
    let connected = socket.connect(address).await;
    connected.map_err(NotConnected::Connect)
}

fn bind(
    socket: &TcpSocket,
    family: Family,
    Origin { sources, client }: Origin<'_>,
    address: SocketAddr,
) -> io::Result<()> {
    if sources.is_some_and(|sources| sources.binds_freely) {
        socket_option::bind_freely(socket, family)?;
    }
    let source = sources.and_then(|sources| sources.towards(address));
    let set = |moment| match source {
        Some(source) => socket_option::set_all(socket, &source.options, moment, family),
        None => Ok(()),
    };
    set(Moment::BeforeBind)?;
    if let Some(client) = client {
        appear_as(socket, family, client)?;
    }
    let own = source.and_then(|source| source.address);
    if let Some(from) = client.map(ClientSource::end).or(own) {
        if from.port() == 0 {
            // Else there would be one connection for each port of the machine, to wherever it leads, and while few are
            // free each bind would look at all of them.
            socket_option::choose_port_late(socket)?;
        }
        socket
            .bind(from)
            .map_err(|error| io::Error::new(error.kind(), format!("binding to {from}: {error}")))?;
    }
    set(Moment::Bound)
}

/// Lets a socket have the address of a client, which is nobody's here.
fn appear_as(socket: &TcpSocket, family: Family, client: ClientSource) -> io::Result<()> {
    socket_option::be_transparent(socket, family)?;
    match client.mark {
        0 => Ok(()),
        mark => socket_option::mark(socket, mark),
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::listener::socket::{OptionValue, SocketOption};
    use crate::config::upstream_socket::Source;

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    fn class(moment: Moment, number: i32) -> SocketOption {
        SocketOption {
            level: libc::IPPROTO_IP,
            name: libc::IP_TOS,
            value: OptionValue::Number(number),
            moment,
            family: None,
        }
    }

    fn from(address: Option<&str>, options: Vec<SocketOption>) -> Sources {
        Sources {
            all: vec![Source {
                address: address.map(|address| address.parse().expect("an address")),
                options,
            }],
            binds_freely: false,
        }
    }

    /// Its connections have one port to be made from (`IP_LOCAL_PORT_RANGE`, ip(7)).
    fn only_port(port: u16) -> SocketOption {
        const IP_LOCAL_PORT_RANGE: i32 = 51;
        let range = u32::from(port) << 16 | u32::from(port);
        SocketOption {
            level: libc::IPPROTO_IP,
            name: IP_LOCAL_PORT_RANGE,
            value: OptionValue::Number(range.cast_signed()),
            moment: Moment::BeforeBind,
            family: None,
        }
    }

    fn of(sources: &Sources) -> Origin<'_> {
        Origin {
            sources: Some(sources),
            client: None,
        }
    }

    #[tokio::test]
    async fn a_connection_is_made_from_the_address_of_its_binding() {
        let (listener, address) = listening().await;
        let sources = from(Some("127.0.0.77:0"), vec![]);

        let _stream = connect(address, of(&sources)).await.expect("connected");

        let (_, peer) = listener.accept().await.expect("accepted");
        assert_eq!(peer.ip().to_string(), "127.0.0.77");
    }

    #[tokio::test]
    async fn options_are_set_with_an_address_and_without() {
        let (_listener, address) = listening().await;
        for (source, moment) in [
            (None, Moment::BeforeBind),
            (Some("127.0.0.77:0"), Moment::Bound),
        ] {
            let sources = from(source, vec![class(moment, 8)]);

            let stream = connect(address, of(&sources)).await.expect("connected");

            let class = SockRef::from(&stream).tos_v4();
            assert_eq!(class.expect("an option"), 8);
        }
    }

    #[tokio::test]
    async fn an_address_that_nobody_has_is_bound_to_only_freely() {
        let (_listener, address) = listening().await;
        // TEST-NET-1: no machine has it.
        let mut sources = from(Some("192.0.2.1:0"), vec![]);
        let refused = connect(address, of(&sources)).await.expect_err("nobody's");
        let NotConnected::Bind(error) = refused else {
            panic!("not refused to bind: {refused:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);

        sources.binds_freely = true;
        let socket = TcpSocket::new_v4().expect("a socket");
        bind(&socket, Family::V4, of(&sources), address).expect("bound");

        let bound = socket.local_addr().expect("an address");
        assert_eq!(bound.ip().to_string(), "192.0.2.1");
    }

    #[tokio::test]
    async fn a_port_of_the_bound_address_serves_connections_to_several_places() {
        let (one, to_one) = listening().await;
        let (other, to_other) = listening().await;
        // Of an address that nothing else here is made from.
        let sources = from(Some("127.77.3.6:0"), vec![only_port(48_611)]);

        let _first = connect(to_one, of(&sources)).await.expect("a connection");
        let _second = connect(to_other, of(&sources)).await.expect("one more");

        let (_accepted, client) = one.accept().await.expect("the first");
        let (_accepted_too, same) = other.accept().await.expect("the second");
        assert_eq!((client.port(), same), (48_611, client));
    }

    #[tokio::test]
    async fn an_endpoint_of_a_family_without_an_address_is_not_connected_to_from_any() {
        let (_listener, address) = listening().await;
        let sources = from(Some("[::1]:0"), vec![]);

        let refused = connect(address, of(&sources)).await.expect_err("refused");

        let NotConnected::Bind(error) = refused else {
            panic!("not refused to bind: {refused:?}");
        };
        let reason = error.to_string();
        assert!(reason.starts_with("binding to [::1]:0: "), "{reason}");
    }
}
