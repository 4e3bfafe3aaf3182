//! A bootstrap's own listeners, clusters and secrets.

use std::sync::Arc;

use weft_proto::Any;
use weft_proto::any::pack;
use weft_proto::envoy::config::bootstrap::v3::bootstrap::StaticResources;

use super::{Problem, problem, warn_of, within};
use crate::config::Configuration;
use crate::config::runtime::Runtime;
use crate::xds::kind::Kind;
use crate::xds::origin::{Origin, Origins};
use crate::xds::statics::{StaticResource, Statics};
use crate::xds::translate::Checked;
use crate::xds::{references, secrets};

/// All of them; not the cluster that leads to the control plane, which is no one's to send requests to.
pub(super) fn read(
    resources: &StaticResources,
    xds: Option<&str>,
    origins: &Origins,
    runtime: &Runtime,
) -> Result<Statics, Problem> {
    let StaticResources {
        listeners,
        clusters,
        secrets,
    } = resources;
    let secrets = secrets.iter().map(pack).enumerate();
    let secrets = secrets.map(|(index, any)| (Kind::Secret, format!("secrets[{index}]"), any));
    let listeners = listeners.iter().map(pack).enumerate();
    let listeners =
        listeners.map(|(index, any)| (Kind::Listener, format!("listeners[{index}]"), any));
    let clusters = clusters.iter().enumerate();
    let clusters = clusters.filter(|(_, cluster)| Some(cluster.name.as_str()) != xds);
    let clusters = clusters
        .map(|(index, cluster)| (Kind::Cluster, format!("clusters[{index}]"), pack(cluster)));
    let mut statics = Statics::default();
    for (kind, field, wire) in secrets.chain(listeners).chain(clusters) {
        let field = format!("static_resources.{field}");
        let resource = resource(kind, field.clone(), wire, origins, runtime)?;
        statics
            .add(resource)
            .map_err(|taken| problem(field, taken.to_string()))?;
    }
    Ok(statics)
}

fn resource(
    kind: Kind,
    field: String,
    wire: Any,
    origins: &Origins,
    runtime: &Runtime,
) -> Result<StaticResource, Problem> {
    let reading = origins.read(kind, &wire, runtime);
    let reading = reading.map_err(|invalid| within(&field, &invalid))?;
    warn_of(&field, reading.notes.clone());
    Ok(StaticResource {
        kind,
        field,
        wire,
        reading,
    })
}

/// Where nobody could send any more, every cluster that the listeners' own routes forward to must be there, unless
/// `validate_clusters` says otherwise.
pub(super) fn has_clusters(statics: &Configuration, own: &Statics) -> Result<(), Problem> {
    for resource in own.iter() {
        let Checked::Listener(listener) = &resource.reading.checked else {
            continue;
        };
        let clusters = references::known_clusters(listener);
        let is_there = |name: &Arc<str>| statics.clusters.contains_key(name);
        if let Some(missing) = clusters.iter().find(|name| !is_there(name)) {
            let reason = format!("a route forwards to the cluster {missing:?}, which is not there");
            return Err(problem(&resource.field, reason));
        }
    }
    Ok(())
}

/// Where nobody could send any more, every secret that is named must be there.
pub(super) fn has_secrets(statics: &Configuration, own: &Statics) -> Result<(), Problem> {
    let listeners = statics.listeners.values();
    let of_listeners = listeners.flat_map(|listener| secrets::of_listener(listener));
    let clusters = statics.clusters.values();
    let of_clusters = clusters.flat_map(|cluster| secrets::of_cluster(cluster));
    let is_discovered = |name: &str| {
        let mut needs = own.needs();
        needs.any(|needed| &*needed.name == name && needed.origin != Origin::Bootstrap)
    };
    let missing = of_listeners
        .chain(of_clusters)
        .find(|name| !is_discovered(name));
    match missing {
        None => Ok(()),
        Some(name) => Err(problem(
            "static_resources.secrets",
            format!(
                "TLS is configured with the secret {name:?}, which is not there, or is of another type"
            ),
        )),
    }
}
