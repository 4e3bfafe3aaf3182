//! What is limited: rates, sizes, faults at a time.

use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::{asking, counted, filter, proxy, proxy_with, typed};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::upstream::{Upstream, text, until};

fn all() -> Value {
    json!({"default_value": {"numerator": 100}})
}

fn bucket(tokens: u32) -> Value {
    json!({"max_tokens": tokens, "fill_interval": "3600s"})
}

fn limit(mut more: Value) -> Value {
    let own = more.as_object_mut().unwrap();
    own.insert("stat_prefix".into(), "local".into());
    own.insert("filter_enabled".into(), all());
    own.insert("filter_enforced".into(), all());
    more
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_in_envoys_words() {
    let upstream = Upstream::named("fine").await;
    let config = limit(json!({
        "token_bucket": bucket(1),
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "response_headers_to_add": [{"header": {"key": "x-limited", "value": "yes"}}],
    }));
    let filters = vec![filter("local_ratelimit.v3.LocalRateLimit", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    let first = proxy.get("/").await;
    let second = proxy.get("/").await;

    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 429));
    assert_eq!(first.header("x-ratelimit-limit"), Some("1"));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(second.body, "local_rate_limited");
    assert_eq!(second.header("x-limited"), Some("yes"));
    let report = proxy.reports.request(1).await;
    assert_eq!(report.flags.to_string(), "RL");
    assert_eq!(report.reason.as_deref(), Some("local_rate_limited"));
    let counted = counted(&proxy);
    assert_eq!(counted["local.http_local_rate_limit.enabled"], 2);
    assert_eq!(counted["local.http_local_rate_limit.ok"], 1);
    assert_eq!(counted["local.http_local_rate_limit.rate_limited"], 1);
    assert_eq!(counted["local.http_local_rate_limit.enforced"], 1);
}

#[tokio::test]
async fn a_limit_that_is_not_enforced_marks_requests() {
    let upstream = Upstream::echoing().await;
    let mut config = limit(json!({
        "token_bucket": bucket(1),
        "request_headers_to_add_when_not_enforced": [{"header": {"key": "x-over", "value": "1"}}],
    }));
    config["filter_enforced"] = json!({"default_value": {"numerator": 0}});
    let filters = vec![filter("local_ratelimit.v3.LocalRateLimit", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    let (first, second) = (proxy.get("/").await, proxy.get("/").await);

    assert!(!first.body.contains("x-over"), "{}", first.body);
    assert!(second.body.contains("x-over: 1"), "{}", second.body);
}

#[tokio::test]
async fn each_caller_has_a_limit_of_its_own() {
    let upstream = Upstream::named("fine").await;
    let config = limit(json!({
        "token_bucket": bucket(100),
        "descriptors": [{"entries": [{"key": "caller"}], "token_bucket": bucket(1)}],
    }));
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "rate_limits": [
        {"actions": [{"request_headers": {"header_name": "x-caller", "descriptor_key": "caller"}}]},
    ]}}]);
    let filters = vec![filter("local_ratelimit.v3.LocalRateLimit", config)];
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = proxy_with(filters, &routes, json!({}), clusters).await;
    let mut client = Client::http1(proxy.address).await;
    let mut statuses = vec![];

    for caller in ["a", "a", "b", "b"] {
        let got = client
            .send(asking("GET", "/", &[("x-caller", caller)]))
            .await;
        statuses.push(got.status.as_u16());
    }

    assert_eq!(statuses, [200, 429, 200, 429]);
}

#[tokio::test]
async fn each_connection_has_a_limit_of_its_own_where_asked() {
    let upstream = Upstream::named("fine").await;
    let config = limit(json!({
        "token_bucket": bucket(1),
        "local_rate_limit_per_downstream_connection": true,
    }));
    let filters = vec![filter("local_ratelimit.v3.LocalRateLimit", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let mut one = Client::http1(proxy.address).await;

    let first = one.get("/").await.status;
    let second = one.get("/").await.status;
    let other = proxy.get("/").await.status;

    assert_eq!(
        (first.as_u16(), second.as_u16(), other.as_u16()),
        (200, 429, 200)
    );
}

#[tokio::test]
async fn a_request_is_sent_on_when_it_is_whole() {
    let upstream = Upstream::echoing().await;
    let filters = vec![filter("buffer.v3.Buffer", json!({"max_request_bytes": 8}))];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let mut client = Client::http1(proxy.address).await;

    let whole = client.send(request("POST", "/", "12345678")).await;
    let mut client = Client::http1(proxy.address).await;
    let large = client.send(request("POST", "/", "123456789")).await;

    assert!(whole.body.contains("content-length: 8\n"), "{}", whole.body);
    assert!(whole.body.ends_with("12345678"), "{}", whole.body);
    assert_eq!((large.status.as_u16(), upstream.requests()), (413, 1));
    assert_eq!(large.body, "Payload Too Large");
}

#[tokio::test]
async fn no_more_faults_are_injected_at_a_time_than_may_be() {
    let upstream = Upstream::named("fine").await;
    let config = json!({
        "delay": {"header_delay": {}, "percentage": {"numerator": 100}},
        "max_active_faults": 1,
    });
    let filters = vec![filter("fault.v3.HTTPFault", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let address = proxy.address;
    let delayed = tokio::spawn(async move {
        let asked = asking("GET", "/", &[("x-envoy-fault-delay-request", "60000")]);
        Client::http1(address).await.try_send(asked).await
    });
    until(|| counted(&proxy).get("http.test.fault.active_faults") == Some(&1)).await;

    let asked = asking("GET", "/", &[("x-envoy-fault-delay-request", "60000")]);
    let spared = Client::http1(address).await.send(asked).await;

    assert_eq!(spared.status, 200);
    assert_eq!(counted(&proxy)["http.test.fault.faults_overflow"], 1);
    delayed.abort();
    until(|| counted(&proxy)["http.test.fault.active_faults"] == 0).await;
}

#[tokio::test]
async fn a_slow_response_loses_nothing() {
    let upstream = Upstream::answering(|_| async {
        let body = Full::new(bytes::Bytes::from(vec![b'x'; 40_000])).boxed();
        http::Response::new(body)
    })
    .await;
    let config = json!({
        "response_rate_limit": {"fixed_limit": {"limit_kbps": 400}, "percentage": {"numerator": 100}},
    });
    let filters = vec![filter("fault.v3.HTTPFault", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    let got = proxy.get("/").await;

    assert_eq!(got.body.len(), 40_000);
    assert_eq!(counted(&proxy)["http.test.fault.response_rl_injected"], 1);
}

#[tokio::test]
async fn a_route_may_wait_for_more_or_for_nothing() {
    let upstream = Upstream::answering(|_| async { text(http::StatusCode::OK, "fine") }).await;
    let larger = typed(
        "buffer.v3.BufferPerRoute",
        json!({"buffer": {"max_request_bytes": 100}}),
    );
    let off = typed("buffer.v3.BufferPerRoute", json!({"disabled": true}));
    let routes = json!([
        {"match": {"path": "/larger"}, "route": {"cluster": "c"},
         "typed_per_filter_config": {"buffer": larger}},
        {"match": {"path": "/off"}, "route": {"cluster": "c"},
         "typed_per_filter_config": {"buffer": off}},
        {"match": {"prefix": "/"}, "route": {"cluster": "c"}},
    ]);
    let filters = vec![filter("buffer.v3.Buffer", json!({"max_request_bytes": 1}))];
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = proxy_with(filters, &routes, json!({}), clusters).await;
    let mut statuses = vec![];

    for path in ["/larger", "/off", "/"] {
        let mut client = Client::http1(proxy.address).await;
        let got = client.send(request("POST", path, "0123456789")).await;
        statuses.push(got.status.as_u16());
    }

    assert_eq!(statuses, [200, 200, 413]);
}
