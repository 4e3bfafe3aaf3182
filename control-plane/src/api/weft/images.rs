//! Images of the node: listed, looked into, removed, and taken in as archives or built from contexts.
//!
//! What is taken in is passed on chunk by chunk and never held here. Progress comes back as lines of JSON:
//! `{"line": …}` for people, at the end `{"done": <image>}` or `{"error": …}`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::Uri;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use weft_proto::weft::node::v1::image_progress::Progress;
use weft_proto::weft::node::v1::{
    BuildImageRequest, BuildStart, Image, ImageProgress, ImportImageRequest, ImportStart,
    InspectImageRequest, ListImagesRequest, RemoveImageRequest, build_image_request,
    import_image_request,
};

use crate::api::query::Query;
use crate::api::{Api, node};
use crate::refusal::Refusal;

/// How long the next bytes of an archive may take to arrive.
const CHUNK: Duration = Duration::from_secs(60);
/// How long the node may be silent: a step of a build can take a while.
const STEP: Duration = Duration::from_secs(30 * 60);
/// Chunks that wait for the node.
const QUEUE: usize = 8;
/// What is said where an archive does not arrive whole.
const BROKEN: &str = "the archive broke off on its way here";
/// gRPC messages are smaller than 4 MiB by default; bodies come in pieces far smaller already.
const MAX_CHUNK_BYTES: usize = 1 << 20;

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Value>, Refusal> {
    let answer = api
        .node
        .call(async |mut client| client.list_images(ListImagesRequest {}).await)
        .await?;
    let images: Vec<Value> = answer.images.iter().map(image).collect();
    Ok(Json(json!({"images": images})))
}

pub(super) async fn inspect(
    State(api): State<Arc<Api>>,
    Path(reference): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let request = InspectImageRequest {
        reference: reference.clone(),
    };
    let answer = api
        .node
        .call(async move |mut client| client.inspect_image(request).await)
        .await;
    answer
        .map(|found| Json(image(&found)))
        .map_err(|refusal| named(refusal, &reference))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(reference): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let request = RemoveImageRequest {
        reference: reference.clone(),
    };
    api.node
        .call(async move |mut client| client.remove_image(request).await)
        .await
        .map_err(|refusal| named(refusal, &reference))?;
    Ok(Json(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}

/// Takes in an archive; `reference` names it where it does not name itself.
pub(super) async fn import(
    State(api): State<Arc<Api>>,
    uri: Uri,
    request: Request,
) -> Result<Response, Refusal> {
    use import_image_request::Input;
    let query = Query::of(&uri)?;
    let start = ImportImageRequest {
        input: Some(Input::Start(ImportStart {
            reference: query.text("reference").unwrap_or_default().to_owned(),
        })),
    };
    let chunk = |bytes| ImportImageRequest {
        input: Some(Input::Chunk(bytes)),
    };
    let permit = permit(&api)?;
    let mut client = api.node.client()?;
    let (messages, pump) = Pump::start(request.into_body(), start, chunk);
    let progress = pump
        .unless_broken(client.import_image(messages))
        .await??
        .into_inner();
    Ok(lines(progress, pump, permit))
}

/// Builds from a context; `reference`, `dockerfile`, `target`, `arg=NAME=VALUE` any number of times, `no_cache`.
pub(super) async fn build(
    State(api): State<Arc<Api>>,
    uri: Uri,
    request: Request,
) -> Result<Response, Refusal> {
    use build_image_request::Input;
    let start = BuildImageRequest {
        input: Some(Input::Start(build_start(&Query::of(&uri)?)?)),
    };
    let chunk = |bytes| BuildImageRequest {
        input: Some(Input::Chunk(bytes)),
    };
    let permit = permit(&api)?;
    let mut client = api.node.client()?;
    let (messages, pump) = Pump::start(request.into_body(), start, chunk);
    let progress = pump
        .unless_broken(client.build_image(messages))
        .await??
        .into_inner();
    Ok(lines(progress, pump, permit))
}

fn build_start(query: &Query) -> Result<BuildStart, Refusal> {
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let arguments = query
        .all("arg")
        .map(|argument| {
            let (name, value) = argument.split_once('=').ok_or_else(|| {
                Refusal::BadRequest(format!("arg: {argument:?} is not of the form NAME=VALUE"))
            })?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect::<Result<_, Refusal>>()?;
    Ok(BuildStart {
        reference: text("reference"),
        dockerfile: text("dockerfile"),
        arguments,
        target: text("target"),
        no_cache: query.is_set("no_cache") || query.is_set("noCache"),
    })
}

pub(super) fn permit(api: &Api) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(&api.uploads).try_acquire_owned().map_err(|_| {
        Refusal::TooManyRequests("too many images are taken in at once; try again soon".to_owned())
    })
}

/// Moves a body to the node, a bounded number of chunks ahead of it.
///
/// A body that breaks off never looks like one that ended: the stream to the node stays open until the call is dropped,
/// which resets it.
pub(super) struct Pump {
    broken: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Pump {
    pub(super) fn start<M: Send + 'static>(
        body: Body,
        start: M,
        message: impl Fn(Bytes) -> M + Send + Sync + 'static,
    ) -> (ReceiverStream<M>, Self) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let broken = CancellationToken::new();
        let told = broken.clone();
        let task = tokio::spawn(async move {
            if sender.send(start).await.is_err() {
                return;
            }
            let mut chunks = body.into_data_stream();
            loop {
                match tokio::time::timeout(CHUNK, chunks.next()).await {
                    Ok(None) => return,
                    Ok(Some(Ok(chunk))) => {
                        if send(&sender, chunk, &message).await.is_none() {
                            return;
                        }
                    }
                    Ok(Some(Err(_))) | Err(_) => {
                        told.cancel();
                        // Keeps `sender`, and with it the stream, open.
                        return std::future::pending().await;
                    }
                }
            }
        });
        let pump = Self {
            broken,
            _task: AbortOnDropHandle::new(task),
        };
        (ReceiverStream::new(receiver), pump)
    }

    /// Waits for the node, but not for what can no longer come.
    pub(super) async fn unless_broken<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Refusal>, Refusal> {
        tokio::select! {
            answer = answer => Ok(answer.map_err(|status| node::refusal(&status))),
            () = self.broken.cancelled() => Err(Refusal::BadRequest(BROKEN.to_owned())),
        }
    }
}

async fn send<M>(
    sender: &mpsc::Sender<M>,
    mut chunk: Bytes,
    message: &impl Fn(Bytes) -> M,
) -> Option<()> {
    while !chunk.is_empty() {
        let part = chunk.split_to(chunk.len().min(MAX_CHUNK_BYTES));
        sender.send(message(part)).await.ok()?;
    }
    Some(())
}

/// The node's progress as lines of JSON; what feeds the node lives as long as they are read.
fn lines(progress: Streaming<ImageProgress>, pump: Pump, permit: OwnedSemaphorePermit) -> Response {
    of_lines(Body::from_stream(progress_lines(progress, pump, permit)))
}

/// One line and no more.
pub(super) fn line(value: &Value) -> Response {
    of_lines(Body::from(format!("{value}\n")))
}

fn of_lines(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    response
}

fn progress_lines(
    progress: Streaming<ImageProgress>,
    pump: Pump,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(Some((progress, pump, permit)), |state| async {
        let (mut progress, pump, permit) = state?;
        let next = tokio::select! {
            next = tokio::time::timeout(STEP, progress.message()) => next,
            () = pump.broken.cancelled() => Ok(Err(Status::cancelled(BROKEN))),
        };
        let (line, is_last) = match next {
            Ok(Ok(Some(ImageProgress {
                progress: Some(Progress::Line(line)),
            }))) => (json!({"line": line}), false),
            Ok(Ok(Some(ImageProgress {
                progress: Some(Progress::Done(done)),
            }))) => (json!({"done": image(&done)}), true),
            Ok(Ok(Some(ImageProgress { progress: None }))) => (json!({"line": ""}), false),
            Ok(Ok(None)) => (json!({"error": "the node ended without a result"}), true),
            Ok(Err(status)) => (json!({"error": status.message()}), true),
            Err(_) => (
                json!({"error": "the node has been silent for too long"}),
                true,
            ),
        };
        let mut text = line.to_string();
        text.push('\n');
        let next = (!is_last).then_some((progress, pump, permit));
        Some((Ok(Bytes::from(text)), next))
    })
}

fn image(image: &Image) -> Value {
    let Image {
        id,
        references,
        size_bytes,
        created_at,
        entrypoint,
        command,
        environment,
        working_directory,
        user,
        exposed_ports,
        volumes,
        stop_signal,
        labels,
        healthcheck,
        layers,
    } = image;
    json!({
        "id": id,
        "references": references,
        "sizeBytes": size_bytes,
        "createdAt": created_at,
        "entrypoint": entrypoint,
        "command": command,
        "environment": environment,
        "workingDirectory": working_directory,
        "user": user,
        "exposedPorts": exposed_ports,
        "volumes": volumes,
        "stopSignal": stop_signal,
        "labels": labels,
        "healthcheck": healthcheck,
        "layers": layers,
    })
}

fn named(refusal: Refusal, reference: &str) -> Refusal {
    match refusal {
        Refusal::NotFound { .. } => Refusal::NotFound {
            resource: "images".to_owned(),
            name: reference.to_owned(),
        },
        other => other,
    }
}
