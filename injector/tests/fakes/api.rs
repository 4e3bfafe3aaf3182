//! An API server of one's own: objects in memory, over a unix socket, with watches. Just enough of Kubernetes.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

type Body = BoxBody<Bytes, Infallible>;

#[derive(Clone)]
pub(crate) struct FakeApi {
    inner: Arc<Inner>,
}

struct Inner {
    socket: PathBuf,
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
    version: watch::Sender<u64>,
}

/// The path of an object, and a line of a watch.
type Change = (String, Value);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    history: Vec<(u64, Change)>,
    version: u64,
    /// Answers `410 Gone` to the next watches.
    gone: u32,
    lists: u32,
    /// Each write, as `VERB path`.
    log: Vec<String>,
}

impl FakeApi {
    pub(crate) fn start(folder: &Path) -> Self {
        let socket = folder.join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let api = Self {
            inner: Arc::new(Inner {
                socket,
                state: Mutex::default(),
                changes: broadcast::Sender::new(4096),
                version: watch::Sender::new(0),
            }),
        };
        let serving = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = serving.clone();
                let service = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        api
    }

    pub(crate) fn client(&self) -> weft_injector::api::Client {
        weft_injector::api::Client::unix(&self.inner.socket)
    }

    /// Stores an object as it is given, at a path like `/api/v1/namespaces/shop/pods/a`.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.write(path, object, "ADDED");
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.inner.state.lock().objects.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.inner.state.lock();
        if let Some(mut object) = state.objects.remove(path) {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            self.tell(&mut state, "DELETED", path, object);
        }
    }

    /// As a client does: pods only go when the launcher says so.
    pub(crate) fn delete(&self, path: &str) {
        self.deletion(path, false);
    }

    pub(crate) fn objects(&self, plural: &str) -> Vec<Value> {
        let within = format!("/{plural}/");
        let state = self.inner.state.lock();
        let found = state
            .objects
            .iter()
            .filter(|(path, _)| path.contains(&within));
        found.map(|(_, object)| object.clone()).collect()
    }

    /// The next watches are told that their place in history is gone.
    pub(crate) fn forget_history(&self, times: u32) {
        self.inner.state.lock().gone = times;
    }

    pub(crate) fn lists(&self) -> u32 {
        self.inner.state.lock().lists
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.inner.state.lock().log.clone()
    }

    /// Waits for something to become true.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changes = self.inner.version.subscribe();
        let found = async {
            loop {
                if let Some(found) = look(self) {
                    return found;
                }
                let tick = tokio::time::sleep(std::time::Duration::from_millis(50));
                tokio::select! {
                    _ = changes.changed() => {}
                    () = tick => {}
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), found)
            .await
            .unwrap_or_else(|_| panic!("never happened: {what}"))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if method != Method::GET {
            self.inner.state.lock().log.push(format!("{method} {path}"));
        }
        match method {
            Method::GET if query.contains("watch=true") => self.watch(&path, &query),
            Method::GET => self.read(&path),
            Method::POST => {
                let name = sent["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.get(&path).is_some() {
                    return refusal(StatusCode::CONFLICT, "AlreadyExists");
                }
                json_response(&self.write(&path, sent, "ADDED"))
            }
            Method::PATCH => self.patch(&path, &sent),
            Method::DELETE => {
                if self.get(&path).is_none() {
                    return refusal(StatusCode::NOT_FOUND, "NotFound");
                }
                let at_once = sent["gracePeriodSeconds"] == json!(0);
                json_response(&self.deletion(&path, at_once))
            }
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn read(&self, path: &str) -> Response<Body> {
        if let Some(object) = self.get(path) {
            return json_response(&object);
        }
        let plural = path.rsplit('/').next().unwrap_or_default();
        if !["pods", "deployments", "jobs", "services"].contains(&plural) {
            return refusal(StatusCode::NOT_FOUND, "NotFound");
        }
        let items = self.objects(plural);
        let mut state = self.inner.state.lock();
        state.lists += 1;
        let version = state.version.to_string();
        json_response(&json!({ "metadata": { "resourceVersion": version }, "items": items }))
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let since = query.split("resourceVersion=").nth(1).unwrap_or_default();
        let since: u64 = since
            .split('&')
            .next()
            .unwrap_or_default()
            .parse()
            .unwrap_or(0);
        let mut state = self.inner.state.lock();
        if state.gone > 0 {
            state.gone -= 1;
            return refusal(StatusCode::GONE, "Expired");
        }
        let plural = format!("/{}/", path.rsplit('/').next().unwrap_or_default());
        let missed = state.history.iter().filter(|(version, _)| *version > since);
        let missed: Vec<Change> = missed.map(|(_, change)| change.clone()).collect();
        let changes = BroadcastStream::new(self.inner.changes.subscribe());
        let changes = changes.filter_map(|change| async move { change.ok() });
        let lines = tokio_stream::iter(missed)
            .chain(changes)
            .filter_map(move |(path, event)| {
                let plural = plural.clone();
                async move {
                    let line = format!("{event}\n");
                    path.contains(&plural)
                        .then(|| Ok(Frame::data(Bytes::from(line))))
                }
            });
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(lines))))
    }

    fn patch(&self, path: &str, patch: &Value) -> Response<Body> {
        let path = path.strip_suffix("/status").unwrap_or(path);
        let Some(mut object) = self.get(path) else {
            return refusal(StatusCode::NOT_FOUND, "NotFound");
        };
        merge(&mut object, patch);
        json_response(&self.write(path, object, "MODIFIED"))
    }

    fn deletion(&self, path: &str, at_once: bool) -> Value {
        let Some(mut object) = self.get(path) else {
            return Value::Null;
        };
        if path.contains("/pods/") && !at_once {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            object["metadata"]["deletionGracePeriodSeconds"] = json!(1);
            return self.write(path, object, "MODIFIED");
        }
        self.remove(path);
        object
    }

    fn write(&self, path: &str, mut object: Value, kind: &str) -> Value {
        let mut state = self.inner.state.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", state.version));
        }
        state.objects.insert(path.to_owned(), object.clone());
        self.tell(&mut state, kind, path, object.clone());
        object
    }

    fn tell(&self, state: &mut State, kind: &str, path: &str, object: Value) {
        let change = (path.to_owned(), json!({ "type": kind, "object": object }));
        state.history.push((state.version, change.clone()));
        let _ = self.inner.changes.send(change);
        self.inner.version.send_modify(|count| *count += 1);
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn json_response(value: &Value) -> Response<Body> {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed())
}

fn refusal(code: StatusCode, reason: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": format!("the fake says {reason}"), "code": code.as_u16(),
    });
    let mut response = json_response(&status);
    *response.status_mut() = code;
    response
}
