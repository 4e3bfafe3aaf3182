//! From the wire to configuration: resources become checked types, or are refused by name and field.
//!
//! Messages are taken apart field by field, without `..`: each field is used, noted as harmless, or a reason to
//! refuse; a field that the message gains breaks the build. Fields that this crate doesn't know are found in the
//! bytes and refused, too.

mod access_log;
mod address;
mod at;
mod balancer;
mod body_format;
mod cluster;
mod cluster_discovery;
mod cluster_http;
mod cluster_limits;
mod common_lb;
mod config_source;
pub mod control_plane;
mod data_source;
mod endpoints;
mod filter;
mod filter_chain;
mod hash_policy;
mod headers;
mod health_checks;
mod http;
mod http1_options;
mod http_filters;
mod http_options;
mod listener;
mod listener_socket;
mod local_replies;
pub mod metadata;
pub mod overload;
mod policies;
mod preconnect;
mod proxied_transport;
mod retry;
mod route;
mod route_action;
mod route_answer;
mod route_hosts;
mod route_match;
mod route_mirror;
mod route_redirects;
mod route_upgrades;
mod route_weighted;
mod runtime;
mod share;
mod subsets;
mod tcp_proxy;
mod tcp_tunnel;
mod text;
mod tls;
mod tracing;
pub mod upstream_socket;
mod zones;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use prost::Name;
use weft_proto::Any;
use weft_proto::unknown;

use self::at::{At, Found, Notes, opened};
pub use self::at::{Invalid, Named, chain};
use self::endpoints::Hosts;
use super::kind::Kind;
use super::watch::Watched;
use crate::config::cluster::ClusterConfig;
use crate::config::endpoints::EndpointsConfig;
use crate::config::listener::ListenerConfig;
use crate::config::route::RouteConfig;
use crate::config::runtime::{Layer, Runtime};
use crate::config::tls::Secret;

/// A resource in checked types.
#[derive(Debug, Clone, PartialEq)]
pub enum Checked {
    /// Of LDS.
    Listener(Arc<ListenerConfig>),
    /// Of RDS.
    Routes(Arc<RouteConfig>),
    /// Of CDS.
    Cluster(Arc<ClusterConfig>),
    /// Of EDS.
    Endpoints(Arc<EndpointsConfig>),
    /// Of SDS.
    Secret(Arc<Secret>),
    /// Of RTDS.
    Runtime(Arc<Layer>),
}

/// A resource that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// Its own name.
    pub name: Arc<str>,
    /// What it says.
    pub checked: Checked,
    /// Fields that are set and have no effect.
    pub notes: BTreeSet<String>,
    /// Other resources that it names.
    pub named: Vec<Named>,
    /// Directories to watch for changes of its files.
    pub watches: BTreeSet<Watched>,
    /// Files that were read for it.
    pub files: BTreeSet<PathBuf>,
}

/// Translates a resource of a kind. Runtime keys leave the defaults beside them.
///
/// # Errors
/// What is wrong with it, by the path of the field.
pub fn translate(kind: Kind, any: &Any) -> Result<Translated, Invalid> {
    translate_with(kind, any, &Runtime::default())
}

/// Translates a resource of a kind, whose runtime keys stand for these values.
///
/// # Errors
/// As of [`translate`].
pub fn translate_with(kind: Kind, any: &Any, runtime: &Runtime) -> Result<Translated, Invalid> {
    let notes = Notes::with(runtime);
    let at = At::root(&notes);
    let (name, checked) = match kind {
        Kind::Listener => {
            let listener = Arc::new(listener::listener(&at, &message(&at, any)?)?);
            (Arc::clone(&listener.name), Checked::Listener(listener))
        }
        Kind::Routes => {
            let routes = Arc::new(route::route_config(&at, &message(&at, any)?)?);
            (Arc::clone(&routes.name), Checked::Routes(routes))
        }
        Kind::Cluster => {
            let cluster = Arc::new(cluster::cluster(&at, &message(&at, any)?)?);
            (Arc::clone(&cluster.name), Checked::Cluster(cluster))
        }
        Kind::Endpoints => {
            let wire = message(&at, any)?;
            let endpoints = Arc::new(endpoints::endpoints(&at, &wire, Hosts::Addresses)?);
            (Arc::clone(&endpoints.name), Checked::Endpoints(endpoints))
        }
        Kind::Secret => {
            let (name, secret) = tls::secret(&at, &message(&at, any)?)?;
            (name, Checked::Secret(Arc::new(secret)))
        }
        Kind::Runtime => {
            let layer = Arc::new(runtime::layer(&at, &message(&at, any)?)?);
            (layer.name.as_str().into(), Checked::Runtime(layer))
        }
    };
    let Found {
        paths,
        named,
        files,
        watches,
    } = notes.into_found();
    Ok(Translated {
        name,
        checked,
        notes: paths,
        named,
        watches,
        files,
    })
}

/// The message of a resource, without fields that would be dropped in silence.
fn message<T: Name + Default>(at: &At<'_>, any: &Any) -> Result<T, Invalid> {
    let message = opened(at, any)?;
    match unknown::fields(&any.type_url, &any.value) {
        Ok(paths) if paths.is_empty() => Ok(message),
        Ok(paths) => Err(at.refuse(format_args!(
            "fields that are not known: {}",
            paths.join(", ")
        ))),
        Err(error) => Err(at.refuse(error)),
    }
}

#[cfg(test)]
mod tests {
    use weft_proto::any::pack;
    use weft_proto::envoy::config::cluster::v3::Cluster;
    use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;

    use super::*;

    #[test]
    fn a_resource_of_another_kind_is_refused() {
        let any = pack(&Cluster {
            name: "reviews".into(),
            ..Cluster::default()
        });

        assert!(translate(Kind::Listener, &any).is_err());
    }

    #[test]
    fn a_field_that_is_not_known_is_refused_by_number() {
        let mut any = pack(&ClusterLoadAssignment {
            cluster_name: "reviews".into(),
            ..ClusterLoadAssignment::default()
        });
        let mut bytes = any.value.to_vec();
        // Field 99, a number.
        bytes.extend([0x98, 0x06, 0x01]);
        any.value = bytes.into();

        let error = translate(Kind::Endpoints, &any).expect_err("refused");

        assert!(error.to_string().contains("99"), "{error}");
    }

    #[test]
    fn no_bytes_make_a_translation_panic() {
        let valid = pack(&Cluster {
            name: "reviews".into(),
            ..Cluster::default()
        });
        for position in 0..valid.value.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = valid.value.to_vec();
                bytes[position] = byte;
                let any = Any {
                    type_url: valid.type_url.clone(),
                    value: bytes.into(),
                };
                let _ = translate(Kind::Cluster, &any);
            }
        }
    }
}
