//! Connections that the kernel lets in though they are for others (TPROXY), in a network namespace of the test's own:
//! nothing of them is rewritten, neither where they come from nor where they go.
//!
//! The test runs itself again inside a new user and network namespace, so that it needs no root and changes
//! nothing of the host.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use weft_proxy::config::Configuration;
use weft_proxy::config::listener::socket::SocketSettings;
use weft_proxy::config::listener::{Binding, ListenerConfig};
use weft_proxy::config::route::Forward;

use crate::config::{all_to, cluster, configuration, filter, http, listener, tcp};
use crate::inside::{is_inside, run_inside};
use crate::proxy::Proxy;
use crate::upstream::Upstream;

/// A client's address; and networks that nobody has, of which all that is sent there comes to the proxy.
const SETUP: &str = "
    ip link set lo up
    ip addr add 10.96.0.5/32 dev lo
    ip addr add fd57:6060::5/128 dev lo
    ip rule add fwmark 1 lookup 100
    ip route add local 0.0.0.0/0 dev lo table 100
    ip route add 203.0.113.0/24 dev lo
    iptables -t mangle -A OUTPUT -p tcp -d 203.0.113.0/24 -j MARK --set-mark 1
    iptables -t mangle -A PREROUTING -i lo -p tcp -d 203.0.113.0/24 -j TPROXY --on-port 15001 --tproxy-mark 1
    ip -6 rule add fwmark 1 lookup 100
    ip -6 route add local ::/0 dev lo table 100
    ip -6 route add fd57:f0f0::/112 dev lo
    ip6tables -t mangle -A OUTPUT -p tcp -d fd57:f0f0::/112 -j MARK --set-mark 1
    ip6tables -t mangle -A PREROUTING -i lo -p tcp -d fd57:f0f0::/112 -j TPROXY --on-port 15001 --tproxy-mark 1
";
/// Where clients come from and what they call, of both families.
const CALLS: [(&str, &str); 2] = [
    ("10.96.0.5", "203.0.113.7:80"),
    ("fd57:6060::5", "[fd57:f0f0::7]:80"),
];

#[test]
fn transparent_connections_keep_where_they_come_from_and_where_they_go() {
    if !is_inside() {
        return run_inside(
            "transparent::transparent_connections_keep_where_they_come_from_and_where_they_go",
            SETUP,
        );
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let upstream = Upstream::named("reviews").await;
        let proxy = Proxy::start(transparent(&upstream)).await;
        for (index, (source, destination)) in CALLS.into_iter().enumerate() {
            assert!(call(source, destination).await.ends_with("reviews"));

            let report = proxy.reports.request(index).await;
            assert_eq!(report.downstream.peer.ip().to_string(), source);
            assert_eq!(report.downstream.local.to_string(), destination);
            assert_eq!(&*report.downstream.listener, "outbound|80||reviews.default");
        }
        whoever_calls_the_proxy_itself_is_refused().await;
    });
}

fn transparent(upstream: &Upstream) -> Configuration {
    let settings = SocketSettings {
        is_transparent: true,
        ..SocketSettings::default()
    };
    let outbound = ListenerConfig {
        addresses: ["0.0.0.0:15001", "[::]:15001"]
            .map(|address| address.parse().unwrap())
            .to_vec(),
        sockets: vec![settings.clone(), settings],
        is_transparent: true,
        use_original_destination: true,
        ..listener(tcp("reviews"))
    };
    let reviews = ListenerConfig {
        name: "outbound|80||reviews.default".into(),
        addresses: CALLS.map(|(_, address)| address.parse().unwrap()).to_vec(),
        binding: Binding::Virtual,
        ..listener(filter(http(all_to(Forward::to("reviews")))))
    };
    configuration(
        [outbound, reviews],
        [cluster("reviews", &[upstream.address])],
    )
}

async fn call(source: &str, destination: &str) -> String {
    let source = std::net::SocketAddr::new(source.parse().unwrap(), 0);
    let socket = match source.is_ipv4() {
        true => TcpSocket::new_v4().unwrap(),
        false => TcpSocket::new_v6().unwrap(),
    };
    socket.bind(source).unwrap();
    let mut stream = socket.connect(destination.parse().unwrap()).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Else it would call itself for ever.
async fn whoever_calls_the_proxy_itself_is_refused() {
    let mut stream = TcpStream::connect("10.96.0.5:15001").await.unwrap();
    let mut answer = Vec::new();

    let read = stream.read_to_end(&mut answer).await;

    assert!(matches!(read, Ok(0) | Err(_)), "{answer:?}");
}
