//! What is not a plain HTTP/1.1 request over IPv4: gRPC, Redis' protocol, servers that speak first, WebSocket, IPv6.

use std::time::Instant;

use serde_json::Value;

use crate::harness::bookstore::Bookstore;
use crate::harness::wait::{eventually, holds};
use crate::security::has_local_channels;

crate::harness::tests![
    grpc_calls_are_told_apart_and_their_status_is_counted,
    redis_is_used_over_tcp_through_the_mesh,
    opaque_connections_share_one_where_they_are_to,
    requests_of_http1_share_connections_where_they_are_to,
    tcp_connections_are_counted_on_both_sides,
    a_server_that_speaks_first_is_heard_by_a_client_that_says_nothing,
    a_websocket_is_upgraded_through_two_sidecars,
    services_are_reached_over_ipv6,
    the_verdict_on_a_protocol_is_shown,
];

fn grpc_calls_are_told_apart_and_their_status_is_counted(bookstore: &Bookstore) {
    bookstore
        .load("front", "http://books:8080/books/dune", 20, 2)
        .assert_all_ok();
    let pods = bookstore.pods_of("books");
    let labels = [
        ("destination_service", "stock"),
        ("protocol", "grpc"),
        ("grpc_status", "0"),
    ];

    eventually("gRPC calls from books to stock to be counted", || {
        let counted: f64 = pods
            .iter()
            .map(|pod| {
                bookstore
                    .metrics(&pod.name)
                    .sum("weft_requests_total", &labels)
            })
            .sum();
        holds(counted >= 20.0, || counted.to_string())
    });
}

fn redis_is_used_over_tcp_through_the_mesh(bookstore: &Bookstore) {
    let before = views(bookstore);
    let after = views(bookstore);
    assert!(after > before, "{before} views, then {after}");

    let stored = bookstore.shell("redis", "redis-cli get views:dune").ok();
    assert!(
        stored.trim().parse::<u64>().unwrap() >= after,
        "Redis holds {stored}"
    );
}

/// Local channels come first: connections are shared where there are none.
fn opaque_connections_share_one_where_they_are_to(bookstore: &Bookstore) {
    let streams = || {
        let metrics = bookstore.metrics("redis");
        metrics.sum("weft_listener_streams_total", &[])
    };
    let before = streams();

    for _ in 0..5 {
        views(bookstore);
    }

    let opened = streams() - before;
    let shares = sharing() == "always" && !has_local_channels();
    assert_eq!(opened >= 5.0, shares, "{opened} streams");
}

/// When connections are shared.
fn sharing() -> String {
    std::env::var("WEFT_SHARED_CONNECTIONS").unwrap_or_else(|_| "busy".to_owned())
}

/// Over local channels as well.
fn requests_of_http1_share_connections_where_they_are_to(bookstore: &Bookstore) {
    let at_once = if sharing() == "always" { 4 } else { 64 };
    bookstore
        .load("front", "http://books:8080/books/dune", 640, at_once)
        .assert_all_ok();

    let stats = "http://127.0.0.1:15000/stats?filter=books.*upstream_cx_http2_total";
    let (status, told) = bookstore.get("front", stats);
    assert_eq!(status, 200, "{told}");
    let mut values = told.lines().filter_map(|line| line.rsplit_once(": "));
    let shared = values.any(|(_, value)| value != "0");
    assert_eq!(shared, sharing() != "never", "{told}");
}

fn tcp_connections_are_counted_on_both_sides(bookstore: &Bookstore) {
    let opened = |pod: &str, reporter: &str| {
        let labels = [
            ("reporter", reporter),
            ("source_workload", "ratings"),
            ("destination_service", "redis"),
            (
                "source_principal",
                "spiffe://cluster.local/ns/default/sa/ratings",
            ),
        ];
        let metrics = bookstore.metrics(pod);
        let sum = |name: &str| metrics.sum(name, &labels);
        (
            sum("weft_tcp_connections_opened_total"),
            sum("weft_tcp_connections_closed_total"),
            sum("weft_tcp_sent_bytes_total"),
        )
    };
    let before = (opened("ratings", "source"), opened("redis", "destination"));

    for _ in 0..5 {
        views(bookstore);
    }

    eventually(
        "five connections to be counted at source and destination",
        || {
            let after = (opened("ratings", "source"), opened("redis", "destination"));
            let grew = |(opened, closed, sent): (f64, f64, f64), before: (f64, f64, f64)| {
                opened >= before.0 + 5.0 && closed >= before.1 + 5.0 && sent > before.2
            };
            holds(grew(after.0, before.0) && grew(after.1, before.1), || {
                format!("{before:?} then {after:?}")
            })
        },
    );
}

/// nc sends nothing, and keeps its side open: only a proxy that waits for the client's first bytes would be silent.
fn a_server_that_speaks_first_is_heard_by_a_client_that_says_nothing(bookstore: &Bookstore) {
    let began = Instant::now();

    let heard = bookstore
        .shell("static", "sleep 3 | nc greeter 7000 | head -n 1")
        .stdout;

    assert_eq!(heard.trim(), "welcome");
    assert!(began.elapsed().as_secs() < 60);
    let metrics = bookstore.metrics("static");
    let opened = metrics.sum(
        "weft_tcp_connections_opened_total",
        &[("destination_service", "greeter")],
    );
    assert!(opened >= 1.0, "it went through the mesh");
}

fn a_websocket_is_upgraded_through_two_sidecars(bookstore: &Bookstore) {
    let said = ["one", "two", "three"];

    let heard = bookstore
        .exec(
            "front",
            &[
                "/bin/bookstore",
                "say",
                "ws://echo:8080/",
                "one",
                "two",
                "three",
            ],
        )
        .ok();

    assert_eq!(heard.lines().collect::<Vec<_>>(), said);
    let upgraded = [("destination_service", "echo"), ("response_code", "101")];
    for (pod, reporter) in [("front", "source"), ("echo", "destination")] {
        eventually("the upgrade to be counted on both sides", || {
            let labels = [&upgraded[..], &[("reporter", reporter)]].concat();
            let counted = bookstore.metrics(pod).sum("weft_requests_total", &labels);
            holds(counted >= 1.0, || format!("{reporter}: {counted}"))
        });
    }
}

fn services_are_reached_over_ipv6(bookstore: &Bookstore) {
    let service = bookstore.json(&["get", "service", "books"]);
    let addresses = service["spec"]["clusterIPs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let address = addresses
        .iter()
        .filter_map(Value::as_str)
        .find(|address| address.contains(':'));
    let address = address.expect("every service has an IPv6 address");

    let (status, body) = bookstore.get("front", &format!("http://[{address}]:8080/books/dune"));
    assert_eq!(status, 200, "{body}");

    let names = bookstore
        .shell("static", "nslookup -type=aaaa books 10.96.0.1")
        .ok();
    assert!(
        names.contains(address),
        "{address} is not what DNS says: {names}"
    );
}

fn the_verdict_on_a_protocol_is_shown(bookstore: &Bookstore) {
    views(bookstore);
    let url = "http://127.0.0.1:15000/listeners?format=json";

    let (status, body) = bookstore.get("ratings", url);

    assert_eq!(status, 200, "{body}");
    let listeners: Value = serde_json::from_str(&body).expect("JSON");
    let redis = listeners["listener_statuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|listener| listener["name"] == "outbound|6379||redis.default")
        .expect("there is a listener for redis");
    assert_eq!(redis["detection"]["protocol"], "tcp", "{redis}");
}

/// How often the reviews of `dune` were asked for, as Redis counts.
fn views(bookstore: &Bookstore) -> u64 {
    let (status, body) = bookstore.get("front", "http://reviews:8080/reviews/dune");
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    answer["views"].as_u64().expect("a count")
}
