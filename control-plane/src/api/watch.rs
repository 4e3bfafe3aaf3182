//! Watching: changes as a stream of JSON lines.
//!
//! A watch starts after a resourceVersion, or with everything that is there. It sends bookmarks, so that clients can go
//! on from where they were, and ends by itself after a while, so that no connection is forever. One that cannot keep
//! up, or starts too far back, gets `410 Gone` and lists again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::read;
use super::request::Request;
use super::selector::Selector;
use super::table::table;
use crate::kinds::Kind;
use crate::refusal::Refusal;
use crate::store::{Change, Gone, Object, Snapshot, Watch};

/// How often a watch says how far it is.
const BOOKMARK: Duration = Duration::from_secs(30);
/// How long a watch lasts where the caller does not say, and at most.
const DEFAULT_LENGTH: Duration = Duration::from_secs(30 * 60);
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

/// What is watched, and how it is told.
struct View {
    kind: &'static Kind,
    namespace: Option<String>,
    selector: Selector,
    request: Request,
    has_bookmarks: bool,
}

/// One watch.
struct Feed {
    view: View,
    watch: Watch,
    pending: VecDeque<Bytes>,
    bookmarks: Interval,
    end: Instant,
    shutdown: CancellationToken,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

/// Starts a watch.
pub(super) fn start(
    api: &Api,
    request: Request,
    kind: &'static Kind,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<Response, Refusal> {
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        Refusal::TooManyRequests("too many watches and followed logs at once".to_owned())
    })?;
    let selector = match name {
        Some(name) => Selector::parse(None, Some(&format!("metadata.name={name}")))?,
        None => read::selector(&request)?,
    };
    let length = request
        .query
        .seconds("timeoutSeconds")?
        .unwrap_or(DEFAULT_LENGTH)
        .min(LONGEST);
    let view = View {
        kind,
        namespace: namespace.map(str::to_owned),
        selector,
        has_bookmarks: request.query.is_set("allowWatchBookmarks"),
        request,
    };
    let (watch, pending) = open(api, &view)?;
    let mut bookmarks = tokio::time::interval(BOOKMARK);
    bookmarks.reset();
    let feed = Feed {
        view,
        watch,
        pending,
        bookmarks,
        end: Instant::now() + length,
        shutdown: api.shutdown.clone(),
        is_over: false,
        _permit: permit,
    };
    let mut response = Response::new(Body::from_stream(lines(feed)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The place to start from, and what is told before anything has changed.
fn open(api: &Api, view: &View) -> Result<(Watch, VecDeque<Bytes>), Refusal> {
    let query = &view.request.query;
    let sends_initial = query.is_set("sendInitialEvents");
    let version = query.number("resourceVersion")?.unwrap_or(0);
    if version > 0 && !sends_initial {
        return Ok((api.store.watch(version)?, VecDeque::new()));
    }
    let snapshot = api.store.snapshot();
    let watch = api.store.watch(snapshot.resource_version())?;
    let mut pending = view.initial(&snapshot);
    if sends_initial {
        pending.push_back(view.bookmark(watch.version(), true));
    }
    Ok((watch, pending))
}

fn lines(feed: Feed) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(feed, |mut feed| async {
        let line = feed.next().await?;
        Some((Ok(line), feed))
    })
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => self.is_over = true,
                () = tokio::time::sleep_until(self.end) => self.is_over = true,
                changes = self.watch.next() => self.take(changes),
                _ = self.bookmarks.tick(), if self.view.has_bookmarks => {
                    self.pending.push_back(self.view.bookmark(self.watch.version(), false));
                }
            }
        }
    }

    fn take(&mut self, changes: Result<Option<Vec<Arc<Change>>>, Gone>) {
        match changes {
            Ok(Some(changes)) => {
                let lines = changes.iter().filter_map(|change| self.view.event(change));
                self.pending.extend(lines);
            }
            Ok(None) => self.is_over = true,
            Err(gone) => {
                let status = Refusal::from(gone).status();
                self.pending.push_back(line("ERROR", &status));
                self.is_over = true;
            }
        }
    }
}

impl View {
    fn initial(&self, snapshot: &Snapshot) -> VecDeque<Bytes> {
        snapshot
            .list(self.kind, self.namespace.as_deref())
            .filter(|object| self.selector.matches(object))
            .map(|object| self.line("ADDED", object))
            .collect()
    }

    /// A change as this watch sees it: what begins to match appears, what ceases to is gone.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let object = change.object();
        let is_meant = *object.kind() == *self.kind
            && self
                .namespace
                .as_ref()
                .is_none_or(|wanted| *wanted == object.name().namespace);
        if !is_meant {
            return None;
        }
        let was = change
            .before()
            .is_some_and(|before| self.selector.matches(before));
        let is = !matches!(change, Change::Deleted { .. }) && self.selector.matches(object);
        match (was, is) {
            (false, true) => Some(self.line("ADDED", object)),
            (true, true) => Some(self.line("MODIFIED", object)),
            (true, false) => Some(self.line("DELETED", object)),
            (false, false) => None,
        }
    }

    fn line(&self, event: &str, object: &Object) -> Bytes {
        if self.view_is_table() {
            let metadata = json!({"resourceVersion": object.resource_version().to_string()});
            let query = &self.request.query;
            let table = table(self.kind, std::iter::once(object), &metadata, query);
            return line(event, &table);
        }
        line(event, object.value())
    }

    fn view_is_table(&self) -> bool {
        self.request.wants_table()
    }

    fn bookmark(&self, version: u64, ends_initial: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        if self.view_is_table() {
            let nothing = std::iter::empty();
            return line(
                "BOOKMARK",
                &table(self.kind, nothing, &metadata, &self.request.query),
            );
        }
        let kind = self.kind;
        let object =
            json!({"kind": kind.name, "apiVersion": kind.api_version(), "metadata": metadata});
        line("BOOKMARK", &object)
    }
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    object: &'a Value,
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = serde_json::to_vec(&Event { kind, object }).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}
