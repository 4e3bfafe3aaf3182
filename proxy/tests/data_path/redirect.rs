//! Redirected connections, in a network namespace of the test's own: what iptables took away, the kernel gives
//! back.
//!
//! The test runs itself again inside a new user and network namespace, so that it needs no root and changes
//! nothing of the host.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::Configuration;
use weft_proxy::config::cluster::{ClusterConfig, Discovery};
use weft_proxy::config::listener::{Binding, ListenerConfig};
use weft_proxy::config::route::Forward;
use weft_proxy::config::upstream_socket::{Source, Sources};

use crate::client::get;
use crate::config::{all_to, cluster, configuration, filter, http, listener, tcp};
use crate::inside::{is_inside, run_inside};
use crate::proxy::Proxy;
use crate::upstream::Upstream;

/// The service's virtual address, and an address outside the mesh; nobody listens on the former.
const SETUP: &str = "
    ip link set lo up
    ip addr add 10.96.0.5/32 dev lo
    ip addr add fd57:6060::5/128 dev lo
    ip route add 240.240.0.0/16 dev lo
    ip route add fd57:f0f0::/112 dev lo
    iptables -t nat -A OUTPUT -p tcp -d 240.240.0.0/16 -j REDIRECT --to-ports 15001
    iptables -t nat -A OUTPUT -p tcp -d 10.96.0.5 --dport 9999 ! -s 127.0.0.6 -j REDIRECT --to-ports 15001
    ip6tables -t nat -A OUTPUT -p tcp -d fd57:f0f0::/112 -j REDIRECT --to-ports 15001
";

#[test]
fn redirected_connections_go_where_they_were_going() {
    if !is_inside() {
        return run_inside(
            "redirect::redirected_connections_go_where_they_were_going",
            SETUP,
        );
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let upstream = Upstream::named("reviews").await;
        let proxy = Proxy::start(one_service(&upstream)).await;
        virtual_listeners_serve_their_addresses(&proxy).await;
        other_destinations_pass_through(&proxy).await;
    });
}

fn outbound() -> ListenerConfig {
    ListenerConfig {
        addresses: vec![
            "0.0.0.0:15001".parse().unwrap(),
            "[::]:15001".parse().unwrap(),
        ],
        use_original_destination: true,
        ..listener(tcp("passthrough"))
    }
}

fn passthrough() -> ClusterConfig {
    ClusterConfig {
        sources: Some(Arc::new(Sources {
            all: vec![Source {
                address: Some("127.0.0.6:0".parse().unwrap()),
                options: vec![],
            }],
            binds_freely: false,
        })),
        ..ClusterConfig::new("passthrough", Discovery::OriginalDestination)
    }
}

/// The addresses that a service has, which no interface has.
const VIRTUAL: [&str; 2] = ["240.240.0.7:80", "[fd57:f0f0::7]:80"];

fn one_service(upstream: &Upstream) -> Configuration {
    let reviews = ListenerConfig {
        name: "outbound|80||reviews.default".into(),
        addresses: VIRTUAL.map(|address| address.parse().unwrap()).to_vec(),
        binding: Binding::Virtual,
        ..listener(filter(http(all_to(Forward::to("reviews")))))
    };
    let clusters = [cluster("reviews", &[upstream.address]), passthrough()];
    configuration([outbound(), reviews], clusters)
}

async fn virtual_listeners_serve_their_addresses(proxy: &Proxy) {
    let addresses = VIRTUAL.map(|address| address.parse().unwrap());
    for address in addresses {
        assert_eq!(get(address, "/").await.body, "reviews");
    }

    let report = proxy.reports.request(0).await;
    assert_eq!(report.downstream.local, addresses[0]);
    assert_eq!(&*report.downstream.listener, "outbound|80||reviews.default");
}

async fn other_destinations_pass_through(proxy: &Proxy) {
    let outside = TcpListener::bind("10.96.0.5:9999").await.unwrap();

    let mut caller = TcpStream::connect("10.96.0.5:9999").await.unwrap();
    let (mut served, from) = outside.accept().await.unwrap();
    caller.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    served.read_exact(&mut heard).await.unwrap();
    drop((caller, served));

    assert_eq!(
        (&heard, from.ip().to_string().as_str()),
        (b"hello", "127.0.0.6")
    );
    let report = proxy.reports.closed(0).await;
    assert_eq!(
        report.upstream.unwrap().address,
        outside.local_addr().unwrap()
    );
    assert_eq!(report.cluster, Some(Arc::from("passthrough")));
}
