//! What the proxy does when it runs short of something itself.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_proxy::config::affinity::{AimConfig, Priority};
use weft_proxy::config::http::HttpConfig;
use weft_proxy::config::overload::{
    Action, ConnectionLimit, Monitor, OverloadConfig, Resource, Shortest, Trigger,
};
use weft_proxy::config::route::{Forward, Route, RouteAction};

use crate::client::Client;
use crate::config::{cluster, configuration, filter, http, listener, route};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, until};

/// A pressure that tests decide.
struct Pressure(tempfile::TempDir);

impl Pressure {
    fn new() -> Self {
        let pressure = Pressure(tempfile::tempdir().unwrap());
        pressure.set("0");
        pressure
    }

    /// All at once: nobody reads half of it.
    fn set(&self, pressure: &str) {
        let next = self.0.path().join("next");
        std::fs::write(&next, pressure).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    /// The actions begin above a half, and are taken always from 0.9 on.
    fn config(&self, actions: &[Action]) -> OverloadConfig {
        let trigger = Trigger {
            monitor: 0,
            scaling: 0.5,
            saturation: 0.9,
        };
        OverloadConfig {
            refresh_interval: Duration::from_millis(5),
            monitors: vec![Monitor {
                name: "injected".into(),
                resource: Resource::File(self.file()),
            }],
            max_connections: None,
            actions: actions
                .iter()
                .map(|action| (*action, vec![trigger]))
                .collect(),
            connection_idle: None,
            shrink_interval: Duration::from_secs(10),
        }
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("pressure")
    }
}

fn routes() -> Vec<Route> {
    let urgent = Forward {
        aim: AimConfig {
            priority: Priority::High,
            ..AimConfig::default()
        },
        ..Forward::to("c")
    };
    vec![
        route("/urgent", RouteAction::Forward(urgent.into())),
        route("/", RouteAction::Forward(Forward::to("c").into())),
    ]
}

async fn serving(http: HttpConfig, upstream: &Upstream, overload: OverloadConfig) -> Proxy {
    let listeners = [listener(filter(http))];
    let clusters = [cluster("c", &[upstream.address])];
    Proxy::start_watched(configuration(listeners, clusters), overload).await
}

async fn proxy(upstream: &Upstream, overload: OverloadConfig) -> Proxy {
    serving(http(routes()), upstream, overload).await
}

async fn until_taken(proxy: &Proxy, action: Action, is_taken: bool) {
    let overload = &proxy.data_plane.environment().overload;
    until(|| overload.is_saturated(action) == is_taken).await;
}

#[tokio::test]
async fn requests_are_refused_while_there_is_a_shortage_and_no_longer() {
    let (upstream, pressure) = (Upstream::named("a").await, Pressure::new());
    let action = Action::StopAcceptingRequests;
    let proxy = proxy(&upstream, pressure.config(&[action])).await;
    let mut client = Client::http1(proxy.address).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);

    pressure.set("0.95");
    until_taken(&proxy, action, true).await;
    let refused = client.get("/").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body, "envoy overloaded");
    assert_eq!(upstream.requests(), 1);

    pressure.set("0.6");
    until_taken(&proxy, action, false).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn requests_of_high_priority_are_shed_last() {
    let (upstream, pressure) = (Upstream::named("a").await, Pressure::new());
    let action = Action::ShedRequests;
    let proxy = proxy(&upstream, pressure.config(&[action])).await;
    let mut client = Client::http1(proxy.address).await;

    // 99 of a hundred are shed: that all of 20 pass has a chance of one in 10^40.
    pressure.set("0.8965");
    let percent = format!("overload.{}.scale_percent", action.name());
    let percent = proxy.data_plane.environment().counters.counter(&percent);
    until(|| percent.value() == 99).await;
    let mut shed = 0;
    for _ in 0..20 {
        shed += u32::from(client.get("/").await.status != StatusCode::OK);
        assert_eq!(client.get("/urgent").await.status, StatusCode::OK);
    }
    assert!(shed > 0);

    pressure.set("1");
    until_taken(&proxy, action, true).await;
    let refused = client.get("/urgent").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn no_more_connections_are_served_than_may_be_open() {
    let (upstream, pressure) = (Upstream::named("a").await, Pressure::new());
    let limited = OverloadConfig {
        max_connections: Some(ConnectionLimit {
            name: "connections".into(),
            max: 1,
        }),
        ..pressure.config(&[])
    };
    let proxy = proxy(&upstream, limited).await;
    let mut client = Client::http1(proxy.address).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);

    let mut refused = TcpStream::connect(proxy.address).await.unwrap();

    let mut byte = [0];
    assert_eq!(refused.read(&mut byte).await.unwrap_or(0), 0);
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn idle_connections_are_closed_sooner_while_there_is_a_shortage() {
    let (upstream, pressure) = (Upstream::named("a").await, Pressure::new());
    let overload = OverloadConfig {
        connection_idle: Some(Shortest::Time(Duration::ZERO)),
        ..pressure.config(&[Action::ReduceTimeouts])
    };
    let patient = HttpConfig {
        idle_timeout: Some(Duration::from_secs(3600)),
        ..http(routes())
    };
    let proxy = serving(patient, &upstream, overload).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n";
    client.write_all(request).await.unwrap();
    upstream.until_requests(1).await;

    pressure.set("1");

    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_string(&mut answer));
    read.await.expect("closed in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn connections_end_with_their_next_response_where_that_is_asked_for() {
    let (upstream, pressure) = (Upstream::named("a").await, Pressure::new());
    let action = Action::DisableKeepalive;
    let proxy = proxy(&upstream, pressure.config(&[action])).await;
    let mut client = Client::http1(proxy.address).await;
    assert_eq!(client.get("/").await.header("connection"), None);

    pressure.set("1");
    until_taken(&proxy, action, true).await;

    assert_eq!(client.get("/").await.header("connection"), Some("close"));
}
