//! A sidecar's process relieved by a newer one, without an end of its container.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::weft::node::v1::Container;

use super::run::send;
use crate::container::bundle::Root;
use crate::container::control::Request;
use crate::server::Shared;
use crate::server::failure::Failure;

/// A shim says within this whether the newer process runs; making it has a deadline of its own.
const START_DEADLINE: Duration = Duration::from_secs(70);

/// Starts a program beside the one that a sidecar runs.
pub(in crate::server) async fn replace(
    shared: &Arc<Shared>,
    id: &str,
    program: PathBuf,
) -> Result<Container, Failure> {
    let entry = shared.containers.find(id)?;
    if !matches!(entry.bundle.root, Root::HostPrograms { .. }) {
        return Err(Failure::State(format!(
            "container {id} runs an image: only sidecars are replaced while they run"
        )));
    }
    entry.running_pid()?;
    let mut status = entry.status.subscribe();
    let before = status.borrow_and_update().replacements;
    send(&entry, Request::Replace { program }).await;
    let tried = status.wait_for(|status| status.replacements != before);
    tokio::time::timeout(START_DEADLINE, tried)
        .await
        .map_err(|_| Failure::State(format!("the shim of container {id} does not answer")))?
        .map_err(|_| Failure::State(format!("container {id} is gone")))?;
    Ok(entry.to_wire())
}
