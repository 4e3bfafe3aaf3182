//! Starting the node, or adopting the one that runs: what the daemon calls.
//!
//! The node outlives whoever started it. It is spawned as a fresh program, because making namespaces takes a
//! process with one thread.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::process::Command;
use tonic::transport::{Channel, Endpoint};
use weft_proto::handoff::{self, BrokerReply, NodeRequest};
use weft_proto::weft::node::v1::node_client::NodeClient;
use weft_proto::weft::node::v1::{InfoRequest, InfoResponse, ShutdownRequest};

use crate::{entry, procfs};

mod options;

pub use options::NodeOptions;

/// How long a node may take to start.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long one question to a living node may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a node may take to end everything that runs in it.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at something that is about to happen.
const POLL: Duration = Duration::from_millis(10);

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started.
    #[error("starting `weft node`")]
    Spawn(#[source] io::Error),
    /// The node said why it cannot run.
    #[error("the node cannot run: {0}")]
    Failed(String),
    /// Nothing answered in time.
    #[error("the node did not answer on {} within {} seconds; {} says more", socket.display(), after.as_secs(), log.display())]
    Deadline {
        /// Where it should have answered.
        socket: PathBuf,
        /// How long it was waited for.
        after: Duration,
        /// The node's log.
        log: PathBuf,
    },
    /// A call to the node failed.
    #[error("the node refused: {}", .0.message())]
    Call(#[from] Box<tonic::Status>),
    /// The hand-off socket could not be used.
    #[error("asking the node for a connection")]
    Handoff(#[source] io::Error),
    /// The node could not connect.
    #[error("connecting to {address} in sandbox {sandbox}: {reason}")]
    Dial {
        /// The sandbox.
        sandbox: String,
        /// The address as seen from it.
        address: SocketAddr,
        /// An errno, 0 where there is none.
        errno: i32,
        /// For people.
        reason: String,
    },
}

/// A node that runs, and how to talk to it. Dropping it changes nothing for the node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Client of `weft.node.v1`; connects again by itself when the server was restarted.
    pub client: NodeClient<Channel>,
    /// The node's socket.
    pub socket: PathBuf,
    /// The hand-off socket: connections into sandboxes.
    pub handoff: PathBuf,
    /// Gateway of all sandboxes, and the mesh DNS.
    pub gateways: Vec<IpAddr>,
    /// The process that holds the namespaces: `/proc/<pid>/ns/net` is the node's own network namespace.
    pub holder_pid: i32,
    /// Whether it was running already.
    pub adopted: bool,
}

/// Connects to the node of these directories, or starts it.
///
/// # Errors
/// The node's own words where it cannot run, and [`Error::Deadline`] where it says nothing.
pub async fn ensure_node(options: &NodeOptions) -> Result<Node, Error> {
    if let Some(info) = ask(&options.socket()).await {
        return Ok(Node::new(options, info, Adoption::Adopted));
    }
    spawn(options).await?;
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if let Some(info) = ask(&options.socket()).await {
            return Ok(Node::new(options, info, Adoption::Started));
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Error::Deadline {
        socket: options.socket(),
        after: START_DEADLINE,
        log: options.state_dir.join("node.log"),
    })
}

#[derive(PartialEq)]
enum Adoption {
    Adopted,
    Started,
}

impl Node {
    fn new(
        options: &NodeOptions,
        (client, info): (NodeClient<Channel>, InfoResponse),
        adoption: Adoption,
    ) -> Node {
        let gateways = [&info.gateway_ipv4, &info.gateway_ipv6];
        Node {
            client,
            socket: options.socket(),
            handoff: options.handoff(),
            gateways: gateways
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            holder_pid: info.holder_pid,
            adopted: adoption == Adoption::Adopted,
        }
    }

    /// Ends every container, removes every sandbox, and returns when the node is gone.
    ///
    /// # Errors
    /// When the node refuses, or is still there after a minute.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        let call = self.client.shutdown(ShutdownRequest {});
        tokio::time::timeout(SHUTDOWN_DEADLINE, call)
            .await
            .map_err(|_| self.still_there())?
            .map_err(Box::new)?;
        let deadline = Instant::now() + SHUTDOWN_DEADLINE;
        // One that has ended counts as gone: who waits for it, and when, is up to the host.
        while procfs::is_alive(self.holder_pid) {
            if Instant::now() > deadline {
                return Err(self.still_there());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// A TCP connection to an address as seen from inside a sandbox.
    ///
    /// # Errors
    /// [`Error::Dial`] where there is no such sandbox or nobody listens.
    pub async fn dial(
        &self,
        sandbox: &str,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<OwnedFd, Error> {
        let ask = async {
            let mut stream = UnixStream::connect(&self.handoff).await?;
            let request = NodeRequest::Dial {
                sandbox: sandbox.to_owned(),
                address,
                timeout_millis: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            };
            handoff::send(&mut stream, &request, None).await?;
            handoff::receive::<BrokerReply>(&mut stream).await
        };
        let answer = tokio::time::timeout(timeout + ANSWER_DEADLINE, ask).await;
        let (reply, socket) = answer
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(Error::Handoff)?;
        let refused = |errno, reason| Error::Dial {
            sandbox: sandbox.to_owned(),
            address,
            errno,
            reason,
        };
        match (reply, socket) {
            (BrokerReply::Socket, Some(socket)) => Ok(socket),
            (BrokerReply::Failed { errno, reason }, _) => Err(refused(errno, reason)),
            (other, _) => Err(refused(0, format!("unexpected answer {other:?}"))),
        }
    }

    fn still_there(&self) -> Error {
        Error::Deadline {
            socket: self.socket.clone(),
            after: SHUTDOWN_DEADLINE,
            log: PathBuf::from("node.log"),
        }
    }
}

/// A client, if somebody answers at this socket.
async fn ask(socket: &Path) -> Option<(NodeClient<Channel>, InfoResponse)> {
    if !socket.exists() {
        return None;
    }
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).ok()?;
    let question = async {
        let channel = endpoint
            .connect_timeout(ANSWER_DEADLINE)
            .connect()
            .await
            .ok()?;
        // Image archives come in chunks; answers such as a container list are bounded by what runs.
        let mut client = NodeClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
        let info = client.info(InfoRequest {}).await.ok()?.into_inner();
        Some((client, info))
    };
    tokio::time::timeout(ANSWER_DEADLINE, question).await.ok()?
}

/// Runs `weft node --detach`, which returns when the node is ready.
async fn spawn(options: &NodeOptions) -> Result<(), Error> {
    let mut arguments = vec![OsString::from("--detach")];
    arguments.extend(options.to_arguments());
    // The running program, even where another has taken its place on disk.
    let child = Command::new("/proc/self/exe")
        .arg("node")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::Spawn)?;
    let output = tokio::time::timeout(START_DEADLINE, child.wait_with_output())
        .await
        .map_err(|_| Error::Deadline {
            socket: options.socket(),
            after: START_DEADLINE,
            log: options.state_dir.join("node.log"),
        })?
        .map_err(Error::Spawn)?;
    // Another node that runs but did not answer is about to have its server restarted.
    if output.status.success() || output.status.code() == Some(i32::from(entry::ALREADY_RUNNING)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Failed(
        said.trim().trim_start_matches("weft node: ").to_owned(),
    ))
}
