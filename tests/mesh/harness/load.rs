//! Requests from the host through the published port, one after the other on a few connections, until told to
//! stop: what a user of the shop sees while something is broken behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::wait::eventually;

/// No answer after that long is a lost request.
const ANSWER: Duration = Duration::from_secs(20);
/// No test sends more from one connection.
const MOST: u64 = 20_000;
/// Between two requests of a connection: the machine is to have time for what is tested.
const PAUSE: Duration = Duration::from_millis(4);

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    runtime: Runtime,
    workers: Vec<JoinHandle<Vec<String>>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    is_over: AtomicBool,
    sent: AtomicU64,
}

/// How long a client keeps a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connections {
    /// As long as the server does.
    Kept,
    /// For one request.
    Fresh,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Result {
    pub(crate) sent: u64,
    /// One sentence for each request that was not answered with 200.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Starts, and returns when answers come in.
    pub(crate) fn start(port: u16, path: &'static str, connections: usize) -> Self {
        Self::run(port, path, connections, Connections::Kept)
    }

    /// The same with a connection of its own for each request, of which so many are open at once.
    pub(crate) fn start_fresh(port: u16, path: &'static str, connections: usize) -> Self {
        Self::run(port, path, connections, Connections::Fresh)
    }

    fn run(port: u16, path: &'static str, connections: usize, kind: Connections) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let state = Arc::new(State::default());
        let workers = (0..connections)
            .map(|_| runtime.spawn(work(port, path, kind, Arc::clone(&state))))
            .collect();
        let load = Self {
            runtime,
            workers,
            state,
        };
        load.until_sent(50);
        load
    }

    /// Waits until that many more requests have been answered, or have failed.
    pub(crate) fn until_sent(&self, more: u64) {
        let goal = self.state.sent.load(Ordering::Relaxed) + more;
        eventually("requests to be sent", || {
            let sent = self.state.sent.load(Ordering::Relaxed);
            super::wait::holds(sent >= goal, || format!("{sent} of {goal}"))
        });
    }

    pub(crate) fn stop(self) -> Result {
        self.state.is_over.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for worker in self.workers {
            failures.extend(
                self.runtime
                    .block_on(worker)
                    .expect("a worker does not panic"),
            );
        }
        Result {
            sent: self.state.sent.load(Ordering::Relaxed),
            failures,
        }
    }
}

async fn work(port: u16, path: &'static str, kind: Connections, state: Arc<State>) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = None;
    for _ in 0..MOST {
        if state.is_over.load(Ordering::Relaxed) {
            break;
        }
        let sending = send(&mut connection, port, path);
        let outcome = tokio::time::timeout(ANSWER, sending)
            .await
            .unwrap_or_else(|_| Err("no answer".to_owned()));
        if let Err(failure) = outcome {
            failures.push(failure);
            connection = None;
        }
        if kind == Connections::Fresh {
            connection = None;
        }
        state.sent.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    failures
}

async fn send(
    connection: &mut Option<SendRequest<Empty<Bytes>>>,
    port: u16,
    path: &str,
) -> std::result::Result<(), String> {
    // Closed between two requests: that is how a server says that it wants no more, and costs nobody anything.
    if connection.as_mut().is_some_and(|sender| sender.is_closed()) {
        *connection = None;
    }
    let sender = match connection {
        Some(open) => open,
        None => connection.insert(connect(port).await?),
    };
    sender
        .ready()
        .await
        .map_err(|error| format!("connection: {error}"))?;
    let request = http::Request::get(path)
        .header("host", "bookstore")
        .body(Empty::new())
        .expect("a request");
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| format!("request: {error}"))?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| format!("body: {error}"))?
        .to_bytes();
    match status.as_u16() {
        200 => Ok(()),
        code => Err(format!("{code}: {}", String::from_utf8_lossy(&body))),
    }
}

async fn connect(port: u16) -> std::result::Result<SendRequest<Empty<Bytes>>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("handshake: {error}"))?;
    tokio::spawn(connection);
    Ok(sender)
}
