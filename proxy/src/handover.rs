//! A running proxy replaced by a newer one without a connection refused or a request lost.
//!
//! The newer process asks the older one over a unix socket for its listening sockets, gets itself ready with them,
//! and begins to accept; only then the older one stops accepting, finishes what it has begun, and ends. Envoy calls
//! it hot restart. Until the newer one says that it serves, the older one goes on as if nothing had happened.
//! [`successor`] is what the newer one does, [`predecessor`] what the older one does; here is what passes between
//! them, and what the newer one does with it.

mod conversation;
pub mod predecessor;
pub mod successor;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// How long a newer process may take until it serves.
pub const READY_LIMIT: Duration = Duration::from_secs(60);

/// The protocol between the two, for `/server_info`.
pub const VERSION: &str = "weft/1";

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A listener of the configuration, in the proxy's own network.
    Listener,
    /// The same in the host's network.
    HostListener,
    /// The admin interface.
    Admin,
    /// `/healthz/ready`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// What a listening socket is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketName {
    /// What it is for.
    pub role: Role,
    /// The listener's name; empty for the proxy's own ports.
    pub name: String,
    /// Where it was asked to listen; the port may be 0.
    pub address: SocketAddr,
}

impl SocketName {
    /// One of the proxy's own ports.
    pub fn own(role: Role, address: SocketAddr) -> Self {
        SocketName {
            role,
            name: String::new(),
            address,
        }
    }
}

/// How often a proxy has been replaced, and since when there has been one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// 0 for the first.
    pub number: u32,
    /// When the first was started, in seconds since 1970.
    pub first_started: u64,
}

impl Epoch {
    /// That of a proxy that replaces none.
    pub fn first(started: SystemTime) -> Self {
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Epoch {
            number: 0,
            first_started: since.as_secs(),
        }
    }

    /// That of whoever comes after.
    fn next(self) -> Self {
        Epoch {
            number: self.number.saturating_add(1),
            ..self
        }
    }
}

/// Sockets of the process that is replaced, and the moment from which they are accepted from. Without a
/// predecessor there are none, and the moment has come.
#[derive(Debug, Clone, Default)]
pub struct Inheritance {
    sockets: Arc<Mutex<Vec<(SocketName, TcpListener)>>>,
    entered: Option<CancellationToken>,
}

impl Inheritance {
    /// These sockets, not accepted from yet.
    fn of(sockets: Vec<(SocketName, TcpListener)>) -> Self {
        Inheritance {
            sockets: Arc::new(Mutex::new(sockets)),
            entered: Some(CancellationToken::new()),
        }
    }

    /// The socket of this name, or one that listens there for the same end.
    pub fn take(&self, wanted: &SocketName) -> Option<TcpListener> {
        let mut sockets = self.sockets.lock();
        let listens_there = |(name, socket): &(SocketName, TcpListener)| {
            name.role == wanted.role && socket.local_addr().is_ok_and(|at| at == wanted.address)
        };
        let position = sockets
            .iter()
            .position(|(name, _)| name == wanted)
            .or_else(|| sockets.iter().position(listens_there))?;
        Some(sockets.swap_remove(position).1)
    }

    /// Returns when connections may be accepted.
    pub async fn entered(&self) {
        if let Some(entered) = &self.entered {
            entered.cancelled().await;
        }
    }

    /// Lets connections be accepted, and closes what nobody has taken.
    pub fn enter(&self) {
        if let Some(entered) = &self.entered {
            entered.cancel();
        }
        for (name, _) in self.sockets.lock().drain(..) {
            tracing::info!(listener = name.name, address = %name.address, "no longer listened on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(role: Role, name: &str, address: &str) -> (SocketName, TcpListener) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let name = SocketName {
            role,
            name: name.to_owned(),
            address: address.parse().expect("an address"),
        };
        (name, socket)
    }

    #[test]
    fn a_socket_is_known_by_its_name_or_by_where_it_listens() {
        let (web, web_socket) = socket(Role::Listener, "web", "127.0.0.1:0");
        let (api, api_socket) = socket(Role::Listener, "api", "127.0.0.1:0");
        let listens = |socket: &TcpListener| socket.local_addr().expect("an address");
        let (web_at, api_at) = (listens(&web_socket), listens(&api_socket));
        let inheritance = Inheritance::of(vec![(web, web_socket), (api.clone(), api_socket)]);

        let other_role = SocketName::own(Role::Admin, web_at);
        assert!(inheritance.take(&other_role).is_none());
        let by_name = inheritance.take(&api).expect("api");
        assert_eq!(listens(&by_name), api_at);
        let renamed = SocketName {
            role: Role::Listener,
            name: "renamed".to_owned(),
            address: web_at,
        };
        assert_eq!(listens(&inheritance.take(&renamed).expect("web")), web_at);
        assert!(inheritance.take(&renamed).is_none(), "it is taken");
    }

    #[tokio::test]
    async fn what_nobody_takes_is_closed_when_accepting_begins() {
        let (name, socket) = socket(Role::Listener, "gone", "127.0.0.1:0");
        let address = socket.local_addr().expect("an address");
        let inheritance = Inheritance::of(vec![(name, socket)]);
        let waiting = tokio::spawn({
            let inheritance = inheritance.clone();
            async move { inheritance.entered().await }
        });

        inheritance.enter();

        waiting.await.expect("accepting has begun");
        let refused = std::net::TcpStream::connect(address).expect_err("closed");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
