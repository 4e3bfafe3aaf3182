//! Whether anything that was written to a connection has arrived at the other machine.
//!
//! What a peer's system has not acknowledged, nobody there has read: a request of which that is true has not been
//! processed, whatever its method is (RFC 9110 §9.2.2: "some means to detect that the original request was never
//! applied").

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Held;
use crate::sys;
use crate::wire::Wire;

/// What had been written to a connection at one time. It keeps the connection's descriptor open, so that the kernel
/// can be asked when it has ended.
#[derive(Debug)]
pub(in crate::upstream) struct Mark {
    held: Arc<Held>,
    written: u64,
}

impl Mark {
    /// Now.
    pub(super) fn of(held: Arc<Held>) -> Self {
        let written = held.written.load(Ordering::Relaxed);
        Mark { held, written }
    }

    /// Whether nothing that was written since has arrived.
    pub(in crate::upstream) fn has_nothing_arrived(&self) -> bool {
        let since = self.held.written.load(Ordering::Relaxed) - self.written;
        match &self.held.wire {
            _ if since == 0 => true,
            Wire::Tcp(socket) => sys::unacknowledged(socket).is_ok_and(|bytes| bytes >= since),
            // What is written is there.
            Wire::Local(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::super::Socket;
    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).await.expect("connected");
        let (server, _) = listener.accept().await.expect("accepted");
        (Socket::over(Wire::Tcp(client)), server)
    }

    /// Reads until the connection has ended, one way or another.
    async fn ended(socket: &mut Socket) {
        let mut rest = vec![];
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut rest));
        let _ = read.await.expect("in time");
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn what_is_sent_to_a_closed_connection_has_not_arrived() {
        let (mut socket, mut server) = pair().await;
        socket.write_all(b"before").await.expect("written");
        server.read_exact(&mut [0; 6]).await.expect("read");
        drop(server);

        let mark = Mark::of(Arc::clone(&socket.0));
        socket
            .write_all(b"POST / HTTP/1.1\r\n\r\n")
            .await
            .expect("written");
        ended(&mut socket).await;
        drop(socket);

        assert!(mark.has_nothing_arrived());
    }

    #[tokio::test]
    async fn what_the_peer_closes_upon_without_reading_it_has_arrived() {
        let (mut socket, server) = pair().await;
        let mark = Mark::of(Arc::clone(&socket.0));
        assert!(mark.has_nothing_arrived());

        socket
            .write_all(b"POST / HTTP/1.1\r\n\r\n")
            .await
            .expect("written");
        server.readable().await.expect("there");
        SockRef::from(&server)
            .set_linger(Some(Duration::ZERO))
            .expect("set");
        drop(server);
        ended(&mut socket).await;

        assert!(!mark.has_nothing_arrived());
    }

    #[tokio::test]
    async fn what_is_written_to_a_local_channel_has_arrived() {
        let (local, _peer) = UnixStream::pair().expect("a pair");
        let mut socket = Socket::over(Wire::Local(local));
        let mark = Mark::of(Arc::clone(&socket.0));
        assert!(mark.has_nothing_arrived());

        socket.write_all(b"POST").await.expect("written");

        assert!(!mark.has_nothing_arrived());
    }
}
