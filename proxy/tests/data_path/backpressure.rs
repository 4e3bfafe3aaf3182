//! Whoever reads slowly is written to slowly: of 50 MiB the proxy holds no more than its buffers, whatever they go
//! through, and when the reader goes on nothing is missing.
//!
//! What it holds is what it has taken from the writer and the reader has not had, less what the kernel says that it
//! holds itself.

mod queues;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use self::queues::queued;
use crate::config::{all_to, cluster, configuration, filter, http, listener, tcp};
use crate::proxy::Proxy;
use crate::tls::{mutual_tls, opaque_mutual_tls};
use weft_proxy::config::route::Forward;

/// What is sent.
const ALL: usize = 50 * 1024 * 1024;
/// What one proxy may hold of a connection: hyper's buffers of either side, and the buffer of the copy.
const HELD: usize = 512 * 1024;
/// A writer that has not got rid of a byte for so long has been stopped.
const STOPPED: Duration = Duration::from_millis(500);
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Proxies between a client and an upstream.
struct Path {
    /// The one that the client talks to, first.
    proxies: Vec<Proxy>,
    upstream: TcpListener,
}

impl Path {
    /// The ports of all connections on the way.
    fn ports(&self) -> Vec<u16> {
        let proxies = self.proxies.iter().map(|proxy| proxy.address.port());
        let upstream = self.upstream.local_addr().unwrap().port();
        proxies.chain([upstream]).collect()
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.proxies[0].address).await.unwrap()
    }

    async fn accepted(&self) -> TcpStream {
        let accepted = timeout(PATIENCE, self.upstream.accept()).await;
        accepted.expect("in time").unwrap().0
    }
}

async fn upstream() -> (TcpListener, SocketAddr) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    (upstream, address)
}

async fn plain_tcp() -> Path {
    let (upstream, address) = upstream().await;
    let configuration = configuration([listener(tcp("c"))], [cluster("c", &[address])]);
    let proxies = vec![Proxy::start(configuration).await];
    Path { proxies, upstream }
}

async fn plain_http() -> Path {
    let (upstream, address) = upstream().await;
    let requests = filter(http(all_to(Forward::to("c"))));
    let configuration = configuration([listener(requests)], [cluster("c", &[address])]);
    let proxies = vec![Proxy::start(configuration).await];
    Path { proxies, upstream }
}

async fn tcp_by_tls() -> Path {
    let (upstream, address) = upstream().await;
    let (client, server) = opaque_mutual_tls(address).await;
    let proxies = vec![client, server];
    Path { proxies, upstream }
}

async fn http_by_tls() -> Path {
    let (upstream, address) = upstream().await;
    let (client, server) = mutual_tls(address).await;
    let proxies = vec![client, server];
    Path { proxies, upstream }
}

/// Writes until nothing more is taken, or all is; says how much was.
async fn write_until_stopped(writer: &mut TcpStream) -> usize {
    let piece = vec![b'a'; 64 * 1024];
    let mut written = 0;
    while written < ALL {
        let left = piece.len().min(ALL - written);
        match timeout(STOPPED, writer.write(&piece[..left])).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => break,
        }
    }
    written
}

/// Writes what is left.
async fn write_rest(writer: &mut TcpStream, mut written: usize) {
    let piece = vec![b'a'; 64 * 1024];
    while written < ALL {
        let left = piece.len().min(ALL - written);
        writer.write_all(&piece[..left]).await.unwrap();
        written += left;
    }
}

async fn read_all(reader: &mut TcpStream) {
    let mut piece = vec![0; 256 * 1024];
    let mut read = 0;
    while read < ALL {
        let count = reader.read(&mut piece).await.unwrap();
        assert!(count > 0, "{read} bytes, then the end");
        read += count;
    }
    assert_eq!(read, ALL);
}

/// Sends all from one end to the other, of which the reading one does not read at first.
async fn check(path: &Path, mut writer: TcpStream, mut reader: TcpStream) {
    let written = write_until_stopped(&mut writer).await;
    let held = written.saturating_sub(queued(&path.ports()));
    let allowed = HELD * path.proxies.len();
    assert!(
        held <= allowed,
        "{held} bytes are held of {written} written"
    );

    let rest = async {
        tokio::join!(write_rest(&mut writer, written), read_all(&mut reader));
    };
    timeout(PATIENCE, rest).await.expect("in time");
}

/// Up: the client writes a body, or just bytes.
async fn check_up(path: Path, head: &str) {
    let mut client = path.client().await;
    client.write_all(head.as_bytes()).await.unwrap();
    if head.is_empty() {
        client.write_all(b"\n").await.unwrap();
    }
    let mut server = path.accepted().await;
    skip_head(&mut server, head).await;
    check(&path, client, server).await;
}

/// Down: the upstream does.
async fn check_down(path: Path, question: &str, head: &str) {
    let mut client = path.client().await;
    client.write_all(question.as_bytes()).await.unwrap();
    if question.is_empty() {
        client.write_all(b"\n").await.unwrap();
    }
    let mut server = path.accepted().await;
    skip_head(&mut server, question).await;
    server.write_all(head.as_bytes()).await.unwrap();
    skip_head_of_answer(&mut client, head).await;
    check(&path, server, client).await;
}

/// Reads a head, or the one byte in its place.
async fn skip_head(reader: &mut TcpStream, head: &str) {
    let end: &[u8] = if head.is_empty() { b"\n" } else { b"\r\n\r\n" };
    let mut read = vec![];
    while !read.ends_with(end) {
        read.push(reader.read_u8().await.unwrap());
    }
}

async fn skip_head_of_answer(reader: &mut TcpStream, head: &str) {
    if !head.is_empty() {
        skip_head(reader, head).await;
    }
}

fn question(method: &str, length: usize) -> String {
    format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")
}

fn answer() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {ALL}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_for_an_upstream_that_does_not_read_are_not_taken() {
    check_up(plain_tcp().await, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_for_a_client_that_does_not_read_are_not_taken() {
    check_down(plain_tcp().await, "", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_by_mutual_tls_are_not_taken_for_an_upstream_that_does_not_read() {
    check_up(tcp_by_tls().await, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_by_mutual_tls_are_not_taken_for_a_client_that_does_not_read() {
    check_down(tcp_by_tls().await, "", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_an_upstream_that_does_not_read_is_not_taken() {
    check_up(plain_http().await, &question("POST", ALL)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_for_a_client_that_does_not_read_is_not_taken() {
    check_down(plain_http().await, &question("GET", 0), &answer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_by_mutual_tls_is_not_taken_for_an_upstream_that_does_not_read() {
    check_up(http_by_tls().await, &question("POST", ALL)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_by_mutual_tls_is_not_taken_for_a_client_that_does_not_read() {
    check_down(http_by_tls().await, &question("GET", 0), &answer()).await;
}
