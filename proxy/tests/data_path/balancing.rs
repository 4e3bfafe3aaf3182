//! Which endpoint a request goes to: by hash, by subset, by health; and what an idle connection may cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::affinity::{AimConfig, HashCookie, HashPolicy, HashSource, Priority};
use weft_proxy::config::balancing::{
    Balancer, Criteria, LabelValue, Labels, SubsetConfig, SubsetSelector,
};
use weft_proxy::config::cluster::{ClusterConfig, Discovery, Thresholds};
use weft_proxy::config::headers::HeaderMutations;
use weft_proxy::config::health_check::{HealthCheckConfig, HttpProbe, Intervals, Probe};
use weft_proxy::config::matching::Subject;
use weft_proxy::config::percent::Percent;
use weft_proxy::config::route::Forward;

use crate::client::{Client, request};
use crate::config::{cluster, endpoints};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, nobody, text, until};

fn aimed(aim: AimConfig) -> Forward {
    Forward {
        aim,
        ..Forward::to("c")
    }
}

fn hashing(source: HashSource) -> Forward {
    aimed(AimConfig {
        hash: vec![HashPolicy {
            source,
            is_terminal: false,
        }],
        ..AimConfig::default()
    })
}

pub(crate) fn maglev(addresses: &[SocketAddr]) -> ClusterConfig {
    ClusterConfig {
        balancer: Balancer::Maglev { table_size: 1009 },
        ..cluster("c", addresses)
    }
}

pub(crate) async fn three() -> [Upstream; 3] {
    [
        Upstream::named("a").await,
        Upstream::named("b").await,
        Upstream::named("c").await,
    ]
}

pub(crate) fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

#[tokio::test]
async fn requests_with_the_same_header_go_to_the_same_endpoint() {
    let upstreams = three().await;
    let by_user = hashing(HashSource::Header {
        name: Subject::Header(HeaderName::from_static("x-user")),
        rewrite: None,
    });
    let proxy = Proxy::with(by_user, maglev(&addresses(&upstreams))).await;
    let mut client = Client::http1(proxy.address).await;
    let mut used = std::collections::BTreeSet::new();

    for user in 0..20 {
        let mut bodies = Vec::new();
        for _ in 0..3 {
            let mut request = request("GET", "/", "");
            let value = format!("user-{user}").parse().unwrap();
            request.headers_mut().insert("x-user", value);
            bodies.push(client.send(request).await.body);
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
        used.extend(bodies);
    }

    // That 20 users are all at one of three endpoints has a chance of one in a thousand million.
    assert!(used.len() > 1);
}

#[tokio::test]
async fn a_session_that_has_no_cookie_is_given_one_that_keeps_it_where_it_is() {
    let upstreams = three().await;
    let by_cookie = hashing(HashSource::Cookie(HashCookie {
        name: "session".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/".into(),
        attributes: vec![],
    }));
    let proxy = Proxy::with(by_cookie, maglev(&addresses(&upstreams))).await;

    let first = proxy.get("/").await;
    let cookie = first.header("set-cookie").expect("a cookie");
    let pair = cookie.split(';').next().unwrap().to_owned();

    for _ in 0..10 {
        let mut request = request("GET", "/", "");
        let value = pair.parse().unwrap();
        request.headers_mut().insert("cookie", value);
        // On a connection of its own: only the cookie is the same.
        let again = Client::http1(proxy.address).await.send(request).await;
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("set-cookie"), None);
    }
}

/// Endpoints with the versions `v1`, `v2`, and so on.
pub(crate) fn versioned(addresses: &[SocketAddr]) -> ClusterConfig {
    let mut found = endpoints("c", addresses);
    for (index, endpoint) in found.localities[0].endpoints.iter_mut().enumerate() {
        let label = LabelValue {
            text: format!("\"v{}\"", index + 1).into(),
            elements: vec![],
        };
        endpoint.labels = Arc::new(Labels::from([("version".into(), label)]));
    }
    ClusterConfig {
        subsets: Some(Arc::new(SubsetConfig {
            selectors: vec![SubsetSelector {
                keys: vec!["version".into()],
                fallback: None,
            }],
            ..SubsetConfig::default()
        })),
        ..ClusterConfig::new("c", Discovery::Static(Arc::new(found)))
    }
}

fn to_version(version: &str) -> Forward {
    let pair = ("version".into(), format!("\"{version}\"").into());
    aimed(AimConfig {
        subset: Some(Arc::new(Criteria::new([pair]))),
        ..AimConfig::default()
    })
}

#[tokio::test]
async fn a_route_reaches_only_the_subset_it_asks_for() {
    let upstreams = three().await;
    let found = addresses(&upstreams);

    let proxy = Proxy::with(to_version("v2"), versioned(&found)).await;
    for _ in 0..9 {
        assert_eq!(proxy.get("/").await.body, "b");
    }

    let proxy = Proxy::with(to_version("v9"), versioned(&found)).await;
    let got = proxy.get("/").await;
    assert_eq!(got.status, 503);
    let reason = got.header("x-weft-reason").unwrap();
    assert!(reason.contains("subset"), "{reason}");
}

#[tokio::test]
async fn urgent_requests_have_limits_of_their_own() {
    let upstream = Upstream::named("fine").await;
    let nothing = Thresholds {
        max_requests: 0,
        ..Thresholds::default()
    };
    let urgent = aimed(AimConfig {
        priority: Priority::High,
        ..AimConfig::default()
    });
    let config = ClusterConfig {
        breakers: nothing,
        ..cluster("c", &[upstream.address])
    };

    let usual = Proxy::to(config.clone()).await;
    let proxy = Proxy::with(urgent, config).await;

    assert_eq!(usual.get("/").await.status, 503);
    assert_eq!(proxy.get("/").await.status, 200);
}

pub(crate) fn checked(probe: Probe) -> Arc<HealthCheckConfig> {
    let often = Duration::from_millis(20);
    Arc::new(HealthCheckConfig {
        timeout: Duration::from_secs(5),
        intervals: Intervals {
            usual: often,
            jitter: Duration::ZERO,
            jitter_percent: 0,
            initial_jitter: Duration::ZERO,
            no_traffic: often,
            no_traffic_healthy: None,
            unhealthy: often,
            unhealthy_edge: often,
            healthy_edge: often,
        },
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        port: None,
        reuses_connection: true,
        alpn: None,
        probe,
    })
}

fn by_http() -> Probe {
    Probe::Http(Box::new(HttpProbe {
        method: http::Method::GET,
        host: Some("health".into()),
        path: "/healthz".into(),
        send: Bytes::new(),
        receive: vec![],
        headers: HeaderMutations::default(),
        expected: std::iter::once(200..201).collect(),
        retriable: std::iter::once(503..504).collect(),
        is_http2: false,
        service_name: None,
        max_body_bytes: 1024,
    }))
}

/// Answers with its name, and health checks as it is told.
async fn moody(name: &'static str, is_well: &Arc<AtomicBool>) -> Upstream {
    let is_well = Arc::clone(is_well);
    Upstream::answering(move |request| {
        let is_well = is_well.load(Ordering::SeqCst) || request.uri().path() != "/healthz";
        async move {
            match is_well {
                true => text(StatusCode::OK, name),
                false => text(StatusCode::SERVICE_UNAVAILABLE, ""),
            }
        }
    })
    .await
}

fn checked_cluster(addresses: &[SocketAddr], probe: Probe) -> ClusterConfig {
    ClusterConfig {
        health_checks: vec![checked(probe)],
        panic_threshold: Percent::ZERO,
        ..cluster("c", addresses)
    }
}

fn passed(proxy: &Proxy) -> usize {
    let snapshot = proxy.data_plane.snapshot();
    let endpoints = snapshot.clusters["c"].endpoints();
    endpoints
        .filter(|endpoint| endpoint.state.health.is_passed())
        .count()
}

#[tokio::test]
async fn an_endpoint_that_fails_its_health_checks_is_left_out_until_it_passes_them() {
    let is_well = Arc::new(AtomicBool::new(true));
    let upstreams = [
        Upstream::named("steady").await,
        moody("moody", &is_well).await,
    ];
    let config = checked_cluster(&addresses(&upstreams), by_http());
    let proxy = Proxy::to(config).await;
    until(|| passed(&proxy) == 2).await;

    is_well.store(false, Ordering::SeqCst);
    until(|| passed(&proxy) == 1).await;
    // The change is in force a moment after it is known.
    let mut client = Client::http1(proxy.address).await;
    for _ in 0..1000 {
        let bodies = [client.get("/").await.body, client.get("/").await.body];
        if bodies == ["steady", "steady"] {
            break;
        }
    }
    for _ in 0..20 {
        assert_eq!(client.get("/").await.body, "steady");
    }

    is_well.store(true, Ordering::SeqCst);
    until(|| passed(&proxy) == 2).await;
    let mut bodies = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        bodies.insert(client.get("/").await.body);
        if bodies.len() == 2 {
            break;
        }
    }
    assert_eq!(bodies.len(), 2);
}

#[tokio::test]
async fn nothing_is_sent_to_endpoints_that_have_not_passed_a_check_yet() {
    let upstream = Upstream::named("fine").await;
    let silent = Probe::Tcp {
        send: Bytes::from_static(b"PING\r\n"),
        receive: vec![Bytes::from_static(b"+PONG")],
    };
    let proxy = Proxy::to(checked_cluster(&[upstream.address], silent)).await;

    let got = proxy.get("/").await;

    assert_eq!(got.status, 503);
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "UH");
}

#[tokio::test]
async fn a_tcp_check_sends_and_expects_what_it_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut said = [0; 6];
            if stream.read_exact(&mut said).await.is_ok() && &said == b"PING\r\n" {
                let _ = stream.write_all(b"+PO").await;
                let _ = stream.write_all(b"NG\r\n").await;
            }
        }
    });
    let probe = Probe::Tcp {
        send: Bytes::from_static(b"PING\r\n"),
        receive: vec![Bytes::from_static(b"+PONG")],
    };
    let proxy = Proxy::to(checked_cluster(&[address, nobody().await], probe)).await;

    until(|| passed(&proxy) == 1).await;

    let snapshot = proxy.data_plane.snapshot();
    let cluster = &snapshot.clusters["c"];
    until(|| cluster.stats.health_checks_failed.load(Ordering::Relaxed) > 0).await;
    let well: Vec<_> = cluster
        .endpoints()
        .filter(|endpoint| endpoint.state.health.is_passed())
        .collect();
    assert_eq!(well[0].address, address);
}

/// Answers so many requests on each connection, and closes it without a word.
async fn closing_after(requests: usize, answered: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answered = Arc::clone(answered);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                let _ = answer(stream, requests, &answered).await;
            });
        }
    });
    address
}

async fn answer(
    mut stream: TcpStream,
    requests: usize,
    answered: &AtomicUsize,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 8192];
    for _ in 0..requests {
        let mut length = 0;
        while !buffer[..length]
            .windows(4)
            .any(|window| window == b"\r\n\r\n")
        {
            match stream.read(&mut buffer[length..]).await? {
                0 => return Ok(()),
                count => length += count,
            }
        }
        answered.fetch_add(1, Ordering::SeqCst);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_that_its_peer_closes_never_costs_a_caller_an_error() {
    let answered = Arc::new(AtomicUsize::new(0));
    let address = closing_after(3, &answered).await;
    let proxy = Proxy::to(cluster("c", &[address])).await;

    let callers = (0..16).map(|_| {
        let proxy = proxy.address;
        tokio::spawn(async move {
            let mut client = Client::http1(proxy).await;
            let mut failed = 0;
            for _ in 0..200 {
                failed += usize::from(client.get("/").await.status != 200);
            }
            failed
        })
    });
    let mut failed = 0;
    for caller in callers.collect::<Vec<_>>() {
        failed += caller.await.unwrap();
    }

    assert_eq!(failed, 0);
    assert!(answered.load(Ordering::SeqCst) >= 16 * 200);
}

#[tokio::test]
async fn a_connection_is_used_no_longer_than_it_may_be() {
    let upstream = Upstream::named("fine").await;
    let config = ClusterConfig {
        max_connection_duration: Some(Duration::from_millis(1)),
        ..cluster("c", &[upstream.address])
    };
    let proxy = Proxy::to(config).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    assert_eq!(upstream.connections(), 5);
}

#[tokio::test]
async fn a_session_in_a_header_is_told_only_where_it_moves() {
    use weft_proxy::config::filter::stateful_session::{SessionState, StatefulSessionConfig};
    use weft_proxy::config::filter::{FilterKind, HttpFilter};
    let upstreams = three().await;
    let mut http = crate::config::http(crate::config::all_to(Forward::to("c")));
    http.filters.push(HttpFilter {
        name: "session".into(),
        is_disabled: false,
        kind: FilterKind::StatefulSession(Arc::new(StatefulSessionConfig {
            state: SessionState::Header(HeaderName::from_static("x-session")),
            is_strict: false,
        })),
    });
    let proxy = Proxy::serving(http, [cluster("c", &addresses(&upstreams))]).await;
    let mut client = Client::http1(proxy.address).await;
    let first = client.get("/").await;
    let told = first.header("x-session").expect("a session").to_owned();

    for _ in 0..9 {
        let mut request = request("GET", "/", "");
        request
            .headers_mut()
            .insert("x-session", told.parse().unwrap());
        let again = client.send(request).await;

        assert_eq!(again.body, first.body);
        assert_eq!(again.header("x-session"), None);
    }
}

#[tokio::test]
async fn a_session_stays_where_its_cookie_says_and_moves_where_that_is_gone() {
    use weft_proxy::config::filter::stateful_session::{SessionState, StatefulSessionConfig};
    use weft_proxy::config::filter::{FilterKind, HttpFilter};
    let upstreams = three().await;
    let mut http = crate::config::http(crate::config::all_to(Forward::to("c")));
    http.filters.push(HttpFilter {
        name: "session".into(),
        is_disabled: false,
        kind: FilterKind::StatefulSession(Arc::new(StatefulSessionConfig {
            state: SessionState::Cookie {
                name: "at".into(),
                ttl: Duration::from_secs(60),
                path: "/".into(),
                attributes: vec![],
            },
            is_strict: false,
        })),
    });
    let proxy = Proxy::serving(http, [cluster("c", &addresses(&upstreams))]).await;
    let mut client = Client::http1(proxy.address).await;
    let first = client.get("/").await;
    let cookie = first.header("set-cookie").expect("a cookie");
    let pair = cookie.split(';').next().unwrap().to_owned();

    for _ in 0..9 {
        let mut request = request("GET", "/", "");
        let value = pair.parse().unwrap();
        request.headers_mut().insert("cookie", value);
        let again = client.send(request).await;
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("set-cookie"), None);
    }

    let left: Vec<_> = upstreams
        .iter()
        .zip(["a", "b", "c"])
        .filter(|(_, name)| *name != first.body)
        .map(|(upstream, _)| upstream.address)
        .collect();
    let mut configuration = weft_proxy::config::Configuration::default();
    let listener = &proxy.data_plane.snapshot().listeners[crate::config::LISTENER];
    configuration.listeners.insert(
        Arc::clone(&listener.config.name),
        Arc::clone(&listener.config),
    );
    configuration
        .clusters
        .insert("c".into(), Arc::new(cluster("c", &left)));
    proxy.data_plane.apply(configuration).await;
    let mut request = request("GET", "/", "");
    request
        .headers_mut()
        .insert("cookie", pair.parse().unwrap());
    let moved = client.send(request).await;

    assert_eq!(moved.status, 200);
    assert_ne!(moved.body, first.body);
    assert!(moved.header("set-cookie").is_some());
}
