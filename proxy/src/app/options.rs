//! How a proxy is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What to do with the bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Serve what it says.
    #[default]
    Serve,
    /// Only check it.
    Validate,
}

/// How a proxy is started. What is `None` or empty is as the role has it: a sidecar's ports, sockets and state
/// directory, or none of them.
#[derive(Debug, Clone)]
pub struct Options {
    /// The bootstrap, Envoy's, as YAML or JSON.
    pub config: PathBuf,
    /// What to do with it.
    pub mode: Mode,
    /// Whether it serves a pod: `weft_proto::names` tells its ports, sockets and directories.
    pub sidecar: bool,
    /// How many workers; 0: one for each processor.
    pub concurrency: usize,
    /// The socket broker's socket.
    pub broker_socket: Option<PathBuf>,
    /// Where key, certificate and the last good configuration are kept.
    pub state_dir: Option<PathBuf>,
    /// Whether an identity is had signed by the control plane.
    pub identity: Option<bool>,
    /// Where the admin interface listens; else where the bootstrap says.
    pub admin: Option<SocketAddr>,
    /// Where `/healthz/ready` is answered.
    pub health: Vec<SocketAddr>,
    /// Where `/metrics` is answered.
    pub metrics: Vec<SocketAddr>,
    /// The unix socket at which a running proxy is asked for its sockets, so that this one replaces it, and at
    /// which this one is asked later.
    pub handover: Option<PathBuf>,
    /// How long a proxy that is replaced may go on with what it has begun.
    pub parent_shutdown: Duration,
    /// How long requests in flight may take to end.
    pub drain_limit: Duration,
    /// Gives memory that was freed back to the system. Called after large answers of the admin interface, and when
    /// memory is short; it may take milliseconds.
    pub release_memory: fn(),
    /// The same, and what else only a change of configuration needed. Called when one is over; it may take milliseconds.
    pub settle: fn(),
}

/// As long as the launcher's grace leaves room for.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Envoy's `--parent-shutdown-time-s`, where none is given.
pub const PARENT_SHUTDOWN: Duration = Duration::from_secs(900);

impl Options {
    /// Serves this bootstrap, without the parts of a sidecar.
    pub fn new(config: impl Into<PathBuf>) -> Self {
        Self {
            config: config.into(),
            mode: Mode::Serve,
            sidecar: false,
            concurrency: 0,
            broker_socket: None,
            state_dir: None,
            identity: None,
            admin: None,
            health: vec![],
            metrics: vec![],
            handover: None,
            parent_shutdown: PARENT_SHUTDOWN,
            drain_limit: DRAIN_LIMIT,
            release_memory: || {},
            settle: || {},
        }
    }
}
