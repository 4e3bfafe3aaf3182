//! The node, as the API relays to it: one channel over its unix socket, reconnected as needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use weft_proto::weft::node::v1::node_client::NodeClient;

use crate::refusal::Refusal;

/// How long the node may take until it accepts a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a call that does not stream may take.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// How long one may take that starts a process: longer than the node gives it, which can say why it has not come.
pub(super) const START: Duration = Duration::from_secs(80);
/// No message of the node is larger.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The node.
#[derive(Debug, Clone)]
pub struct Node {
    channel: Option<Channel>,
    socket: PathBuf,
}

impl Node {
    /// The node behind a socket; it is connected to when it is first asked.
    pub fn at(socket: &Path) -> Self {
        let endpoint = Endpoint::try_from(format!("unix:{}", socket.display()));
        let channel = endpoint
            .ok()
            .map(|endpoint| endpoint.connect_timeout(CONNECT).connect_lazy());
        Self {
            channel,
            socket: socket.to_owned(),
        }
    }

    /// A client for one call.
    pub(super) fn client(&self) -> Result<NodeClient<Channel>, Refusal> {
        let channel = self.channel.clone().ok_or_else(|| {
            Refusal::Internal(format!(
                "the path of the node's socket, {}, is no address",
                self.socket.display()
            ))
        })?;
        Ok(NodeClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Makes a call that is to end soon.
    pub(super) async fn call<T>(
        &self,
        call: impl AsyncFnOnce(NodeClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Refusal> {
        self.call_within(CALL, call).await
    }

    /// Makes a call that may take so long.
    pub(super) async fn call_within<T>(
        &self,
        limit: Duration,
        call: impl AsyncFnOnce(NodeClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Refusal> {
        let answer = tokio::time::timeout(limit, call(self.client()?))
            .await
            .map_err(|_| Refusal::Timeout("the node does not answer".to_owned()))?;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| refusal(&status))
    }
}

/// What the node says, in the API's words.
pub(super) fn refusal(status: &Status) -> Refusal {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => Refusal::NotFound {
            resource: "nodeobjects".to_owned(),
            name: message,
        },
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::OutOfRange => Refusal::BadRequest(message),
        Code::Unavailable => Refusal::Unavailable(format!("the node cannot be reached: {message}")),
        Code::DeadlineExceeded => Refusal::Timeout(message),
        Code::ResourceExhausted => Refusal::TooManyRequests(message),
        _ => Refusal::Internal(format!("the node: {message}")),
    }
}
