//! What callers get: redirects, answers of the proxy's own, and headers of responses.

use http::StatusCode;
use http::header::LOCATION;
use serde_json::json;
use weft_proxy::config::http::HttpConfig;

use super::{echoing, get_with, host, served, shown};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, text};

async fn locations(config: HttpConfig, asked: &[(&'static str, &'static str)]) -> Vec<String> {
    let proxy = Proxy::serving(config, []).await;
    let mut locations = vec![];
    for (host, path) in asked {
        let got = get_with(&proxy, path, &[("host", host)]).await;
        locations.push(got.header("location").unwrap_or("none").to_owned());
    }
    locations
}

#[tokio::test]
async fn a_redirect_changes_what_it_says_and_keeps_the_rest() {
    let config = served(host(json!([
        {"match": {"prefix": "/tls"}, "redirect": {"https_redirect": true}},
        {"match": {"prefix": "/query"}, "redirect": {"path_redirect": "/x?y=1", "strip_query": true}},
        {"match": {"prefix": "/host"}, "redirect": {"path_redirect": "/x", "host_redirect": "o.com"}},
        {"match": {"prefix": "/prefix"}, "redirect": {"prefix_rewrite": "/zz", "port_redirect": 81}},
        {"match": {"prefix": "/regex"}, "redirect": {"strip_query": true, "regex_rewrite":
            {"pattern": {"regex": "^/regex/(.*)"}, "substitution": "/\\1"}}},
        {"match": {"prefix": "/made"}, "redirect": {"path_rewrite": "/by/%REQ(:AUTHORITY)%"}},
    ])));

    let locations = locations(
        config,
        &[
            ("a", "/tls?a=b"),
            ("a:80", "/tls"),
            ("a:8080", "/tls"),
            ("a", "/query?a=b"),
            ("a", "/host?a=b"),
            ("a:8080", "/prefix/a"),
            ("a", "/regex/c?d=e"),
            ("a", "/made?x=y"),
        ],
    )
    .await;

    assert_eq!(
        locations,
        [
            "https://a/tls?a=b",
            "https://a/tls",
            "https://a:8080/tls",
            "http://a/x?y=1",
            "http://o.com/x?a=b",
            "http://a:81/zz/a",
            "http://a/c",
            "http://a/by/a?x=y",
        ]
    );
}

#[tokio::test]
async fn a_host_that_requires_tls_sends_everybody_there() {
    let config = served(
        json!({"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"],
        "require_tls": "ALL",
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]}),
    );

    assert_eq!(locations(config, &[("a", "/b?c")]).await, ["https://a/b?c"]);
}

#[tokio::test]
async fn an_answer_of_the_routes_own_is_formatted_and_has_the_routes_headers() {
    let config = served(host(json!([
        {"match": {"prefix": "/text"},
         "direct_response": {"status": 418, "body": {"inline_string": "tea"},
            "body_format": {"text_format": "%LOCAL_REPLY_BODY% %RESPONSE_CODE% %REQ(:METHOD)%",
                            "content_type": "text/x-tea"}},
         "response_headers_to_add": [{"header": {"key": "x-for", "value": "%REQ(x-user)%"}}]},
        {"match": {"prefix": "/json"}, "direct_response": {"status": 200,
            "body_format": {"json_format": {"path": "%PATH(NQ)%"}}}},
    ])));
    let proxy = Proxy::serving(config, []).await;

    let tea = get_with(&proxy, "/text", &[("x-user", "jane")]).await;
    let json = proxy.get("/json?a=b").await;

    assert_eq!(
        (tea.status.as_u16(), tea.body.as_str()),
        (418, "tea 418 GET")
    );
    assert_eq!(tea.header("content-type"), Some("text/x-tea"));
    assert_eq!(tea.header("x-for"), Some("jane"));
    assert_eq!(json.body, "{\"path\":\"/json\"}\n");
    assert_eq!(json.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn headers_of_responses_tell_of_request_and_response() {
    let (proxy, _upstream) = echoing(json!({"name": "r", "virtual_hosts": [{"name": "all",
        "domains": ["*"],
        "include_request_attempt_count": true, "include_attempt_count_in_response": true,
        "response_headers_to_remove": ["date"],
        "response_headers_to_add": [
            {"header": {"key": "x-user", "value": "%REQ(x-user)%"}},
            {"header": {"key": "x-type", "value": "%RESPONSE_CODE% %RESP(content-length)% bytes"}},
            {"header": {"key": "x-none", "value": "%REQ(x-none)%"}},
            {"header": {"key": "x-kept", "value": ""}, "keep_empty_value": true}],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}]}))
    .await;

    let got = get_with(&proxy, "/", &[("x-user", "jane")]).await;

    assert_eq!(got.header("x-user"), Some("jane"));
    let length = got.header("content-length").unwrap();
    assert_eq!(
        got.header("x-type"),
        Some(format!("200 {length} bytes").as_str())
    );
    assert_eq!(got.header("x-none"), None);
    assert_eq!(got.header("x-kept"), Some(""));
    assert_eq!(got.header("x-envoy-attempt-count"), Some("1"));
    assert_eq!(shown(&got, "x-envoy-attempt-count"), ["1"]);
}

/// Sends everybody elsewhere, and answers there with what was asked.
async fn redirecting(location: &'static str) -> Upstream {
    Upstream::answering(move |request| async move {
        if request.uri().path() == "/start" {
            let mut response = text(StatusCode::FOUND, "");
            response
                .headers_mut()
                .insert(LOCATION, location.parse().unwrap());
            response
                .headers_mut()
                .insert("x-more", "1".parse().unwrap());
            return response;
        }
        use http_body_util::BodyExt;
        let lines: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let line = format!("{} {}", request.method(), request.uri());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        text(
            StatusCode::OK,
            format!("{line}\n{}\n\n{body}", lines.join("\n")),
        )
    })
    .await
}

fn following(policy: serde_json::Value) -> HttpConfig {
    served(host(json!([
        {"match": {"prefix": "/forbidden"}, "direct_response": {"status": 403}},
        {"name": "any", "match": {"prefix": "/"},
         "route": {"cluster": "c", "internal_redirect_policy": policy}},
    ])))
}

#[tokio::test]
async fn a_redirect_of_the_upstream_is_followed_with_the_whole_body() {
    let upstream = redirecting("http://there/end?x=1").await;
    let config = following(json!({"response_headers_to_copy": ["x-more"]}));
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;

    let mut client = Client::http1(proxy.address).await;
    let got = client.send(request("POST", "/start", "the body")).await;

    assert_eq!(got.status, 200);
    assert!(got.body.starts_with("POST /end?x=1\n"), "{}", got.body);
    assert!(got.body.ends_with("\n\nthe body"), "{}", got.body);
    assert_eq!(shown(&got, "host"), ["there"]);
    assert_eq!(shown(&got, "x-more"), ["1"]);
    assert_eq!(
        shown(&got, "x-envoy-original-url"),
        ["http://reviews/start"]
    );
}

#[tokio::test]
async fn a_redirect_is_the_callers_where_it_may_not_be_followed() {
    let circling = redirecting("/start").await;
    let to = |policy| {
        let clusters = [cluster("c", &[circling.address])];
        async {
            Proxy::serving(following(policy), clusters)
                .await
                .get("/start")
                .await
        }
    };

    let too_many = to(json!({"max_internal_redirects": 2})).await;
    assert_eq!(too_many.status, 302);
    assert_eq!(circling.requests(), 3);
    let other_code = to(json!({"redirect_response_codes": [307]})).await;
    assert_eq!(other_code.status, 302);
    let been_there = to(json!({"predicates": [{"name": "p", "typed_config": {"@type":
        "type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig"}}]}))
    .await;
    assert_eq!((been_there.status.as_u16(), circling.requests()), (302, 5));
}

#[tokio::test]
async fn where_a_redirect_leads_the_route_there_answers() {
    let upstream = redirecting("/forbidden").await;
    let proxy = Proxy::serving(following(json!({})), [cluster("c", &[upstream.address])]).await;

    assert_eq!(proxy.get("/start").await.status, 403);
    assert_eq!(upstream.requests(), 1);
}
