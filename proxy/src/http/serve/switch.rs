//! What becomes of a connection, or a stream, whose client asks for another protocol: whoever has taken the request gets
//! it, once the response has been said that agrees.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

/// The bytes of another protocol with a client.
pub(in crate::http) type ClientIo = Box<dyn Duplex>;

/// A connection of any kind.
pub(in crate::http) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin> Duplex for IO {}

/// Among the extensions of a request that asks for another protocol.
#[derive(Clone)]
pub(in crate::http) struct Switch(Arc<dyn Switching>);

/// What becomes a connection of another protocol.
pub(super) trait Switching: Send + Sync {
    fn poll_switched(&self, context: &mut Context<'_>) -> Poll<io::Result<ClientIo>>;
}

impl Switch {
    pub(super) fn of(switching: Arc<dyn Switching>) -> Self {
        Switch(switching)
    }

    /// The connection, as soon as it is that of the other protocol.
    pub(in crate::http) async fn switched(self) -> io::Result<ClientIo> {
        std::future::poll_fn(|context| self.0.poll_switched(context)).await
    }
}
