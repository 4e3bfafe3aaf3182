//! Routes as Envoy's own messages say them: what the upstream sees, and what the caller gets.

mod answers;
mod limits;
mod requests;
mod retries;

use std::sync::Arc;

use serde_json::{Value, json};
use weft_proto::json::from_json;
use weft_proxy::config::http::{HttpConfig, RouteSource};
use weft_proxy::config::route::RouteConfig;
use weft_proxy::xds::kind::Kind;
use weft_proxy::xds::translate::{Checked, translate};

use crate::client::{Client, Got, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::Upstream;

/// A route configuration in Envoy's JSON.
fn routes_of(mut json: Value) -> Arc<RouteConfig> {
    json["@type"] = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into();
    let any = from_json(json).unwrap();
    match translate(Kind::Routes, &any).unwrap().checked {
        Checked::Routes(routes) => routes,
        other => panic!("{other:?}"),
    }
}

/// One virtual host for everything, with these routes.
fn host(routes: Value) -> Value {
    json!({"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

fn served(json: Value) -> HttpConfig {
    HttpConfig::new("test", RouteSource::Inline(routes_of(json)))
}

/// Serves routes over an upstream that tells what it was asked, as cluster `c`.
async fn echoing(json: Value) -> (Proxy, Upstream) {
    let upstream = Upstream::echoing().await;
    let proxy = Proxy::serving(served(json), [cluster("c", &[upstream.address])]).await;
    (proxy, upstream)
}

/// A GET with headers more.
async fn get_with(proxy: &Proxy, path: &str, headers: &[(&'static str, &'static str)]) -> Got {
    let mut asked = request("GET", path, "");
    for (name, value) in headers {
        asked.headers_mut().insert(*name, value.parse().unwrap());
    }
    Client::http1(proxy.address).await.send(asked).await
}

/// The values that an echo shows of a header.
fn shown(got: &Got, name: &str) -> Vec<String> {
    let prefix = format!("{name}: ");
    let lines = got.body.lines();
    lines
        .filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned()))
        .collect()
}
