//! HTTP/1.1 from a client's bytes to what an upstream reads: whatever is sent, both see the same messages.
//!
//! The bytes go through a proxy that serves. It writes a header into each request, so that a request without it is one
//! that the proxy has not seen. The upstream reads as strictly as RFC 9112 allows; what it cannot read, or finds beyond
//! the end of a message, the proxy has let pass. Every answer of the upstream belongs to a request of its own.

mod reader;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use self::reader::Reader;
use crate::app::{LogControl, Options, Proxy};
use crate::bootstrap::Bootstrap;

/// What the proxy writes into each request.
const SEEN: (&str, &str) = ("x-seen-by", "proxy");
/// What the upstream writes into each answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nx-answer: upstream\r\ncontent-length: 2\r\n\r\nok";
/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What reaches the upstream.
#[derive(Debug, Default)]
struct Seen {
    requests: usize,
    /// What the proxy should have let nobody send.
    wrong: Vec<String>,
}

/// A proxy, and an upstream behind it: for the whole process.
struct Rig {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    /// One input at a time.
    turn: Mutex<()>,
}

static RIG: LazyLock<Rig> = LazyLock::new(Rig::start);

impl Rig {
    fn start() -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
        let behind = upstream.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in upstream.incoming().flatten() {
                let seen = Arc::clone(&shared);
                thread::spawn(move || answer(&stream, &seen));
            }
        });
        let (told, address) = std::sync::mpsc::sync_channel(1);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let proxy = proxy(behind).await;
                told.send(listening(&proxy).await).expect("awaited");
                std::future::pending::<()>().await;
            });
        });
        Self {
            address: address.recv().expect("it listens"),
            seen,
            turn: Mutex::new(()),
        }
    }
}

async fn proxy(upstream: SocketAddr) -> Proxy {
    let text = bootstrap(upstream).to_string();
    let bootstrap = Bootstrap::parse(&text, Path::new("framing")).expect("valid");
    let mut options = Options::new("framing");
    options.concurrency = 1;
    let proxy = Proxy::start(&options, bootstrap, LogControl::none()).await;
    proxy.expect("a proxy")
}

async fn listening(proxy: &Proxy) -> SocketAddr {
    loop {
        if let Some(address) = proxy.listener_addresses("web").await.first() {
            return *address;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn bootstrap(upstream: SocketAddr) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    let address =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({"static_resources": {
        "listeners": [{"name": "web", "address": address(0), "filter_chains": [{"filters": [
            {"name": "http", "typed_config": {
                "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "web",
                "codec_type": "HTTP1",
                "route_config": {
                    "name": "web",
                    "request_headers_to_add": [{
                        "header": {"key": SEEN.0, "value": SEEN.1},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }],
                    "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "5s"}},
                    ]}],
                },
                "http_filters": [{"name": "router", "typed_config":
                    {"@type": format!("{TYPES}.http.router.v3.Router")}}],
            }},
        ]}]}],
        "clusters": [{"name": "app", "load_assignment": {"cluster_name": "app", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(upstream.port())}}]},
        ]}}],
    }})
}

/// Answers each request that can be read; what cannot ends the connection.
fn answer(stream: &TcpStream, seen: &Mutex<Seen>) {
    let mut reader = Reader::new(stream);
    loop {
        match reader.request() {
            Ok(Some(request)) => {
                let mut seen = seen.lock();
                seen.requests += 1;
                let marks = request.values(SEEN.0);
                if marks != [SEEN.1] {
                    seen.wrong.push(format!("a request of nobody: {request:?}"));
                }
            }
            Ok(None) => return,
            Err(wrong) => return seen.lock().wrong.push(wrong),
        }
        let mut to = stream;
        if to.write_all(ANSWER).is_err() {
            return;
        }
    }
}

/// Sends bytes, and counts the answers of the upstream that come back.
fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Who is refused early is not read to the end.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
        _ => {}
    }
    let mark = b"x-answer: upstream";
    Ok(answers
        .windows(mark.len())
        .filter(|window| window == mark)
        .count())
}

/// What reaches the upstream are the client's messages, and nothing else.
pub(super) fn run(bytes: &[u8]) {
    let _turn = RIG.turn.lock();
    *RIG.seen.lock() = Seen::default();
    let answers = exchange(RIG.address, bytes).expect("an end in time");
    let seen = RIG.seen.lock();
    assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
    assert!(
        answers <= seen.requests,
        "{answers} answers to {} requests",
        seen.requests
    );
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const MESSAGES: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\n\r\n\
        POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\n\
        GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn messages_that_are_changed_a_little_reach_nobody_as_other_messages() {
        let mut random = SmallRng::seed_from_u64(7);
        for _ in 0..300 {
            let mut bytes = MESSAGES.to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes[at] = *b"\r\n\t :;,0aF\0".get(random.random_range(0..11)).unwrap(),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, bytes[random.random_range(0..bytes.len())]),
                }
            }
            run(&bytes);
        }
    }

    #[test]
    fn a_request_that_the_proxy_has_not_seen_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (upstream, _) = listener.accept().unwrap();
        let seen = Mutex::new(Seen::default());

        answer(&upstream, &seen);

        let seen = seen.into_inner();
        assert_eq!((seen.requests, seen.wrong.len()), (1, 1));
    }
}
