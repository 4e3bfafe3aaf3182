//! What connections must pass before anything is done for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::listener::ListenerConfig;

use super::{NETWORK, counted, translated};
use crate::config::{LISTENER, cluster, configuration};
use crate::proxy::Proxy;
use crate::upstream::until;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

fn gate(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("{NETWORK}.{kind}").into();
    json!({"name": "gate", "typed_config": config})
}

/// A proxy of bytes with a gate, before a server that sends everything back.
async fn proxy(gate: Value) -> Proxy {
    serving(translated(json!({"filters": [gate, end()]}))).await
}

fn end() -> Value {
    json!({"name": "tcp", "typed_config": {
        "@type": format!("{NETWORK}.tcp_proxy.v3.TcpProxy"), "stat_prefix": "tcp", "cluster": "c",
    }})
}

/// A proxy before a server that sends everything back.
async fn serving(listener: ListenerConfig) -> Proxy {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Proxy::start(configuration([listener], [cluster("c", &[address])])).await
}

/// Whether a connection is served; it stays open as long as it is kept.
async fn is_served(proxy: &Proxy) -> (bool, TcpStream) {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let _ = stream.write_all(b"hello").await;
    let mut answer = [0; 5];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
    let is_served = read.expect("an answer or an end").is_ok();
    (is_served, stream)
}

fn by_source(network: &str) -> Value {
    json!({"stat_prefix": "who", "rules": {"policies": {"p": {
        "permissions": [{"any": true}],
        "principals": [{"direct_remote_ip": {"address_prefix": network, "prefix_len": 8}}],
    }}}})
}

#[tokio::test]
async fn who_may_not_connect_is_told_nothing() {
    let open = proxy(gate("rbac.v3.RBAC", by_source("127.0.0.0"))).await;
    let closed = proxy(gate("rbac.v3.RBAC", by_source("10.0.0.0"))).await;

    assert!(is_served(&open).await.0);
    assert!(!is_served(&closed).await.0);
    assert_eq!(counted(&open)["who.rbac.allowed"], 1);
    assert_eq!(counted(&closed)["who.rbac.denied"], 1);
}

#[tokio::test]
async fn no_more_connections_are_open_than_may_be() {
    let config = json!({"stat_prefix": "few", "max_connections": 1});
    let proxy = proxy(gate("connection_limit.v3.ConnectionLimit", config)).await;

    let (first, held) = is_served(&proxy).await;
    let (second, _) = is_served(&proxy).await;

    assert_eq!((first, second), (true, false));
    assert_eq!(
        counted(&proxy)["connection_limit.few.limited_connections"],
        1
    );
    drop(held);
    until(|| counted(&proxy)["connection_limit.few.active_connections"] == 0).await;
    assert!(is_served(&proxy).await.0);
}

#[tokio::test]
async fn a_listener_has_no_more_connections_than_runtime_says() {
    let mut listener = translated(json!({"filters": [end()]}));
    listener.max_connections = Some(1);
    let proxy = serving(listener).await;
    let live = Arc::clone(&proxy.data_plane.snapshot().listeners[LISTENER].live);
    let count =
        || [&live.accepted, &live.overflown, &live.open].map(|one| one.load(Ordering::Relaxed));

    let (first, held) = is_served(&proxy).await;
    let (second, _) = is_served(&proxy).await;

    assert_eq!((first, second), (true, false));
    until(|| count() == [1, 1, 1]).await;
    drop(held);
    until(|| count()[2] == 0).await;
    assert!(is_served(&proxy).await.0);
}

#[tokio::test]
async fn connections_come_no_faster_than_they_may() {
    let bucket = json!({"max_tokens": 1, "fill_interval": "3600s"});
    let config = json!({"stat_prefix": "slow", "token_bucket": bucket});
    let proxy = proxy(gate("local_ratelimit.v3.LocalRateLimit", config)).await;

    let (first, _) = is_served(&proxy).await;
    let (second, _) = is_served(&proxy).await;

    assert_eq!((first, second), (true, false));
    assert_eq!(counted(&proxy)["local_rate_limit.slow.rate_limited"], 1);
}
