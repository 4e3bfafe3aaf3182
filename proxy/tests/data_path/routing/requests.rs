//! What becomes of requests on their way to the upstream.

use serde_json::json;
use weft_proxy::config::paths::{EscapedSlashes, HostOptions, PathOptions, StripPort};

use super::{echoing, get_with, host, served, shown};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, until};

#[tokio::test]
async fn headers_hold_what_operators_stand_for_in_envoys_order() {
    let header = |value: &str| {
        json!([{"header": {"key": "x-at", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
               {"header": {"key": "x-all", "value": value}}])
    };
    let config = |innermost_wins: bool| {
        json!({"name": "r", "most_specific_header_mutations_wins": innermost_wins,
            "request_headers_to_add": header("config"),
            "virtual_hosts": [{"name": "all", "domains": ["*"],
                "request_headers_to_add": header("host %REQ(:METHOD)%"),
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"},
                    "request_headers_to_remove": ["x-secret"],
                    "request_headers_to_add": header("route %REQ(:PATH)% %REQ(x-none)%|%PROTOCOL%")}]}]})
    };
    let (outer, _one) = echoing(config(false)).await;
    let (inner, _other) = echoing(config(true)).await;

    let outer = get_with(&outer, "/a?b=c", &[("x-secret", "1")]).await;
    let inner = get_with(&inner, "/a", &[]).await;

    let route = "route /a?b=c |HTTP/1.1";
    assert_eq!(shown(&outer, "x-at"), ["config"]);
    assert_eq!(shown(&outer, "x-all"), [route, "host GET", "config"]);
    assert!(shown(&outer, "x-secret").is_empty());
    assert_eq!(shown(&inner, "x-at"), ["route /a |HTTP/1.1"]);
}

#[tokio::test]
async fn hosts_and_paths_are_rewritten_and_what_they_were_is_told() {
    let route = |prefix: &str, action: serde_json::Value| {
        let mut action = action;
        action["cluster"] = "c".into();
        json!({"match": {"prefix": prefix}, "route": action})
    };
    let (proxy, _upstream) = echoing(host(json!([
        route(
            "/literal/",
            json!({"prefix_rewrite": "/new/", "host_rewrite_literal": "other",
            "append_x_forwarded_host": true})
        ),
        route("/header", json!({"host_rewrite_header": "x-host"})),
        route(
            "/path/",
            json!({"host_rewrite_path_regex":
            {"pattern": {"regex": "^/path/([a-z]+)/.*"}, "substitution": "\\1.example"}})
        ),
        route(
            "/regex/",
            json!({"regex_rewrite":
            {"pattern": {"regex": "^/regex/([a-z]+)"}, "substitution": "/\\1/x"}})
        ),
    ])))
    .await;

    let literal = get_with(&proxy, "/literal/a?b=1", &[("x-forwarded-host", "first")]).await;
    let header = get_with(&proxy, "/header", &[("x-host", "named")]).await;
    let path = get_with(&proxy, "/path/shop/1?q", &[]).await;
    let regex = get_with(&proxy, "/regex/ab?q=/regex/cd", &[]).await;

    assert!(
        literal.body.starts_with("GET /new/a?b=1 "),
        "{}",
        literal.body
    );
    assert_eq!(shown(&literal, "host"), ["other"]);
    assert_eq!(shown(&literal, "x-forwarded-host"), ["first,reviews"]);
    assert_eq!(shown(&literal, "x-envoy-original-host"), ["reviews"]);
    assert_eq!(shown(&literal, "x-envoy-original-path"), ["/literal/a?b=1"]);
    assert_eq!(shown(&header, "host"), ["named"]);
    assert_eq!(shown(&path, "host"), ["shop.example"]);
    assert!(
        regex.body.starts_with("GET /ab/x?q=/regex/cd "),
        "{}",
        regex.body
    );
}

#[tokio::test]
async fn suppressed_headers_of_envoy_are_not_added() {
    let mut config = served(host(json!([{"match": {"prefix": "/"},
        "route": {"cluster": "c", "prefix_rewrite": "/new", "host_rewrite_literal": "other"}}])));
    config.router.suppresses_envoy_headers = true;
    let upstream = Upstream::echoing().await;
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;

    let got = proxy.get("/a").await;

    assert!(!got.body.contains("x-envoy-"), "{}", got.body);
    assert!(got.header("x-envoy-upstream-service-time").is_none());
}

#[tokio::test]
async fn paths_and_hosts_have_one_spelling_before_they_are_routed() {
    let mut config = served(json!({"name": "r", "virtual_hosts": [
        {"name": "h", "domains": ["reviews"], "routes": [
            {"match": {"path": "/a/c"}, "route": {"cluster": "c"}},
            {"match": {"prefix": "/"}, "direct_response": {"status": 418}}]}]}));
    config.paths = PathOptions {
        escaped_slashes: EscapedSlashes::Redirect,
        normalize: true,
        merge_slashes: true,
    };
    config.hosts = HostOptions {
        strip_trailing_dot: true,
        strip_port: StripPort::Any,
    };
    let upstream = Upstream::echoing().await;
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;
    let mut asked = request("GET", "//a/b/../%63?x=/../", "");
    asked
        .headers_mut()
        .insert("host", "reviews.:8080".parse().unwrap());

    let got = Client::http1(proxy.address).await.send(asked).await;
    let moved = proxy.get("/a%2Fc?x=1").await;

    assert!(got.body.starts_with("GET /a/c?x=/../ "), "{}", got.body);
    assert_eq!(shown(&got, "host"), ["reviews"]);
    assert_eq!(
        (moved.status.as_u16(), moved.header("location")),
        (307, Some("/a/c?x=1"))
    );
}

#[tokio::test]
async fn a_weighted_cluster_is_chosen_by_a_header_and_may_change_the_host() {
    let (one, two) = (Upstream::echoing().await, Upstream::named("two").await);
    let config = host(
        json!([{"match": {"prefix": "/"}, "route": {"weighted_clusters": {
        "header_name": "x-draw",
        "clusters": [
            {"name": "one", "weight": 10, "host_rewrite_literal": "one.example",
             "request_headers_to_add": [{"header": {"key": "x-version", "value": "one"}}]},
            {"cluster_header": "x-cluster", "weight": 90}]}}}]),
    );
    let clusters = [
        cluster("one", &[one.address]),
        cluster("two", &[two.address]),
    ];
    let proxy = Proxy::serving(served(config), clusters).await;

    let first = get_with(&proxy, "/", &[("x-draw", "9")]).await;
    let second = get_with(&proxy, "/", &[("x-draw", "10"), ("x-cluster", "two")]).await;
    let nowhere = get_with(&proxy, "/", &[("x-draw", "99")]).await;

    assert_eq!(shown(&first, "host"), ["one.example"]);
    assert_eq!(shown(&first, "x-version"), ["one"]);
    assert_eq!(second.body, "two");
    assert_eq!(nowhere.status, 503);
}

#[tokio::test]
async fn copies_have_headers_and_hosts_of_their_own() {
    let (upstream, mirror) = (Upstream::echoing().await, Upstream::named("copy").await);
    let heard = std::sync::Arc::new(parking_lot::Mutex::new(vec![]));
    let told = std::sync::Arc::clone(&heard);
    drop(mirror);
    let mirror = Upstream::answering(move |request| {
        let headers = request.headers().clone();
        told.lock().push(headers);
        async { crate::upstream::text(http::StatusCode::OK, "") }
    })
    .await;
    let config = json!({"name": "r",
        "request_mirror_policies": [{"cluster": "none"}],
        "virtual_hosts": [{"name": "all", "domains": ["*"],
            "request_mirror_policies": [
                {"cluster_header": "x-mirror", "request_headers_mutations": [
                    {"append": {"header": {"key": "x-copy", "value": "yes"}}},
                    {"remove": "x-private"}]},
                {"cluster": "mirror", "disable_shadow_host_suffix_append": true},
                {"cluster": "mirror", "host_rewrite_literal": "copies"},
                {"cluster": "mirror", "runtime_fraction": {"default_value": {"numerator": 0}}}],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}]});
    let clusters = [
        cluster("c", &[upstream.address]),
        cluster("mirror", &[mirror.address]),
    ];
    let proxy = Proxy::serving(served(config), clusters).await;

    let headers = [
        ("x-mirror", "mirror"),
        ("x-private", "1"),
        ("host", "reviews:80"),
    ];
    let got = get_with(&proxy, "/", &headers).await;

    assert_eq!(shown(&got, "x-private"), ["1"]);
    assert!(shown(&got, "x-copy").is_empty());
    until(|| heard.lock().len() == 3).await;
    let mut hosts: Vec<_> = heard
        .lock()
        .iter()
        .map(|headers| headers["host"].clone())
        .collect();
    hosts.sort_by_key(|host| host.as_bytes().to_vec());
    assert_eq!(hosts, ["copies", "reviews-shadow:80", "reviews:80"]);
    let heard = heard.lock();
    let changed = heard
        .iter()
        .find(|headers| headers.contains_key("x-copy"))
        .unwrap();
    assert!(!changed.contains_key("x-private"));
}
