//! Copies of requests, and hosts of endpoints.

use std::sync::Arc;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use weft_proxy::config::cluster::{ClusterConfig, Discovery, UpstreamProtocol};
use weft_proxy::config::endpoints::{
    EndpointAddress, EndpointConfig, EndpointsConfig, LocalityConfig,
};
use weft_proxy::config::percent::Percent;
use weft_proxy::config::route::{Forward, HostRewrite, Mirror};

use crate::client::{Client, request};
use crate::config::{all_to, cluster, http};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, text, until};

type Heard = Arc<Mutex<Vec<(String, String)>>>;

/// Remembers hosts and bodies.
async fn listening() -> (Upstream, Heard) {
    let heard = Heard::default();
    let remembered = Arc::clone(&heard);
    let upstream = Upstream::answering(move |request| {
        let remembered = Arc::clone(&remembered);
        async move {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            remembered.lock().push((host, body));
            text(http::StatusCode::INTERNAL_SERVER_ERROR, "nobody sees this")
        }
    })
    .await;
    (upstream, heard)
}

fn mirrored_to(cluster: &str, share: Percent) -> Forward {
    Forward {
        mirrors: vec![Mirror::to(cluster, share)],
        ..Forward::to("c")
    }
}

#[tokio::test]
async fn a_copy_with_the_whole_body_goes_to_the_mirror() {
    let (upstream, (mirror, heard)) = (Upstream::echoing().await, listening().await);
    let clusters = [
        cluster("c", &[upstream.address]),
        cluster("mirror", &[mirror.address]),
    ];
    let routes = all_to(mirrored_to("mirror", Percent::ALL));
    let proxy = Proxy::serving(http(routes), clusters).await;
    let mut client = Client::http1(proxy.address).await;

    assert!(
        client
            .send(request("POST", "/", "the body"))
            .await
            .body
            .ends_with("the body")
    );
    assert_eq!(client.get("/").await.status, 200);

    until(|| heard.lock().len() == 2).await;
    let mut heard = heard.lock().clone();
    heard.sort();
    assert_eq!(heard[0], ("reviews-shadow".to_owned(), String::new()));
    assert_eq!(
        heard[1],
        ("reviews-shadow".to_owned(), "the body".to_owned())
    );
}

#[tokio::test]
async fn a_mirror_that_hangs_holds_nobody_up() {
    let (upstream, mirror) = (Upstream::echoing().await, Upstream::hanging().await);
    let clusters = [
        cluster("c", &[upstream.address]),
        cluster("mirror", &[mirror.address]),
    ];
    let routes = all_to(mirrored_to("mirror", Percent::ALL));
    let proxy = Proxy::serving(http(routes), clusters).await;

    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn a_named_endpoint_is_resolved_and_may_lend_its_host() {
    let upstream = Upstream::echoing().await;
    let endpoint = EndpointConfig {
        address: EndpointAddress::Name {
            host: "localhost".into(),
            port: upstream.address.port(),
        },
        ..EndpointConfig::at(upstream.address)
    };
    let endpoints = EndpointsConfig {
        name: "c".into(),
        policy: Default::default(),
        localities: vec![LocalityConfig {
            locality: Default::default(),
            priority: 0,
            weight: 0,
            endpoints: vec![endpoint],
        }],
    };
    let config = ClusterConfig {
        protocol: UpstreamProtocol::Http1,
        ..ClusterConfig::new("c", Discovery::StrictDns(Arc::new(endpoints)))
    };
    let forward = Forward {
        host: Some(HostRewrite::Endpoint),
        ..Forward::to("c")
    };
    let proxy = Proxy::with(forward, config).await;
    let is_resolved = || {
        proxy.data_plane.snapshot().clusters["c"]
            .endpoints()
            .next()
            .is_some()
    };

    assert_eq!(proxy.get("/").await.status, 503);
    until(is_resolved).await;
    let mut got = proxy.get("/").await;
    // `localhost` may be ::1 first, where nobody listens.
    for _ in 0..3 {
        if got.status != 200 {
            got = proxy.get("/").await;
        }
    }

    assert!(got.body.contains("host: localhost\n"), "{}", got.body);
}
