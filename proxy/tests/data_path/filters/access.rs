//! Who may do what.

use serde_json::{Value, json};

use super::{asking, counted, filter, proxy, proxy_with, typed};
use crate::client::Client;
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::Upstream;

fn allowing(permission: Value) -> Value {
    json!({"policies": {"the policy": {"permissions": [permission], "principals": [{"any": true}]}}})
}

async fn statuses(proxy: &Proxy, paths: &[&str]) -> Vec<u16> {
    let mut statuses = vec![];
    for path in paths {
        statuses.push(proxy.get(path).await.status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn what_no_policy_allows_is_denied_in_envoys_words() {
    let upstream = Upstream::named("fine").await;
    let rules = allowing(json!({"url_path": {"path": {"prefix": "/public"}}}));
    let rbac = filter("rbac.v3.RBAC", json!({"rules": rules}));
    let proxy = proxy(vec![rbac], vec![cluster("c", &[upstream.address])]).await;

    let allowed = proxy.get("/public/a").await;
    let denied = proxy.get("/private").await;

    assert_eq!(
        (allowed.status.as_u16(), denied.status.as_u16()),
        (200, 403)
    );
    assert_eq!(denied.body, "RBAC: access denied");
    assert_eq!(denied.header("content-type"), Some("text/plain"));
    let report = proxy.reports.request(1).await;
    let reason = report.reason.unwrap();
    assert_eq!(&*reason, "rbac_access_denied_matched_policy[none]");
    assert_eq!(upstream.requests(), 1);
    let counted = counted(&proxy);
    assert_eq!(counted["http.test.rbac.allowed"], 1);
    assert_eq!(counted["http.test.rbac.denied"], 1);
}

#[tokio::test]
async fn shadow_rules_are_counted_and_refuse_nothing() {
    let upstream = Upstream::named("fine").await;
    let rbac = json!({
        "shadow_rules": allowing(json!({"header": {"name": "x-a", "present_match": true}})),
        "shadow_rules_stat_prefix": "next",
    });
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = proxy(vec![filter("rbac.v3.RBAC", rbac)], clusters).await;

    let got = proxy.get("/").await;

    assert_eq!(got.status, 200);
    assert_eq!(counted(&proxy)["http.test.rbac.next.shadow_denied"], 1);
    let report = proxy.reports.request(0).await;
    let told = report
        .metadata
        .at("envoy.filters.http.rbac", ["nextshadow_engine_result"]);
    assert_eq!(told, Some(&json!("denied")));
}

#[tokio::test]
async fn a_route_has_rules_of_its_own_or_none() {
    let upstream = Upstream::named("fine").await;
    let deny_all = json!({"rules": {"action": "ALLOW"}});
    let own = typed(
        "rbac.v3.RBACPerRoute",
        json!({"rbac": {"rules": allowing(json!({"any": true}))}}),
    );
    let off = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
    let route = |prefix: &str, own: Value| json!({"match": {"prefix": prefix}, "route": {"cluster": "c"}, "typed_per_filter_config": own});
    let routes = json!([
        route("/own", json!({"rbac": own})),
        route("/off", json!({"rbac": off})),
        route("/", json!({})),
    ]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let filters = vec![filter("rbac.v3.RBAC", deny_all)];
    let proxy = proxy_with(filters, &routes, json!({}), clusters).await;

    assert_eq!(
        statuses(&proxy, &["/own", "/off", "/"]).await,
        [200, 200, 403]
    );
}

#[tokio::test]
async fn filters_come_before_what_the_route_answers_itself() {
    let rbac = filter("rbac.v3.RBAC", json!({"rules": {"action": "ALLOW"}}));
    let routes = json!([
        {"match": {"path": "/direct"}, "direct_response": {"status": 200}},
        {"match": {"path": "/moved"}, "redirect": {"host_redirect": "elsewhere"}},
    ]);
    let proxy = proxy_with(vec![rbac], &routes, json!({}), vec![]).await;

    let got = statuses(&proxy, &["/direct", "/moved", "/nowhere"]).await;

    assert_eq!(got, [403, 403, 403]);
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_policy_of_the_route() {
    let upstream = Upstream::named("fine").await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "cors": {
        "allow_origin_string_match": [{"exact": "https://a.example"}],
        "allow_methods": "GET, PUT", "max_age": "60", "allow_credentials": true,
        "expose_headers": "x-seen",
    }}}]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let filters = vec![filter("cors.v3.Cors", json!({}))];
    let proxy = proxy_with(filters, &routes, json!({}), clusters).await;
    let mut client = Client::http1(proxy.address).await;
    let asked = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "PUT"),
    ];

    let preflight = client.send(asking("OPTIONS", "/", &asked)).await;
    let allowed = client.send(asking("GET", "/", &asked[..1])).await;
    let other = client
        .send(asking("GET", "/", &[("origin", "https://b.example")]))
        .await;

    assert_eq!(preflight.status, 200);
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        Some("GET, PUT")
    );
    assert_eq!(preflight.header("access-control-max-age"), Some("60"));
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert_eq!(
        allowed.header("access-control-expose-headers"),
        Some("x-seen")
    );
    assert_eq!(other.header("access-control-allow-origin"), None);
    assert_eq!((other.status.as_u16(), upstream.requests()), (200, 2));
    let counted = counted(&proxy);
    assert_eq!(counted["http.test.cors.origin_valid"], 2);
    assert_eq!(counted["http.test.cors.origin_invalid"], 1);
}
