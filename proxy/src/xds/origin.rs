//! Where resources come from that others name: each by the source that stands beside its name.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::Any;

use super::control_planes::{ControlPlanes, Unusable};
use super::file::FileSource;
use super::kind::Kind;
use super::translate::control_plane::Source;
use super::translate::{Checked, Invalid, Named, Translated, translate_with};
use super::transport::ControlPlane;
use super::watch::Watched;
use crate::config::runtime::Runtime;

/// Where a resource comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The aggregated stream.
    Aggregated,
    /// A stream for its kind alone.
    Service(ControlPlane),
    /// A file.
    File(FileSource),
    /// The bootstrap.
    Bootstrap,
}

/// A resource that another one names.
#[derive(Debug, Clone, PartialEq)]
pub struct Needed {
    /// Of which kind it is.
    pub kind: Kind,
    /// What it is called.
    pub name: Arc<str>,
    /// Where it comes from.
    pub origin: Origin,
    /// How long it is waited for; none: as long as it takes.
    pub limit: Option<Duration>,
}

/// A resource that was read, and what it depends on.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Its own name.
    pub name: Arc<str>,
    /// What it says.
    pub checked: Checked,
    /// What it names.
    pub needs: Vec<Needed>,
    /// Where files change that were read for it.
    pub watches: BTreeSet<Watched>,
    /// Fields that are set and have no effect.
    pub notes: BTreeSet<String>,
}

/// What a proxy may take resources from.
#[derive(Debug, Clone)]
pub struct Origins {
    has_aggregated: bool,
    control_planes: ControlPlanes,
    /// Names of the bootstrap's secrets.
    secrets: BTreeSet<String>,
}

impl Default for Origins {
    /// The aggregated stream alone.
    fn default() -> Self {
        Origins {
            has_aggregated: true,
            control_planes: ControlPlanes::default(),
            secrets: BTreeSet::new(),
        }
    }
}

impl Origins {
    /// The aggregated stream, if there is one, services of these control planes, and secrets of the bootstrap by name.
    pub fn new(
        has_aggregated: bool,
        control_planes: ControlPlanes,
        secrets: BTreeSet<String>,
    ) -> Self {
        Self {
            has_aggregated,
            control_planes,
            secrets,
        }
    }

    /// Reads a resource with what it names.
    ///
    /// # Errors
    /// It is refused, or names something that comes from nowhere.
    pub fn read(&self, kind: Kind, any: &Any, runtime: &Runtime) -> Result<Reading, Invalid> {
        let Translated {
            name,
            checked,
            notes,
            named,
            mut watches,
            files,
        } = translate_with(kind, any, runtime)?;
        let needs = named.into_iter().map(|named| self.needed(named));
        let needs = needs.collect::<Result<_, _>>()?;
        if kind == Kind::Secret && watches.is_empty() {
            let directories = files.iter().filter_map(|file| file.parent());
            watches.extend(directories.map(|directory| Watched::directory(non_empty(directory))));
        }
        Ok(Reading {
            name,
            checked,
            needs,
            watches,
            notes,
        })
    }

    fn needed(&self, named: Named) -> Result<Needed, Invalid> {
        let Named {
            kind,
            name,
            field,
            source,
            limit,
        } = named;
        let origin = self.origin(kind, &name, &field, source)?;
        Ok(Needed {
            kind,
            name,
            origin,
            limit,
        })
    }

    /// Where a source leads, which stands in this field.
    ///
    /// # Errors
    /// It leads nowhere.
    pub fn origin(
        &self,
        kind: Kind,
        name: &str,
        field: &str,
        source: Source,
    ) -> Result<Origin, Invalid> {
        match source {
            Source::Aggregated if self.has_aggregated => Ok(Origin::Aggregated),
            Source::Aggregated => Err(Invalid::new(
                format!("{field}.ads"),
                "there is no ADS: the bootstrap has no dynamic_resources.ads_config",
            )),
            Source::Service(service) => {
                let at = format!("{field}.api_config_source");
                let found = self.control_planes.of(service, &at);
                found
                    .map(Origin::Service)
                    .map_err(|Unusable { field, reason }| match field.starts_with(&at) {
                        true => Invalid::new(field, reason),
                        false => Invalid::new(at, format!("{field}: {reason}")),
                    })
            }
            Source::File(file) => Ok(Origin::File(file)),
            Source::Bootstrap if self.secrets.contains(name) => Ok(Origin::Bootstrap),
            Source::Bootstrap => Err(Invalid::new(
                field,
                format!(
                    "missing: no {} of static_resources is called {name:?}",
                    kind.word()
                ),
            )),
        }
    }
}

fn non_empty(directory: &Path) -> &Path {
    match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    }
}
