//! `weft daemon`: control plane, launcher and socket broker in one process.
//!
//! It can end at any time, by a signal or without one: pods, sidecars and their traffic go on, and the next daemon
//! adopts them. Only when it is asked to shut down, and nothing runs any more, does the node end with it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use weft_control_plane as control_plane;
use weft_control_plane::kinds;
use weft_control_plane::mesh::Sharing;
use weft_control_plane::store::Snapshot;
use weft_injector::api::Client;
use weft_injector::broker::{Broker, BrokerOptions, DialPolicy, SameUserNamespace};
use weft_injector::launcher;
use weft_proto::names;
use weft_runtime::bootstrap::{Node, NodeOptions, ensure_node};

use crate::arguments::Global;
use crate::failure::{Failure, chain};
use crate::paths::Paths;

#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Where API and page are served; port 0 picks one
    #[arg(long, env = "WEFT_API_ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], weft_proto::names::API_PORT)))]
    api_address: SocketAddr,
    /// Whether sidecars of this machine speak over local channels instead of TCP with TLS
    #[arg(long, env = "WEFT_LOCAL_CHANNELS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    local_channels: bool,
    /// Whether requests of HTTP/1.1, and opaque connections with TLS, share one connection between two sidecars
    #[arg(
        long,
        env = "WEFT_SHARED_CONNECTIONS",
        default_value = "busy",
        value_name = "WHEN"
    )]
    shared_connections: SharedConnections,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SharedConnections {
    /// Each has a connection of its own
    #[value(alias = "false")]
    Never,
    /// Requests do where many are in flight
    Busy,
    /// All do, which saves most where connections are short
    #[value(alias = "true")]
    Always,
}

impl From<SharedConnections> for Sharing {
    fn from(shared: SharedConnections) -> Self {
        match shared {
            SharedConnections::Never => Sharing::Never,
            SharedConnections::Busy => Sharing::WhenBusy,
            SharedConnections::Always => Sharing::Always,
        }
    }
}

/// Runs until a signal or a shutdown request.
pub(crate) async fn run(global: &Global, daemon: Daemon) -> Result<ExitCode, Failure> {
    log_to_stderr(global.verbose);
    let paths = Paths::of_environment()?;
    paths.create()?;
    let _lock = lock(&paths)?;
    std::fs::write(paths.daemon_pid(), format!("{}\n", std::process::id()))?;

    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    let outcome = serve(&paths, &daemon, &shutdown).await;
    tidy(&paths);
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Removes what is of no use without a daemon; all of the runtime directory where the node has ended too.
fn tidy(paths: &Paths) {
    let node_is_there = paths.node_socket_dir().join("node.sock").exists();
    let removed = match node_is_there {
        true => [paths.socket(), paths.daemon_pid()]
            .iter()
            .try_for_each(std::fs::remove_file),
        false => std::fs::remove_dir_all(&paths.runtime_dir),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, "the runtime directory could not be tidied up");
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEFT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("warn,weft={level},weft_control_plane={level},weft_injector={level},weft_runtime={level}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

/// One daemon for each runtime directory.
fn lock(paths: &Paths) -> Result<Flock<File>, Failure> {
    let file = File::create(paths.runtime_dir.join("daemon.lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        Failure::new(format!(
            "another daemon runs in {}: {error}",
            paths.runtime_dir.display()
        ))
    })
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            // The terminal it was started from may go away.
            _ = hangup.recv() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    shutdown.cancel();
}

/// Starts node, broker, control plane and launcher in this order, and waits for the end of any.
async fn serve(
    paths: &Paths,
    daemon: &Daemon,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let node_options = NodeOptions {
        state_dir: paths.node_state(),
        runtime_dir: paths.node_socket_dir(),
        broker_socket: paths.pods().join(names::BROKER_SOCKET),
    };
    let node = ensure_node(&node_options)
        .await
        .map_err(|error| Failure::new(chain(&error)))?;
    info!(
        holder = node.holder_pid,
        adopted = node.adopted,
        "the node is there"
    );

    let telemetry = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT")
        .ok()
        .filter(|endpoint| !endpoint.is_empty());
    let options = control_plane::Options {
        home: paths.home.clone(),
        runtime_dir: paths.runtime_dir.clone(),
        api_address: daemon.api_address,
        node_socket: node.socket.clone(),
        node_handoff: node.handoff.clone(),
        telemetry_endpoint: telemetry.clone(),
        sharing: daemon.shared_connections.into(),
        xds_insecure_address: None,
    };
    let broker = open_broker(paths, &node, daemon.local_channels, telemetry.as_deref())?;
    let running = control_plane::start(options, shutdown.clone())
        .await
        .map_err(|error| Failure::new(chain(&error)))?;

    let allowing = tokio::spawn(allow_endpoints(broker.clone(), running.store().subscribe()));
    let launcher = launcher::run(
        launcher::Options {
            client: Client::unix(paths.socket()),
            node: node.client.clone(),
            handoff: node.handoff.clone(),
            pods_dir: paths.pods(),
            scratch_dir: paths.home.join("scratch"),
            broker: broker.clone(),
        },
        shutdown.clone(),
    );
    let broker = {
        let shutdown = shutdown.clone();
        tokio::spawn(async move { broker.serve(shutdown).await })
    };
    let launched = launcher.await;
    if let Err(error) = &launched {
        error!(error = chain(error), "the launcher failed");
    }
    shutdown.cancel();
    allowing.abort();
    let ended = running.ended().await;
    let _ = broker.await;
    launched.map_err(|error| Failure::new(chain(&error)))?;
    ended.map_err(|error| Failure::new(chain(&error)))
}

fn open_broker(
    paths: &Paths,
    node: &Node,
    has_local_channels: bool,
    telemetry: Option<&str>,
) -> Result<Broker, Failure> {
    let attestor = SameUserNamespace::as_process(node.holder_pid)
        .map_err(|error| Failure::new(chain(&error)))?;
    std::fs::create_dir_all(paths.pods())?;
    let broker = Broker::bind(BrokerOptions {
        socket: paths.pods().join(names::BROKER_SOCKET),
        attestor: Arc::new(attestor),
        dial: DialPolicy::default(),
        has_local_channels,
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
    })
    .map_err(|error| Failure::new(chain(&error)))?;
    for address in telemetry.into_iter().flat_map(addresses_of) {
        broker.allow(address);
    }
    Ok(broker)
}

/// Lets sidecars reach the receivers that `Telemetry` resources name, from now on.
async fn allow_endpoints(broker: Broker, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut known = BTreeSet::new();
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let endpoints: BTreeSet<String> = snapshot
            .list(&kinds::TELEMETRY, None)
            .filter_map(|telemetry| {
                telemetry
                    .value()
                    .pointer("/spec/tracing/endpoint")?
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        if endpoints != known {
            known.clone_from(&endpoints);
            // Names of hosts are looked up by the system, which may take its time.
            let addresses = tokio::task::spawn_blocking(move || {
                endpoints
                    .iter()
                    .flat_map(|endpoint| addresses_of(endpoint))
                    .collect::<Vec<_>>()
            });
            for address in addresses.await.unwrap_or_default() {
                broker.allow(address);
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Where telemetry goes is the operator's word: it may be the host's own loopback.
fn addresses_of(endpoint: &str) -> Vec<SocketAddr> {
    let authority = endpoint
        .split("://")
        .last()
        .unwrap_or(endpoint)
        .split('/')
        .next()
        .unwrap_or_default();
    match authority.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            tracing::warn!(endpoint, %error, "the OTLP endpoint has no address; telemetry is not sent");
            Vec::new()
        }
    }
}
