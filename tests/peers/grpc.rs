//! grpcio, the C core's client and server, and grpcurl, Go's client.

use std::net::SocketAddr;

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::peer::{Peer, program, python};
use crate::harness::place::own_address;
use crate::harness::process::{Server, run};
use crate::harness::proxy::Proxy;

const GRPCIO: &[Peer] = &[Peer::Python("grpc")];
const GRPCURL: &[Peer] = &[Peer::Python("grpc"), Peer::Program("grpcurl")];

/// The tests of this module.
pub(crate) const TESTS: &[crate::harness::Test] = &[
    test(
        GRPCIO,
        "all_kinds_of_calls_go_through_one_proxy",
        through_one,
    ),
    test(
        GRPCIO,
        "all_kinds_of_calls_go_through_two_proxies",
        through_two,
    ),
    test(GRPCIO, "detection_takes_grpc_for_http2", detected),
    test(GRPCIO, "a_service_that_is_away_is_unavailable", away),
    test(
        GRPCURL,
        "grpcurl_asks_a_service_about_itself_and_calls_it",
        described,
    ),
];

const fn test(peers: &'static [Peer], name: &'static str, run: fn()) -> crate::harness::Test {
    crate::harness::Test { name, peers, run }
}

/// Functions of `grpc/client.py`.
const CHECKS: [&str; 7] = [
    "four_kinds",
    "metadata",
    "deadline",
    "cancellation",
    "large_messages",
    "errors",
    "concurrent_streams",
];

fn through_one() {
    let server = server();
    let proxy = Proxy::to(server.address);

    for check in CHECKS {
        calls(proxy.at(Door::Http), check);
    }
}

fn through_two() {
    let server = server();
    let chain = Chain::pair(server.address);

    for check in CHECKS {
        calls(chain.at(Door::Http), check);
    }
}

fn detected() {
    let server = server();
    let proxy = Proxy::to(server.address);

    calls(proxy.at(Door::Detecting), "four_kinds");

    assert_eq!(proxy.detected("h2c"), proxy.detections());
}

fn away() {
    let nobody = SocketAddr::from((own_address(), 50_051));
    let proxy = Proxy::to(nobody);

    calls(proxy.at(Door::Http), "no_server");
}

fn described() {
    let server = server();
    let chain = Chain::pair(server.address);
    let at = chain.at(Door::Http).to_string();

    let listed = run(program("grpcurl").args(["-plaintext", &at, "list", "peers.Echo"])).ok();
    assert!(listed.contains("peers.Echo.Both"), "{listed}");

    // "aGVsbG8=" is base64; a value of this well-known type stands for itself in JSON.
    let call = ["-plaintext", "-d", "\"aGVsbG8=\"", &at, "peers.Echo/Unary"];
    assert_eq!(
        run(program("grpcurl").args(call)).ok().trim(),
        "\"aGVsbG8=\""
    );

    let failed = run(program("grpcurl").args(["-plaintext", &at, "peers.Echo/Fail"]));
    assert!(!failed.status.success());
    assert!(failed.errors.contains("FailedPrecondition"), "{failed:?}");
}

fn server() -> Server {
    let address = SocketAddr::from((own_address(), 50_051));
    Server::start(address, |_| {
        let mut server = python("grpc/server.py");
        server.arg(address.to_string());
        server
    })
}

fn calls(at: SocketAddr, check: &str) {
    run(python("grpc/client.py").arg(at.to_string()).arg(check)).ok();
}
