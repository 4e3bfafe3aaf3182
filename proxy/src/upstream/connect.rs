//! Connections of TCP to upstreams: what they are made from, and how their sockets are set.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use crate::config::listener::socket::{Family, Moment};
use crate::config::upstream_socket::Sources;
use crate::socket_option;

/// Connects to an address, from where a sources says.
pub(super) async fn connect(
    address: SocketAddr,
    sources: Option<&Sources>,
) -> io::Result<TcpStream> {
    let (socket, family) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, Family::V4),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, Family::V6),
    };
    if let Some(sources) = sources {
        bind(&socket, family, sources, address)?;
    }
    socket.connect(address).await
}

fn bind(
    socket: &TcpSocket,
    family: Family,
    sources: &Sources,
    address: SocketAddr,
) -> io::Result<()> {
    if sources.binds_freely {
        socket_option::bind_freely(socket, family)?;
    }
    let Some(source) = sources.towards(address) else {
        return Ok(());
    };
    let set = |moment| socket_option::set_all(socket, &source.options, moment, family);
    set(Moment::BeforeBind)?;
    if let Some(address) = source.address {
        socket.bind(address)?;
    }
    set(Moment::Bound)
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

    #[tokio::test]
    async fn a_connection_is_made_from_the_address_of_its_binding() {
        let (listener, address) = listening().await;
        let sources = from(Some("127.0.0.77:0"), vec![]);

        let _stream = connect(address, Some(&sources)).await.expect("connected");

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

            let stream = connect(address, Some(&sources)).await.expect("connected");

            let class = SockRef::from(&stream).tos_v4();
            assert_eq!(class.expect("an option"), 8);
        }
    }

    #[tokio::test]
    async fn an_address_that_nobody_has_is_bound_to_only_freely() {
        let (_listener, address) = listening().await;
        // TEST-NET-1: no machine has it.
        let mut sources = from(Some("192.0.2.1:0"), vec![]);
        let refused = connect(address, Some(&sources))
            .await
            .expect_err("nobody's");
        assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);

        sources.binds_freely = true;
        let socket = TcpSocket::new_v4().expect("a socket");
        bind(&socket, Family::V4, &sources, address).expect("bound");

        let bound = socket.local_addr().expect("an address");
        assert_eq!(bound.ip().to_string(), "192.0.2.1");
    }
}
