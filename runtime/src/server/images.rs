//! Image calls: the store blocks, so each runs on a thread of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{Status as Refusal, Streaming};
use weft_proto::weft::node::v1::image_progress::Progress;
use weft_proto::weft::node::v1::{
    BuildImageRequest, BuildStart, Image, ImageProgress, ImportImageRequest, ImportProgramRequest,
    build_image_request, import_image_request,
};

use super::failure::Failure;
use super::programs::Programs;
use super::{Shared, archive};
use crate::image::{BuildRequest, ImageError, ImageRecord, ImageStore};

/// Lines that wait for the client.
const QUEUE: usize = 256;

pub(super) type ProgressReceiver = mpsc::Receiver<Result<ImageProgress, Refusal>>;

pub(super) async fn list(shared: &Shared) -> Result<Vec<Image>, Failure> {
    let images = Arc::clone(&shared.images);
    let records = tokio::task::spawn_blocking(move || images.list()).await?;
    Ok(records.iter().map(to_wire).collect())
}

pub(super) async fn inspect(shared: &Shared, reference: String) -> Result<Image, Failure> {
    let images = Arc::clone(&shared.images);
    let record = tokio::task::spawn_blocking(move || images.find(&reference)).await??;
    Ok(to_wire(&record))
}

/// Takes a name away; layers that nothing uses any more go with it.
pub(super) async fn remove(shared: &Shared, reference: String) -> Result<(), Failure> {
    let images = Arc::clone(&shared.images);
    let in_use = shared.containers.layers_in_use();
    let removed = tokio::task::spawn_blocking(move || {
        if let Ok(record) = images.find(&reference) {
            refuse_if_used(&record, &reference, &in_use)?;
        }
        images.remove(&reference)?;
        images.prune(&in_use)?;
        Ok::<_, Failure>(())
    });
    removed.await?
}

/// The last name of an image stays while containers need it: they could not be explained any more.
fn refuse_if_used(
    record: &ImageRecord,
    reference: &str,
    in_use: &BTreeSet<std::path::PathBuf>,
) -> Result<(), Failure> {
    let top = record.layers.last();
    if record.references.len() < 2 && top.is_some_and(|layer| in_use.contains(layer)) {
        return Err(Failure::State(format!(
            "containers use image {reference}: remove them first"
        )));
    }
    Ok(())
}

/// Takes an archive in.
pub(super) async fn import(
    shared: &Arc<Shared>,
    mut input: Streaming<ImportImageRequest>,
) -> Result<ProgressReceiver, Refusal> {
    use import_image_request::Input;
    let Some(Input::Start(start)) = input.message().await?.and_then(|message| message.input) else {
        return Err(Failure::invalid("input", "the first message must be `start`").into());
    };
    let (chunks, reader) = archive::channel();
    tokio::spawn(forward(
        input,
        chunks,
        |message: ImportImageRequest| match message.input {
            Some(Input::Chunk(chunk)) => Some(chunk),
            _ => None,
        },
    ));
    Ok(run(Arc::clone(&shared.images), move |images, progress| {
        let reference = Some(start.reference.as_str()).filter(|reference| !reference.is_empty());
        images.import(reader, reference, progress)
    }))
}

/// Builds from a context.
pub(super) async fn build(
    shared: &Arc<Shared>,
    mut input: Streaming<BuildImageRequest>,
) -> Result<ProgressReceiver, Refusal> {
    use build_image_request::Input;
    let Some(Input::Start(start)) = input.message().await?.and_then(|message| message.input) else {
        return Err(Failure::invalid("input", "the first message must be `start`").into());
    };
    let (chunks, reader) = archive::channel();
    tokio::spawn(forward(
        input,
        chunks,
        |message: BuildImageRequest| match message.input {
            Some(Input::Chunk(chunk)) => Some(chunk),
            _ => None,
        },
    ));
    let BuildStart {
        reference,
        dockerfile,
        arguments,
        target,
        no_cache,
    } = start;
    let request = BuildRequest {
        reference,
        dockerfile,
        arguments,
        target,
        no_cache,
    };
    let shared = Arc::clone(shared);
    Ok(run(Arc::clone(&shared.images), move |images, progress| {
        images.build(reader, request, &shared.runner, progress)
    }))
}

/// Takes a program for sidecars in, which comes like an archive; its digest.
pub(super) async fn import_program(
    shared: &Arc<Shared>,
    input: Streaming<ImportProgramRequest>,
) -> Result<String, Failure> {
    let (chunks, reader) = archive::channel();
    tokio::spawn(forward(input, chunks, |message: ImportProgramRequest| {
        Some(message.chunk)
    }));
    let programs = Programs::below(&shared.options.state_dir);
    tokio::task::spawn_blocking(move || programs.import(reader)).await?
}

/// From the client to the blocking reader, until either ends.
async fn forward<M>(
    mut input: Streaming<M>,
    chunks: mpsc::Sender<Result<Bytes, Refusal>>,
    chunk_of: fn(M) -> Option<Bytes>,
) {
    loop {
        let next = match input.message().await {
            Ok(Some(message)) => match chunk_of(message) {
                Some(chunk) => Ok(chunk),
                None => Err(Refusal::invalid_argument("only `chunk` may follow `start`")),
            },
            Ok(None) => return,
            Err(refusal) => Err(refusal),
        };
        let is_last = next.is_err();
        if chunks.send(next).await.is_err() || is_last {
            return;
        }
    }
}

fn run(
    images: Arc<ImageStore>,
    work: impl FnOnce(&ImageStore, &mut dyn FnMut(String)) -> Result<ImageRecord, ImageError>
    + Send
    + 'static,
) -> ProgressReceiver {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut tell = |line: String| {
            // A client that went away: the work is finished for the next one that asks.
            let progress = ImageProgress {
                progress: Some(Progress::Line(line)),
            };
            let _ = sender.blocking_send(Ok(progress));
        };
        let result = work(&images, &mut tell);
        let last = result
            .map(|record| ImageProgress {
                progress: Some(Progress::Done(to_wire(&record))),
            })
            .map_err(|error| Refusal::from(Failure::from(error)));
        let _ = sender.blocking_send(last);
    });
    receiver
}

fn to_wire(record: &ImageRecord) -> Image {
    let config = &record.config;
    Image {
        id: record.id.clone(),
        references: record.references.clone(),
        size_bytes: record.size_bytes,
        created_at: record.created_at,
        entrypoint: config.entrypoint.clone(),
        command: config.cmd.clone(),
        environment: config.env.clone(),
        working_directory: config.working_dir.clone(),
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        volumes: config.volumes.clone(),
        stop_signal: config.stop_signal.clone(),
        labels: config.labels.clone(),
        healthcheck: config
            .healthcheck
            .as_ref()
            .map(|check| check.test.clone())
            .unwrap_or_default(),
        layers: u32::try_from(record.layers.len()).unwrap_or(u32::MAX),
    }
}
