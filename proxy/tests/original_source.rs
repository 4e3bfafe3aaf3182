//! Connections to upstreams that have the client's address (`original_src`), through Envoy and through weft.
//!
//! The test runs itself again inside a new user and network namespace, so that it needs no root and changes nothing of
//! the host.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of these modules")]

#[path = "data_path/inside.rs"]
mod inside;
#[path = "xds/mesh.rs"]
mod mesh;
#[path = "go_control_plane/peer.rs"]
mod peer;
#[path = "xds/server.rs"]
mod server;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use inside::{is_inside, run_inside};
use mesh::ready;
use peer::Envoy;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use weft_proxy::Options;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;

const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";

/// Addresses of clients; and a network that nobody has, from which only what is marked gets through, and to which
/// answers find their way back.
const SETUP: &str = "
    ip link set lo up
    ip addr add 10.96.0.5/32 dev lo
    ip addr add 10.96.0.6/32 dev lo
    ip addr add fd57:6060::5/128 dev lo
    ip rule add fwmark 1 lookup 100
    ip route add local 0.0.0.0/0 dev lo table 100
    ip route add 203.0.113.0/24 dev lo
    iptables -t mangle -A OUTPUT -p tcp -s 203.0.113.0/24 -m mark ! --mark 123 -j DROP
    iptables -t mangle -A OUTPUT -p tcp -d 203.0.113.0/24 -j MARK --set-mark 1
";

const ADMIN: u16 = 9901;
const WEB: u16 = 10000;
const RAW: u16 = 10001;
const NAMED: u16 = 10002;
const NAMED_LATE: u16 = 10003;
const FORWARDED: u16 = 10004;
const UPSTREAM: u16 = 8001;
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client says, whence and where, and what the upstream then takes for its address.
struct Call {
    from: &'static str,
    port: u16,
    says: &'static str,
    seen: &'static str,
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const FORWARDED_GET: &str =
    "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.9\r\nconnection: close\r\n\r\n";
const NAMED_GET: &str = "PROXY TCP4 203.0.113.9 10.96.0.5 4000 80\r\n\
    GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// Twice the same in between: connections that are kept are not for everybody.
const CALLS: [Call; 9] = [
    call("10.96.0.5", WEB, GET, "10.96.0.5"),
    call("10.96.0.6", WEB, GET, "10.96.0.6"),
    call("10.96.0.5", WEB, GET, "10.96.0.5"),
    call("10.96.0.5", RAW, GET, "10.96.0.5"),
    call("10.96.0.6", RAW, GET, "10.96.0.6"),
    call("10.96.0.5", NAMED, NAMED_GET, "203.0.113.9"),
    call("10.96.0.5", NAMED_LATE, NAMED_GET, "10.96.0.5"),
    call("10.96.0.5", FORWARDED, FORWARDED_GET, "203.0.113.9"),
    call("10.96.0.6", FORWARDED, GET, "10.96.0.6"),
];

const fn call(from: &'static str, port: u16, says: &'static str, seen: &'static str) -> Call {
    Call {
        from,
        port,
        says,
        seen,
    }
}

#[test]
fn connections_to_upstreams_have_the_address_of_their_client() {
    if !is_inside() {
        return run_inside(
            "connections_to_upstreams_have_the_address_of_their_client",
            SETUP,
        );
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let upstream = TcpListener::bind(("0.0.0.0", UPSTREAM)).await.unwrap();
        tokio::spawn(tell_peers(upstream));
        let dir = tempfile::tempdir().unwrap();
        let bootstrap = bootstrap();

        let envoy = Envoy::start(&bootstrap, dir.path());
        let of_envoy = answers().await;
        envoy.kill().await;
        let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).unwrap();
        let mut options = Options::new("test");
        options.concurrency = 1;
        let proxy = Proxy::start(&options, bootstrap, LogControl::none())
            .await
            .unwrap();
        ready(&proxy).await;
        let of_weft = answers().await;
        proxy.shutdown(Duration::ZERO).await;

        let expected = CALLS.map(|call| format!("200 {}", call.seen));
        assert_eq!(of_envoy[..CALLS.len()], expected, "Envoy");
        assert_eq!(of_weft, of_envoy, "weft, and Envoy");
        let other_family = of_weft.last().unwrap();
        assert!(other_family.starts_with("503"), "{other_family}");
    });
}

/// Of all calls; and of one from an address of another family than the upstream's.
async fn answers() -> Vec<String> {
    until_listening().await;
    let mut answers = vec![];
    for call in CALLS {
        answers.push(answer(&call, "127.0.0.1").await);
    }
    let other_family = call("fd57:6060::5", WEB, GET, "");
    answers.push(answer(&other_family, "fd57:6060::5").await);
    answers
}

async fn until_listening() {
    let listening = async {
        while TcpStream::connect(("127.0.0.1", FORWARDED)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, listening).await.expect("it listens");
}

/// Status and body; of bytes that are proxied they are the upstream's own.
async fn answer(call: &Call, to: &str) -> String {
    let from: IpAddr = call.from.parse().unwrap();
    let socket = match from {
        IpAddr::V4(_) => TcpSocket::new_v4().unwrap(),
        IpAddr::V6(_) => TcpSocket::new_v6().unwrap(),
    };
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let to = SocketAddr::new(to.parse().unwrap(), call.port);
    let exchange = async {
        let mut stream = socket.connect(to).await.unwrap();
        stream.write_all(call.says.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer");
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match status {
        "200" => format!("{status} {body}"),
        status => status.to_owned(),
    }
}

/// Answers each request with the address that it came from.
async fn tell_peers(listener: TcpListener) {
    while let Ok((mut stream, peer)) = listener.accept().await {
        tokio::spawn(async move {
            let mut received = Vec::new();
            while stream
                .read_buf(&mut received)
                .await
                .is_ok_and(|count| count > 0)
            {
                if !received.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let is_last = String::from_utf8_lossy(&received).contains("connection: close");
                received.clear();
                let body = peer.ip().to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let sent = stream.write_all(format!("{head}{body}").as_bytes()).await;
                if sent.is_err() || is_last {
                    return;
                }
            }
        });
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn listener(name: &str, port: u16, listener_filters: &Value, filter: &Value) -> Value {
    json!({"name": name, "address": address(port), "listener_filters": listener_filters,
        "additional_addresses": match port {
            WEB => json!([{"address": {"socket_address": {"address": "fd57:6060::5", "port_value": port}}}]),
            _ => json!([]),
        },
        "filter_chains": [{"filters": [{"name": name, "typed_config": filter}]}]})
}

fn http(filters: &[Value]) -> Value {
    let router = json!({"name": "router",
        "typed_config": {"@type": format!("{TYPES}.http.router.v3.Router")}});
    let mut filters = filters.to_vec();
    filters.push(router);
    json!({
        "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web",
        "route_config": {"name": "web", "virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
        "http_filters": filters,
    })
}

fn bootstrap() -> Value {
    let source = json!({"name": "source", "typed_config":
        {"@type": format!("{TYPES}.listener.original_src.v3.OriginalSrc"), "mark": 123}});
    let named = json!({"name": "named", "typed_config":
        {"@type": format!("{TYPES}.listener.proxy_protocol.v3.ProxyProtocol")}});
    let of_request = json!({"name": "source", "typed_config":
        {"@type": format!("{TYPES}.http.original_src.v3.OriginalSrc"), "mark": 123}});
    let tcp = json!({"@type": format!("{TYPES}.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "raw", "cluster": "app"});
    json!({
        "admin": {"address": address(ADMIN)},
        "static_resources": {
            "listeners": [
                listener("web", WEB, &json!([source]), &http(&[])),
                listener("raw", RAW, &json!([source]), &tcp),
                listener("named", NAMED, &json!([named, source]), &http(&[])),
                listener("named-late", NAMED_LATE, &json!([source, named]), &http(&[])),
                listener("forwarded", FORWARDED, &json!([]), &http(&[of_request])),
            ],
            "clusters": [{
                "name": "app",
                "connect_timeout": "5s",
                "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(UPSTREAM)}},
                ]}]},
            }],
        },
    })
}
