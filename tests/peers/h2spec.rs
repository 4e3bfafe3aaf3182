//! h2spec: what RFC 9113 and RFC 7541 ask of a server, case by case.

use std::net::SocketAddr;

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::nginx::Nginx;
use crate::harness::peer::{Peer, program};
use crate::harness::process::run;
use crate::harness::proxy::Proxy;

crate::harness::tests![&[Peer::Program("h2spec"), Peer::Program("nginx")];
    every_case_holds_in_the_clear,
    every_case_holds_with_http2_behind_the_proxy,
    every_case_holds_in_tls,
    every_case_holds_in_front_of_two_proxies,
];

/// A listener that also speaks HTTP/1.1 answers what is no preface in HTTP/1.1 before it closes the connection;
/// h2spec wants to read the end and nothing before it.
const ANSWERED_IN_HTTP1: &str = "Sends invalid connection preface";
/// As many as h2spec has, strict ones among them: fewer were not run.
const CASES: usize = 146;
/// How often all cases are run.
const RUNS: usize = 3;

fn every_case_holds_in_the_clear() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());

    assert_eq!(failures(proxy.at(Door::ToHttp1), &[]), [ANSWERED_IN_HTTP1]);
}

fn every_case_holds_with_http2_behind_the_proxy() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.http2());

    assert_eq!(failures(proxy.at(Door::ToHttp2), &[]), [ANSWERED_IN_HTTP1]);
}

fn every_case_holds_in_tls() {
    let nginx = Nginx::start();
    let chain = Chain::ending_tls(nginx.address());

    assert_eq!(failures(chain.secured(), &["-tls"]), [""; 0]);
}

fn every_case_holds_in_front_of_two_proxies() {
    let nginx = Nginx::start();
    let chain = Chain::pair(nginx.http2());

    assert_eq!(failures(chain.at(Door::Http), &[]), [ANSWERED_IN_HTTP1]);
}

/// The cases that fail each time. Where the server answers before the client has sent what is wrong, the stream is over before there is
/// an error, and h2spec takes that for a failure: it happens to another case each time.
fn failures(at: SocketAddr, flags: &[&str]) -> Vec<String> {
    let mut failed = failures_once(at, flags);
    for _ in 1..RUNS {
        let again = failures_once(at, flags);
        failed.retain(|case| again.contains(case));
    }
    failed
}

/// Runs all cases, and gives those that fail.
fn failures_once(at: SocketAddr, flags: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    let finished = run(program("h2spec")
        .args(["-strict", "-path", "/text", "-host", &at.ip().to_string()])
        .args(["-port", &at.port().to_string(), "-report"])
        .arg(&report)
        .args(flags));
    let report = std::fs::read_to_string(report)
        .unwrap_or_else(|error| panic!("no report: {error}\n{finished:?}"));
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    assert_eq!(cases.len(), CASES, "{}", finished.output);
    cases
        .iter()
        .filter(|case| case.contains("<failure") || case.contains("<error"))
        .map(|case| attribute(case, "classname"))
        .collect()
}

fn attribute(element: &str, name: &str) -> String {
    let (_, rest) = element.split_once(&format!("{name}=\"")).expect("a name");
    rest.split('"').next().unwrap_or_default().to_owned()
}
