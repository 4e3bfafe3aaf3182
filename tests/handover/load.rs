//! Clients of every kind, which never stop and forgive nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// No answer takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Each client waits so long between two requests, so that the proxies get a word in.
const PAUSE: Duration = Duration::from_millis(5);
/// How many streams of HTTP/2 are open at a time.
const STREAMS: usize = 4;

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    done: [AtomicU64; 5],
    bytes_connections: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What clients have seen.
pub(crate) struct Done {
    /// In words; none where all is well.
    pub(crate) failures: Vec<String>,
    /// How often the one client whose connection should live on had to connect.
    pub(crate) bytes_connections: u64,
}

impl Load {
    pub(crate) fn start(web: SocketAddr, bytes: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_alive(web, Arc::clone(&shared)));
        tasks.spawn(new_connections(web, Arc::clone(&shared)));
        tasks.spawn(streams(web, Arc::clone(&shared)));
        tasks.spawn(one_connection_of_bytes(bytes, Arc::clone(&shared)));
        tasks.spawn(new_connections_of_bytes(bytes, Arc::clone(&shared)));
        Load { shared, tasks }
    }

    /// Waits until every client has been answered so often, or has failed.
    pub(crate) async fn until_each_has_done(&self, count: u64) {
        crate::process::until("every client is answered", || {
            let done = &self.shared.done;
            done.iter()
                .all(|done| done.load(Ordering::Relaxed) >= count)
                || !self.shared.failures.lock().is_empty()
        })
        .await;
    }

    pub(crate) async fn stop(mut self) -> Done {
        self.shared.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        Done {
            failures: self.shared.failures.lock().clone(),
            bytes_connections: self.shared.bytes_connections.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn note<T>(&self, client: usize, doing: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.done[client].fetch_add(1, Ordering::Relaxed);
                Some(value)
            }
            Err(error) => {
                self.failures.lock().push(format!("{doing}: {error}"));
                None
            }
        }
    }
}

/// An answer, and whether the connection ends with it.
pub(crate) struct Answer {
    status: u16,
    body: String,
    pub(crate) is_last: bool,
}

/// A client that goes on with one connection of HTTP/1.1 until it is told that it ends.
pub(crate) struct KeepAlive(TcpStream);

impl KeepAlive {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await?;
        Ok(KeepAlive(connected?))
    }

    pub(crate) async fn get(&mut self) -> io::Result<Answer> {
        self.ask("/").await
    }

    async fn ask(&mut self, path: &str) -> io::Result<Answer> {
        let asked = async {
            let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
            self.0.write_all(request.as_bytes()).await?;
            let mut received = Vec::new();
            loop {
                if let Some(answer) = whole(&received) {
                    return Ok(answer);
                }
                if self.0.read_buf(&mut received).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        timeout(PATIENCE, asked).await?
    }
}

/// The answer, once it is there to its end: all answers here tell their length.
fn whole(received: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(received).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(each, _)| each.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let length: usize = header("content-length")?.parse().ok()?;
    (body.len() >= length).then(|| Answer {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0),
        body: body.to_owned(),
        is_last: header("connection") == Some("close"),
    })
}

/// One GET on a connection of its own: the status.
pub(crate) async fn get(address: SocketAddr) -> io::Result<u16> {
    let mut client = KeepAlive::connect(address).await?;
    Ok(client.get().await?.status)
}

/// The body of the answer to one GET.
pub(crate) async fn body(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut client = KeepAlive::connect(address).await?;
    Ok(client.ask(path).await?.body)
}

/// One word and its echo on a connection of its own.
pub(crate) async fn echo(address: SocketAddr) -> io::Result<()> {
    let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
    say(&mut stream).await
}

async fn say(stream: &mut TcpStream) -> io::Result<()> {
    let mut heard = [0; 5];
    stream.write_all(b"hello").await?;
    timeout(PATIENCE, stream.read_exact(&mut heard)).await??;
    match &heard == b"hello" {
        true => Ok(()),
        false => Err(io::Error::other("another echo")),
    }
}

async fn keep_alive(web: SocketAddr, shared: Arc<Shared>) {
    let mut client = None;
    while !shared.is_over() {
        let mut connection = match client.take() {
            Some(connection) => connection,
            None => match KeepAlive::connect(web).await {
                Ok(connection) => connection,
                Err(error) => {
                    shared.note::<()>(0, "connecting", Err(error));
                    return;
                }
            },
        };
        let answered = connection.get().await.and_then(expected);
        let Some(answer) = shared.note(0, "on a kept connection", answered) else {
            return;
        };
        client = (!answer.is_last).then_some(connection);
        tokio::time::sleep(PAUSE).await;
    }
}

fn expected(answer: Answer) -> io::Result<Answer> {
    match (answer.status, answer.body.as_str()) {
        (200, "answer") => Ok(answer),
        (status, body) => Err(io::Error::other(format!("{status} {body}"))),
    }
}

async fn new_connections(web: SocketAddr, shared: Arc<Shared>) {
    while !shared.is_over() {
        let answered = async {
            KeepAlive::connect(web)
                .await?
                .get()
                .await
                .and_then(expected)
        };
        if shared
            .note(1, "on a new connection", answered.await)
            .is_none()
        {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn new_connections_of_bytes(bytes: SocketAddr, shared: Arc<Shared>) {
    while !shared.is_over() {
        if shared
            .note(4, "bytes on a new connection", echo(bytes).await)
            .is_none()
        {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn one_connection_of_bytes(bytes: SocketAddr, shared: Arc<Shared>) {
    shared.bytes_connections.fetch_add(1, Ordering::Relaxed);
    let Ok(mut stream) = TcpStream::connect(bytes).await else {
        shared.note::<()>(
            3,
            "connecting",
            Err(io::ErrorKind::ConnectionRefused.into()),
        );
        return;
    };
    while !shared.is_over() {
        let said = say(&mut stream).await;
        if shared.note(3, "bytes on a long connection", said).is_none() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

type Sender = http2::SendRequest<Empty<Bytes>>;

/// Streams side by side; a connection that is told to end (GOAWAY) is left as RFC 9113 §6.8 has it: what was
/// accepted on it is finished, and what was not sent goes to a new one.
async fn streams(web: SocketAddr, shared: Arc<Shared>) {
    let mut sender: Option<Sender> = None;
    while !shared.is_over() {
        let current = match sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => match http2(web).await {
                Ok(sender) => sender,
                Err(error) => {
                    shared.note::<()>(2, "connecting for HTTP/2", Err(error));
                    return;
                }
            },
        };
        let mut open = JoinSet::new();
        for _ in 0..STREAMS {
            open.spawn(stream(current.clone()));
        }
        while let Some(ended) = open.join_next().await {
            match ended.unwrap() {
                Ok(true) => {
                    shared.note(2, "", Ok(()));
                }
                Ok(false) => {}
                Err(error) => {
                    shared.note::<()>(2, "on a stream", Err(error));
                    return;
                }
            }
        }
        sender = Some(current);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn http2(web: SocketAddr) -> io::Result<Sender> {
    let stream = timeout(PATIENCE, TcpStream::connect(web)).await??;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One request; false where it was never sent, because the connection is to end.
async fn stream(mut sender: Sender) -> io::Result<bool> {
    if sender.ready().await.is_err() {
        return Ok(false);
    }
    let request = Request::get("http://test/").body(Empty::new()).unwrap();
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, body))
    };
    match timeout(PATIENCE, answered).await? {
        Ok((status, body)) if status == 200 && &body[..] == b"answer" => Ok(true),
        Ok((status, _)) => Err(io::Error::other(format!("status {status}"))),
        Err(error) if error.is_canceled() => Ok(false),
        Err(error) => Err(io::Error::other(format!("{error:?}"))),
    }
}
