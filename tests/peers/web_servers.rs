//! Servers as they are found behind a proxy: nginx, HAProxy, and one that speaks HTTP/1.0.

use std::net::SocketAddr;

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::nginx::Nginx;
use crate::harness::peer::{Peer, program, python};
use crate::harness::place::own_address;
use crate::harness::process::{Server, run};
use crate::harness::proxy::Proxy;

crate::harness::tests![
    &[Peer::Program("curl"), Peer::Program("nginx"), Peer::Program("haproxy"), Peer::Python("grpc")];
    nginx_compresses_and_sends_chunks,
    nginx_speaks_http2_to_the_proxy,
    haproxy_speaks_both_versions_to_the_proxy,
    haproxy_stands_in_front_of_the_proxy,
    answers_that_end_with_the_connection_are_whole,
];

const STYLES: &str = "a { color: red }\n";

fn nginx_compresses_and_sends_chunks() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let chain = Chain::pair(nginx.address());
    let styles = STYLES.repeat(20_000);
    std::fs::write(nginx.file("styles.css"), &styles).unwrap();

    for at in [
        proxy.at(Door::Http),
        proxy.at(Door::ToHttp1),
        chain.at(Door::Http),
    ] {
        let url = format!("http://{at}/styles.css");
        let head = curl(&["--header", "accept-encoding: gzip", "--head", &url]);
        assert!(
            head.to_lowercase().contains("content-encoding: gzip"),
            "{head}"
        );
        assert!(curl(&["--compressed", &url]) == styles, "{at}");
    }
}

fn nginx_speaks_http2_to_the_proxy() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.http2());
    std::fs::write(nginx.file("large.css"), STYLES.repeat(200_000)).unwrap();

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let url = format!("http://{}/large.css", proxy.at(Door::ToHttp2));
        assert!(
            curl(&[version, &url]) == STYLES.repeat(200_000),
            "{version}"
        );
    }

    let requests = nginx.requests();
    assert!(
        requests.iter().all(|line| line.contains(" HTTP/2.0 200 ")),
        "{requests:?}"
    );
    assert_eq!(requests.len(), 2);
}

fn haproxy_speaks_both_versions_to_the_proxy() {
    let nginx = Nginx::start();
    let haproxy = haproxy(nginx.address());
    std::fs::write(nginx.file("large.css"), STYLES.repeat(200_000)).unwrap();
    let proxy = Proxy::to(haproxy.address);
    let http2 = SocketAddr::new(haproxy.address.ip(), HAPROXY_HTTP2);
    let proxy2 = Proxy::to(http2);

    for at in [proxy.at(Door::ToHttp1), proxy2.at(Door::ToHttp2)] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let url = format!("http://{at}/large.css");
            assert!(
                curl(&[version, &url]) == STYLES.repeat(200_000),
                "{at} {version}"
            );
            assert_eq!(
                curl(&[version, &format!("http://{at}/own")]),
                "haproxy's own\n"
            );
        }
    }
}

fn haproxy_stands_in_front_of_the_proxy() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let haproxy = haproxy(proxy.at(Door::Http));
    std::fs::write(nginx.file("page.txt"), "from nginx").unwrap();
    let page = format!("http://{}/page.txt", haproxy.address);

    for _ in 0..5 {
        assert_eq!(curl(&[&page]), "from nginx");
    }
}

fn answers_that_end_with_the_connection_are_whole() {
    let address = SocketAddr::from((own_address(), 8_000));
    let server = Server::start(address, |_| {
        let mut server = python("web/http10.py");
        server.arg(address.ip().to_string()).arg("8000");
        server
    });
    let proxy = Proxy::to(server.address);
    let chain = Chain::pair(server.address);
    let page = "of unknown length, ".repeat(20_000);

    for at in [
        proxy.at(Door::Http),
        proxy.at(Door::ToHttp1),
        chain.at(Door::Http),
    ] {
        let url = format!("http://{at}/");
        assert!(curl(&[&url]) == page, "{at}");
        assert_eq!(
            curl(&["--data", "sent and come back", &url]),
            "sent and come back"
        );
    }
    let url = format!("http://{}/", proxy.at(Door::ToHttp1));
    assert!(curl(&["--http2-prior-knowledge", &url]) == page);
}

const HAPROXY_HTTP1: u16 = 8082;
const HAPROXY_HTTP2: u16 = 8083;

/// HAProxy before a server, in HTTP/1.1 on one port and in HTTP/2 on another.
fn haproxy(server: SocketAddr) -> Server {
    let address = SocketAddr::from((own_address(), HAPROXY_HTTP1));
    let ip = address.ip();
    let configuration = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend web\n  bind {address}\n  bind {ip}:{HAPROXY_HTTP2} proto h2\n  \
         http-request return status 200 content-type text/plain string \"haproxy's own\\n\" if {{ path /own }}\n  \
         default_backend behind\n\
         backend behind\n  server one {server}\n"
    );
    Server::start(address, |folder| {
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let mut haproxy = program("haproxy");
        haproxy.arg("-db").arg("-f").arg(file);
        haproxy
    })
}

#[track_caller]
fn curl(arguments: &[&str]) -> String {
    let common = [
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        "60",
    ];
    run(program("curl").args(common).args(arguments)).ok()
}
