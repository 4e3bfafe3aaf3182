//! The API: Kubernetes-shaped resources, and weft's own requests below `/weft/v1`.
//!
//! Served on TCP for whoever holds the token, and on a unix socket for the mesh's owner. Every body has a size limit,
//! every wait a deadline, watches and uploads are counted.

pub mod apply;
mod body;
mod discovery;
mod fields;
mod health;
mod node;
mod openapi;
mod patch;
mod pods;
mod query;
mod read;
mod request;
mod resources;
mod response;
mod selector;
pub mod server;
mod strategic;
mod table;
pub(crate) mod tls;
mod watch;
mod weft;
mod write;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use node::Node;

use crate::auth::Token;
use crate::refusal::Refusal;
use crate::store::Store;

/// How many watches and followed logs there may be at once.
const STREAMS: usize = 1024;
/// How many images may be taken in at once.
const UPLOADS: usize = 4;
/// How long a request that does not stream may take.
const REQUEST: Duration = Duration::from_secs(30);

/// What the API tells of the parts that are not its own.
pub trait Observed: Send + Sync + 'static {
    /// Connected proxies: `{"revision": …, "proxies": […]}`.
    fn proxies(&self) -> Value;
    /// Certificates that still hold: `[{"spiffeId", "serial", "notAfter"}]`.
    fn certificates(&self) -> Vec<Value>;
}

/// What the API is made from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where objects are.
    pub store: Store,
    /// Who may use it over TCP.
    pub token: Token,
    /// The node's gRPC socket.
    pub node_socket: PathBuf,
    /// The node's socket for connections into sandboxes.
    pub node_handoff: PathBuf,
    /// Where it is served.
    pub address: SocketAddr,
    /// Ends the daemon when cancelled, and the API with it.
    pub shutdown: CancellationToken,
}

/// What all requests share.
pub(crate) struct Api {
    store: Store,
    token: Token,
    node: Node,
    node_handoff: PathBuf,
    address: SocketAddr,
    observed: Arc<dyn Observed>,
    shutdown: CancellationToken,
    started: Instant,
    streams: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

impl Api {
    /// Puts it together; nothing is served yet.
    pub(crate) fn new(settings: Settings, observed: Arc<dyn Observed>) -> Arc<Self> {
        Arc::new(Self {
            node: Node::at(&settings.node_socket),
            store: settings.store,
            token: settings.token,
            node_handoff: settings.node_handoff,
            address: settings.address,
            observed,
            shutdown: settings.shutdown,
            started: Instant::now(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
        })
    }

    /// Every path there is.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/version", get(health::version))
            .route("/healthz", get(health::alive))
            .route("/livez", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/api", get(discovery::core_versions))
            .route("/apis", get(discovery::groups))
            .route("/openapi/v2", get(openapi::version_2))
            .route("/openapi/v3", get(openapi::index))
            .route("/openapi/v3/{*group}", get(openapi::version_3))
            .route("/api/{*path}", any(resources::dispatch))
            .route("/apis/{*path}", any(resources::dispatch))
            .nest("/weft/v1", weft::router())
            .fallback(unknown_path)
            .layer(axum::middleware::from_fn_with_state(
                Arc::clone(self),
                server::authenticate,
            ))
            // Limits are the handlers' own: they differ by what the body is.
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(self))
    }
}

async fn unknown_path(uri: http::Uri) -> Refusal {
    Refusal::NotFound {
        resource: "paths".to_owned(),
        name: uri.path().to_owned(),
    }
}
