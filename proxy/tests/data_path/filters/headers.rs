//! What becomes of headers.

use serde_json::json;

use super::{asking, filter, proxy, proxy_with, typed};
use crate::client::Client;
use crate::config::cluster;
use crate::upstream::Upstream;

#[tokio::test]
async fn headers_and_queries_are_changed_both_ways() {
    let upstream = Upstream::echoing().await;
    let config = json!({"mutations": {
        "request_mutations": [
            {"append": {"header": {"key": "x-added", "value": "1"}}},
            {"remove": "x-secret"},
        ],
        "response_mutations": [{"append": {"header": {"key": "x-back", "value": "1"}}}],
        "query_parameter_mutations": [
            {"append": {"record": {"key": "a", "value": "2"}, "action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
        ],
    }});
    let filters = vec![filter("header_mutation.v3.HeaderMutation", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let mut client = Client::http1(proxy.address).await;

    let got = client
        .send(asking("GET", "/p?a=1", &[("x-secret", "s")]))
        .await;

    assert!(got.body.starts_with("GET /p?a=2 "), "{}", got.body);
    assert!(got.body.contains("x-added: 1\n"), "{}", got.body);
    assert!(!got.body.contains("x-secret"), "{}", got.body);
    assert_eq!(got.header("x-back"), Some("1"));
}

#[tokio::test]
async fn an_answer_given_before_is_changed_all_the_same() {
    let deny = filter("rbac.v3.RBAC", json!({"rules": {"action": "ALLOW"}}));
    let config = json!({"mutations": {
        "response_mutations": [{"append": {"header": {"key": "x-back", "value": "1"}}}],
    }});
    let change = filter("header_mutation.v3.HeaderMutation", config);
    let proxy = proxy(vec![deny, change], vec![]).await;

    let got = proxy.get("/").await;

    assert_eq!(
        (got.status.as_u16(), got.header("x-back")),
        (403, Some("1"))
    );
}

#[tokio::test]
async fn parts_of_the_routes_change_more_and_the_outermost_has_the_last_word() {
    let upstream = Upstream::echoing().await;
    let set = |value: &str| {
        typed(
            "header_mutation.v3.HeaderMutationPerRoute",
            json!({"mutations": {"request_mutations": [
                {"append": {"header": {"key": "x-by", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
            ]}}),
        )
    };
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"},
        "typed_per_filter_config": {"header_mutation": set("route")}}]);
    let more = json!({"host.typed_per_filter_config": {"header_mutation": set("host")}});
    let filters = vec![filter("header_mutation.v3.HeaderMutation", json!({}))];
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = proxy_with(filters, &routes, more, clusters).await;

    let got = proxy.get("/").await;

    assert!(got.body.contains("x-by: host\n"), "{}", got.body);
}

#[tokio::test]
async fn what_a_header_says_decides_in_a_later_filter() {
    let upstream = Upstream::named("fine").await;
    let rules = json!({"request_rules": [{
        "header": "x-tier",
        "on_header_present": {"metadata_namespace": "tiers", "key": "tier"},
        "on_header_missing": {"metadata_namespace": "tiers", "key": "tier", "value": "free"},
        "remove": true,
    }]});
    let rbac = json!({"rules": {"policies": {"paid": {
        "permissions": [{"any": true}],
        "principals": [{"metadata": {
            "filter": "tiers", "path": [{"key": "tier"}], "value": {"string_match": {"exact": "paid"}},
        }}],
    }}}});
    let filters = vec![
        filter("header_to_metadata.v3.Config", rules),
        filter("rbac.v3.RBAC", rbac),
    ];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let mut client = Client::http1(proxy.address).await;

    let paid = client.send(asking("GET", "/", &[("x-tier", "paid")])).await;
    let free = client.get("/").await;

    assert_eq!((paid.status.as_u16(), free.status.as_u16()), (200, 403));
}

#[tokio::test]
async fn a_health_check_is_answered_without_the_upstream() {
    let upstream = Upstream::named("fine").await;
    let config = json!({
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}],
        "cluster_min_healthy_percentages": {"c": {"value": 50}},
    });
    let filters = vec![filter("health_check.v3.HealthCheck", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    assert_eq!(proxy.get("/healthz").await.status, 200);
    assert_eq!(upstream.requests(), 0);
    assert_eq!(proxy.get("/").await.body, "fine");
}

#[tokio::test]
async fn a_health_check_without_enough_endpoints_fails() {
    let config = json!({
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}],
        "cluster_min_healthy_percentages": {"c": {"value": 50}},
    });
    let filters = vec![filter("health_check.v3.HealthCheck", config)];
    let proxy = proxy(filters, vec![cluster("c", &[])]).await;

    let got = proxy.get("/healthz").await;

    assert_eq!(got.status, 503);
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "LH");
}
