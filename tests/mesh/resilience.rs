//! Faults on purpose, and what the mesh makes of faults that are not: breakers, ejections, retries.

use std::time::Instant;

use crate::harness::bookstore::Bookstore;
use crate::harness::statistics::assert_share;
use crate::harness::undo::Undo;
use crate::harness::wait::{eventually, holds};

crate::harness::tests![
    a_fault_of_30_percent_aborts_that_share_of_requests,
    a_fault_of_100_percent_aborts_every_request_and_says_why,
    a_delay_lets_every_request_wait,
    a_fault_for_one_service_spares_the_others,
    the_circuit_breaker_opens_when_too_much_is_in_flight_and_closes_again,
    an_endpoint_that_fails_is_ejected_and_returns,
    a_retry_policy_hides_an_endpoint_that_fails,
    an_answer_of_the_application_is_not_retried_unless_a_policy_says_so,
    retries_stop_when_every_endpoint_fails,
];

const BOOKS: &str = "http://books:8080/books/dune";

fn fault<'a>(bookstore: &'a Bookstore, service: &str, words: &[&str]) -> Undo<'a> {
    bookstore.with(
        &[&["fault", service], words].concat(),
        &["fault", service, "--clear"],
    )
}

fn a_fault_of_30_percent_aborts_that_share_of_requests(bookstore: &Bookstore) {
    let _fault = fault(bookstore, "books", &["--abort", "503", "--percent", "30"]);

    let tally = bookstore.load("front", BOOKS, 2000, 8);

    assert_eq!(tally.status("200") + tally.status("503"), 2000, "{tally:?}");
    assert_share("aborted requests", tally.status("503"), 2000, 0.3);
}

fn a_fault_of_100_percent_aborts_every_request_and_says_why(bookstore: &Bookstore) {
    let _fault = fault(bookstore, "books", &["--abort", "418"]);

    let tally = bookstore.load("front", BOOKS, 100, 4);
    assert_eq!(tally.status("418"), 100, "{tally:?}");

    let labels = [
        ("response_code", "418"),
        ("response_flags", "FI"),
        ("destination_service", "books"),
    ];
    let counted = bookstore
        .metrics("front")
        .sum("weft_requests_total", &labels);
    assert!(
        counted >= 100.0,
        "aborted requests have the flag FI: {counted}"
    );
    // wget shows no headers of an answer that it does not like.
    let request = r"GET /books/dune HTTP/1.1\r\nhost: books:8080\r\nconnection: close\r\n\r\n";
    let line = format!("(printf '{request}'; sleep 2) | nc books 8080");
    let answer = bookstore.shell("static", &line).stdout;
    assert!(answer.to_lowercase().contains("x-weft-reason:"), "{answer}");
}

fn a_delay_lets_every_request_wait(bookstore: &Bookstore) {
    let _fault = fault(bookstore, "books", &["--delay", "300ms"]);
    let began = Instant::now();

    let tally = bookstore.load("front", BOOKS, 5, 1);

    tally.assert_all_ok();
    assert!(
        began.elapsed().as_millis() >= 1500,
        "five requests waited {:?} together",
        began.elapsed()
    );
}

fn a_fault_for_one_service_spares_the_others(bookstore: &Bookstore) {
    let _fault = fault(bookstore, "books", &["--abort", "503"]);

    bookstore
        .load("front", "http://reviews:8080/reviews/dune", 100, 4)
        .assert_all_ok();

    let (status, _) = bookstore.fetch("/", &[]);
    assert_eq!(status, 502, "the page needs books");
}

fn the_circuit_breaker_opens_when_too_much_is_in_flight_and_closes_again(bookstore: &Bookstore) {
    let _breaker = bookstore.apply(&policy("circuitBreaker: {maxParallelRequests: 2}"));
    let overflows = || {
        let labels = [
            ("response_code", "503"),
            ("response_flags", "UO"),
            ("destination_service", "books"),
        ];
        bookstore
            .metrics("front")
            .sum("weft_requests_total", &labels)
    };
    let before = overflows();

    {
        let _slow: Vec<_> = bookstore
            .pods_of("books")
            .iter()
            .map(|pod| bookstore.chaos(&pod.name, "slow"))
            .collect();
        let tally = bookstore.load("front", BOOKS, 40, 10);
        assert!(
            tally.status("200") >= 2,
            "what the breaker admits is served: {tally:?}"
        );
        assert!(
            tally.status("503") >= 8,
            "what it does not admit is refused: {tally:?}"
        );
        assert_eq!(tally.status("200") + tally.status("503"), 40, "{tally:?}");
        assert!(
            (overflows() - before - as_float(tally.status("503"))).abs() < 0.5,
            "each has the flag UO"
        );
    }

    bookstore.load("front", BOOKS, 100, 1).assert_all_ok();
}

fn an_endpoint_that_fails_is_ejected_and_returns(bookstore: &Bookstore) {
    let _policy = bookstore.apply(&policy(
        "outlierDetection: {consecutive5XxErrors: 3, interval: 500ms, baseEjectionTime: 2s, maxEjectionPercent: 50}",
    ));
    let pods = bookstore.pods_of("books");
    let (broken, sound) = (&pods[0].name, &pods[1].name);

    {
        let _broken = bookstore.chaos(broken, "fail");
        let tally = bookstore.load("front", BOOKS, 300, 4);
        assert!(
            tally.status("500") >= 3,
            "it takes failures to be ejected: {tally:?}"
        );
        assert!(
            tally.status("500") <= 60,
            "most requests are spared a broken endpoint: {tally:?}"
        );
        let whole: Vec<&String> = tally.served_by.keys().collect();
        assert_eq!(whole, [sound]);
        let ejections = bookstore.metrics("front");
        let ejections = ejections
            .text()
            .lines()
            .any(|line| line.contains("eject") && !line.ends_with(" 0"));
        assert!(ejections, "ejections are counted");
    }

    eventually("the endpoint to return when its ejection has ended", || {
        let tally = bookstore.load("front", BOOKS, 50, 2);
        holds(
            tally.served_by.contains_key(broken) && tally.status("200") == 50,
            || format!("{tally:?}"),
        )
    });
}

fn a_retry_policy_hides_an_endpoint_that_fails(bookstore: &Bookstore) {
    let pods = bookstore.pods_of("books");
    let _broken = bookstore.chaos(&pods[0].name, "fail");
    let _policy =
        bookstore.apply(&policy("retry: {numRetries: 3, retryOn: {httpStatusCodes: [500]}}, circuitBreaker: {maxParallelRetries: 100}"));

    let tally = bookstore.load("front", BOOKS, 200, 4);

    tally.assert_all_ok();
    assert_eq!(tally.served_by.get(&pods[1].name), Some(&200), "{tally:?}");
}

fn an_answer_of_the_application_is_not_retried_unless_a_policy_says_so(bookstore: &Bookstore) {
    let pods = bookstore.pods_of("books");
    let _broken: Vec<_> = pods
        .iter()
        .map(|pod| bookstore.chaos(&pod.name, "fail"))
        .collect();
    let inbound = || arrived(bookstore, "500");
    let before = inbound();

    let tally = bookstore.load("front", BOOKS, 40, 2);

    assert_eq!(
        tally.status("500"),
        40,
        "the caller sees what the application said: {tally:?}"
    );
    eventually("exactly one arrival for each request", || {
        let arrived = inbound() - before;
        holds((arrived - 40.0).abs() < 0.5, || {
            format!("{arrived} for 40 requests")
        })
    });
}

/// The budget: retries never multiply the load on a service that is in trouble.
fn retries_stop_when_every_endpoint_fails(bookstore: &Bookstore) {
    let pods = bookstore.pods_of("books");
    let _broken: Vec<_> = pods
        .iter()
        .map(|pod| bookstore.chaos(&pod.name, "fail"))
        .collect();
    let _policy = bookstore.apply(&policy(
        "retry: {numRetries: 2, retryOn: {httpStatusCodes: [500]}}",
    ));
    let before = arrived(bookstore, "500");

    let tally = bookstore.load("front", BOOKS, 100, 2);

    assert_eq!(tally.status("500"), 100, "{tally:?}");
    let attempts = arrived(bookstore, "500") - before;
    assert!(
        (100.0..=300.0).contains(&attempts),
        "{attempts} attempts for 100 requests with two retries each"
    );
}

/// How many requests have come in at books with this answer, as its own sidecars count.
fn arrived(bookstore: &Bookstore, code: &str) -> f64 {
    let labels = [("reporter", "destination"), ("response_code", code)];
    let pods = bookstore.pods_of("books");
    pods.iter()
        .map(|pod| {
            bookstore
                .metrics(&pod.name)
                .sum("weft_requests_total", &labels)
        })
        .sum()
}

/// A BackendTrafficPolicy of books with these fields.
fn policy(fields: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: books-under-test}}
spec: {{targetRefs: [{{group: '', kind: Service, name: books}}], {fields}}}
"
    )
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of a test are far below 2^52"
)]
fn as_float(count: u64) -> f64 {
    count as f64
}
