//! Changes of configuration under load, and draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;
use weft_proxy::config::route::Forward;

use crate::client::Client;
use crate::config::{LISTENER, all_to, cluster, configuration, filter, http, listener};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, text, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_configuration_under_load_loses_nothing() {
    let (one, two) = (Upstream::named("one").await, Upstream::named("two").await);
    let to = |name: &str| {
        let clusters = [
            cluster("one", &[one.address]),
            cluster("two", &[two.address]),
        ];
        configuration(
            [listener(filter(http(all_to(Forward::to(name)))))],
            clusters,
        )
    };
    let proxy = Proxy::start(to("one")).await;
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..4)
        .map(|index| {
            let (stop, served, address) = (Arc::clone(&stop), Arc::clone(&served), proxy.address);
            tokio::spawn(async move {
                let mut client = match index % 2 {
                    0 => Client::http1(address).await,
                    _ => Client::http2(address).await,
                };
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").await.status, 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();

    for change in 0..100 {
        let before = served.load(Ordering::SeqCst);
        let name = if change % 2 == 0 { "two" } else { "one" };
        assert!(proxy.data_plane.apply(to(name)).await.is_empty());
        until(|| served.load(Ordering::SeqCst) > before).await;
    }
    stop.store(true, Ordering::SeqCst);

    for caller in callers {
        caller
            .await
            .expect("every request was answered, on the same connection");
    }
    assert!(one.requests() > 0 && two.requests() > 0);
}

#[tokio::test]
async fn a_request_follows_the_configuration_of_its_time() {
    let (one, two) = (Upstream::named("one").await, Upstream::named("two").await);
    let to = |name: &str| {
        let clusters = [
            cluster("one", &[one.address]),
            cluster("two", &[two.address]),
        ];
        configuration(
            [listener(filter(http(all_to(Forward::to(name)))))],
            clusters,
        )
    };
    let proxy = Proxy::start(to("one")).await;
    let mut client = Client::http1(proxy.address).await;

    assert_eq!(client.get("/").await.body, "one");
    proxy.data_plane.apply(to("two")).await;

    assert_eq!(client.get("/").await.body, "two");
}

#[tokio::test]
async fn a_removed_listener_finishes_its_requests_and_accepts_no_more() {
    let upstream = Upstream::answering(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        text(StatusCode::OK, "done")
    })
    .await;
    let clusters = || [cluster("slow", &[upstream.address])];
    let routes = filter(http(all_to(Forward::to("slow"))));
    let proxy = Proxy::start(configuration([listener(routes)], clusters())).await;
    let mut client = Client::http1(proxy.address).await;
    let asked = tokio::spawn(async move { client.get("/").await });
    upstream.until_requests(1).await;

    proxy.data_plane.apply(configuration([], clusters())).await;

    let answer = asked.await.unwrap();
    assert_eq!(answer.body, "done");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(proxy.data_plane.addresses(LISTENER).await.is_empty());
    let refused = async {
        while TcpStream::connect(proxy.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .expect("it stops listening");
}

#[tokio::test]
async fn what_a_client_sends_before_it_can_know_of_the_removal_is_answered() {
    let upstream = Upstream::named("fine").await;
    let clusters = || [cluster("fine", &[upstream.address])];
    let routes = filter(http(all_to(Forward::to("fine"))));
    let proxy = Proxy::start(configuration([listener(routes)], clusters())).await;
    let live = Arc::clone(&proxy.data_plane.snapshot().listeners[LISTENER].live);
    let mut idle = Client::http1(proxy.address).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut unused = Client::http1(proxy.address).await;
    until(|| live.accepted.load(Ordering::SeqCst) == 2).await;

    proxy.data_plane.apply(configuration([], clusters())).await;

    for client in [&mut idle, &mut unused] {
        let answer = client.get("/").await;
        assert_eq!(answer.body, "fine");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    until(|| live.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_drain_waits_for_what_has_begun() {
    let upstream = Upstream::answering(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        text(StatusCode::OK, "done")
    })
    .await;
    let proxy = Proxy::to(cluster("slow", &[upstream.address])).await;
    let mut idle = Client::http1(proxy.address).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut client = Client::http2(proxy.address).await;
    let asked = tokio::spawn(async move { client.get("/").await });
    upstream.until_requests(2).await;

    let drained = proxy.data_plane.drain(Duration::from_secs(10)).await;

    assert_eq!(drained, Ok(()));
    assert_eq!(asked.await.unwrap().body, "done");
}

/// Closed at once, the connection could cross with a request that is under way.
#[tokio::test]
async fn an_idle_connection_that_drains_is_told_so_with_one_more_answer() {
    let upstream = Upstream::named("fine").await;
    let proxy = Proxy::to(cluster("fine", &[upstream.address])).await;
    let mut idle = Client::http1(proxy.address).await;
    assert_eq!(idle.get("/").await.header("connection"), None);

    let data_plane = Arc::clone(&proxy.data_plane);
    let draining = tokio::spawn(async move { data_plane.drain(Duration::from_secs(10)).await });
    until(|| proxy.data_plane.environment().drain.is_started()).await;
    let last = idle.get("/").await;

    assert_eq!(
        (last.status.as_u16(), last.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(draining.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_bound_when_it_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = Upstream::named("fine").await;
    let proxy = Proxy::to(cluster("fine", &[upstream.address])).await;
    let mut second = listener(filter(http(all_to(Forward::to("fine")))));
    second.name = "second".into();
    second.addresses = vec![taken.local_addr().unwrap()];

    let clusters = [cluster("fine", &[upstream.address])];
    let failures = proxy
        .data_plane
        .apply(configuration([second], clusters))
        .await;
    assert_eq!(&*failures[0].listener, "second");
    drop(taken);

    let bound = async {
        while proxy.data_plane.addresses("second").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), bound)
        .await
        .expect("it is bound");
}
