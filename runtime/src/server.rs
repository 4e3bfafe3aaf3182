//! `weft node-server`: `weft.node.v1` on a unix socket, the hand-off socket, and the mesh DNS.
//!
//! It keeps nothing that it could not find again: sandboxes and containers are on disk, shims on their sockets.
//! Killed at any time, its successor adopts them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use weft_proto::weft::node::v1::node_server::NodeServer;

use crate::bootstrap::NodeOptions;
use crate::dns::{Dns, DnsError, DnsSockets};
use crate::image::{ImageError, ImageStore};
use crate::network::{Network, NetworkError};
use crate::node::{Boot, chain};
use crate::{build_step, files};

mod archive;
mod blueprint;
mod containers;
mod exec;
mod failure;
mod handoff;
mod images;
mod logs;
mod mounts;
pub(crate) mod programs;
mod sandboxes;
mod service;
mod watch;

use containers::Containers;
use sandboxes::Sandboxes;

/// How long calls that are under way may take once the mesh ends.
const DRAIN: Duration = Duration::from_secs(5);
/// Larger messages are refused: archives come in chunks, rules and names are text.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("{0}")]
    Usage(String),
    #[error("{doing}")]
    System { doing: String, source: io::Error },
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(transparent)]
    Images(#[from] ImageError),
    #[error("serving the node's API")]
    Serve(#[from] tonic::transport::Error),
}

impl ServerError {
    fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ServerError {
        let doing = doing.into();
        move |source| ServerError::System { doing, source }
    }
}

/// What all calls share.
pub(crate) struct Shared {
    options: NodeOptions,
    boot: Boot,
    network: Network,
    dns: Arc<Dns>,
    images: Arc<ImageStore>,
    sandboxes: Sandboxes,
    containers: Containers,
    runner: build_step::BuildRunner,
    /// The mesh ends.
    ending: CancellationToken,
}

/// The server's process. The first line of output says `ready`, or why not; exit status 0 means the mesh has ended.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    log_to_stderr();
    prepare_process();
    let served = NodeOptions::from_arguments(arguments)
        .map_err(ServerError::Usage)
        .and_then(|options| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(ServerError::system("starting a runtime"))?
                .block_on(serve(options))
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads it once the server has been ready.
            let _ = writeln!(io::stdout(), "{}", chain(&error));
            tracing::error!(error = chain(&error), "the node's server ends");
            ExitCode::FAILURE
        }
    }
}

/// The holder waits for signals, and its children begin as it is; they also begin with few open files.
fn prepare_process() {
    let unblocked = nix::sys::signal::SigSet::empty().thread_set_mask();
    let files = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = unblocked.and(files) {
        tracing::warn!(%errno, "signals or limits are not as they should be");
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,hickory_server=warn,netlink_proto=warn")
    });
    // Set once in this process, by us.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
}

async fn serve(options: NodeOptions) -> Result<(), ServerError> {
    let sockets = DnsSockets::take().map_err(DnsError::Sockets)?;
    let shared = open(options).await?;
    sandboxes::adopt(&shared).await;
    // What a name means depends on who asks, so clients are known before the first answer.
    let mut dns = shared.dns.serve(sockets)?;
    containers::adopt(&shared).await;

    let node = listen(&shared.options.socket())?;
    let handoff = listen(&shared.options.handoff())?;
    let handing = tokio::spawn(handoff::serve(Arc::clone(&shared), handoff));
    let ending = shared.ending.clone();
    let api = NodeServer::new(service::Service(Arc::clone(&shared)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let ending_on_signal = tokio::spawn(end_on_signal(Arc::clone(&shared)));
    println!("ready");
    let serving = Server::builder()
        .add_service(api)
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(node),
            ending.clone().cancelled_owned(),
        );
    let drained = async {
        ending.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let served = tokio::select! {
        served = serving => served,
        // A watch never ends by itself.
        () = drained => Ok(()),
    };
    handing.abort();
    ending_on_signal.abort();
    // Whoever still asks gets no answer; the namespaces end anyway.
    let _ = dns.shutdown_gracefully().await;
    Ok(served?)
}

/// SIGTERM comes from the holder, which was sent it by a supervisor or a terminal.
async fn end_on_signal(shared: Arc<Shared>) {
    let Ok(mut signals) = signal(SignalKind::terminate()) else {
        return;
    };
    while signals.recv().await.is_some() {
        match end(&shared).await {
            Ok(()) => return,
            Err(failure) => tracing::error!(failure = chain(&failure), "the mesh does not end"),
        }
    }
}

/// Ends every container, removes every sandbox, and lets the server end.
async fn end(shared: &Arc<Shared>) -> Result<(), failure::Failure> {
    for sandbox in shared.sandboxes.list() {
        sandboxes::remove(shared, &sandbox.id).await?;
    }
    shared.ending.cancel();
    Ok(())
}

async fn open(options: NodeOptions) -> Result<Arc<Shared>, ServerError> {
    let boot = files::read_json::<Boot>(&options.runtime_dir.join(Boot::FILE))
        .and_then(|boot| boot.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(ServerError::system(
            "reading boot.json, which `weft node` writes",
        ))?;
    let network = Network::open(&options.runtime_dir).await?;
    let directory = options.state_dir.join("images");
    let images = tokio::task::spawn_blocking(move || ImageStore::open(&directory))
        .await
        .map_err(|error| ServerError::system("opening the image store")(error.into()))??;
    Ok(Arc::new(Shared {
        runner: build_step::BuildRunner::new(
            &options.program(),
            options.state_dir.join("containers"),
        ),
        dns: Dns::open(&options.broker_socket, &options.runtime_dir)?,
        images: Arc::new(images),
        sandboxes: Sandboxes::default(),
        containers: Containers::default(),
        ending: CancellationToken::new(),
        options,
        boot,
        network,
    }))
}

/// A socket that only its owner can open. One that an earlier server left is replaced.
fn listen(path: &Path) -> Result<UnixListener, ServerError> {
    let doing = format!("listening on {}", path.display());
    files::remove(path)
        .and_then(|()| {
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        })
        .map_err(ServerError::system(doing))
}
