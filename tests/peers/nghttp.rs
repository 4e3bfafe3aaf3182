//! nghttp2's client and load generator: many streams on few connections, padding, priorities, trailers.

use std::net::SocketAddr;

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::nginx::{Nginx, TEXT};
use crate::harness::peer::{Peer, program};
use crate::harness::process::run;
use crate::harness::proxy::Proxy;

crate::harness::tests![
    &[Peer::Program("nghttp"), Peer::Program("h2load"), Peer::Program("nginx")];
    nghttp_gets_a_page_with_padding_and_small_windows,
    a_thousand_streams_are_answered_in_the_clear_and_in_tls,
    a_thousand_streams_are_answered_by_http2_behind_two_proxies,
    large_answers_share_one_connection,
];

fn nghttp_gets_a_page_with_padding_and_small_windows() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.http2());
    std::fs::write(nginx.file("large.txt"), "0123456789".repeat(100_000)).unwrap();
    let large = format!("http://{}/large.txt", proxy.at(Door::Http));

    for flags in [
        &["--padding=200"][..],
        &["--window-bits=10", "--connection-window-bits=10"],
        &["--header-table-size=0"],
        &["--no-dep"],
    ] {
        let page = run(program("nghttp").args(flags).arg(&large)).ok();

        assert!(page == "0123456789".repeat(100_000), "{flags:?}");
    }
}

fn a_thousand_streams_are_answered_in_the_clear_and_in_tls() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let chain = Chain::ending_tls(nginx.address());

    all_succeed(&text("http", proxy.at(Door::ToHttp1)), &[]);
    all_succeed(&text("http", proxy.at(Door::Http)), &["--h1"]);
    all_succeed(&text("https", chain.secured()), &["--npn-list=http/1.1"]);
    all_succeed(&text("https", chain.secured()), &["--npn-list=h2"]);
}

fn a_thousand_streams_are_answered_by_http2_behind_two_proxies() {
    let nginx = Nginx::start();
    let chain = Chain::pair(nginx.http2());

    all_succeed(&text("http", chain.at(Door::Http)), &[]);
    let versions: Vec<String> = nginx
        .requests()
        .iter()
        .filter_map(|line| line.split(' ').nth(2).map(ToOwned::to_owned))
        .collect();
    assert_eq!(versions, vec!["HTTP/2.0"; 1000]);
}

fn large_answers_share_one_connection() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.http2());
    std::fs::write(nginx.file("large.bin"), vec![b'x'; 2 << 20]).unwrap();
    let url = format!("http://{}/large.bin", proxy.at(Door::Http));

    let said = run(program("h2load").args(["-n", "40", "-c", "1", "-m", "20", &url])).ok();

    assert!(said.contains("40 succeeded, 0 failed"), "{said}");
}

#[track_caller]
fn all_succeed(url: &str, flags: &[&str]) {
    let load = ["-n", "1000", "-c", "4", "-m", "50"];

    let said = run(program("h2load").args(load).args(flags).arg(url)).ok();

    assert!(
        said.contains("1000 succeeded, 0 failed"),
        "{url} {flags:?}: {said}"
    );
    assert!(
        said.contains("status codes: 1000 2xx"),
        "{url} {flags:?}: {said}"
    );
    let bytes = 1000 * TEXT.len();
    assert!(
        said.contains(&format!("({bytes}) data")),
        "{url} {flags:?}: {said}"
    );
}

fn text(scheme: &str, at: SocketAddr) -> String {
    format!("{scheme}://{at}/text")
}
