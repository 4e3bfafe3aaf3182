//! Connections that another sidecar shares: each stream is a connection of opaque bytes, served as one.
//!
//! It is for the destination of the connection that it came on, from the same peer, and goes through the same chain: policies,
//! limits, statistics and logs see a connection of its own.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request};

use super::io::DownstreamIo;
use super::{Connection, Counted, tls};
use crate::cluster::stats::ClusterStats;
use crate::config::listener::TcpConfig;
use crate::gather::Gathered;
use crate::snapshot::chain::Chain;
use crate::stream::{self, StreamIo};

/// The peer's preface must have come by then.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream that a peer asks for.
type Asked = (Request<RecvStream>, SendResponse<Bytes>);

impl Connection {
    /// Serves each stream, until the peer opens no more and all have ended.
    pub(super) async fn serve_streams(
        self,
        io: DownstreamIo,
        (chain, config): (Arc<Chain>, Arc<TcpConfig>),
        peer: tls::Peer,
    ) {
        let (io, turns) = Gathered::over(io);
        let begun = tokio::time::timeout(PREFACE_TIMEOUT, stream::server().handshake(io)).await;
        let mut connection: server::Connection<_, Bytes> = match begun {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(peer = %self.peer, %error, "no streams"),
            Err(_) => return tracing::debug!(peer = %self.peer, "no preface in time"),
        };
        let mut is_draining = false;
        loop {
            let accepted = poll_fn(|context| {
                let accepted = connection.poll_accept(context);
                if accepted.is_pending() {
                    turns.end(context);
                }
                accepted
            });
            tokio::select! {
                biased;
                asked = accepted => match asked {
                    Some(Ok(asked)) => self.begin_stream(asked, (&chain, &config), &peer),
                    Some(Err(error)) => {
                        return tracing::debug!(peer = %self.peer, %error, "streams ended");
                    }
                    None => return,
                },
                () = self.drain.started(), if !is_draining => {
                    is_draining = true;
                    connection.graceful_shutdown();
                }
            }
        }
    }

    /// Serves one in a task of its own, which the drain waits for as it does for any connection.
    fn begin_stream(
        &self,
        (request, mut answer): Asked,
        (chain, config): (&Arc<Chain>, &Arc<TcpConfig>),
        peer: &tls::Peer,
    ) {
        if request.method() != Method::CONNECT {
            return answer.send_reset(Reason::PROTOCOL_ERROR);
        }
        let Some(counted) = Counted::admit(&self.listener) else {
            return answer.send_reset(Reason::CANCEL);
        };
        ClusterStats::count(&self.listener.live.streams);
        let open = (self.drain.token(), self.environment.drain.token(), counted);
        let mut connection = self.of_stream();
        connection.begin_line();
        let (chain, config, peer) = (Arc::clone(chain), Arc::clone(config), peer.clone());
        let io = StreamIo::accepted(answer, request.into_body());
        tokio::spawn(async move {
            let proxied = connection.proxy(io, (&chain, &config), None, Some(peer));
            Box::pin(proxied).await;
            drop(open);
        });
    }

    /// The same connection, as each stream has it: with the clusters of its own time.
    fn of_stream(&self) -> Connection {
        Connection {
            environment: Arc::clone(&self.environment),
            snapshot: self.environment.snapshot.load_full(),
            listener: Arc::clone(&self.listener),
            peer: self.peer,
            direct_peer: self.direct_peer,
            local: self.local,
            original_destination: self.original_destination,
            client_source: self.client_source,
            drain: self.drain.clone(),
            line: None,
        }
    }
}
