//! Local channels to this sidecar: taken from the socket broker as they come, and served by the data plane.
//!
//! The broker may be restarted at any time, and the identity renewed: then a new conversation with it begins.

use std::io;
use std::path::PathBuf;
use std::sync::Weak;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use weft_proto::handoff::{self, BrokerReply, BrokerRequest};

use crate::config::identity::IdentityReceiver;
use crate::handover::Inheritance;
use crate::upstream::local_channel::certificates;
use crate::workers::DataPlane;

/// Between two conversations.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the broker may take to read a request.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// Takes channels, when connections may be accepted at all, until cancelled or until the data plane drains: then
/// those that are on their way are still taken.
pub(super) async fn run(
    broker: PathBuf,
    mut identity: IdentityReceiver,
    data_plane: Weak<DataPlane>,
    inheritance: Inheritance,
    cancel: CancellationToken,
) {
    let Some(drain) = data_plane
        .upgrade()
        .map(|data_plane| data_plane.environment().drain.clone())
    else {
        return;
    };
    let receiving = async {
        inheritance.entered().await;
        while !drain.is_started() {
            if let Err(error) = receive(&broker, &mut identity, &data_plane).await {
                tracing::debug!(%error, "local channels do not come for a moment");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = receiving => {}
        () = drain.last_call_over() => {}
        () = cancel.cancelled() => {}
    }
}

/// One conversation.
async fn receive(
    broker: &PathBuf,
    identity: &mut IdentityReceiver,
    data_plane: &Weak<DataPlane>,
) -> io::Result<()> {
    let gone = |_| io::Error::other("nobody renews the identity any more");
    identity.wait_for(Option::is_some).await.map_err(gone)?;
    let mut stream = UnixStream::connect(broker).await?;
    say(&mut stream, identity).await?;
    loop {
        tokio::select! {
            changed = identity.changed() => {
                changed.map_err(io::Error::other)?;
                say(&mut stream, identity).await?;
            }
            spoken_to = handoff::until_spoken_to(&stream) => {
                spoken_to?;
                let (introduction, socket) = match handoff::receive(&mut stream).await? {
                    (BrokerReply::Introduced(introduction), Some(socket)) => (introduction, socket),
                    (BrokerReply::Failed { reason, .. }, _) => return Err(io::Error::other(reason)),
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                };
                let Some(data_plane) = data_plane.upgrade() else { return Ok(()) };
                data_plane.serve_introduced(socket.into(), introduction);
            }
        }
    }
}

/// Tells the broker that channels are welcome, and as whom.
async fn say(stream: &mut UnixStream, identity: &mut IdentityReceiver) -> io::Result<()> {
    let Some(current) = identity.borrow_and_update().clone() else {
        return Ok(());
    };
    let request = BrokerRequest::Receive {
        certificates: certificates(&current),
    };
    tokio::time::timeout(BROKER_PATIENCE, handoff::send(stream, &request, None)).await?
}
