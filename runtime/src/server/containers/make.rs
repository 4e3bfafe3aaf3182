//! Making and removing containers: everything but running them.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::weft::node::v1::{Container, ContainerState, CreateContainerRequest};

use super::run::stop;
use super::{Entry, Life, Record};
use crate::container::Place;
use crate::container::status::{State, Status, now};
use crate::files;
use crate::image::ImageRecord;
use crate::server::failure::Failure;
use crate::server::{Shared, blueprint};

/// Makes a container; nothing runs yet.
pub(in crate::server) async fn create(
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
            io::ErrorKind::AlreadyExists => Failure::Exists {
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
    image: Option<&ImageRecord>,
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

/// Removes an ended container; there may be none.
pub(in crate::server) async fn remove(shared: &Arc<Shared>, id: &str) -> Result<(), Failure> {
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
pub(in crate::server) async fn remove_all_of(
    shared: &Arc<Shared>,
    sandbox: &str,
) -> Result<(), Failure> {
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
