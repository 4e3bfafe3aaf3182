//! Accepting connections and placing each on the next worker.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Placement;
use crate::cluster::stats::ClusterStats;
use crate::config::listener::OverloadPolicy;
use crate::connection::{self, Accepted};
use crate::drain::Drain;
use crate::handover::Inheritance;
use crate::snapshot::listener::Listener;
use crate::upstream::environment::Environment;

/// A listening socket at work.
pub(super) struct Accepting {
    pub(super) environment: Arc<Environment>,
    pub(super) placement: Arc<dyn Placement>,
    pub(super) name: Arc<str>,
    /// As it was when the last connection came: what is accepted while it is being removed is served by it.
    pub(super) listener: Arc<Listener>,
    /// Where all its connections arrive; `None`: each may arrive elsewhere, and is asked.
    pub(super) local: Option<SocketAddr>,
    pub(super) drain: Drain,
}

/// The pause after the first failure in a row; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Accepting {
    /// Accepts, when the time has come, until the drain starts.
    pub(super) async fn run(
        mut self,
        listener: Arc<AsyncFd<TcpListener>>,
        inheritance: Inheritance,
    ) {
        tokio::select! {
            () = inheritance.entered() => {}
            () = self.drain.started() => return,
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener) => accepted,
                () = self.drain.started() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    self.place(stream, peer);
                }
                // The client gave up before we came; the next one has not.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Out of descriptors or memory: the connection stays in the backlog, and asking again at once
                // would only burn the time that others need to finish.
                Err(error) => {
                    tracing::warn!(listener = %self.name, %error, "accepting pauses");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The next connection; while the proxy is short of something, they wait in the backlog.
    async fn accept(&self, listener: &AsyncFd<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
        if self.listener.config.overload != OverloadPolicy::Bypassed {
            self.environment.overload.accepting().await;
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accept = |listener: &TcpListener| Ok(acceptfrom_with(listener, flags)?);
        let (socket, peer) = listener.async_io(Interest::READABLE, accept).await?;
        let peer = peer.and_then(|peer| peer.try_into().ok());
        let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok((TcpStream::from(socket), peer))
    }

    fn place(&mut self, stream: TcpStream, peer: SocketAddr) {
        let Ok(local) = self.local.map_or_else(|| stream.local_addr(), Ok) else {
            return;
        };
        let environment = Arc::clone(&self.environment);
        if let Some(newer) = environment.snapshot.load().listeners.get(&self.name) {
            self.listener = Arc::clone(newer);
        }
        let Some(admitted) = environment.overload.admit(self.listener.config.overload) else {
            ClusterStats::count(&self.listener.live.refused_in_overload);
            return tracing::debug!(%peer, "connection refused: too many, or too little memory");
        };
        let listener = Arc::clone(&self.listener);
        let drain = self.drain.clone();
        // IPv4 on a socket of both families is IPv4.
        let canonical =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let accepted = Accepted {
            stream,
            peer: canonical(peer),
            local: canonical(local),
            listener,
        };
        // Boxed before it is made: the runtime moves what it is given six times.
        let room = Box::new_uninit();
        let served = Box::write(room, async move {
            connection::serve(environment, accepted, drain).await;
            drop(admitted);
        });
        self.placement.next().spawn(Box::into_pin(served));
    }
}
