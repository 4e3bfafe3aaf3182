//! HTTP: the requests of one downstream connection.
//!
//! `connection` hands over the bytes and says what version they speak; `exchange` is what happens to each
//! request, and the file to read first.

mod affinity;
mod alarm;
mod asked;
mod attempt;
mod body;
mod completion;
mod decoration;
mod exchange;
mod expectation;
mod failure;
mod filter;
mod formatting;
mod forwarding;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod headers;
mod internal_redirect;
mod limits;
mod metered;
mod mirror;
mod outgoing;
mod path;
mod reply;
mod retry;
pub mod serve;
mod target;
mod upgrade;
mod validity;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::alarm::Alarm;
use crate::clock;
use crate::cluster::outlier::millis;
use crate::config::Network;
use crate::config::upstream_socket::ClientSource;
use crate::proxy_protocol::Endpoints;
use crate::snapshot::Snapshot;
use crate::snapshot::chain::{Chain, HttpService, Service};
use crate::telemetry::managers::{ManagedConnection, ManagerStats};
use crate::telemetry::report::{Downstream, Protocol};
use crate::upstream::HttpVersion;
use crate::upstream::environment::Environment;

/// What all requests of a downstream connection have in common.
pub struct HttpConnection {
    environment: Arc<Environment>,
    downstream: Arc<Downstream>,
    original_destination: Option<SocketAddr>,
    client_source: Option<ClientSource>,
    is_tls: bool,
    spoken: Spoken,
    is_published: bool,
    client_certificate: Option<HeaderValue>,
    chain: Arc<Chain>,
    scene: Mutex<Scene>,
    /// What filters keep of it.
    kept: Mutex<Vec<Kept>>,
    /// That of the request before: whoever is answered next need not set another.
    alarm: Mutex<Alarm>,
    active: AtomicU32,
    last_active: AtomicU64,
    /// Told when it is to end, and HTTP/2 has a frame to say so.
    leave: Notify,
    /// What its connection manager counts.
    managed: ManagedConnection,
    /// Whether its client has been told that the proxy drains.
    is_drained: AtomicBool,
}

/// What a filter keeps for all connections, and what it keeps of one.
type Kept = (Arc<dyn Any + Send + Sync>, Arc<dyn Any + Send + Sync>);

/// The configuration a request is served with, from its beginning to its end.
#[derive(Clone)]
struct Scene {
    snapshot: Arc<Snapshot>,
    service: Arc<HttpService>,
}

/// What a connection speaks, and what the requests are of that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// What its bytes are.
    pub version: HttpVersion,
    /// What its requests are answered as.
    pub requests: HttpVersion,
}

impl Spoken {
    /// A connection of HTTP/2 that requests of HTTP/1.1 share.
    pub const SHARED_HTTP1: Spoken = Spoken {
        version: HttpVersion::Http2,
        requests: HttpVersion::Http1,
    };
}

impl From<HttpVersion> for Spoken {
    /// As ever: one and the same.
    fn from(version: HttpVersion) -> Self {
        Spoken {
            version,
            requests: version,
        }
    }
}

/// How a connection came in.
pub struct Entry {
    /// The client's side.
    pub downstream: Arc<Downstream>,
    /// Where it was going before it was redirected.
    pub original_destination: Option<SocketAddr>,
    /// The client's address, where connections to upstreams are to have it.
    pub client_source: Option<ClientSource>,
    /// What it speaks.
    pub spoken: Spoken,
    /// Its place among those of its connection manager.
    pub managed: ManagedConnection,
    /// Whether it is in TLS.
    pub is_tls: bool,
    /// In whose network it was accepted.
    pub network: Network,
    /// The verified peer, as an element of `x-forwarded-client-cert`.
    pub client_certificate: Option<HeaderValue>,
    /// The chain that was chosen for it.
    pub chain: Arc<Chain>,
}

impl HttpConnection {
    /// A connection that is about to be served.
    pub fn new(
        environment: Arc<Environment>,
        snapshot: Arc<Snapshot>,
        service: Arc<HttpService>,
        entry: Entry,
    ) -> Arc<Self> {
        let mut managed = entry.managed;
        managed.speak(match entry.spoken.version {
            HttpVersion::Http1 => Protocol::Http11,
            HttpVersion::Http2 => Protocol::Http2,
        });
        Arc::new(HttpConnection {
            environment,
            downstream: entry.downstream,
            original_destination: entry.original_destination,
            client_source: entry.client_source,
            is_tls: entry.is_tls,
            spoken: entry.spoken,
            is_published: entry.network == Network::Host,
            client_certificate: entry.client_certificate,
            chain: entry.chain,
            scene: Mutex::new(Scene { snapshot, service }),
            kept: Mutex::default(),
            alarm: Mutex::default(),
            active: AtomicU32::new(0),
            last_active: AtomicU64::new(millis(Instant::now())),
            leave: Notify::new(),
            managed,
            is_drained: AtomicBool::new(false),
        })
    }

    /// What its connection manager counts.
    fn stats(&self) -> &Arc<ManagerStats> {
        self.managed.stats()
    }

    /// Whether there are requests in flight.
    fn has_requests(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// The ends of the client's connection.
    fn ends(&self) -> Endpoints {
        Endpoints {
            source: self.downstream.peer,
            destination: self.downstream.local,
        }
    }

    /// The current configuration. Where the connection's listener or chain is gone, the last one it had.
    fn scene(&self) -> Scene {
        let mut scene = self.scene.lock();
        let current = self.environment.snapshot.load();
        if !Arc::ptr_eq(&scene.snapshot, &current) {
            if let Some(service) = self.successor(&current) {
                scene.service = service;
            }
            scene.snapshot = Arc::clone(&current);
        }
        scene.clone()
    }

    fn successor(&self, snapshot: &Snapshot) -> Option<Arc<HttpService>> {
        let listener = snapshot.listeners.get(&self.downstream.listener)?;
        match &listener.successor_of(&self.chain)?.service {
            Service::Http(service) => Some(Arc::clone(service)),
            Service::Tcp(_) => None,
        }
    }

    /// What a filter keeps of this connection, in place of what it keeps for all: made on first use.
    fn kept<T: Any + Send + Sync>(&self, of_all: &Arc<T>, make: impl FnOnce() -> T) -> Arc<T> {
        let is_it = |(one, _): &&Kept| std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(of_all));
        let mut kept = self.kept.lock();
        if let Some((_, own)) = kept.iter().find(is_it)
            && let Ok(own) = Arc::clone(own).downcast()
        {
            return own;
        }
        let own = Arc::new(make());
        // What is kept for all is held on to, so that nothing else is ever found at its place.
        kept.push((Arc::clone(of_all) as _, Arc::clone(&own) as _));
        own
    }

    /// The connection's alarm; one that is not set where another request has it.
    fn lend_alarm(&self) -> Alarm {
        std::mem::take(&mut *self.alarm.lock())
    }

    /// For the next request, if it is set.
    fn take_alarm_back(&self, alarm: Alarm) {
        if alarm.is_set() {
            let _before = std::mem::replace(&mut *self.alarm.lock(), alarm);
        }
    }

    fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// How long, in milliseconds, it has been without a request; 0 while there is one.
    fn idle_millis(&self) -> u64 {
        if self.active.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        millis(Instant::now()).saturating_sub(self.last_active.load(Ordering::Relaxed))
    }
}

/// A request in flight on its downstream connection.
struct ActiveRequest(Arc<HttpConnection>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let now = millis(clock::now());
        self.0.last_active.store(now, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
