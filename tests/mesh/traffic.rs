//! Requests reach what they are for: the page, its services, and the versions that routes and splits choose.

use std::time::Instant;

use serde_json::Value;

use crate::harness::bookstore::Bookstore;
use crate::harness::statistics::assert_share;
use crate::harness::wait::{eventually, holds};

crate::harness::tests![
    the_page_is_served_through_the_published_port,
    the_page_is_put_together_from_every_service,
    both_pods_of_a_service_share_its_requests,
    a_name_that_two_services_share_is_served_by_both,
    a_split_of_80_to_20_divides_requests_within_statistical_bounds,
    a_split_that_is_changed_takes_effect_without_a_restart,
    a_route_chooses_by_a_header,
    a_route_chooses_by_the_path,
    a_route_changes_headers_of_the_response,
    a_request_that_takes_longer_than_its_timeout_is_answered_504,
    a_request_for_an_unknown_name_fails_without_waiting,
];

const REVIEWS: &str = "http://reviews:8080/reviews/dune";
const BOOKS: &str = "http://books:8080/books/dune";

fn the_page_is_served_through_the_published_port(bookstore: &Bookstore) {
    let (status, body) = bookstore.fetch("/", &[]);

    assert_eq!(status, 200, "{body}");
    assert!(body.contains("<title>Bookstore</title>"), "{body}");
}

fn the_page_is_put_together_from_every_service(bookstore: &Bookstore) {
    let (_, body) = bookstore.fetch("/", &[]);

    // nginx, books, stock, reviews, ratings.
    for part in [
        "Served by nginx",
        "by Frank Herbert",
        "copies in stock",
        "Worth reading",
        "stars",
    ] {
        assert!(body.contains(part), "{part:?} is missing in {body}");
    }
}

fn both_pods_of_a_service_share_its_requests(bookstore: &Bookstore) {
    let tally = bookstore.load("front", BOOKS, 1000, 8);

    tally.assert_all_ok();
    let pods: Vec<String> = bookstore
        .pods_of("books")
        .into_iter()
        .map(|pod| pod.name)
        .collect();
    assert_eq!(tally.served_by.keys().cloned().collect::<Vec<_>>(), pods);
    // Least request keeps them close; neither may starve.
    assert!(
        tally.served_by.values().all(|&count| count >= 250),
        "{tally:?}"
    );
}

fn a_name_that_two_services_share_is_served_by_both(bookstore: &Bookstore) {
    let tally = bookstore.load("front", REVIEWS, 300, 4);

    tally.assert_all_ok();
    assert!(
        tally.version("v1") > 0 && tally.version("v2") > 0,
        "{tally:?}"
    );
}

fn a_split_of_80_to_20_divides_requests_within_statistical_bounds(bookstore: &Bookstore) {
    let _split = bookstore.with(
        &["split", "reviews", "reviews-v1=80", "reviews-v2=20"],
        &["delete", "httproute/reviews"],
    );

    let tally = bookstore.load("front", REVIEWS, 2000, 8);

    tally.assert_all_ok();
    assert_eq!(tally.version("v1") + tally.version("v2"), 2000);
    assert_share("requests to reviews-v2", tally.version("v2"), 2000, 0.2);
}

fn a_split_that_is_changed_takes_effect_without_a_restart(bookstore: &Bookstore) {
    let before = bookstore.pods();
    let undo = ["delete", "httproute/reviews", "--ignore-not-found"];
    let _split = bookstore.with(
        &["split", "reviews", "reviews-v1=100", "reviews-v2=0"],
        &undo,
    );
    assert_eq!(bookstore.load("front", REVIEWS, 200, 4).version("v1"), 200);

    let _other = bookstore.with(
        &["split", "reviews", "reviews-v1=0", "reviews-v2=100"],
        &undo,
    );

    assert_eq!(bookstore.load("front", REVIEWS, 200, 4).version("v2"), 200);
    assert_eq!(bookstore.pods(), before);
}

/// `front` passes on what it was sent as `baggage`, so a header of the page's request steers a call behind it.
fn a_route_chooses_by_a_header(bookstore: &Bookstore) {
    let _route = bookstore.apply(&route(
        "
    - matches: [{headers: [{name: baggage, value: reader=critic}]}]
      backendRefs: [{name: reviews-v2, port: 8080}]
    - backendRefs: [{name: reviews-v1, port: 8080}]",
    ));

    for _ in 0..10 {
        assert_eq!(version(bookstore, &["baggage: reader=critic"]), "v2");
        assert_eq!(version(bookstore, &["baggage: reader=casual"]), "v1");
        assert_eq!(version(bookstore, &[]), "v1");
    }
}

fn a_route_chooses_by_the_path(bookstore: &Bookstore) {
    let _route = bookstore.apply(&route(
        "
    - matches: [{path: {type: PathPrefix, value: /reviews/emma}}]
      backendRefs: [{name: reviews-v2, port: 8080}]
    - matches: [{path: {type: Exact, value: /reviews/ulysses}}]
      backendRefs: [{name: reviews-v2, port: 8080}]
    - backendRefs: [{name: reviews-v1, port: 8080}]",
    ));

    let only = |path: &str| {
        let tally = bookstore.load(
            "front",
            &format!("http://reviews:8080/reviews/{path}"),
            20,
            2,
        );
        tally.assert_all_ok();
        (tally.version("v1"), tally.version("v2"))
    };
    assert_eq!(only("emma"), (0, 20));
    assert_eq!(
        only("emma/second"),
        (0, 20),
        "a prefix matches whole segments"
    );
    assert_eq!(
        only("emmanuelle"),
        (20, 0),
        "and nothing but whole segments"
    );
    assert_eq!(only("ulysses"), (0, 20));
    assert_eq!(
        only("ulysses/second"),
        (20, 0),
        "an exact path is the whole path"
    );
    assert_eq!(only("dune"), (20, 0));
}

fn a_route_changes_headers_of_the_response(bookstore: &Bookstore) {
    let _route = bookstore.apply(&route(
        "
    - filters:
        - type: ResponseHeaderModifier
          responseHeaderModifier: {set: [{name: x-shelf, value: seven}]}
      backendRefs: [{name: reviews-v1, port: 8080}]",
    ));

    let answer = bookstore
        .shell("static", &format!("wget -S -q -O /dev/null {REVIEWS} 2>&1"))
        .ok();

    assert!(answer.to_lowercase().contains("x-shelf: seven"), "{answer}");
}

fn a_request_that_takes_longer_than_its_timeout_is_answered_504(bookstore: &Bookstore) {
    let _slow: Vec<_> = bookstore
        .pods_of("books")
        .iter()
        .map(|pod| bookstore.chaos(&pod.name, "slow"))
        .collect();
    let began = Instant::now();
    let (status, _) = bookstore.get("front", BOOKS);
    assert_eq!(status, 200);
    assert!(began.elapsed().as_secs_f64() >= 1.0, "the service is slow");
    let _route = bookstore.apply(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: books-timeout}
spec:
  parentRefs: [{group: '', kind: Service, name: books, port: 8080}]
  rules:
    - timeouts: {request: 200ms}
      backendRefs: [{name: books, port: 8080}]
",
    );

    let (status, body) = bookstore.get("front", BOOKS);

    assert_eq!(status, 504, "{body}");
    let flagged = bookstore
        .metrics("front")
        .sum("weft_requests_total", &[("response_flags", "UT")]);
    assert!(flagged >= 1.0, "a time-out has the flag UT");
}

fn a_request_for_an_unknown_name_fails_without_waiting(bookstore: &Bookstore) {
    let began = Instant::now();

    let complaint = bookstore
        .exec(
            "front",
            &["/bin/bookstore", "get", "http://no-such-service:8080/"],
        )
        .fails_with(1);

    assert!(
        began.elapsed().as_secs() < 10,
        "a name that does not exist is said not to exist"
    );
    assert!(
        complaint.contains("resolve") || complaint.contains("lookup"),
        "{complaint}"
    );
}

/// An HTTPRoute of `reviews` with these rules.
fn route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: reviews-by-request}}
spec:
  parentRefs: [{{group: '', kind: Service, name: reviews, port: 8080}}]
  rules:{rules}
"
    )
}

/// The version of the reviews in an answer of the page's API.
fn version(bookstore: &Bookstore, headers: &[&str]) -> String {
    eventually("an answer with reviews", || {
        let (status, body) = bookstore.fetch("/api/books/dune", headers);
        holds(status == 200, || format!("{status} {body}"))?;
        let answer: Value =
            serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        answer["reviews"]["version"]
            .as_str()
            .map(str::to_owned)
            .ok_or(body)
    })
}
