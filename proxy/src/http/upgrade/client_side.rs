//! The client's side of an upgrade, whoever speaks HTTP with it.

use std::io;

use http::Request;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::http::serve::http1::{ClientIo, Switch};
use crate::upstream::body::client::ClientBody;

/// A client that will have left HTTP.
pub(super) enum ClientSide {
    /// Our own HTTP/1.1.
    Http1(Switch),
    /// hyper, such as on a stream of HTTP/2.
    Hyper(OnUpgrade),
}

impl ClientSide {
    /// Of a request that asks for another protocol.
    pub(super) fn of(request: &mut Request<ClientBody>) -> Self {
        match request.extensions_mut().remove() {
            Some(switch) => ClientSide::Http1(switch),
            None => ClientSide::Hyper(hyper::upgrade::on(request)),
        }
    }

    /// The bytes of the other protocol, once the client has been told.
    pub(super) async fn switched(self) -> io::Result<ClientIo> {
        match self {
            ClientSide::Http1(switch) => switch.switched().await,
            ClientSide::Hyper(upgraded) => {
                let upgraded = upgraded.await.map_err(io::Error::other)?;
                Ok(Box::new(TokioIo::new(upgraded)))
            }
        }
    }
}
