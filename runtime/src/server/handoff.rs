//! The hand-off socket: connections into sandboxes, made by a thread in the sandbox and passed as a descriptor.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use weft_proto::handoff::{self, BrokerReply, NodeRequest};

use super::Shared;
use crate::network::{NetworkError, namespace};

const MAX_CLIENTS: usize = 256;
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts until it is aborted.
pub(super) async fn serve(shared: Arc<Shared>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: others must close first.
                tracing::warn!(%error, "hand-off connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _place = place;
            let talked = tokio::select! {
                talked = talk(&shared, stream) => talked,
                () = shared.ending.cancelled() => Ok(()),
            };
            if let Err(error) = talked {
                tracing::debug!(%error, "hand-off connection ended");
            }
        });
    }
}

async fn talk(shared: &Shared, mut stream: UnixStream) -> io::Result<()> {
    loop {
        let request = match handoff::receive::<NodeRequest>(&mut stream).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?.0,
        };
        let NodeRequest::Dial {
            sandbox,
            address,
            timeout_millis,
        } = request;
        let timeout = Duration::from_millis(timeout_millis.into()).min(MAX_TIMEOUT);
        match dial(shared, &sandbox, address, timeout).await {
            Ok(socket) => {
                handoff::send(&mut stream, &BrokerReply::Socket, Some(socket.as_fd())).await?;
            }
            Err(failed) => handoff::send(&mut stream, &failed, None).await?,
        }
    }
}

async fn dial(
    shared: &Shared,
    sandbox: &str,
    address: SocketAddr,
    timeout: Duration,
) -> Result<OwnedFd, BrokerReply> {
    let failed = |errno: i32, reason: String| BrokerReply::Failed { errno, reason };
    let record = shared
        .sandboxes
        .find(sandbox)
        .map_err(|failure| failed(libc::ENOENT, failure.to_string()))?;
    let connecting = namespace::enter(&record.attachment.namespace, move || {
        // Zero is refused by the library; the shortest wait is what was meant.
        TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1)))
            .map_err(NetworkError::system(format!("connecting to {address}")))
    });
    match connecting.await {
        Ok(stream) => Ok(stream.into()),
        Err(NetworkError::System { doing, source }) => Err(failed(
            source.raw_os_error().unwrap_or(0),
            format!("{doing}: {source}"),
        )),
        Err(other) => Err(failed(0, other.to_string())),
    }
}
