//! Compose files as weft reads them, and the Kubernetes objects they become.
//!
//! `weft up` calls [`load()`], then [`Application::manifests`]. What comes out of `load` is resolved (variables, several
//! files, `extends`, `include`), checked against every key of the specification, and consistent: dependencies exist and
//! have no cycles, no two services publish one port. What weft does not do is refused or warned about by name.
//! docs/reference/compose.md lists each key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use self::document::{Node, Value};
use self::file::FileSource;
use self::service::{Context, read_service};

mod choice;
mod document;
mod error;
mod file;
mod interpolate;
mod load;
mod manifests;
mod merge;
mod mount;
mod port;
mod read;
mod schema;
mod service;
mod units;

#[cfg(test)]
mod tests;

pub use self::error::{ComposeError, Location, Warning};
pub use self::manifests::ImageFacts;
pub use self::schema::nearest;
pub use self::service::{Build, Service};

/// Which application to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Later files are put on top of earlier ones. None: `compose.yaml`, `compose.yml` or `docker-compose.yml` of the
    /// working directory, with `compose.override.yaml` on top.
    pub files: Vec<PathBuf>,
    /// Name of the application; else its `name:`, else its folder's.
    pub project: Option<String>,
    /// Services with other profiles than these are left out.
    pub profiles: Vec<String>,
    /// What relative paths of `files` are relative to.
    pub working_directory: PathBuf,
    /// Variables; they win over `.env`.
    pub environment: BTreeMap<String, String>,
    /// Only these services, and what they depend on, are chosen. None: all.
    pub services: Vec<String>,
}

/// An application: what a Compose file describes.
#[derive(Debug, Clone)]
pub struct Application {
    /// Lower-case letters, digits, dashes and underscores.
    pub name: String,
    /// What is ignored, and why.
    pub warnings: Vec<Warning>,
    services: Vec<Service>,
    chosen: BTreeSet<String>,
    volumes: Vec<String>,
    configs: BTreeMap<String, FileSource>,
    secrets: BTreeMap<String, FileSource>,
    resolved: Json,
}

/// Reads an application.
///
/// # Errors
/// The first mistake, with its place; or a name in `services` that the application does not have.
pub fn load(options: &LoadOptions) -> Result<Application, ComposeError> {
    let loaded = load::load(options)?;
    let mut warnings = loaded.warnings;
    let root = &loaded.root;
    let name = project_name(options, root, &loaded.directory)?;
    let context = Context {
        project: &name,
        directory: &loaded.directory,
        environment: &loaded.environment,
    };

    let mut services = Vec::new();
    for (key, node) in entries(root, "services")? {
        if !is_service_name(&key.name) {
            return Err(ComposeError::at(
                &key.at,
                format!(
                    "services.{}: a service's name has lower-case letters, digits and dashes, at most 63",
                    key.name
                ),
            ));
        }
        services.push(read_service(&key.name, node, &context, &mut warnings)?);
    }
    if services.is_empty() {
        return Err(ComposeError::at(&root.at, "the file has no services"));
    }
    let all: BTreeSet<String> = services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    let mut profiles = choice::profiles(&services, &options.services)?;
    profiles.extend(options.profiles.iter().cloned());
    services.retain(|service| {
        service.profiles.is_empty()
            || service
                .profiles
                .iter()
                .any(|profile| profiles.contains(profile))
    });

    let application = Application {
        volumes: entries(root, "volumes")?
            .iter()
            .map(|(key, _)| key.name.clone())
            .collect(),
        configs: file::read_all(root, "configs", &context, &mut warnings)?,
        secrets: file::read_all(root, "secrets", &context, &mut warnings)?,
        resolved: resolved(root, &name),
        chosen: choice::closure(&services, &options.services),
        name,
        warnings,
        services,
    };
    application.check(&all)?;
    Ok(application)
}

impl Application {
    /// The services of the chosen profiles, in the order of the file.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    /// Whether a service is one of those that were asked for, or that they depend on.
    pub fn is_chosen(&self, service: &str) -> bool {
        self.chosen.contains(service)
    }

    /// Whether only some of its services were asked for.
    pub fn is_partial(&self) -> bool {
        self.chosen.len() < self.services.len()
    }

    /// The names of its volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().map(String::as_str)
    }

    /// The resolved file.
    pub fn to_compose_value(&self) -> Json {
        self.resolved.clone()
    }

    /// The Kubernetes objects that its chosen services become; `images` holds what is known of each service's image.
    ///
    /// # Errors
    /// Where a published port is there twice because of replicas, or a file cannot be read.
    pub fn manifests(
        &self,
        namespace: &str,
        images: &BTreeMap<String, ImageFacts>,
    ) -> Result<Vec<Json>, ComposeError> {
        manifests::manifests(self, namespace, images)
    }

    fn check(&self, all: &BTreeSet<String>) -> Result<(), ComposeError> {
        self.check_dependencies(all)?;
        self.check_ports()?;
        self.check_aliases()?;
        self.check_sources()
    }

    fn check_dependencies(&self, all: &BTreeSet<String>) -> Result<(), ComposeError> {
        for service in &self.services {
            for dependency in &service.depends_on {
                let is_there = self
                    .services
                    .iter()
                    .any(|other| other.name == dependency.service);
                if is_there || (!dependency.is_required && all.contains(&dependency.service)) {
                    continue;
                }
                let reason = match all.contains(&dependency.service) {
                    true => "it is in a profile that is not enabled".to_owned(),
                    false => {
                        match schema::nearest(&dependency.service, all.iter().map(String::as_str)) {
                            Some(near) => format!("did you mean {near:?}?"),
                            None => "there is no such service".to_owned(),
                        }
                    }
                };
                return Err(ComposeError::at(
                    &dependency.at,
                    format!(
                        "services.{} depends on {:?}: {reason}",
                        service.name, dependency.service
                    ),
                ));
            }
        }
        let mut done = BTreeSet::new();
        self.services
            .iter()
            .try_for_each(|service| self.check_cycles(service, &mut Vec::new(), &mut done))
    }

    /// Walks what a service depends on; `done` holds what was walked before, `path` what is being walked.
    fn check_cycles<'a>(
        &'a self,
        service: &'a Service,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Result<(), ComposeError> {
        path.push(&service.name);
        for dependency in &service.depends_on {
            let name = dependency.service.as_str();
            if let Some(start) = path.iter().position(|known| *known == name) {
                let circle = path[start..].join(" → ");
                return Err(ComposeError::at(
                    &dependency.at,
                    format!("services depend on each other in a circle: {circle} → {name}"),
                ));
            }
            let next = self.services.iter().find(|other| other.name == name);
            if let Some(next) = next.filter(|_| !done.contains(name)) {
                self.check_cycles(next, path, done)?;
            }
        }
        path.pop();
        done.insert(&service.name);
        Ok(())
    }

    fn check_ports(&self) -> Result<(), ComposeError> {
        let mut published: BTreeMap<SocketAddr, &str> = BTreeMap::new();
        for service in &self.services {
            for port in &service.ports {
                let Some(host_port) = port.published else {
                    continue;
                };
                let address = SocketAddr::new(port.host_ip, host_port);
                if let Some(other) = published.insert(address, &service.name) {
                    return Err(ComposeError::at(
                        &port.at,
                        format!(
                            "{address} is published twice: by {other} and by {}",
                            service.name
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_aliases(&self) -> Result<(), ComposeError> {
        for service in &self.services {
            for alias in &service.aliases {
                if *alias != service.name && self.services.iter().any(|other| other.name == *alias)
                {
                    return Err(ComposeError::at(
                        &service.at,
                        format!(
                            "services.{}: the alias {alias:?} is the name of another service",
                            service.name
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Every volume, config and secret that is used exists.
    fn check_sources(&self) -> Result<(), ComposeError> {
        for service in &self.services {
            for mount in &service.mounts {
                if let mount::MountSource::Volume(volume) = &mount.source
                    && !self.volumes.contains(volume)
                {
                    return Err(ComposeError::at(
                        &mount.at,
                        format!(
                            "services.{}: the volume {volume:?} is not declared below `volumes`",
                            service.name
                        ),
                    ));
                }
            }
            for (kind, mounts, known) in [
                ("config", &service.configs, &self.configs),
                ("secret", &service.secrets, &self.secrets),
            ] {
                if let Some(mount) = mounts
                    .iter()
                    .find(|mount| !known.contains_key(&mount.source))
                {
                    return Err(ComposeError::at(
                        &mount.at,
                        format!(
                            "services.{}: the {kind} {:?} is not declared below `{kind}s`",
                            service.name, mount.source
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A DNS label: what names of services and pods are made of.
fn is_service_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(is_allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn project_name(
    options: &LoadOptions,
    root: &Node,
    directory: &std::path::Path,
) -> Result<String, ComposeError> {
    let is_allowed = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter)
    };
    let is_name = |name: &str| {
        name.len() <= 63
            && name.chars().all(is_allowed)
            && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
    };
    let explain = "lower-case letters, digits, dashes and underscores";
    if let Some(project) = &options.project {
        return match is_name(project) {
            true => Ok(project.clone()),
            false => Err(ComposeError::new(format!(
                "the project name {project:?} must have {explain}"
            ))),
        };
    }
    if let Some(node) = root.get("name") {
        let name = read::text(node, "name")?;
        return if is_name(&name) {
            Ok(name)
        } else {
            Err(read::expected(node, "name", explain))
        };
    }
    let folder = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let folder = folder
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name: String = folder
        .chars()
        .filter(|letter| is_allowed(*letter))
        .collect();
    let name = name.trim_start_matches(['-', '_']).to_owned();
    Ok(if name.is_empty() {
        "default".to_owned()
    } else {
        name
    })
}

/// The entries of a mapping at the top level.
fn entries<'a>(root: &'a Node, name: &str) -> Result<&'a [(document::Key, Node)], ComposeError> {
    match root.get(name) {
        None => Ok(&[]),
        Some(node) => match &node.value {
            Value::Mapping(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            _ => Err(read::expected(node, name, "a mapping")),
        },
    }
}

fn resolved(root: &Node, name: &str) -> Json {
    let mut resolved = root.to_json();
    if let Json::Object(fields) = &mut resolved {
        fields.retain(|field, _| {
            !field.starts_with("x-") && field != "version" && field != "include"
        });
        fields.shift_insert(0, "name".to_owned(), json!(name));
    }
    resolved
}
