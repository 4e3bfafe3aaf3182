//! From what a file of cases says to a whole Envoy bootstrap.
//!
//! One listener `main` on port 10000 with an HTTP connection manager and one virtual host; clusters `upstream`,
//! `other` and `third` on ports 8001 to 8003 of the scripted upstream, and `dead`, where nobody listens. In every
//! text `${proxy}`, `${upstream}` and `${folder}` are the addresses and the folder of one run.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::case::Settings;

/// Where the listener is.
pub(crate) const LISTENER_PORT: u16 = 10000;
/// Where the admin interface is.
pub(crate) const ADMIN_PORT: u16 = 9901;
/// The access log of the run, in its folder.
pub(crate) const ACCESS_LOG: &str = "access.log";

/// What differs between the runs of one configuration.
pub(crate) struct Place<'a> {
    pub(crate) proxy: IpAddr,
    pub(crate) upstream: IpAddr,
    pub(crate) folder: &'a Path,
}

/// The bootstrap, as JSON.
pub(crate) fn bootstrap(settings: &Settings, place: &Place<'_>) -> String {
    let mut listeners = vec![listener(settings)];
    listeners.extend(settings.listeners.iter().cloned());
    let mut upstream = cluster("upstream", 8001);
    merge(&mut upstream, &Value::Object(settings.cluster.clone()));
    let mut clusters = vec![
        upstream,
        cluster("other", 8002),
        cluster("third", 8003),
        cluster("dead", 8009),
    ];
    clusters.extend(settings.clusters.iter().cloned());
    let mut bootstrap = json!({
        "node": {"id": "conformance", "cluster": "conformance"},
        "admin": {"address": address("${proxy}", ADMIN_PORT)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    });
    merge(&mut bootstrap, &Value::Object(settings.bootstrap.clone()));
    bootstrap
        .to_string()
        .replace("${proxy}", &place.proxy.to_string())
        .replace("${upstream}", &place.upstream.to_string())
        .replace("${folder}", &place.folder.display().to_string())
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address("${upstream}", port)}},
        ]}]},
    })
}

fn listener(settings: &Settings) -> Value {
    let network = settings
        .network
        .clone()
        .unwrap_or_else(|| json!([manager(settings)]));
    let mut listener = json!({
        "name": "main",
        "address": address("${proxy}", LISTENER_PORT),
        "filter_chains": [{"filters": network}],
    });
    if let Some(socket) = &settings.transport_socket {
        listener["filter_chains"][0]["transport_socket"] = socket.clone();
    }
    merge(&mut listener, &Value::Object(settings.listener.clone()));
    listener
}

fn manager(settings: &Settings) -> Value {
    let mut filters = settings.filters.clone();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        // What the upstream calls itself is shown, so that it can be compared.
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": filters,
        "access_log": [access_log(settings)],
        "route_config": route_config(settings),
    });
    merge(&mut manager, &Value::Object(settings.manager.clone()));
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

/// A line of the access log is all that is compared of it.
fn access_log(settings: &Settings) -> Value {
    let format = settings.log_format.as_deref();
    let format = format.unwrap_or("%RESPONSE_CODE% %RESPONSE_FLAGS%");
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": format!("${{folder}}/{ACCESS_LOG}"),
            "log_format": {"text_format_source": {"inline_string": format!("{format}\n")}},
        },
    })
}

fn route_config(settings: &Settings) -> Value {
    let to_upstream =
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}]);
    let routes = settings.routes.clone().unwrap_or(to_upstream);
    let hosts = settings.virtual_hosts.clone().unwrap_or_else(|| {
        json!([{
            "name": "all",
            "domains": ["*"],
            "include_request_attempt_count": true,
            "routes": routes,
        }])
    });
    let mut routes = json!({"name": "main", "virtual_hosts": hosts});
    merge(&mut routes, &Value::Object(settings.route_config.clone()));
    routes
}

/// Objects are merged field by field; everything else is replaced, and `null` takes a field away.
fn merge(into: &mut Value, from: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *into, from) else {
        into.clone_from(from);
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
            continue;
        }
        let field = fields
            .entry(name.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        merge(field, change);
    }
}
