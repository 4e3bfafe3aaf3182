//! Well-behaved clients: whatever they ask is answered, whole, whatever changes meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::resources::{HTTP, HTTP_BY_TLS, TCP, TCP_BY_TLS};
use crate::rude;
use crate::upstreams::LARGE;

/// How many connections there are of each kind: 500 in all.
const CONNECTIONS: [(&str, usize); 7] = [
    ("http/1.1", 130),
    ("http/2", 50),
    ("tcp", 100),
    ("http/1.1 by mtls", 60),
    ("http/2 by mtls", 30),
    ("tcp by mtls", 60),
    ("rude", 70),
];
/// Nothing takes longer, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bodies of requests are smaller.
const MAX_BODY: usize = 96 * 1024;

/// What went well and what didn't.
#[derive(Default)]
pub(crate) struct Tally {
    done: Mutex<BTreeMap<&'static str, u64>>,
    again: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn done(&self, kind: &'static str) {
        *self.done.lock().entry(kind).or_default() += 1;
    }

    fn failed(&self, kind: &str, why: impl fmt::Display) {
        let mut failures = self.failures.lock();
        if failures.len() < 1000 {
            failures.push(format!("{kind}: {why}"));
        }
    }
}

/// All clients.
pub(crate) struct Load {
    tally: Arc<Tally>,
}

/// Clients at work.
pub(crate) struct Running {
    clients: JoinSet<()>,
    stop: CancellationToken,
}

impl Running {
    /// Lets each of them finish what it does.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client panics");
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &*self.tally.done.lock() {
            write!(formatter, "{count} {kind}, ")?;
        }
        let again = self.tally.again.load(Ordering::Relaxed);
        let failed = self.tally.failures.lock().len();
        write!(
            formatter,
            "{again} sent again on another connection, {failed} failed"
        )
    }
}

impl Load {
    pub(crate) fn new() -> Self {
        Load {
            tally: Arc::default(),
        }
    }

    /// What should not have happened.
    pub(crate) fn problems(&self) -> Vec<String> {
        let failures = self.tally.failures.lock();
        failures.iter().take(20).cloned().collect()
    }

    /// Lets them run until they are stopped.
    pub(crate) fn run(&self) -> Running {
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for (kind, count) in CONNECTIONS {
            for _ in 0..count {
                let (tally, stop) = (Arc::clone(&self.tally), stop.clone());
                clients.spawn(async move {
                    while !stop.is_cancelled() {
                        connection(kind, &tally, &stop).await;
                    }
                });
            }
        }
        Running { clients, stop }
    }
}

async fn connection(kind: &'static str, tally: &Tally, stop: &CancellationToken) {
    let (lasting, patience) = (random(1, 60), PATIENCE);
    let ended = match kind {
        "http/1.1" => over_http1(kind, HTTP, lasting, tally, stop).await,
        "http/1.1 by mtls" => over_http1(kind, HTTP_BY_TLS, lasting, tally, stop).await,
        "http/2" => over_http2(kind, HTTP, lasting, tally, stop).await,
        "http/2 by mtls" => over_http2(kind, HTTP_BY_TLS, lasting, tally, stop).await,
        "tcp" => over_tcp(kind, TCP, lasting, tally, stop).await,
        "tcp by mtls" => over_tcp(kind, TCP_BY_TLS, lasting, tally, stop).await,
        _ => {
            let _ = tokio::time::timeout(patience, rude::connection()).await;
            tally.done("rude");
            Ok(())
        }
    };
    if let Err(why) = ended {
        tally.failed(kind, why);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub(crate) fn random(from: usize, to: usize) -> usize {
    rand::rng().random_range(from..to)
}

pub(crate) async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(random(20, 500) as u64)).await;
}

/// A request, and how many bytes its answer has.
fn request(is_http2: bool) -> (Request<Full<Bytes>>, usize) {
    let (method, path, body, expected) = match random(0, 20) {
        0 => ("GET", "/large", 0, LARGE),
        1..8 => {
            let size = random(0, MAX_BODY);
            ("POST", "/back", size, size)
        }
        _ => ("GET", "/small", 0, 5),
    };
    let uri = match is_http2 {
        true => format!("http://soak{path}"),
        false => path.to_owned(),
    };
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("host", "soak");
    let body = Full::new(Bytes::from(vec![b'b'; body]));
    (request.body(body).unwrap(), expected)
}

/// What became of a request.
enum Ended {
    /// It was answered.
    Well,
    /// The connection was over before it was sent, or before a byte of an answer: it may be sent again.
    Unsent,
}

/// How far an exchange came.
#[derive(Debug, Default)]
struct Progress {
    status: Option<u16>,
    bytes: usize,
}

async fn answered(
    response: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
    expected: usize,
) -> Result<Ended, String> {
    let mut progress = Progress::default();
    let exchange = async {
        let response = match response.await {
            Ok(response) => response,
            Err(error)
                if error.is_canceled() || error.is_closed() || error.is_incomplete_message() =>
            {
                return Ok(Ended::Unsent);
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        let status = response.status();
        progress.status = Some(status.as_u16());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("{status}, then {error:?}"))?;
            progress.bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        let length = progress.bytes;
        match status.as_u16() == 200 && length == expected {
            true => Ok(Ended::Well),
            false => Err(format!("{status} and {length} bytes of {expected}")),
        }
    };
    let ended = tokio::time::timeout(PATIENCE, exchange).await;
    ended.unwrap_or_else(|_| {
        Err(format!(
            "no answer in time: {progress:?} of {expected} bytes"
        ))
    })
}

async fn over_http1(
    kind: &'static str,
    port: u16,
    requests: usize,
    tally: &Tally,
    stop: &CancellationToken,
) -> Result<(), String> {
    let mut is_first = true;
    let stream = connect(port).await.map_err(|error| error.to_string())?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let driven = tokio::spawn(connection);
    for _ in 0..requests {
        if stop.is_cancelled() || sender.ready().await.is_err() {
            break;
        }
        let (request, expected) = request(false);
        match answered(sender.send_request(request), expected).await? {
            Ended::Well => tally.done(kind),
            // A server may close a connection that has been idle, and never one that is new.
            Ended::Unsent if is_first => return Err("a new connection was closed".into()),
            Ended::Unsent => {
                tally.again.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        is_first = false;
        pause().await;
    }
    drop(sender);
    let _ = driven.await;
    Ok(())
}

async fn over_http2(
    kind: &'static str,
    port: u16,
    rounds: usize,
    tally: &Tally,
    stop: &CancellationToken,
) -> Result<(), String> {
    let stream = connect(port).await.map_err(|error| error.to_string())?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let driven = tokio::spawn(connection);
    for _ in 0..rounds {
        if stop.is_cancelled() || sender.ready().await.is_err() {
            break;
        }
        let mut streams: Vec<_> = (0..random(1, 5))
            .map(|_| (sender.clone(), request(true)))
            .collect();
        let streams = streams
            .drain(..)
            .map(|(mut sender, (request, expected))| async move {
                answered(sender.send_request(request), expected).await
            });
        for ended in futures_util::future::join_all(streams).await {
            match ended? {
                Ended::Well => tally.done(kind),
                Ended::Unsent => drop(tally.again.fetch_add(1, Ordering::Relaxed)),
            }
        }
        pause().await;
    }
    drop(sender);
    let _ = driven.await;
    Ok(())
}

async fn over_tcp(
    kind: &'static str,
    port: u16,
    rounds: usize,
    tally: &Tally,
    stop: &CancellationToken,
) -> Result<(), String> {
    let exchange = async {
        let mut stream = connect(port).await?;
        for _ in 0..rounds {
            let sent = vec![b'c'; random(1, MAX_BODY)];
            let mut back = vec![0; sent.len()];
            let (mut from, mut to) = stream.split();
            tokio::try_join!(to.write_all(&sent), from.read_exact(&mut back))?;
            tally.done(kind);
            if stop.is_cancelled() {
                break;
            }
            pause().await;
        }
        // The end is passed on, and comes back.
        stream.write_all(b"last").await?;
        stream.shutdown().await?;
        let mut rest = vec![];
        stream.read_to_end(&mut rest).await?;
        Ok::<_, std::io::Error>(rest == b"last")
    };
    match tokio::time::timeout(PATIENCE * 2, exchange).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("the last bytes did not come back".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}
