//! Who has a connection alone though requests may share: a few, large bodies, and those whose cluster has a limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use weft_proxy::config::cluster::{ClusterConfig, Sharing};
use weft_proxy::telemetry::report::Protocol;

use super::{Pair, WORKERS, client, late};
use crate::client::{Client, get, request};
use crate::config::{cluster, configuration};
use crate::proxy::{Proxy, known};
use crate::tls::{Authority, REVIEWS, inbound, over_tls};
use crate::upstream::{Upstream, text};

/// One that cannot be shared.
fn large() -> Request<Full<Bytes>> {
    let mut alone = request("GET", "/", "");
    let value = HeaderValue::from_bytes(&[b'x'; 20_000]).unwrap();
    alone.headers_mut().insert("x-large", value);
    alone
}

#[tokio::test]
async fn nobody_waits_for_a_shared_connection_who_has_one_alone() {
    const CALLERS: usize = 6;
    let app = Upstream::echoing().await;
    let authority = Authority::new();
    let behind = cluster("app", &[app.address]);
    let identity = known(authority.identity(REVIEWS));
    let server = Proxy::start_as(configuration([inbound()], [behind]), identity).await;
    let stuck = Arc::new(AtomicBool::new(false));
    let way = stalling(server.address, Arc::clone(&stuck)).await;
    let reviews = ClusterConfig {
        sharing: Sharing::Always,
        ..over_tls(way, REVIEWS)
    };
    let client = client(&authority, reviews).await;
    let mut callers = vec![];
    for _ in 0..CALLERS {
        let mut caller = Client::http1(client.address).await;
        assert_eq!(caller.send(large()).await.status, 200);
        callers.push(caller);
    }
    stuck.store(true, Ordering::Relaxed);

    // One of each worker makes the connection, in vain.
    let mut waiting = 0;
    for mut caller in callers {
        let asked = tokio::spawn(async move { caller.get("/").await });
        match tokio::time::timeout(Duration::from_secs(1), asked).await {
            Ok(answered) => assert_eq!(answered.unwrap().status, 200),
            Err(_) => waiting += 1,
        }
    }
    assert!((1..=WORKERS).contains(&waiting), "{waiting}");
}

/// A way to a server on which connections that begin while it is stuck say nothing.
async fn stalling(server: SocketAddr, is_stuck: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let is_stuck = is_stuck.load(Ordering::Relaxed);
            tokio::spawn(async move {
                if is_stuck {
                    std::future::pending::<()>().await;
                }
                let mut far = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn where_connections_are_limited_each_request_in_flight_has_its_own() {
    let app = Upstream::echoing().await;
    let authority = Authority::new();
    let behind = cluster("app", &[app.address]);
    let identity = known(authority.identity(REVIEWS));
    let server = Proxy::start_as(configuration([inbound()], [behind]), identity).await;
    let usual = || ClusterConfig {
        sharing: Sharing::Always,
        ..over_tls(server.address, REVIEWS)
    };
    let mut limited = usual();
    limited.breakers.max_connections = 1;
    let worn_soon = ClusterConfig {
        max_requests_per_connection: Some(10),
        ..usual()
    };
    for reviews in [limited, worn_soon] {
        let client = client(&authority, reviews).await;

        assert_eq!(get(client.address, "/").await.status, 200);

        let upstream = client.reports.request(0).await.upstream.unwrap();
        assert_eq!(upstream.protocol, Some(Protocol::Http11));
    }
}

/// So many requests at once, which the application answers when all have come; tells how many of them shared.
async fn at_once(app: &Upstream, answers: &Semaphore, pair: &Pair, count: usize) -> usize {
    let before = app.requests();
    let address = pair.client.address;
    let asked = (0..count).map(|_| tokio::spawn(get(address, "/")));
    let asked: Vec<_> = asked.collect();
    app.until_requests(before + count).await;
    answers.add_permits(count);
    for answered in asked {
        assert_eq!(answered.await.unwrap().status, 200);
    }
    let mut shared = 0;
    for index in before..before + count {
        let upstream = pair.client.reports.request(index).await.upstream.unwrap();
        shared += usize::from(upstream.protocol == Some(Protocol::Http2));
    }
    shared
}

#[tokio::test]
async fn where_only_many_share_a_few_do_not() {
    let answers = Arc::new(Semaphore::new(0));
    let app = late(&answers).await;
    let pair = Pair::to(&app, Sharing::WhenBusy).await;

    for few in [1, 4] {
        assert_eq!(at_once(&app, &answers, &pair, few).await, 0);
    }
    let shared = at_once(&app, &answers, &pair, 64).await;
    assert!((48..64).contains(&shared), "{shared}");
    assert_eq!(at_once(&app, &answers, &pair, 1).await, 0);
}

#[tokio::test]
async fn where_only_many_share_large_bodies_do_not() {
    let answers = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&answers);
    let app = Upstream::answering(move |_| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            text(StatusCode::OK, vec![b'x'; 256 * 1024])
        }
    })
    .await;
    let pair = Pair::to(&app, Sharing::WhenBusy).await;

    assert!(
        at_once(&app, &answers, &pair, 32).await > 0,
        "not known yet"
    );
    assert_eq!(at_once(&app, &answers, &pair, 32).await, 0);
}
