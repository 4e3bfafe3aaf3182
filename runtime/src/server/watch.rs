//! Following shims, and telling watchers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{broadcast, mpsc};
use tonic::Status as Refusal;
use weft_proto::weft::node::v1::Container;

use super::Shared;
use super::containers::{self, Entry, Shim};
use crate::container::control::{Request, SocketPath};
use crate::container::status::Status;

/// Requests that wait for a shim.
const REQUESTS: usize = 16;
/// Messages that wait for a watcher.
const QUEUE: usize = 64;
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// Follows a container's shim until it is gone, in a task of its own.
pub(super) fn follow(shared: &Arc<Shared>, entry: &Arc<Entry>, shim: i32) {
    let (sender, requests) = mpsc::channel(REQUESTS);
    *entry.shim.lock() = Some(Shim {
        pid: shim,
        requests: sender,
    });
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    tokio::spawn(async move {
        if let Err(error) = talk(&shared, &entry, shim, requests).await {
            tracing::debug!(container = entry.record.id, %error, "shim does not answer");
        }
        // Boxed: it may start another shim, whose follower is this very function.
        let ended: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(containers::shim_ended(&shared, &entry, shim));
        ended.await;
    });
}

async fn talk(
    shared: &Shared,
    entry: &Entry,
    shim: i32,
    mut requests: mpsc::Receiver<Request>,
) -> io::Result<()> {
    let path = SocketPath::in_directory(&entry.place.runtime)?;
    let (reader, mut writer) = UnixStream::connect(path.as_path()).await?.into_split();
    let mut lines = BufReader::new(reader).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) if entry.is_current(shim) => {
                    containers::update(shared, entry, serde_json::from_str::<Status>(&line)?);
                }
                // Ended, or replaced.
                _ => return Ok(()),
            },
            Some(request) = requests.recv() => write(&mut writer, request).await?,
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, request: Request) -> io::Result<()> {
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    tokio::time::timeout(WRITE_DEADLINE, writer.write_all(&line)).await?
}

/// Every container as it is, then each change; after an overflow every container again.
pub(super) fn containers(shared: &Arc<Shared>) -> mpsc::Receiver<Result<Container, Refusal>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        // Subscribed before looking, so that nothing falls between.
        let mut events = shared.containers.events.subscribe();
        tell_all(&shared, &sender).await;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sender.closed() => return,
                () = shared.ending.cancelled() => return,
            };
            let told = match event {
                Ok(container) => sender.send(Ok(container)).await.is_ok(),
                Err(broadcast::error::RecvError::Lagged(_)) => tell_all(&shared, &sender).await,
                Err(broadcast::error::RecvError::Closed) => false,
            };
            if !told {
                return;
            }
        }
    });
    receiver
}

async fn tell_all(shared: &Shared, sender: &mpsc::Sender<Result<Container, Refusal>>) -> bool {
    for entry in shared.containers.all() {
        if sender.send(Ok(entry.to_wire())).await.is_err() {
            return false;
        }
    }
    true
}
