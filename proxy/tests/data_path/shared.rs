//! Opaque connections between two sidecars that share one with mutual TLS, each as a stream of it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::cluster::{ClusterConfig, Sharing};
use weft_proxy::config::listener::{FilterChain, ListenerConfig};
use weft_proxy::telemetry::report::ResponseFlags;

use crate::config::{LISTENER, cluster, configuration, listener, tcp};
use crate::proxy::{Proxy, known};
use crate::tls::{Authority, PRODUCTPAGE, REVIEWS, inbound, over_tls, termination};

/// As many as there are workers: each has connections of its own.
const WORKERS: usize = 2;

/// Two sidecars, of which the first would share connections, and an application behind the second.
struct Pair {
    client: Proxy,
    server: Proxy,
    app: TcpListener,
}

impl Pair {
    async fn new() -> Self {
        Self::with(inbound()).await
    }

    async fn with(inbound: ListenerConfig) -> Self {
        let authority = Authority::new();
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = cluster("app", &[app.local_addr().unwrap()]);
        let identity = known(authority.identity(REVIEWS));
        let server = Proxy::start_as(configuration([inbound], [behind]), identity).await;
        let shared = ClusterConfig {
            sharing: Sharing::Always,
            ..over_tls(server.address, REVIEWS)
        };
        let outbound = configuration([listener(tcp("reviews"))], [shared]);
        let identity = known(authority.identity(PRODUCTPAGE));
        let client = Proxy::start_as(outbound, identity).await;
        Pair {
            client,
            server,
            app,
        }
    }

    /// A connection through both, from either end.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let caller = TcpStream::connect(self.client.address).await.unwrap();
        let (served, _) = self.app.accept().await.unwrap();
        (caller, served)
    }

    /// What the first `count` connections to end were carried by.
    async fn carriers(&self, count: usize) -> HashSet<SocketAddr> {
        let mut carriers = HashSet::new();
        for index in 0..count {
            let report = self.client.reports.closed(index).await;
            carriers.extend(report.upstream.unwrap().local);
        }
        carriers
    }
}

async fn exchange((caller, served): &mut (TcpStream, TcpStream), said: &[u8]) {
    for (from, to) in [(&mut *caller, &mut *served)] {
        let mut heard = vec![0; said.len()];
        from.write_all(said).await.unwrap();
        to.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said);
        to.write_all(said).await.unwrap();
        from.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said);
    }
}

#[tokio::test]
async fn connections_of_many_clients_share_one_of_each_worker() {
    let pair = Pair::new().await;
    let mut open = vec![];
    for _ in 0..8 {
        open.push(pair.connect().await);
    }

    for each in &mut open {
        exchange(each, b"ping").await;
    }
    drop(open);

    let live = Arc::clone(&pair.server.data_plane.snapshot().listeners[LISTENER].live);
    assert_eq!(live.streams.load(Ordering::Relaxed), 8);
    let carriers = pair.carriers(8).await;
    assert!((1..=WORKERS).contains(&carriers.len()), "{carriers:?}");
}

#[tokio::test]
async fn the_server_takes_each_stream_for_a_connection_of_its_peer() {
    let pair = Pair::new().await;
    for said in [&b"one"[..], b"three"] {
        let mut connection = pair.connect().await;
        exchange(&mut connection, said).await;
    }

    for (index, bytes) in [3, 5].into_iter().enumerate() {
        let report = pair.server.reports.closed(index).await;
        assert_eq!(report.downstream.principal.as_deref(), Some(PRODUCTPAGE));
        assert_eq!((report.received_bytes, report.sent_bytes), (bytes, bytes));
        assert_eq!(report.flags, ResponseFlags::default());
        let sent = pair.client.reports.closed(index).await;
        let upstream = sent.upstream.unwrap();
        assert!(upstream.is_mutual_tls && upstream.session.is_some());
    }
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let pair = Pair::new().await;
    for _ in 0..3 {
        let (mut caller, mut served) = pair.connect().await;

        served.write_all(b"220 ready").await.unwrap();

        let mut greeting = [0; 9];
        caller.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ready");
    }
}

#[tokio::test]
async fn each_direction_may_end_first() {
    let pair = Pair::new().await;
    for client_first in [true, false] {
        let (caller, served) = pair.connect().await;
        let (mut first, mut last) = match client_first {
            true => (caller, served),
            false => (served, caller),
        };

        first.write_all(b"the end").await.unwrap();
        first.shutdown().await.unwrap();
        let mut heard = String::new();
        last.read_to_string(&mut heard).await.unwrap();
        last.write_all(b"not of this").await.unwrap();
        drop(last);
        let mut answer = String::new();
        first.read_to_string(&mut answer).await.unwrap();

        assert_eq!(
            (heard.as_str(), answer.as_str()),
            ("the end", "not of this")
        );
    }
}

#[tokio::test]
async fn one_that_is_reset_takes_no_other_with_it() {
    let pair = Pair::new().await;
    let mut kept = vec![pair.connect().await, pair.connect().await];
    let mut lost = pair.connect().await;
    // A server that resets at once may not have been seen as connected: then it is tried again.
    exchange(&mut lost, b"it is connected").await;
    let (mut caller, served) = lost;

    served.set_zero_linger().unwrap();
    drop(served);

    let mut nothing = vec![];
    let _ = caller.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty());
    let report = pair.client.reports.closed(0).await;
    assert!(report.flags.contains(ResponseFlags::UPSTREAM_REMOTE_RESET));
    for each in &mut kept {
        exchange(each, b"still here").await;
    }
}

#[tokio::test]
async fn who_does_not_read_keeps_nobody_else_waiting() {
    let pair = Pair::new().await;
    let (mut full, _never_read) = pair.connect().await;
    let plenty = vec![0; 1 << 16];
    // Until all that lies between is full.
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(300), full.write(&plenty)).await
    {
        written.unwrap();
    }

    let mut others = vec![];
    for _ in 0..2 * WORKERS {
        others.push(pair.connect().await);
    }
    for each in &mut others {
        exchange(each, &[7; 100_000]).await;
    }
}

#[tokio::test]
async fn plenty_goes_both_ways_at_once_unchanged() {
    let pair = Pair::new().await;
    let (caller, served) = pair.connect().await;
    let said: Vec<u8> = (0..4_000_000_u32).map(|each| (each % 251) as u8).collect();
    let both = [caller, served].map(|end| {
        let said = said.clone();
        let (mut reading, mut writing) = end.into_split();
        let writer = tokio::spawn(async move {
            writing.write_all(&said).await.unwrap();
            writing.shutdown().await.unwrap();
        });
        async move {
            let mut heard = vec![];
            reading.read_to_end(&mut heard).await.unwrap();
            writer.await.unwrap();
            heard
        }
    });

    let [one, other] = both;
    let (at_client, at_server) = tokio::join!(one, other);

    assert!(at_client == said && at_server == said);
}

#[tokio::test]
async fn who_does_not_agree_gets_a_connection_for_each() {
    let mut older = inbound();
    // What a chain says of itself by ALPN is all that there may be.
    let opaque: &mut FilterChain = &mut older.filter_chains[1];
    opaque.tls = Some(termination(&["something-else"]));
    let pair = Pair::with(older).await;
    let mut open = vec![];
    for _ in 0..4 {
        open.push(pair.connect().await);
    }

    for each in &mut open {
        exchange(each, b"ping").await;
    }
    drop(open);

    let live = Arc::clone(&pair.server.data_plane.snapshot().listeners[LISTENER].live);
    assert_eq!(live.streams.load(Ordering::Relaxed), 0);
    assert_eq!(pair.carriers(4).await.len(), 4);
}

#[tokio::test]
async fn a_drain_ends_no_stream_and_lets_no_more_begin() {
    let pair = Pair::new().await;
    let mut kept = pair.connect().await;
    exchange(&mut kept, b"before").await;

    let data_plane = Arc::clone(&pair.server.data_plane);
    let draining = tokio::spawn(async move { data_plane.drain(Duration::from_secs(60)).await });

    // What begins before the client hears of it is served.
    let is_refused = async || {
        let mut caller = TcpStream::connect(pair.client.address).await.unwrap();
        let asked = tokio::select! {
            accepted = pair.app.accept() => accepted.is_err(),
            read = caller.read_u8() => read.is_err(),
        };
        asked
    };
    let refused = async { while !is_refused().await {} };
    tokio::time::timeout(Duration::from_secs(30), refused)
        .await
        .unwrap();
    exchange(&mut kept, b"after").await;
    drop(kept);
    assert_eq!(draining.await.unwrap(), Ok(()));
}
