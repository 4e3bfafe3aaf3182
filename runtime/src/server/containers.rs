//! Containers: their records, their shims, and every change of their state.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::{broadcast, watch};
use weft_proto::weft::node::v1::{Container, ContainerState, CreateContainerRequest};

use super::failure::Failure;
use super::watch::follow;
use super::{Shared, blueprint};
use crate::container::Place;
use crate::container::bundle::{Bundle, Root};
use crate::container::control::Request;
use crate::container::restart::RestartPolicy;
use crate::container::status::{State, Status, now};
use crate::files;
use crate::procfs::{self, Processes};

/// Changes that a slow watcher may be behind before it is told everything anew.
const EVENTS: usize = 1024;
/// A shim says within this how the first start went; making the container has a deadline of its own.
const START_DEADLINE: Duration = Duration::from_secs(70);
/// After the last SIGKILL. Only a process stuck in the kernel takes longer.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// A shim that was killed is replaced after this.
const SHIM_PAUSE: Duration = Duration::from_millis(50);

/// What is known of a container besides its bundle, as it is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) image: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) created_at: i64,
}

/// One container, as the server knows it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) bundle: Bundle,
    pub(super) place: Place,
    pub(super) status: watch::Sender<Status>,
    /// What the task that follows the shim is to send it.
    pub(super) requests: Mutex<Option<tokio::sync::mpsc::Sender<Request>>>,
    /// Starting and removing exclude each other.
    changing: tokio::sync::Mutex<Life>,
}

/// Whether a container is still one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Kept,
    /// Stopped on request: nobody may start it again by himself.
    Stopped,
    Removed,
}

impl Entry {
    fn new(record: Record, bundle: Bundle, place: Place, status: Status) -> Arc<Entry> {
        Arc::new(Entry {
            record,
            bundle,
            place,
            status: watch::Sender::new(status),
            requests: Mutex::default(),
            changing: tokio::sync::Mutex::new(Life::Kept),
        })
    }

    pub(super) fn state(&self) -> State {
        self.status.borrow().state
    }

    pub(super) fn to_wire(&self) -> Container {
        let status = self.status.borrow().clone();
        let state = match status.state {
            State::Created => ContainerState::Created,
            State::Running => ContainerState::Running,
            State::Restarting => ContainerState::Restarting,
            State::Exited => ContainerState::Exited,
        };
        Container {
            id: self.record.id.clone(),
            sandbox_id: self.record.sandbox_id.clone(),
            image: self.record.image.clone(),
            state: state.into(),
            pid: status.pid,
            exit_code: status.exit_code,
            exit_reason: status.exit_reason,
            restarts: status.restarts,
            created_at: self.record.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            labels: self.record.labels.clone(),
            ..Container::default()
        }
    }

    /// The first process, where one runs.
    pub(super) fn running_pid(&self) -> Result<i32, Failure> {
        let status = self.status.borrow();
        match (status.state, status.pid) {
            (State::Running, pid) if pid > 0 => Ok(pid),
            _ => Err(Failure::State(format!(
                "container {} does not run",
                self.record.id
            ))),
        }
    }
}

/// All containers, and their changes.
#[derive(Debug)]
pub(super) struct Containers {
    entries: Mutex<HashMap<String, Arc<Entry>>>,
    pub(super) events: broadcast::Sender<Container>,
}

impl Default for Containers {
    fn default() -> Containers {
        Containers {
            entries: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
        }
    }
}

impl Containers {
    pub(super) fn find(&self, id: &str) -> Result<Arc<Entry>, Failure> {
        self.entries
            .lock()
            .get(id)
            .cloned()
            .ok_or_else(|| Failure::NotFound {
                kind: "container",
                id: id.to_owned(),
            })
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<Arc<Entry>> = self.entries.lock().values().cloned().collect();
        entries.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        entries
    }

    /// Layers that must not be pruned.
    pub(super) fn layers_in_use(&self) -> std::collections::BTreeSet<PathBuf> {
        let layers = |entry: Arc<Entry>| match &entry.bundle.root {
            Root::Overlay { layers, .. } => layers.clone(),
            Root::HostPrograms { .. } => Vec::new(),
        };
        self.all().into_iter().flat_map(layers).collect()
    }

    pub(super) fn publish(&self, container: Container) {
        // Nobody watches: nobody needs to know.
        let _ = self.events.send(container);
    }
}

/// Makes a container; nothing runs yet.
pub(super) async fn create(
    shared: &Arc<Shared>,
    request: CreateContainerRequest,
) -> Result<Container, Failure> {
    blueprint::check(&request)?;
    let image = if request.host_programs {
        None
    } else {
        let images = Arc::clone(&shared.images);
        let reference = request.image.clone();
        Some(tokio::task::spawn_blocking(move || images.find(&reference)).await??)
    };
    let options = &shared.options;
    let place = Place::new(&options.state_dir, &options.runtime_dir, &request.id);
    if let Err(error) = fs::create_dir(&place.state) {
        return Err(match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::Exists {
                kind: "container",
                id: request.id,
            },
            _ => Failure::system("making the container's directory")(error),
        });
    }
    let made = make(shared, &request, image.as_ref(), &place);
    match made {
        Ok(entry) => {
            shared
                .containers
                .entries
                .lock()
                .insert(request.id, Arc::clone(&entry));
            let container = entry.to_wire();
            shared.containers.publish(container.clone());
            Ok(container)
        }
        Err(failure) => {
            let _ = files::remove_tree(&place.state);
            let _ = files::remove_tree(&place.runtime);
            Err(failure)
        }
    }
}

fn make(
    shared: &Shared,
    request: &CreateContainerRequest,
    image: Option<&crate::image::ImageRecord>,
    place: &Place,
) -> Result<Arc<Entry>, Failure> {
    for directory in blueprint::directories(place) {
        fs::create_dir_all(directory)
            .map_err(Failure::system("making the container's directories"))?;
    }
    let bundle = blueprint::draw(shared, request, image, place)?;
    let record = Record {
        id: request.id.clone(),
        sandbox_id: request.sandbox_id.clone(),
        image: request.image.clone(),
        labels: request.labels.clone(),
        created_at: now(),
    };
    let status = Status::default();
    files::replace_json(&place.bundle(), &bundle)
        .and_then(|()| status.write(&place.status()))
        // Last: a container without a record was never there.
        .and_then(|()| files::replace_json(&place.record(), &record))
        .map_err(Failure::system("writing the container's files"))?;
    Ok(Entry::new(record, bundle, place.clone(), status))
}

/// Starts a container, new or ended; one that runs is left alone.
pub(super) async fn start(shared: &Arc<Shared>, id: &str) -> Result<Container, Failure> {
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
    start_shim(shared, &entry).await?;
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
async fn start_shim(shared: &Arc<Shared>, entry: &Arc<Entry>) -> Result<(), Failure> {
    let id = &entry.record.id;
    let run = Command::new(shared.options.program())
        .arg("shim")
        .args([
            &entry.place.state,
            &entry.place.runtime,
            &shared.options.program(),
        ])
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
    update(shared, entry, status);
    follow(shared, entry);
    Ok(())
}

/// Notes a new status and tells the watchers, if it is one.
pub(super) fn update(shared: &Shared, entry: &Entry, status: Status) {
    let changed = entry.status.send_if_modified(|known| {
        let differs = *known != status;
        *known = status;
        differs
    });
    if changed {
        shared.containers.publish(entry.to_wire());
    }
}

/// Called when a shim is gone: it has ended with its container, or it was killed, and its container with it.
pub(super) async fn shim_ended(shared: &Arc<Shared>, entry: &Arc<Entry>) {
    let read = Status::read(&entry.place.status());
    let status = read.ok().flatten().unwrap_or_default();
    let was_killed = matches!(status.state, State::Running | State::Restarting);
    let status = status.without_shim();
    if was_killed {
        let _ = status.write(&entry.place.status());
    }
    *entry.requests.lock() = None;
    update(shared, entry, status);
    if !was_killed || entry.bundle.restart == RestartPolicy::Never {
        return;
    }
    tokio::time::sleep(SHIM_PAUSE).await;
    let life = entry.changing.lock().await;
    if *life == Life::Kept && entry.state() == State::Exited && !shared.ending.is_cancelled() {
        tracing::warn!(
            container = entry.record.id,
            "a shim was killed; starting its container again"
        );
        if let Err(failure) = start_shim(shared, entry).await {
            tracing::error!(container = entry.record.id, %failure, "container not started again");
        }
    }
}

/// Asks a container to end, then makes it; returns when it has ended.
pub(super) async fn stop(
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
pub(super) async fn send(entry: &Entry, request: Request) {
    let requests = entry.requests.lock().clone();
    if let Some(requests) = requests {
        let _ = requests.send(request).await;
    }
}

/// Removes an ended container; there may be none.
pub(super) async fn remove(shared: &Arc<Shared>, id: &str) -> Result<(), Failure> {
    let Ok(entry) = shared.containers.find(id) else {
        return Ok(());
    };
    let mut life = entry.changing.lock().await;
    if *life == Life::Removed {
        return Ok(());
    }
    if matches!(entry.state(), State::Running | State::Restarting) {
        return Err(Failure::State(format!(
            "container {id} runs: stop it first"
        )));
    }
    *life = Life::Removed;
    entry.bundle.group.remove();
    let place = entry.place.clone();
    tokio::task::spawn_blocking(move || {
        files::remove_tree(&place.runtime).and_then(|()| files::remove_tree(&place.state))
    })
    .await?
    .map_err(Failure::system(format!("removing container {id}")))?;
    shared.containers.entries.lock().remove(id);
    let gone = Container {
        state: ContainerState::Removed.into(),
        pid: 0,
        ..entry.to_wire()
    };
    shared.containers.publish(gone);
    Ok(())
}

/// Kills and removes what is left in a sandbox.
pub(super) async fn remove_all_of(shared: &Arc<Shared>, sandbox: &str) -> Result<(), Failure> {
    let entries = shared.containers.all();
    let ids = entries
        .iter()
        .filter(|entry| entry.record.sandbox_id == sandbox)
        .map(|entry| &entry.record.id);
    for id in ids {
        stop(shared, id, Duration::ZERO).await?;
        remove(shared, id).await?;
    }
    Ok(())
}

/// All containers with what /proc says of them.
pub(super) async fn list(shared: &Shared) -> Result<Vec<Container>, Failure> {
    let mut containers: Vec<Container> = shared
        .containers
        .all()
        .iter()
        .map(|entry| entry.to_wire())
        .collect();
    let measured = tokio::task::spawn_blocking(move || {
        let processes = Processes::read();
        for container in containers.iter_mut().filter(|container| container.pid > 0) {
            let memory = processes.memory_beside(container.pid);
            container.resident_bytes = memory.resident_bytes;
            container.private_bytes = memory.private_bytes;
            container.listening_ports = procfs::listening_ports(container.pid);
        }
        containers
    });
    Ok(measured.await?)
}

/// Takes over what an earlier server made.
pub(super) async fn adopt(shared: &Arc<Shared>) {
    let options = &shared.options;
    for found in fs::read_dir(options.state_dir.join("containers"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let id = found.file_name().to_string_lossy().into_owned();
        let place = Place::new(&options.state_dir, &options.runtime_dir, &id);
        let record = files::read_json::<Record>(&place.record());
        let bundle = files::read_json::<Bundle>(&place.bundle());
        let (Ok(Some(record)), Ok(Some(bundle))) = (record, bundle) else {
            // It was being made or removed: nobody counts on it.
            let _ = files::remove_tree(&place.runtime);
            let _ = files::remove_tree(&place.state);
            continue;
        };
        let status = Status::read(&place.status())
            .ok()
            .flatten()
            .unwrap_or_default();
        let has_shim = matches!(status.state, State::Running | State::Restarting);
        let entry = Entry::new(record, bundle, place, status);
        shared
            .containers
            .entries
            .lock()
            .insert(id, Arc::clone(&entry));
        if has_shim {
            follow(shared, &entry);
        }
    }
}
