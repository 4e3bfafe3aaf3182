//! Following a collection: list, then watch, for ever.
//!
//! One task per watch keeps the last state of every object, so that what vanished while the connection was
//! down is reported as deleted, and an object that did not change is not reported twice.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::RngExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{ApiError, Client, Collection, List};

/// How many changes may wait for a slow reader; the connection waits with them.
const QUEUE: usize = 256;
/// A single event is never larger.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// What can be watched: any Kubernetes type with metadata.
pub trait Watched:
    Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + Send + Sync + 'static
{
}

impl<K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + Send + Sync + 'static> Watched
    for K
{
}

/// A change of a collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<K> {
    /// The object is new or has changed.
    Applied(K),
    /// The object, as it was last, is gone.
    Deleted(K),
    /// Everything that there was has been reported.
    Synced,
}

/// A collection being followed, until it is dropped.
#[derive(Debug)]
pub struct Watch<K> {
    events: mpsc::Receiver<Event<K>>,
    task: JoinHandle<()>,
}

impl<K: Watched> Watch<K> {
    pub(super) fn start(client: Client, collection: Collection) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let follower = Follower {
            client,
            collection,
            sender,
            known: HashMap::new(),
        };
        Self {
            events,
            task: tokio::spawn(follower.run()),
        }
    }

    /// The next change; pends while there is none. Can be given up and asked again.
    pub async fn next(&mut self) -> Option<Event<K>> {
        self.events.recv().await
    }
}

impl<K> Drop for Watch<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Follower<K> {
    client: Client,
    collection: Collection,
    sender: mpsc::Sender<Event<K>>,
    known: HashMap<(String, String), K>,
}

/// Why one connection's watch ended.
enum Ended {
    /// The history no longer reaches back: list again.
    Gone,
    /// The server closed: go on from there.
    Closed,
    Failed(ApiError),
    /// Nobody listens any more.
    Dropped,
}

impl<K: Watched> Follower<K> {
    async fn run(mut self) {
        let mut delay = FIRST_DELAY;
        let mut version = None;
        loop {
            let ended = match version.take() {
                Some(version) => self.follow(version).await,
                None => match self.list().await {
                    Ok(listed) => (Some(listed), Ended::Closed),
                    Err(ended) => (None, ended),
                },
            };
            version = ended.0;
            match ended.1 {
                Ended::Dropped => return,
                Ended::Gone => version = None,
                Ended::Closed => {
                    delay = FIRST_DELAY;
                    // A server that closes at once must not be asked in a tight loop.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ended::Failed(error) => {
                    tracing::debug!(collection = %self.collection.path(), %error, "watch interrupted");
                    tokio::time::sleep(jittered(delay)).await;
                    delay = (delay * 2).min(LONGEST_DELAY);
                }
            }
        }
    }

    /// Reports all objects there are, and all that are gone; returns where to go on.
    async fn list(&mut self) -> Result<String, Ended> {
        let list: List<K> = self
            .client
            .list(&self.collection, "")
            .await
            .map_err(Ended::Failed)?;
        let mut gone = std::mem::take(&mut self.known);
        for object in list.items {
            gone.remove(&key(&object));
            self.apply(object).await?;
        }
        for object in gone.into_values() {
            self.send(Event::Deleted(object)).await?;
        }
        self.send(Event::Synced).await?;
        Ok(list.metadata.resource_version)
    }

    /// Follows from a version on until the connection ends; returns where to go on.
    async fn follow(&mut self, mut version: String) -> (Option<String>, Ended) {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={}",
            self.collection.path(),
            super::collection::escape(&version)
        );
        let ended = match self.open(&path).await {
            Ok(body) => self.read(body, &mut version).await,
            Err(error) if error.is_gone() => Ended::Gone,
            Err(error) => Ended::Failed(error),
        };
        (Some(version), ended)
    }

    async fn open(&self, path: &str) -> Result<Incoming, ApiError> {
        let request = Request::get(path)
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|source| ApiError::Request {
                what: path.to_owned(),
                source,
            })?;
        Ok(self.client.stream(request).await?.into_body())
    }

    async fn read(&mut self, mut body: Incoming, version: &mut String) -> Ended {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end);
                buffer.advance(1);
                if let Err(ended) = self.take(&line, version).await {
                    return ended;
                }
            }
            if buffer.len() > MAX_EVENT_BYTES {
                return self.broken("an event is too large".into());
            }
            match body.frame().await {
                None => return Ended::Closed,
                Some(Err(error)) => return self.broken(error.into()),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }

    async fn take(&mut self, line: &[u8], version: &mut String) -> Result<(), Ended> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let event: Line = serde_json::from_slice(line).map_err(|error| self.undecodable(error))?;
        if event.kind == "ERROR" {
            let status = event.object.to_string();
            let what = self.collection.path();
            let error =
                ApiError::from_body(StatusCode::INTERNAL_SERVER_ERROR, status.as_bytes(), what);
            return Err(if error.is_gone() {
                Ended::Gone
            } else {
                Ended::Failed(error)
            });
        }
        let place = event.object.pointer("/metadata/resourceVersion");
        let place = place.and_then(Value::as_str).map(str::to_owned);
        if event.kind != "BOOKMARK" {
            let object = serde_json::from_value(event.object);
            let object: K = object.map_err(|error| self.undecodable(error))?;
            if event.kind == "DELETED" {
                self.known.remove(&key(&object));
                self.send(Event::Deleted(object)).await?;
            } else {
                self.apply(object).await?;
            }
        }
        // Only now: what was not reported must be asked for again.
        if let Some(place) = place {
            *version = place;
        }
        Ok(())
    }

    async fn apply(&mut self, object: K) -> Result<(), Ended> {
        self.known.insert(key(&object), object.clone());
        self.send(Event::Applied(object)).await
    }

    async fn send(&self, event: Event<K>) -> Result<(), Ended> {
        self.sender.send(event).await.map_err(|_| Ended::Dropped)
    }

    fn undecodable(&self, source: serde_json::Error) -> Ended {
        Ended::Failed(ApiError::Decode {
            what: format!("watching {}", self.collection.path()),
            source,
        })
    }

    fn broken(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Ended {
        Ended::Failed(ApiError::Body {
            what: format!("watching {}", self.collection.path()),
            source,
        })
    }
}

/// One line of a watch.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

fn key<K: Watched>(object: &K) -> (String, String) {
    let metadata = object.metadata();
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.5..1.5))
}
