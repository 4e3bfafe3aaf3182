//! Resources and bootstraps: what is accepted can be served.

use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use prost::Message;
use weft_proto::{Any, unknown};

use crate::bootstrap::Bootstrap;
use crate::cluster::Pick;
use crate::config::Configuration;
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::listener::TransportProtocol;
use crate::config::matching::RequestLine;
use crate::config::metadata::Metadata;
use crate::snapshot::choice::Arrival;
use crate::snapshot::routes::{RequestFacts, RouteTable};
use crate::snapshot::{Resolved, Snapshot};
use crate::xds::kind::Kind;
use crate::xds::translate::{Checked, translate};

pub(super) fn listener(bytes: &[u8]) {
    resource(Kind::Listener, bytes);
}

pub(super) fn routes(bytes: &[u8]) {
    resource(Kind::Routes, bytes);
}

pub(super) fn cluster(bytes: &[u8]) {
    resource(Kind::Cluster, bytes);
}

pub(super) fn endpoints(bytes: &[u8]) {
    resource(Kind::Endpoints, bytes);
}

pub(super) fn secret(bytes: &[u8]) {
    resource(Kind::Secret, bytes);
}

/// A resource is refused by field and value, or is the same each time it is read, and is served.
fn resource(kind: Kind, bytes: &[u8]) {
    let any = Any {
        type_url: kind.type_url().into(),
        value: bytes.to_vec().into(),
    };
    let translated = match translate(kind, &any) {
        Ok(translated) => translated,
        Err(invalid) => return assert!(!invalid.reason().is_empty()),
    };
    let mut configuration = Configuration::default();
    add(&mut configuration, translated.checked.clone());
    serve(&configuration);
}

fn add(configuration: &mut Configuration, checked: Checked) {
    match checked {
        Checked::Listener(listener) => {
            let name = listener.name.clone();
            configuration.listeners.insert(name, listener);
        }
        Checked::Routes(routes) => {
            configuration.routes.insert(routes.name.clone(), routes);
        }
        Checked::Cluster(cluster) => {
            configuration.clusters.insert(cluster.name.clone(), cluster);
        }
        // Nothing is served of them but by who names them.
        Checked::Secret(_) | Checked::Runtime(_) => {}
        Checked::Endpoints(endpoints) => {
            let name = endpoints.name.clone();
            let discovery = Discovery::Eds { service_name: None };
            let cluster = ClusterConfig::new(&name, discovery);
            configuration.clusters.insert(name.clone(), cluster.into());
            configuration.endpoints.insert(name, endpoints);
        }
    }
}

/// Uses all of a configuration, twice over: the second snapshot inherits from the first.
fn serve(configuration: &Configuration) {
    let first = Snapshot::build(&Snapshot::default(), configuration, &Resolved::new());
    let snapshot = Snapshot::build(&first, configuration, &Resolved::new());
    let now = Instant::now();
    for cluster in snapshot.clusters.values() {
        cluster.refresh(now + Duration::from_secs(1));
        for hash in [None, Some(0), Some(u64::MAX)] {
            let pick = Pick {
                hash,
                ..Pick::at(now)
            };
            let _ = cluster.pick(pick);
        }
    }
    for routes in snapshot.routes.values() {
        select(routes);
    }
    for listener in snapshot.listeners.values() {
        choose_chains(listener);
    }
}

fn choose_chains(listener: &crate::snapshot::listener::Listener) {
    let address = ([127, 0, 0, 1], 80).into();
    for server_name in [None, Some("a.example.com")] {
        for protocols in [&[][..], &["h2"], &["http/1.1"]] {
            for transport in [TransportProtocol::Raw, TransportProtocol::Tls] {
                let _ = listener.chain(&Arrival {
                    destination: address,
                    source: address,
                    direct_source: address.ip(),
                    transport: Some(transport),
                    application_protocols: protocols,
                    server_name,
                });
            }
        }
    }
}

fn select(routes: &RouteTable) {
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_static("1"));
    headers.insert("cookie", HeaderValue::from_static("a=b; c=\"d\""));
    let metadata = Metadata::new();
    for (method, authority) in [("GET", "a.example.com:80"), ("CONNECT", "A")] {
        for path in ["/", "/a/b?c=d&e", "/é;x"] {
            let _ = routes.select(&RequestFacts {
                line: RequestLine {
                    method,
                    path,
                    authority,
                    scheme: "http",
                },
                headers: &headers,
                drawn: 7,
                is_authenticated: false,
                metadata: &metadata,
            });
        }
    }
}

/// A bootstrap is refused by file and field, or is served.
pub(super) fn bootstrap(bytes: &[u8]) {
    // Descriptors are made anew for each bootstrap otherwise, which is slow.
    static HELD: Once = Once::new();
    HELD.call_once(|| std::mem::forget(weft_proto::descriptor_pool()));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Bootstrap::parse(text, Path::new("bootstrap.yaml")) {
        Ok(bootstrap) => serve(&bootstrap.statics),
        Err(error) => assert!(error.to_string().starts_with("bootstrap.yaml: "), "{error}"),
    }
}

/// The search ends, and says no more than it may. The first byte says which message it is.
pub(super) fn unknown_fields(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    let Ok(found) = unknown::fields(kind.type_url(), bytes) else {
        return;
    };
    assert!(found.len() <= 32);
    // What this crate writes has no field that it does not know, except within what it passes on as it is.
    if let Some(written) = rewritten(kind, bytes) {
        let again = unknown::fields(kind.type_url(), &written).unwrap_or_default();
        assert!(
            !again.iter().any(|path| path.starts_with("<field")),
            "{again:?}"
        );
    }
}

fn rewritten(kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
    use weft_proto::envoy::config::cluster::v3::Cluster;
    use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use weft_proto::envoy::config::listener::v3::Listener;
    use weft_proto::envoy::config::route::v3::RouteConfiguration;
    Some(match kind {
        Kind::Listener => Listener::decode(bytes).ok()?.encode_to_vec(),
        Kind::Routes => RouteConfiguration::decode(bytes).ok()?.encode_to_vec(),
        Kind::Cluster => Cluster::decode(bytes).ok()?.encode_to_vec(),
        Kind::Secret | Kind::Runtime => return None,
        Kind::Endpoints => ClusterLoadAssignment::decode(bytes).ok()?.encode_to_vec(),
    })
}
