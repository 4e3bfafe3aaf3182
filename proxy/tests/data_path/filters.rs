//! HTTP filters, configured as Envoy is, from the wire to the response.

mod access;
mod bodies;
mod connections;
mod headers;
mod limits;
mod services;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use weft_proto::any::pack;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::json::from_json;
use weft_proxy::config::cluster::ClusterConfig;
use weft_proxy::config::listener::ListenerConfig;
use weft_proxy::xds::kind::Kind;
use weft_proxy::xds::translate::{Checked, translate};

use crate::client::request;
use crate::config::{LISTENER, configuration};
use crate::proxy::Proxy;

/// The types of Envoy's HTTP filters.
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
/// The types of Envoy's network filters.
const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";

/// A filter, named by the last part of its package, as `rbac`.
fn filter(kind: &str, config: Value) -> Value {
    let name = kind.split('.').next().unwrap();
    named(name, kind, config)
}

/// A filter of such a name.
fn named(name: &str, kind: &str, config: Value) -> Value {
    json!({"name": name, "typed_config": typed(kind, config)})
}

/// A message of a filter: `rbac.v3.RBAC`.
fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("{HTTP}.{kind}").into();
    config
}

/// All requests to one cluster.
fn routes() -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"}}])
}

/// A listener of these filters and routes.
fn listener(filters: Vec<Value>, routes: &Value, more: Value) -> ListenerConfig {
    let mut filters = filters;
    filters.push(filter("router.v3.Router", json!({})));
    let mut host = json!({"name": "all", "domains": ["*"], "routes": routes});
    let mut manager = json!({
        "@type": format!("{NETWORK}.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "test",
        "http_filters": filters,
    });
    for (name, value) in more.as_object().unwrap() {
        match name.strip_prefix("host.") {
            Some(name) => host[name] = value.clone(),
            None => manager[name] = value.clone(),
        }
    }
    manager["route_config"] = json!({"name": "routes", "virtual_hosts": [host]});
    translated(json!({"filters": [{"name": "http", "typed_config": manager}]}))
}

/// A listener of one chain.
fn translated(chain: Value) -> ListenerConfig {
    let wire: Listener = from_json(json!({
        "name": LISTENER,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [chain],
    }))
    .unwrap();
    match translate(Kind::Listener, &pack(&wire)).unwrap().checked {
        Checked::Listener(listener) => Arc::unwrap_or_clone(listener),
        other => panic!("{other:?}"),
    }
}

/// A proxy with these filters before one cluster, `c`, and others.
async fn proxy(filters: Vec<Value>, clusters: Vec<ClusterConfig>) -> Proxy {
    proxy_with(filters, &routes(), json!({}), clusters).await
}

async fn proxy_with(
    filters: Vec<Value>,
    routes: &Value,
    more: Value,
    clusters: Vec<ClusterConfig>,
) -> Proxy {
    Proxy::start(configuration([listener(filters, routes, more)], clusters)).await
}

/// A request with headers.
fn asking(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Full<bytes::Bytes>> {
    let mut asked = request(method, path, "");
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_str(value).unwrap();
        asked.headers_mut().insert(name, value);
    }
    asked
}

/// What filters have counted.
fn counted(proxy: &Proxy) -> BTreeMap<String, u64> {
    let counters = proxy.data_plane.environment().counters.read();
    let pairs = counters.into_iter();
    pairs
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}
