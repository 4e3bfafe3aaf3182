//! Containers: their records, their shims, and every change of their state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, watch};
use weft_proto::weft::node::v1::{Container, ContainerState};

use super::Shared;
use super::failure::Failure;
use super::watch::follow;
use crate::container::Place;
use crate::container::bundle::{Bundle, Root};
use crate::container::control::Request;
use crate::container::status::{State, Status};
use crate::files;
use crate::procfs::{self, Processes};

mod make;
mod replace;
mod run;

pub(super) use make::{create, remove, remove_all_of};
pub(super) use replace::replace;
pub(super) use run::{shim_ended, start, stop, update};

/// Changes that a slow watcher may be behind before it is told everything anew.
const EVENTS: usize = 1024;
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
    /// The shim that is followed now.
    pub(super) shim: Mutex<Option<Shim>>,
    /// Starting and removing exclude each other.
    changing: tokio::sync::Mutex<Life>,
}

/// A shim, and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Shim {
    pub(super) pid: i32,
    pub(super) requests: mpsc::Sender<Request>,
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
            shim: Mutex::default(),
            changing: tokio::sync::Mutex::new(Life::Kept),
        })
    }

    /// Whether a shim is the one that counts: the one before it may still be ending.
    pub(super) fn is_current(&self, shim: i32) -> bool {
        self.shim
            .lock()
            .as_ref()
            .is_some_and(|current| current.pid == shim)
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
            replacements: status.replacements,
            replacement_failure: status.replacement_failure,
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
    pub(super) fn layers_in_use(&self) -> BTreeSet<PathBuf> {
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
        // One that has just been started may not run yet.
        let has_shim = status.shim_pid > 0 && status.state != State::Exited;
        let shim = status.shim_pid;
        let entry = Entry::new(record, bundle, place, status);
        shared
            .containers
            .entries
            .lock()
            .insert(id, Arc::clone(&entry));
        if has_shim {
            follow(shared, &entry, shim);
        }
    }
}
