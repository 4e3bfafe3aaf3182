//! The mesh that a command works on: finding it, starting it, and talking to its API.
//!
//! Verbs get a [`Mesh`] and say what they want by path; what the API refuses becomes a [`Failure`] with the exit status
//! that belongs to it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, BodyStream, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::io::ReaderStream;
use weft_injector::api::{ApiError, Client, Connection};

use crate::arguments::Global;
use crate::failure::{Failure, chain};
use crate::paths::Paths;
use crate::resource::name;
use crate::suggest;
use crate::verb::ps::{is_ready, service};

/// How long a daemon may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks whether it does.
const POLL: Duration = Duration::from_millis(10);

/// A running mesh.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    client: Client,
    paths: Paths,
}

/// What became of an applied object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was not there before.
    Created,
    /// It was different before.
    Configured,
    /// It was just so before.
    Unchanged,
}

/// A WebSocket to the API.
pub(crate) type WebSocket = tokio_tungstenite::WebSocketStream<Connection>;

impl Mesh {
    /// The mesh that runs. Where its daemon has ended but its pods have not, a new daemon adopts them.
    pub(crate) async fn of_running(global: &Global) -> Result<Self, Failure> {
        Self::find_running(global)
            .await?
            .ok_or_else(|| match &global.socket {
                Some(socket) => {
                    Failure::new(format!("no daemon answers at {}", socket.display()))
                }
                None => Failure::new(
                    "no mesh is running here: start one with `weft up`, in a folder with a Compose file",
                ),
            })
    }

    /// As [`Mesh::of_running`], but that there is none is no failure.
    pub(crate) async fn find_running(global: &Global) -> Result<Option<Self>, Failure> {
        let mesh = Self::at(global)?;
        if mesh.answers().await {
            return Ok(Some(mesh));
        }
        let has_node =
            tokio::net::UnixStream::connect(mesh.paths.node_socket_dir().join("node.sock"))
                .await
                .is_ok();
        if global.socket.is_some() || !has_node {
            return Ok(None);
        }
        mesh.start_daemon().await?;
        Ok(Some(mesh))
    }

    /// The mesh, started where it does not run.
    pub(crate) async fn of_started(global: &Global) -> Result<Self, Failure> {
        let mesh = Self::at(global)?;
        if !mesh.answers().await {
            mesh.start_daemon().await?;
        }
        Ok(mesh)
    }

    fn at(global: &Global) -> Result<Self, Failure> {
        let paths = Paths::of_environment()?;
        let socket = global.socket.clone().unwrap_or_else(|| paths.socket());
        Ok(Self {
            client: Client::unix(socket),
            paths,
        })
    }

    /// Where it keeps its things.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    async fn answers(&self) -> bool {
        self.client
            .call_json::<Value>(Method::GET, "/weft/v1/status", None)
            .await
            .is_ok()
    }

    /// Starts a daemon that outlives this command, and waits until it answers.
    async fn start_daemon(&self) -> Result<(), Failure> {
        self.paths.create()?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.paths.daemon_log())?;
        let said_before = log.metadata()?.len();
        let mut daemon = Command::new("/proc/self/exe");
        daemon
            .arg0("weft")
            .arg("daemon")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // A process group of its own: Ctrl-C in this terminal is not for it.
        daemon.process_group(0).current_dir("/");
        let mut child = daemon
            .spawn()
            .map_err(|error| Failure::new(format!("starting the daemon: {error}")))?;

        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if self.answers().await {
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                let said = said_since(&self.paths.daemon_log(), said_before);
                return Err(Failure::new(format!(
                    "the daemon ended at once ({status}):\n{said}"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Failure::timed_out(format!(
            "the daemon does not answer after {} s; see {}",
            START_DEADLINE.as_secs(),
            self.paths.daemon_log().display()
        )))
    }

    /// Ends daemon and node, and waits until they are gone.
    pub(crate) async fn shut_down(&self) -> Result<(), Failure> {
        let pid = std::fs::read_to_string(self.paths.daemon_pid()).unwrap_or_default();
        self.send(Method::POST, "/weft/v1/shutdown", None).await?;
        let process = PathBuf::from("/proc").join(pid.trim());
        let deadline = Instant::now() + START_DEADLINE;
        while !pid.trim().is_empty() && process.exists() && !is_zombie(&process) {
            if Instant::now() > deadline {
                return Err(Failure::timed_out(format!(
                    "the daemon (pid {}) does not end",
                    pid.trim()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// What is at a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// What is at a path, if anything.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(failure) => failure.ignore_not_found().map(|()| None),
        }
    }

    /// What is at a path, as the API's own table.
    pub(crate) async fn get_table(&self, path: &str) -> Result<Value, Failure> {
        let request = Request::get(path)
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        let response = self.client.stream(request).await?;
        read_json(response).await
    }

    /// Asks for something to be done.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Deletes what is at a path.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        Ok(self.client.call_json(method, path, body).await?)
    }

    /// Server-side apply.
    pub(crate) async fn apply(
        &self,
        path: &str,
        object: &Value,
        dry_run: bool,
    ) -> Result<Applied, Failure> {
        let before = self.find(path).await?;
        let dry = if dry_run { "&dryRun=All" } else { "" };
        let request = Request::patch(format!("{path}?fieldManager=weft&force=true{dry}"))
            .header("content-type", "application/apply-patch+yaml")
            .body(Full::new(Bytes::from(serde_json::to_vec(object)?)))
            .map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        let after = read_json(self.client.stream(request).await?).await?;
        Ok(compare(before.as_ref(), &after))
    }

    /// Puts an object in the place of the one that was read, or makes it.
    pub(crate) async fn replace(
        &self,
        path: &str,
        object: &Value,
        dry_run: bool,
    ) -> Result<Applied, Failure> {
        let dry = if dry_run { "?dryRun=All" } else { "" };
        let before = self.find(path).await?;
        let after = match &before {
            Some(_) => {
                self.send(Method::PUT, &format!("{path}{dry}"), Some(object))
                    .await?
            }
            None => {
                let collection = path
                    .rsplit_once('/')
                    .map_or(path, |(collection, _)| collection);
                self.send(Method::POST, &format!("{collection}{dry}"), Some(object))
                    .await?
            }
        };
        Ok(compare(before.as_ref(), &after))
    }

    /// A pod by its name, or the first ready one of a service.
    pub(crate) async fn pod(&self, namespace: &str, word: &str) -> Result<Value, Failure> {
        let list = self
            .get(&format!("/api/v1/namespaces/{namespace}/pods"))
            .await?;
        let mut pods = list["items"].as_array().cloned().unwrap_or_default();
        let services: Vec<String> = pods.iter().map(service).collect();
        pods.retain(|pod| name(pod) == word || service(pod) == word);
        pods.sort_by_key(|pod| (!is_ready(pod), name(pod)));
        pods.into_iter().next().ok_or_else(|| {
            let hint = suggest::hint(word, services.iter().map(String::as_str));
            Failure::not_found(format!(
                "no pod and no service is called {word:?} in namespace {namespace}{hint}: see `weft ps`"
            ))
        })
    }

    /// A body that arrives bit by bit.
    pub(crate) async fn stream(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Failure>> + Unpin + use<>, Failure> {
        let request = Request::get(path)
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        let response = self.client.stream(request).await?;
        Ok(data(response))
    }

    /// Sends a file and shows the lines of progress that come back; the last one holds the result.
    pub(crate) async fn upload(
        &self,
        path: &str,
        file: std::fs::File,
        mut show: impl FnMut(String),
    ) -> Result<Value, Failure> {
        let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 * 1024);
        let request = Request::post(path)
            .header("content-type", "application/x-tar")
            .body(StreamBody::new(chunks.map_ok(Frame::data)))
            .map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        let mut chunks = data(self.client.stream(request).await?);
        let (mut rest, mut result) = (Vec::new(), None);
        while let Some(chunk) = chunks.next().await {
            rest.extend_from_slice(&chunk?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                if let Some(error) = event["error"].as_str() {
                    return Err(Failure::new(error));
                }
                match event["line"].as_str() {
                    Some(line) => show(line.to_owned()),
                    None => result = Some(event["done"].clone()),
                }
            }
        }
        result.ok_or_else(|| Failure::new("the connection ended before the work was done"))
    }

    /// A WebSocket for `exec`.
    pub(crate) async fn websocket(&self, path: &str) -> Result<WebSocket, Failure> {
        let connection = self.client.connect().await?;
        let mut request = format!("ws://localhost{path}")
            .into_client_request()
            .map_err(|error| Failure::usage(error.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(connection.headers().clone());
        headers.insert(
            "sec-websocket-protocol",
            http::HeaderValue::from_static("v5.channel.k8s.io"),
        );
        match tokio_tungstenite::client_async(request, connection).await {
            Ok((socket, _)) => Ok(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(refusal(&response)),
            Err(error) => Err(Failure::new(format!("connecting: {error}"))),
        }
    }
}

/// Percent-encodes what goes into a path or a query.
pub(crate) fn encode(text: &str) -> String {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match is_plain(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// What changed is what people wrote: not who owns which field, nor what the launcher reports meanwhile.
fn compare(before: Option<&Value>, after: &Value) -> Applied {
    let written = |object: &Value| {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
        }
        object
    };
    match before {
        None => Applied::Created,
        Some(before) if written(before) == written(after) => Applied::Unchanged,
        Some(_) => Applied::Configured,
    }
}

async fn read_json(response: Response<Incoming>) -> Result<Value, Failure> {
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| Failure::new(chain(&error)))?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

fn data(
    response: Response<Incoming>,
) -> impl Stream<Item = Result<Bytes, Failure>> + Unpin + use<> {
    BodyStream::new(response.into_body()).filter_map(|frame| {
        std::future::ready(match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(Failure::new(format!(
                "the connection broke: {}",
                chain(&error)
            )))),
        })
    })
}

fn refusal(response: &Response<Option<Vec<u8>>>) -> Failure {
    let body = response.body().as_deref().unwrap_or_default();
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = status["message"]
        .as_str()
        .map_or_else(|| format!("refused: {}", response.status()), str::to_owned);
    match response.status().as_u16() {
        404 => Failure::not_found(message),
        _ => Failure::new(message),
    }
}

fn said_since(log: &Path, offset: u64) -> String {
    let said = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(said.len());
    String::from_utf8_lossy(&said[from..]).trim_end().to_owned()
}

/// A daemon that this very command started is its child: ended, but still listed.
fn is_zombie(process: &Path) -> bool {
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && line.contains('Z'))
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let mut message = chain(&error);
        for cause in error.causes() {
            let (field, text) = (
                cause.field.as_deref().unwrap_or_default(),
                cause.message.as_deref().unwrap_or_default(),
            );
            if !message.contains(text) {
                message.push_str(&format!("\n  {field}: {text}"));
            }
        }
        match error {
            _ if error.is_not_found() => Self::not_found(message),
            _ if error.is_invalid() => Self::refused(message),
            ApiError::TimedOut { .. } => Self::timed_out(message),
            _ => Self::new(message),
        }
    }
}
