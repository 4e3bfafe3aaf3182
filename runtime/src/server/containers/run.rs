//! Running containers: their shims started, stopped, and replaced when they were killed.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use weft_proto::weft::node::v1::Container;

use super::{Entry, Life};
use crate::container::control::Request;
use crate::container::restart::RestartPolicy;
use crate::container::status::{State, Status};
use crate::server::Shared;
use crate::server::failure::Failure;
use crate::server::watch::follow;

/// A shim says within this how the first start went; making the container has a deadline of its own.
const START_DEADLINE: Duration = Duration::from_secs(70);
/// After the last SIGKILL. Only a process stuck in the kernel takes longer.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// A shim that was killed is replaced after this.
const SHIM_PAUSE: Duration = Duration::from_millis(50);

/// Starts a container, new or ended; one that runs is left alone.
pub(in crate::server) async fn start(shared: &Arc<Shared>, id: &str) -> Result<Container, Failure> {
    let entry = shared.containers.find(id)?;
    let mut life = entry.changing.lock().await;
    if *life == Life::Removed {
        return Err(Failure::NotFound {
            kind: "container",
            id: id.to_owned(),
        });
    }
    if matches!(entry.state(), State::Running | State::Restarting) {
        return Ok(entry.to_wire());
    }
    *life = Life::Kept;
    start_shim(shared, &entry, 0).await?;
    let status = entry.status.borrow().clone();
    // A new shim begins with a new status: one that never ran has no start in it.
    if status.started_at == 0 {
        return Err(Failure::State(format!(
            "container {id} could not be started (exit status {}): {}",
            status.exit_code, status.exit_reason
        )));
    }
    Ok(entry.to_wire())
}

/// The shim, and the task that follows it.
async fn start_shim(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    restarts: u32,
) -> Result<(), Failure> {
    let id = &entry.record.id;
    let run = Command::new(shared.options.program())
        .arg("shim")
        .args([
            &entry.place.state,
            &entry.place.runtime,
            &shared.options.program(),
        ])
        .arg(restarts.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(START_DEADLINE, run)
        .await
        .map_err(|_| Failure::State(format!("container {id} did not start in time")))?
        .map_err(Failure::system("starting a shim"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::State(format!(
            "the shim of container {id} failed: {said}"
        )));
    }
    let status = Status::read(&entry.place.status())
        .map_err(Failure::system("reading the container's status"))?
        .unwrap_or_default();
    let shim = status.shim_pid;
    update(shared, entry, status);
    follow(shared, entry, shim);
    Ok(())
}

/// Notes a new status and tells the watchers, if it is one.
pub(in crate::server) fn update(shared: &Shared, entry: &Entry, status: Status) {
    let changed = entry.status.send_if_modified(|known| {
        let is_news = *known != status && !status.is_overtaken_by(known);
        if is_news {
            *known = status;
        }
        is_news
    });
    if changed {
        shared.containers.publish(entry.to_wire());
    }
}

/// Called when a shim is gone: it has ended with its container, or it was killed, and its container with it.
pub(in crate::server) async fn shim_ended(shared: &Arc<Shared>, entry: &Arc<Entry>, shim: i32) {
    let mut life = entry.changing.lock().await;
    if *life == Life::Removed || !entry.is_current(shim) {
        return;
    }
    *entry.shim.lock() = None;
    let read = Status::read(&entry.place.status());
    let status = read.ok().flatten().unwrap_or_default();
    let was_killed = matches!(status.state, State::Running | State::Restarting);
    let restarts = status.restarts.saturating_add(1);
    let status = status.without_shim();
    if was_killed {
        let _ = status.write(&entry.place.status());
    }
    update(shared, entry, status);
    let is_wanted = *life == Life::Kept && entry.bundle.restart != RestartPolicy::Never;
    if was_killed && is_wanted && !shared.ending.is_cancelled() {
        replace_shim(shared, entry, restarts, &mut life).await;
    }
}

async fn replace_shim(shared: &Arc<Shared>, entry: &Arc<Entry>, restarts: u32, life: &mut Life) {
    let id = &entry.record.id;
    tracing::warn!(
        container = id,
        "a shim was killed; starting its container again"
    );
    tokio::time::sleep(SHIM_PAUSE).await;
    if let Err(failure) = start_shim(shared, entry, restarts).await {
        tracing::error!(container = id, %failure, "container not started again");
        *life = Life::Stopped;
    }
}

/// Asks a container to end, then makes it; returns when it has ended.
pub(in crate::server) async fn stop(
    shared: &Arc<Shared>,
    id: &str,
    grace: Duration,
) -> Result<Container, Failure> {
    let entry = shared.containers.find(id)?;
    {
        let mut life = entry.changing.lock().await;
        if *life == Life::Kept {
            *life = Life::Stopped;
        }
    }
    let mut status = entry.status.subscribe();
    if matches!(entry.state(), State::Running | State::Restarting) {
        let request = Request::Stop {
            signal: entry.bundle.stop_signal,
            grace_millis: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        send(&entry, request).await;
        let ended =
            status.wait_for(|status| matches!(status.state, State::Created | State::Exited));
        let ended = tokio::time::timeout(grace + KILL_DEADLINE, ended).await;
        if !matches!(ended, Ok(Ok(_))) {
            return Err(Failure::State(format!(
                "container {id} did not end, though it was killed"
            )));
        }
    }
    Ok(entry.to_wire())
}

/// To the shim; one that is just going takes the container with it anyway.
pub(in crate::server) async fn send(entry: &Entry, request: Request) {
    let shim = entry.shim.lock().clone();
    if let Some(shim) = shim {
        let _ = shim.requests.send(request).await;
    }
}
