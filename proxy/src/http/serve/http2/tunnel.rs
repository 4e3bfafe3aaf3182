//! A stream that a client asks to be a connection: CONNECT (RFC 9113 §8.5), for whatever protocol (RFC 8441).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::Request;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::http::serve::switch::{ClientIo, Switch, Switching};
use crate::stream::StreamIo;
use crate::upstream::body::client::ClientBody;

/// What whoever takes the request gets, once the client has been told.
type Promised = Mutex<oneshot::Receiver<ClientIo>>;

/// A stream that has been asked for.
pub(super) struct Tunnel {
    from_client: RecvStream,
    promise: oneshot::Sender<ClientIo>,
}

impl Tunnel {
    /// That of a request; what the client says is no body of it.
    pub(super) fn asked_by(request: Request<RecvStream>) -> (Request<ClientBody>, Self) {
        let (promise, promised) = oneshot::channel();
        let (parts, from_client) = request.into_parts();
        let mut request = Request::from_parts(parts, ClientBody::Empty);
        let promised: Arc<Promised> = Arc::new(Mutex::new(promised));
        request.extensions_mut().insert(Switch::of(promised));
        let tunnel = Tunnel {
            from_client,
            promise,
        };
        (request, tunnel)
    }

    /// Whether somebody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.promise.is_closed()
    }

    /// The client has been told.
    pub(super) fn begin(self, to_client: SendStream<Bytes>) {
        let io = StreamIo::tunnel(to_client, self.from_client);
        // Whoever waited may have gone: then it has ended.
        let _ = self.promise.send(Box::new(io));
    }
}

impl Switching for Promised {
    fn poll_switched(&self, context: &mut Context<'_>) -> Poll<io::Result<ClientIo>> {
        let switched = Pin::new(&mut *self.lock()).poll(context);
        switched.map_err(|_| io::ErrorKind::ConnectionReset.into())
    }
}
