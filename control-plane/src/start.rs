//! The whole control plane: started in order, watched together, ended together.
//!
//! The daemon calls [`start`] and then waits for [`Running::ended`]; `weft control-plane` and tests call [`run`].

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_proto::names::TRUST_DOMAIN;

use crate::admission;
use crate::api::tls::{self, TlsError};
use crate::api::{Api, Observed, Settings, server};
use crate::auth::{Token, TokenError};
use crate::mesh;
use crate::refusal::Refusal;
use crate::store::{self, Store};
use crate::xds::listen::ListenError;
use crate::xds::plane::{self, Observations, Plane, StartError};

/// File names below the home and the runtime directory.
const STATE: &str = "state.redb";
const TOKEN: &str = "token";
const OWNER_SOCKET: &str = "weft.sock";

/// Where the control plane keeps things, and where it is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// `$WEFT_HOME`: store, token, certificate authority. It must exist.
    pub home: PathBuf,
    /// `$WEFT_RUNTIME_DIR`: sockets. It must exist.
    pub runtime_dir: PathBuf,
    /// Where the API is served; port 0 picks one.
    pub api_address: SocketAddr,
    /// The node's gRPC socket.
    pub node_socket: PathBuf,
    /// The node's socket for connections into sandboxes.
    pub node_handoff: PathBuf,
    /// Where telemetry goes when no `Telemetry` says otherwise: `http://host:port`, OTLP over gRPC.
    pub telemetry_endpoint: Option<String>,
    /// When what goes from one sidecar to another shares a connection.
    pub sharing: mesh::Sharing,
    /// Where xDS is served to anybody, in plaintext, if at all.
    pub xds_insecure_address: Option<SocketAddr>,
}

/// Why the control plane cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What is always there could not be made.
    #[error("preparing the store")]
    Prepare(#[source] Refusal),
    /// The API's address.
    #[error(
        "the API cannot listen on {address}: is another mesh using it? choose another with --api-address"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The API's certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The owner's socket.
    #[error("making the socket {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Authority or xDS.
    #[error(transparent)]
    Plane(#[from] StartError),
    /// xDS ended by itself.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A task of it panicked.
    #[error("a part of the control plane ended unexpectedly")]
    Ended,
}

/// A control plane that serves.
pub struct Running {
    api_address: SocketAddr,
    store: Store,
    tasks: JoinSet<Result<(), Error>>,
    shutdown: CancellationToken,
}

/// Starts everything; when it returns, requests are answered.
///
/// # Errors
/// When something cannot be opened or bound; nothing is left running then.
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Running, Error> {
    let store = open_store(options.home.join(STATE)).await?;
    admission::initialize(&store)
        .await
        .map_err(Error::Prepare)?;
    let token = Token::open(&options.home.join(TOKEN))?;
    let listener = TcpListener::bind(options.api_address)
        .await
        .and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (api_address, tcp) = listener.map_err(|source| Error::Address {
        address: options.api_address,
        source,
    })?;
    let certificate = tls::open(&options.home, api_address)?;
    tls::write_kubeconfig(&options.home, api_address)?;
    let plane = Plane::start(plane_options(&options), &store, &shutdown)?;
    let settings = Settings {
        store: store.clone(),
        token,
        node_socket: options.node_socket.clone(),
        node_handoff: options.node_handoff.clone(),
        address: api_address,
        shutdown: shutdown.clone(),
    };
    let api = Api::new(settings, std::sync::Arc::new(plane.observations()));
    let path = options.runtime_dir.join(OWNER_SOCKET);
    let unix = server::bind_owner_socket(&path).map_err(|source| Error::Socket { path, source })?;

    let mut tasks = JoinSet::new();
    let served = server::serve_tcp(api.clone(), tcp, certificate, shutdown.clone());
    tasks.spawn(async move {
        served.await;
        Ok(())
    });
    let served = server::serve_unix(api, unix, shutdown.clone());
    tasks.spawn(async move {
        served.await;
        Ok(())
    });
    tasks.spawn(async move { plane.ended().await.map_err(Error::from) });
    tracing::info!(address = %api_address, "the control plane is serving");
    Ok(Running {
        api_address,
        store,
        tasks,
        shutdown,
    })
}

/// Starts everything and waits for its end.
///
/// # Errors
/// When it cannot start, or a part fails.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    start(options, shutdown).await?.ended().await
}

impl Running {
    /// Where the API is served: with the port that was picked.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// The objects of the mesh, for parts of the same process.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Waits for the end, after cancellation or the failure of a part, which ends the others.
    ///
    /// # Errors
    /// The failure of a part.
    pub async fn ended(mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.unwrap_or(Err(Error::Ended));
            if outcome.is_ok() {
                outcome = ended;
            }
            // Before the token is cancelled no part ends by itself.
            self.shutdown.cancel();
        }
        outcome
    }
}

async fn open_store(path: PathBuf) -> Result<Store, Error> {
    let opened = tokio::task::spawn_blocking(move || Store::open(&path)).await;
    Ok(opened.map_err(|_| Error::Ended)??)
}

fn plane_options(options: &Options) -> plane::Options {
    plane::Options {
        home: options.home.clone(),
        runtime_directory: options.runtime_dir.clone(),
        settings: mesh::Settings {
            trust_domain: TRUST_DOMAIN.to_owned(),
            otlp_endpoint: options.telemetry_endpoint.clone(),
            sharing: options.sharing,
        },
        insecure_address: options.xds_insecure_address,
    }
}

impl Observed for Observations {
    fn proxies(&self) -> Value {
        Self::proxies(self)
    }

    fn certificates(&self) -> Vec<Value> {
        Self::certificates(self)
    }
}
