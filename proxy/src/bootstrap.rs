//! What the proxy is started with: Envoy's bootstrap, as YAML or JSON.
//!
//! Who it is, where its control plane is, and resources of its own. Everything else comes over xDS. Errors name
//! the file and the field.

mod admin;
mod discovery;
mod fields;
mod manager;
mod runtime;
mod statics;
mod workload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_proto::Any;
use weft_proto::any::{pack, unpack};
use weft_proto::envoy::config::bootstrap::v3::Bootstrap as Wire;
use weft_proto::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use weft_proto::envoy::config::core::v3::Node;
use weft_proto::envoy::config::overload::v3::OverloadManager;
use weft_proto::json::{self, JsonError};

use self::admin::admin;
use self::discovery::discovery;
use self::fields::warn_of_ignored;
use self::workload::workload;
use crate::cluster::zones::vicinity::Vicinity;
use crate::config::overload::OverloadConfig;
use crate::config::runtime::Runtime;
use crate::config::upstream_socket::Sources;
use crate::config::{Configuration, Workload};
use crate::xds::control_planes::ControlPlanes;
use crate::xds::discovery::Discovery;
use crate::xds::kind::Kind;
use crate::xds::origin::{Origin, Origins};
use crate::xds::secrets;
use crate::xds::statics::Statics;
use crate::xds::translate::overload::overload_manager;
use crate::xds::translate::{Invalid, chain};

/// A bootstrap that was checked.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// As it came, for `/config_dump`: encoded, for nobody looks at it else, and thousands of endpoints take twenty times the
    /// room as messages.
    wire: Any,
    reserved: Vec<(Kind, String)>,
    /// Who we are.
    pub node: Node,
    /// The workload that is served.
    pub workload: Arc<Workload>,
    /// The configuration that the proxy's own resources make.
    pub statics: Configuration,
    /// The proxy's own resources.
    pub own: Statics,
    /// Where resources may come from that others name.
    pub origins: Origins,
    /// Where other resources come from.
    pub discovery: Discovery,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// What runtime keys stand for.
    pub runtime: Runtime,
    /// What is done when the proxy itself runs short of something.
    pub overload: Option<OverloadConfig>,
    /// Where the proxy is, and those like it, where it is told.
    pub vicinity: Option<Arc<Vicinity>>,
    /// What connections of clusters are made from that do not say so.
    pub sources: Option<Arc<Sources>>,
}

/// Why a bootstrap is none.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where, and what.
        reason: String,
    },
    /// It is no bootstrap.
    #[error("{}: {reason}", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Which field, and what.
        reason: String,
    },
    /// It asks for what cannot be done.
    #[error("{}: {field}: {reason}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What.
        reason: String,
    },
}

/// A field and what is wrong with it.
struct Problem {
    field: String,
    reason: String,
}

fn problem(field: impl Into<String>, reason: impl Into<String>) -> Problem {
    Problem {
        field: field.into(),
        reason: reason.into(),
    }
}

impl Bootstrap {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, BootstrapError> {
        let text = std::fs::read_to_string(path).map_err(|source| BootstrapError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, BootstrapError> {
        // JSON is YAML, so one parser reads both.
        let value: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|error| BootstrapError::Syntax {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        let wire: Wire = json::checked_from_json(value).map_err(|error| match error {
            JsonError::Field {
                path: field,
                source,
                ..
            } if field != "." => BootstrapError::Field {
                path: path.to_owned(),
                field,
                reason: source.to_string(),
            },
            JsonError::Rule {
                path: field,
                reason,
                ..
            } => BootstrapError::Field {
                path: path.to_owned(),
                field,
                reason,
            },
            JsonError::Field { source, .. } => BootstrapError::Shape {
                path: path.to_owned(),
                reason: source.to_string(),
            },
            other => BootstrapError::Shape {
                path: path.to_owned(),
                reason: chain(&other),
            },
        })?;
        check(wire).map_err(|Problem { field, reason }| BootstrapError::Field {
            path: path.to_owned(),
            field,
            reason,
        })
    }

    /// Whether what is in force may become another one while the proxy runs.
    pub fn may_change(&self) -> bool {
        let mut needs = self.own.needs();
        let mut own = self.own.iter();
        !self.discovery.is_none()
            || needs.any(|needed| needed.origin != Origin::Bootstrap)
            || own.any(|each| !each.reading.watches.is_empty())
            || self.runtime.is_modifiable()
    }

    /// As it came.
    pub fn wire(&self) -> Wire {
        unpack(&self.wire).expect("it was packed when it was read")
    }

    /// Names that resources of a control plane cannot have.
    pub fn reserved_names(&self) -> impl Iterator<Item = (Kind, String)> {
        self.reserved.iter().cloned()
    }
}

fn reserved(resources: &StaticResources, statics: &Configuration) -> Vec<(Kind, String)> {
    let clusters = resources.clusters.iter();
    let listeners = statics.listeners.keys();
    clusters
        .map(|cluster| (Kind::Cluster, cluster.name.clone()))
        .chain(listeners.map(|name| (Kind::Listener, name.to_string())))
        .collect()
}

fn check(wire: Wire) -> Result<Bootstrap, Problem> {
    warn_of_ignored(&wire)?;
    let node = wire.node.clone().unwrap_or_default();
    let none = StaticResources::default();
    let resources = wire.static_resources.as_ref().unwrap_or(&none);
    let runtime = match &wire.layered_runtime {
        Some(wire) => runtime::runtime(wire)?,
        None => Runtime::default(),
    };
    let control_planes = ControlPlanes::new(&resources.clusters, &resources.secrets);
    let (mut discovery, xds_cluster) = match &wire.dynamic_resources {
        Some(dynamic) => discovery(dynamic, &control_planes)?,
        None => Default::default(),
    };
    if discovery.has_services() && node.id.is_empty() {
        return Err(problem(
            "node.id",
            "must not be empty where there is a control plane",
        ));
    }
    let secrets = resources.secrets.iter().map(|secret| secret.name.clone());
    let origins = Origins::new(discovery.ads.is_some(), control_planes, secrets.collect());
    let mut own = statics::read(resources, xds_cluster.as_deref(), &origins, &runtime)?;
    if let Some(wire) = &wire.layered_runtime {
        runtime::add_discovered(wire, &origins, &mut own, &mut discovery.awaited)?;
    }
    let mut statics = own.configuration();
    secrets::fill_in(&mut statics, None);
    if discovery.is_none() {
        statics::has_secrets(&statics, &own)?;
        statics::has_clusters(&statics, &own)?;
    }
    Ok(Bootstrap {
        reserved: reserved(resources, &statics),
        statics,
        own,
        origins,
        workload: Arc::new(workload(&node)),
        discovery,
        runtime,
        admin: wire.admin.as_ref().map(admin).transpose()?.flatten(),
        overload: wire.overload_manager.as_ref().map(overload).transpose()?,
        sources: manager::sources(wire.cluster_manager.as_ref())?,
        vicinity: manager::vicinity(wire.cluster_manager.as_ref(), &node, resources)?,
        node,
        wire: pack(&wire),
    })
}

fn overload(wire: &OverloadManager) -> Result<OverloadConfig, Problem> {
    let field = "overload_manager";
    let (config, notes) = overload_manager(wire).map_err(|invalid| within(field, &invalid))?;
    warn_of(field, notes);
    Ok(config)
}

fn warn_of(field: &str, notes: impl IntoIterator<Item = String>) {
    for path in notes {
        tracing::warn!(
            field = format!("{field}.{path}"),
            "this field of the bootstrap has no effect"
        );
    }
}

/// What is wrong with a resource, by the field's path from the top of the file.
fn within(resource: &str, invalid: &Invalid) -> Problem {
    let path = invalid.path();
    let field = match path.is_empty() || path.starts_with('[') {
        true => format!("{resource}{path}"),
        false => format!("{resource}.{path}"),
    };
    problem(field, invalid.reason())
}

#[cfg(test)]
mod tests;
