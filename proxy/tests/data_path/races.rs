//! What happens at the same time as something else, thousands of times: nothing is lost, and nothing is done twice.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rand::RngExt;
use weft_proxy::config::cluster::{ClusterConfig, UpstreamProtocol};
use weft_proxy::config::route::Forward;

use crate::client::Client;
use crate::config::{all_to, cluster, configuration, filter, http, listener};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, until};

/// A server of HTTP/1.1 that closes a connection a moment after it has answered, unless a request has arrived: which
/// may be the moment at which the next one is sent.
struct Closing {
    address: SocketAddr,
    seen: Arc<Mutex<HashMap<String, usize>>>,
    closed: Arc<AtomicUsize>,
}

/// How long after an answer a connection is closed at the latest: about as long as the next request takes to come.
const LONGEST_WAIT: Duration = Duration::from_micros(1500);

impl Closing {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closing = Closing {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            closed: Arc::default(),
        };
        let (seen, closed) = (Arc::clone(&closing.seen), Arc::clone(&closing.closed));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (seen, closed) = (Arc::clone(&seen), Arc::clone(&closed));
                std::thread::spawn(move || {
                    serve(stream, &seen);
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        closing
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<HashMap<String, usize>>) {
    loop {
        match answer_one(stream, seen) {
            Some(answered) => stream = answered,
            None => return,
        }
        let begun = Instant::now();
        let wait = LONGEST_WAIT.mul_f64(rand::rng().random());
        while begun.elapsed() < wait {
            std::hint::spin_loop();
        }
        stream.set_nonblocking(true).unwrap();
        if !matches!(stream.peek(&mut [0]), Ok(1)) {
            return;
        }
        stream.set_nonblocking(false).unwrap();
    }
}

/// Reads a request to its end, remembers its id, and answers.
fn answer_one(stream: TcpStream, seen: &Mutex<HashMap<String, usize>>) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream);
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some(("x-id", value)) => id = value.to_owned(),
            Some(("content-length", value)) => length = value.parse().unwrap(),
            None if line == "\r\n" => break,
            _ => {}
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    *seen.lock().unwrap().entry(id).or_default() += 1;
    let mut stream = reader.into_inner();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    stream.write_all(answer).ok()?;
    Some(stream)
}

fn shop(address: SocketAddr) -> ClusterConfig {
    ClusterConfig {
        protocol: UpstreamProtocol::Http1,
        ..cluster("shop", &[address])
    }
}

/// Sends so many requests one after the other, and says how many were answered `503`.
async fn refused(proxy: &Proxy, method: &str, size: usize, count: usize) -> usize {
    let mut client = Client::http1(proxy.address).await;
    let mut refused = 0;
    for index in 0..count {
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("host", "shop")
            .header("x-id", format!("{method}-{size}-{index}"))
            .body(Full::new(Bytes::from(vec![b'a'; size])));
        let got = client.send(request.unwrap()).await;
        match got.status.as_u16() {
            200 => {}
            503 => refused += 1,
            other => panic!("{other}: {}", got.body),
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closes_as_a_request_comes_costs_no_request_that_may_be_sent_twice() {
    let upstream = Closing::start();
    let proxy = Proxy::to(shop(upstream.address)).await;

    assert_eq!(refused(&proxy, "GET", 0, 1500).await, 0);
    assert_eq!(refused(&proxy, "PUT", 100, 1500).await, 0);

    let stats = &proxy.data_plane.snapshot().clusters["shop"].stats;
    assert!(
        stats.stale.load(Ordering::Relaxed) > 0,
        "a connection was closed as a request came"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closes_as_a_request_comes_costs_none_that_had_not_arrived() {
    let upstream = Closing::start();
    let proxy = Proxy::to(shop(upstream.address)).await;

    let mut all = 0;
    for size in [0, 10, 20_000] {
        all += refused(&proxy, "POST", size, 1000).await;
    }

    // Between the server's look and its close a request may arrive, and nobody can tell whether it was read.
    let closed = upstream.closed.load(Ordering::SeqCst);
    assert!(all <= closed / 500, "{all} refused by {closed} that closed");
    let seen = upstream.seen.lock().unwrap();
    assert!(
        seen.values().all(|times| *times == 1),
        "none was read twice"
    );
    let stats = &proxy.data_plane.snapshot().clusters["shop"].stats;
    assert!(
        stats.stale.load(Ordering::Relaxed) > 0,
        "a connection was closed as a request came"
    );
}

/// A version of a configuration: another is another in all that changes without new addresses.
fn version(of: u64, upstreams: &[&Upstream]) -> weft_proxy::config::Configuration {
    let addresses: Vec<_> = upstreams.iter().map(|one| one.address).collect();
    let mut requests = http(all_to(Forward::to("shop")));
    requests.stat_prefix = format!("version {of}").into();
    let shop = ClusterConfig {
        connect_timeout: Duration::from_secs(5 + of % 2),
        idle_timeout: Duration::from_millis(20 + 100 * (of % 3)),
        ..cluster("shop", &addresses)
    };
    configuration([listener(filter(requests))], [shop])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_while_endpoints_clusters_and_listeners_change() {
    let upstreams = [
        Upstream::echoing().await,
        Upstream::echoing().await,
        Upstream::echoing().await,
    ];
    let all: Vec<_> = upstreams.iter().collect();
    let proxy = Proxy::start(version(0, &all)).await;
    let served = Arc::new(AtomicUsize::new(0));
    let stop = tokio_util::sync::CancellationToken::new();
    let callers: Vec<_> = (0..40)
        .map(|caller| {
            let (served, stop, address) = (Arc::clone(&served), stop.clone(), proxy.address);
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let mut client = match caller % 4 {
                        0 => Client::http2(address).await,
                        _ => Client::http1(address).await,
                    };
                    for turn in 0..20 {
                        let size = if turn % 2 == 0 { 0 } else { 7000 * turn };
                        let method = if size == 0 { "GET" } else { "POST" };
                        let request = Request::builder().method(method).uri("/");
                        let body = Full::new(Bytes::from(vec![b'a'; size]));
                        let request = request.header("host", "shop").body(body).unwrap();
                        let got = client.send(request).await;
                        assert_eq!(got.status, 200, "{}", got.body);
                        assert!(got.body.len() >= size);
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();

    for change in 1..changes() {
        let before = served.load(Ordering::SeqCst);
        // One of them is taken away, and goes on with what it has.
        let left: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(index, _)| change % 4 != *index as u64)
            .map(|(_, one)| *one)
            .collect();
        let failures = proxy.data_plane.apply(version(change, &left)).await;
        assert!(failures.is_empty());
        until(|| served.load(Ordering::SeqCst) > before + 20).await;
    }
    stop.cancel();

    for caller in callers {
        caller.await.expect("every request was answered");
    }
}

/// How many changes there are; more where somebody looks for what is rare.
fn changes() -> u64 {
    let asked = std::env::var("WEFT_RACES").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(60)
}
