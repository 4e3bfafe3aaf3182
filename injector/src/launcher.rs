//! Runs pods on this machine: a Deployment, Job and Pod controller over the container runtime's node.
//!
//! The daemon starts it beside the control plane, of which it is a client like any other. It holds no state that
//! matters: what runs is known to the node, what should run to the API, so it can be killed and started again at
//! any time, and goes on with the pods it finds.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{info, warn};
use weft_proto::weft::node::v1::InfoRequest;
use weft_proto::weft::node::v1::node_client::NodeClient;

use crate::api::Client;
use crate::broker::Broker;
use crate::inject::InjectOptions;

mod container;
mod dependencies;
mod deployments;
mod environment;
mod failure;
mod handoff;
mod jobs;
mod listening;
mod names;
mod node;
mod pod;
mod pods;
mod probes;
mod quantity;
mod rollout;
mod scratch;
mod sources;
mod status;
mod template;
mod volumes;
mod watches;
mod world;

use handoff::HandOff;
use listening::Listening;
use node::Node;
use scratch::Scratch;
use world::World;

/// Who owns the fields that the launcher writes.
const FIELD_MANAGER: &str = "weft-launcher";
/// How long the node may take to answer at the start.
const NODE_DEADLINE: Duration = Duration::from_secs(30);
/// Pods that are being started at once: more would only get in each other's way.
const STARTING: usize = 8;

/// What the launcher works with.
pub struct Options {
    /// The control plane's API.
    pub client: Client,
    /// The container runtime.
    pub node: NodeClient<Channel>,
    /// The node's hand-off socket.
    pub handoff: PathBuf,
    /// The folder with the sockets of control plane and broker, which sidecars see as `/run/weft`.
    pub pods_dir: PathBuf,
    /// Where `emptyDir` volumes are made; a folder of its own.
    pub scratch_dir: PathBuf,
    /// Takes the ports that pods publish.
    pub broker: Broker,
}

/// Why the launcher could not start.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The runtime does not answer.
    #[error("asking the node who it is: {0}")]
    Node(String),
    /// The node's answer makes no sense.
    #[error("the node says that its gateway is {0:?}, which is no address")]
    Gateway(String),
    /// The folder for volumes cannot be had.
    #[error("preparing {}", path.display())]
    Scratch {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What all parts of the launcher share.
struct Context {
    client: Client,
    node: Node,
    handoff: HandOff,
    broker: Broker,
    inject: InjectOptions,
    gateway: Gateway,
    scratch: Scratch,
    world: World,
    listening: Listening,
    starting: Semaphore,
}

/// The node's end of the bridge: gateway and mesh DNS of every sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gateway {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

/// Launches what the API asks for until told to stop. Pods go on running when it stops.
///
/// # Errors
/// Where node or folders are not usable at the start; later trouble is reported in the status of pods.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), LauncherError> {
    let context = Arc::new(prepare(options).await?);
    info!("launcher started");
    let mut tasks = JoinSet::new();
    tasks.spawn(watches::deployments(Arc::clone(&context)));
    tasks.spawn(watches::jobs(Arc::clone(&context)));
    tasks.spawn(watches::pods(Arc::clone(&context)));
    tasks.spawn(watches::services(Arc::clone(&context)));
    tasks.spawn(watches::containers(Arc::clone(&context)));
    tasks.spawn(listening::poll(Arc::clone(&context)));
    tasks.spawn(names::publish(Arc::clone(&context)));
    tasks.spawn(deployments::control(Arc::clone(&context)));
    tasks.spawn(jobs::control(Arc::clone(&context)));
    tasks.spawn(template::delete_orphans(Arc::clone(&context)));
    tasks.spawn(pods::control(Arc::clone(&context)));
    tokio::select! {
        () = shutdown.cancelled() => {}
        Some(Err(error)) = tasks.join_next() => warn!(%error, "a part of the launcher failed"),
    }
    tasks.shutdown().await;
    info!("launcher stopped; pods go on");
    Ok(())
}

async fn prepare(options: Options) -> Result<Context, LauncherError> {
    let mut node = options.node.clone();
    let info = tokio::time::timeout(NODE_DEADLINE, node.info(InfoRequest {}))
        .await
        .map_err(|_| LauncherError::Node("no answer in time".to_owned()))?
        .map_err(|status| LauncherError::Node(status.message().to_owned()))?
        .into_inner();
    let scratch = Scratch::prepare(options.scratch_dir.clone(), info.holder_pid);
    Ok(Context {
        gateway: Gateway {
            ipv4: parse(&info.gateway_ipv4)?,
            ipv6: parse(&info.gateway_ipv6)?,
        },
        scratch: scratch.map_err(|source| LauncherError::Scratch {
            path: options.scratch_dir,
            source,
        })?,
        client: options.client.acting_as(FIELD_MANAGER),
        node: Node::new(options.node),
        handoff: HandOff::new(options.handoff),
        broker: options.broker,
        inject: InjectOptions::host(options.pods_dir),
        world: World::new(),
        listening: Listening::new(),
        starting: Semaphore::new(STARTING),
    })
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, LauncherError> {
    text.parse()
        .map_err(|_| LauncherError::Gateway(text.to_owned()))
}
