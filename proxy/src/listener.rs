//! Listening sockets: bound where listeners say so, kept while nothing about their address changes.
//!
//! `DataPlane` reconciles after every new snapshot. A listener that is removed stops accepting and its
//! connections finish; one that is changed otherwise keeps its socket and its connections.

mod accept;
mod bind;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use crate::config::Network;
use crate::config::listener::socket::SocketSettings;
use crate::config::listener::{Binding, ListenerConfig};
use crate::drain::Drain;
use crate::handover::{Inheritance, Role, SocketName};
use crate::snapshot::Snapshot;
use crate::snapshot::listener::Listener;
use crate::sys;
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
    inheritance: Inheritance,
    bound: HashMap<Socket, Bound>,
}

/// What a socket is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Socket {
    listener: Arc<str>,
    address: SocketAddr,
    is_host: bool,
    settings: SocketSettings,
}

impl Socket {
    /// What another process knows it by.
    fn name(&self) -> SocketName {
        let role = match self.is_host {
            true => Role::HostListener,
            false => Role::Listener,
        };
        SocketName {
            role,
            name: self.listener.to_string(),
            address: self.address,
        }
    }
}

/// A socket that is being accepted from.
struct Bound {
    drain: Drain,
    address: SocketAddr,
    /// Closed by whoever accepts from it, when it drains.
    socket: Weak<AsyncFd<TcpListener>>,
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
    /// None yet. What is inherited is used where it is asked for, and accepted from when the time has come.
    pub fn new(
        environment: Arc<Environment>,
        placement: Arc<dyn Placement>,
        inheritance: Inheritance,
    ) -> Self {
        Listeners {
            environment,
            placement,
            inheritance,
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

    /// Copies of all sockets, for a process that is to accept from them too.
    pub fn sockets(&self) -> io::Result<Vec<(SocketName, OwnedFd)>> {
        let open = self.bound.iter().filter_map(|(socket, bound)| {
            let listening = bound.socket.upgrade()?;
            let copy = listening.as_fd().try_clone_to_owned();
            Some(copy.map(|copy| (socket.name(), copy)))
        });
        open.collect()
    }

    async fn bind(&self, socket: &Socket, listener: Arc<Listener>) -> io::Result<Bound> {
        let bound = match self.inheritance.take(&socket.name()) {
            Some(inherited) => inherited,
            None => self.listen(socket).await?,
        };
        let address = bound.local_addr()?;
        // Connections have it from the socket they are accepted from. Requests and responses are written whole: nothing
        // is won by waiting for more.
        SockRef::from(&bound).set_tcp_nodelay(true)?;
        let handle = self.placement.next();
        let bound = {
            let _reactor = handle.enter();
            Arc::new(sys::watch_listener(bound)?)
        };
        let drain = self.environment.drain.child();
        let accepting = accept::Accepting {
            environment: Arc::clone(&self.environment),
            placement: Arc::clone(&self.placement),
            name: Arc::clone(&socket.listener),
            listener,
            local: only_address(address, &socket.settings),
            drain: drain.clone(),
        };
        let kept = Arc::downgrade(&bound);
        handle.spawn(accepting.run(bound, self.inheritance.clone()));
        self.environment
            .changes
            .bound
            .fetch_add(1, Ordering::Relaxed);
        tracing::info!(listener = %socket.listener, %address, "listening");
        Ok(Bound {
            drain,
            address,
            socket: kept,
        })
    }

    async fn listen(&self, socket: &Socket) -> io::Result<TcpListener> {
        if !socket.is_host {
            return bind::listen(socket.address, &socket.settings);
        }
        let host = &self.environment.upstreams.host_network;
        host.listen(socket.address).await
    }
}

/// The address that all connections of a socket arrive at, where that is sure: options can have it take those of others.
fn only_address(bound: SocketAddr, settings: &SocketSettings) -> Option<SocketAddr> {
    let takes_others = settings.is_transparent || !settings.options.is_empty();
    (!bound.ip().is_unspecified() && !takes_others).then_some(bound)
}

fn sockets(config: &ListenerConfig) -> impl Iterator<Item = Socket> + '_ {
    let addresses = config.addresses.iter().enumerate();
    addresses.map(|(index, address)| Socket {
        listener: Arc::clone(&config.name),
        address: *address,
        is_host: config.network == Network::Host,
        settings: config.sockets.get(index).cloned().unwrap_or_default(),
    })
}
