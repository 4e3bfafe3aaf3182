//! What observability back ends receive: metrics that Prometheus' own tools accept, spans that join into traces.

use std::collections::{BTreeSet, HashSet};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::harness::bookstore::Bookstore;
use crate::harness::command::{peer, run_with_input};
use crate::harness::otlp::Span;
use crate::harness::wait::{eventually, holds};

crate::harness::tests![
    promtool_accepts_the_metrics_of_every_sidecar,
    requests_are_counted_with_the_labels_of_the_contract,
    durations_and_bytes_are_measured,
    each_metric_has_a_cap_on_its_series,
    one_trace_joins_all_services_of_a_page,
    a_trace_that_its_caller_does_not_sample_is_not_exported,
    an_access_log_tells_of_each_request,
];

fn promtool_accepts_the_metrics_of_every_sidecar(bookstore: &Bookstore) {
    bookstore.until_page_is_served();
    for pod in bookstore
        .pods()
        .iter()
        .filter(|pod| pod.service != "outsider")
    {
        let metrics = bookstore.metrics(&pod.name);

        let outcome = run_with_input(peer("promtool").args(["check", "metrics"]), metrics.text());

        assert_eq!(outcome.status, 0, "{}: {outcome}", pod.name);
    }
}

fn requests_are_counted_with_the_labels_of_the_contract(bookstore: &Bookstore) {
    let url = "http://books:8080/books/dune";
    let by_source = [
        ("reporter", "source"),
        ("source_workload", "front"),
        ("source_namespace", "default"),
        (
            "source_principal",
            "spiffe://cluster.local/ns/default/sa/front",
        ),
        ("destination_service", "books"),
        ("destination_workload", "books"),
        ("destination_namespace", "default"),
        ("protocol", "http"),
        ("method", "GET"),
        ("response_code", "200"),
        ("grpc_status", ""),
    ];
    let by_destination: Vec<(&str, &str)> = by_source[1..]
        .iter()
        .copied()
        .chain([("reporter", "destination")])
        .collect();
    let count = |pod: &str, labels: &[(&str, &str)]| {
        bookstore.metrics(pod).sum("weft_requests_total", labels)
    };
    let pods = bookstore.pods_of("books");
    let arrived = || {
        pods.iter()
            .map(|pod| count(&pod.name, &by_destination))
            .sum::<f64>()
    };
    let before = (count("front", &by_source), arrived());

    bookstore.load("front", url, 100, 4).assert_all_ok();

    eventually("100 requests to be counted at both ends", || {
        let grown = (count("front", &by_source) - before.0, arrived() - before.1);
        holds(
            (grown.0 - 100.0).abs() < 0.5 && (grown.1 - 100.0).abs() < 0.5,
            || format!("{grown:?}"),
        )
    });
    let metrics = bookstore.metrics("front");
    let sample = metrics
        .find("weft_requests_total", &by_source)
        .next()
        .expect("a series");
    let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
    for label in ["route", "response_flags"] {
        assert!(labels.contains(label), "{label} is missing in {labels:?}");
    }
}

fn durations_and_bytes_are_measured(bookstore: &Bookstore) {
    bookstore
        .load("front", "http://books:8080/books/dune", 20, 2)
        .assert_all_ok();

    let metrics = bookstore.metrics("front");

    let labels = [
        ("reporter", "source"),
        ("destination_service", "books"),
        ("response_code", "200"),
    ];
    let count = metrics.sum("weft_request_duration_seconds_count", &labels);
    let all = metrics.sum(
        "weft_request_duration_seconds_bucket",
        &[&labels[..], &[("le", "+Inf")]].concat(),
    );
    assert!(
        count >= 20.0 && (count - all).abs() < 0.5,
        "{count} requests, {all} in the last bucket"
    );
    assert!(metrics.sum("weft_request_duration_seconds_sum", &labels) > 0.0);
    let bytes = metrics.sum("weft_response_bytes_total", &labels);
    assert!(bytes >= 20.0 * 80.0, "{bytes} bytes in {count} answers");
}

/// Where labels have no bound, memory has none: paths must not become labels.
fn each_metric_has_a_cap_on_its_series(bookstore: &Bookstore) {
    let count = || {
        bookstore
            .metrics("front")
            .find("weft_requests_total", &[("destination_service", "books")])
            .count()
    };
    bookstore
        .load("front", "http://books:8080/books/dune", 10, 1)
        .assert_all_ok();
    let before = count();

    for book in 0..20 {
        bookstore
            .load("front", &format!("http://books:8080/books/{book}"), 2, 1)
            .assert_all_ok();
    }

    assert_eq!(count(), before, "20 paths made new series");
}

fn one_trace_joins_all_services_of_a_page(bookstore: &Bookstore) {
    let (trace, root) = ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174");

    let (status, body) = bookstore.fetch("/", &[&format!("traceparent: 00-{trace}-{root}-01")]);

    assert_eq!(status, 200, "{body}");
    let wanted = [
        ("front", SpanKind::Server, 1),
        ("front", SpanKind::Client, 3),
        ("books", SpanKind::Server, 1),
        ("books", SpanKind::Client, 1),
        ("stock", SpanKind::Server, 1),
        ("reviews", SpanKind::Server, 1),
        ("reviews", SpanKind::Client, 1),
        ("ratings", SpanKind::Server, 1),
        ("static", SpanKind::Server, 1),
    ];
    let spans = eventually("the spans of the page to arrive", || {
        let spans = bookstore.receiver.trace(trace);
        let count = |service: &str, kind| {
            spans
                .iter()
                .filter(|span| is_of(span, service) && span.kind == kind)
                .count()
        };
        let is_complete = wanted
            .iter()
            .all(|&(service, kind, number)| count(service, kind) == number);
        holds(is_complete, || format!("{:?}", summary(&spans)))?;
        Ok(spans)
    });
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
    for span in &spans {
        let is_joined = span.parent == root || ids.contains(span.parent.as_str());
        assert!(is_joined, "{span:?} hangs in the air");
    }
    assert_eq!(
        spans.iter().filter(|span| span.parent == root).count(),
        1,
        "one span stands for the page"
    );
    assert_parents(&spans);
    let page = spans
        .iter()
        .find(|span| span.parent == root)
        .expect("it was counted");
    assert_eq!(
        page.attributes
            .get("http.request.method")
            .map(String::as_str),
        Some("GET"),
        "{page:?}"
    );
    assert_eq!(
        page.attributes
            .get("http.response.status_code")
            .map(String::as_str),
        Some("200"),
        "{page:?}"
    );
}

/// The server's span hangs under the client's of who called it, and that under the server's of the caller.
fn assert_parents(spans: &[Span]) {
    let parent = |span: &Span| spans.iter().find(|other| other.id == span.parent);
    for (callee, caller) in [
        ("books", "front"),
        ("reviews", "front"),
        ("static", "front"),
        ("stock", "books"),
        ("ratings", "reviews"),
    ] {
        let server = spans
            .iter()
            .find(|span| is_of(span, callee) && span.kind == SpanKind::Server);
        let client = parent(server.expect("it was counted")).expect("it is joined");
        assert!(
            is_of(client, caller) && client.kind == SpanKind::Client,
            "{callee} was called by {client:?}"
        );
        let own = parent(client).expect("it is joined");
        assert!(
            is_of(own, caller) && own.kind == SpanKind::Server,
            "{client:?} belongs to {own:?}"
        );
    }
}

/// Either version of the reviews may have answered.
fn is_of(span: &Span, service: &str) -> bool {
    let name = span.service.split('.').next().unwrap_or_default();
    name == service || (service == "reviews" && name.starts_with("reviews-"))
}

fn summary(spans: &[Span]) -> Vec<String> {
    spans
        .iter()
        .map(|span| format!("{} {:?} {}", span.service, span.kind, span.name))
        .collect()
}

fn a_trace_that_its_caller_does_not_sample_is_not_exported(bookstore: &Bookstore) {
    let (quiet, told) = (
        "00000000000000000000000000c0ffee",
        "000000000000000000000000deadbeef",
    );
    for (trace, flags) in [(quiet, "00"), (told, "01")] {
        let header = format!("traceparent: 00-{trace}-00f067aa0ba902b7-{flags}");
        let (status, body) = bookstore.fetch("/", &[&header]);
        assert_eq!(status, 200, "{body}");
    }

    // The later trace has come through all the same queues.
    eventually("the sampled trace to arrive", || {
        let spans = bookstore.receiver.trace(told);
        holds(spans.len() >= 11, || format!("{:?}", summary(&spans)))
    });
    assert!(bookstore.receiver.trace(quiet).is_empty());
}

fn an_access_log_tells_of_each_request(bookstore: &Bookstore) {
    let _policy = bookstore.apply(
        "apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: everything-as-json}
spec: {accessLog: {format: JSON}}
",
    );
    let path = "/books/logged-1f8b";

    bookstore.get("front", &format!("http://books:8080{path}"));

    eventually("a line in the sidecar's log", || {
        let log = bookstore
            .weft(&["logs", "--proxy", "--tail", "200", "front"])
            .check()?;
        let line = log
            .lines()
            .find(|line| line.contains(path))
            .ok_or_else(|| log.clone())?;
        let start = line.find('{').ok_or(line)?;
        let entry: serde_json::Value =
            serde_json::from_str(&line[start..]).map_err(|error| format!("{error}: {line}"))?;
        let text = entry.to_string();
        holds(text.contains("GET") && text.contains("200"), || {
            text.clone()
        })
    });
}
