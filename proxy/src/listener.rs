//! Listening sockets: bound where listeners say so, kept while nothing about their address changes.
//!
//! `DataPlane` reconciles after every new snapshot. A listener that is removed stops accepting and its
//! connections finish; one that is changed otherwise keeps its socket and its connections.

mod accept;
mod bind;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Network;
use crate::config::listener::{Binding, ListenerConfig};
use crate::drain::Drain;
use crate::snapshot::Snapshot;
use crate::snapshot::listener::Listener;
use crate::upstream::environment::Environment;

/// Where work runs.
pub trait Placement: Send + Sync + 'static {
    /// The runtime for the next piece of work.
    fn next(&self) -> Handle;
}

/// All listening sockets.
pub struct Listeners {
    environment: Arc<Environment>,
    placement: Arc<dyn Placement>,
    bound: HashMap<Socket, Bound>,
}

/// What a socket is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Socket {
    listener: Arc<str>,
    address: SocketAddr,
    is_host: bool,
}

/// A socket that is being accepted from.
struct Bound {
    drain: Drain,
    address: SocketAddr,
}

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}")]
pub struct BindFailure {
    /// The listener.
    pub listener: Arc<str>,
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

impl Listeners {
    /// None yet.
    pub fn new(environment: Arc<Environment>, placement: Arc<dyn Placement>) -> Self {
        Listeners {
            environment,
            placement,
            bound: HashMap::new(),
        }
    }

    /// Makes the sockets those of the snapshot. What cannot be bound is reported, and tried again next time.
    pub async fn reconcile(&mut self, snapshot: &Snapshot) -> Vec<BindFailure> {
        let wanted: Vec<Socket> = snapshot
            .listeners
            .values()
            .filter(|listener| listener.config.binding == Binding::Bound)
            .flat_map(|listener| sockets(&listener.config))
            .collect();
        self.bound.retain(|socket, bound| {
            let stays = wanted.contains(socket);
            if !stays {
                tracing::info!(listener = %socket.listener, address = %socket.address, "listener drains");
                bound.drain.start();
            }
            stays
        });
        let mut failures = vec![];
        for socket in wanted {
            if self.bound.contains_key(&socket) {
                continue;
            }
            let Some(listener) = snapshot.listeners.get(&socket.listener) else {
                continue;
            };
            match self.bind(&socket, Arc::clone(listener)).await {
                Ok(bound) => {
                    self.bound.insert(socket, bound);
                }
                Err(source) => failures.push(BindFailure {
                    listener: socket.listener,
                    address: socket.address,
                    source,
                }),
            }
        }
        failures
    }

    /// Where a listener really listens: tells the port that the system chose.
    pub fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        let of = self
            .bound
            .iter()
            .filter(|(socket, _)| &*socket.listener == listener);
        of.map(|(_, bound)| bound.address).collect()
    }

    async fn bind(&self, socket: &Socket, listener: Arc<Listener>) -> io::Result<Bound> {
        let bound = if socket.is_host {
            self.environment
                .upstreams
                .host_network
                .listen(socket.address)
                .await?
        } else {
            bind::listen(socket.address)?
        };
        let address = bound.local_addr()?;
        let drain = self.environment.drain.child();
        let accepting = accept::Accepting {
            environment: Arc::clone(&self.environment),
            placement: Arc::clone(&self.placement),
            name: Arc::clone(&socket.listener),
            listener,
            drain: drain.clone(),
        };
        self.placement.next().spawn(accepting.run(bound));
        tracing::info!(listener = %socket.listener, %address, "listening");
        Ok(Bound { drain, address })
    }
}

fn sockets(config: &ListenerConfig) -> impl Iterator<Item = Socket> + '_ {
    config.addresses.iter().map(|address| Socket {
        listener: Arc::clone(&config.name),
        address: *address,
        is_host: config.network == Network::Host,
    })
}
