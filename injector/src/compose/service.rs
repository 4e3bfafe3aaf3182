//! A service of a Compose file, as a type that holds no nonsense.

mod deploy;
mod health;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::deploy::Deploy;
use self::health::healthcheck;
use super::document::{Node, Value};
use super::error::{ComposeError, Location, Warning};
use super::load::read_environment;
use super::mount::{FileMount, Mount};
use super::port::Port;
use super::{read, schema};

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    pub(super) name: String,
    pub(super) at: Location,
    pub(super) image: Option<String>,
    pub(super) default_image: String,
    pub(super) build: Option<Build>,
    pub(super) command: Option<Vec<String>>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) ports: Vec<Port>,
    pub(super) expose: Vec<u16>,
    pub(super) depends_on: Vec<Dependency>,
    pub(super) healthcheck: Option<Healthcheck>,
    pub(super) replicas: u32,
    pub(super) restart: Restart,
    pub(super) aliases: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    pub(super) configs: Vec<FileMount>,
    pub(super) secrets: Vec<FileMount>,
    pub(super) user: Option<String>,
    pub(super) working_dir: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) is_read_only: bool,
    pub(super) capabilities_added: Vec<String>,
    pub(super) capabilities_dropped: Vec<String>,
    pub(super) stop_grace: Option<Duration>,
    pub(super) stop_signal: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) profiles: Vec<String>,
    pub(super) extra_hosts: Vec<(String, String)>,
    pub(super) has_terminal: bool,
    pub(super) has_stdin: bool,
    pub(super) limits: Limits,
    pub(super) mesh: MeshOptions,
}

/// How its image is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The folder, absolute.
    pub context: PathBuf,
    /// The Dockerfile inside the context.
    pub dockerfile: String,
    /// The last stage wanted.
    pub target: Option<String>,
    /// Values of ARGs.
    pub arguments: BTreeMap<String, String>,
}

/// What must be so before a service starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) service: String,
    pub(super) at: Location,
    pub(super) condition: String,
    pub(super) is_required: bool,
}

/// How its health is learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Healthcheck {
    /// Empty: it has been switched off.
    pub(super) command: Vec<String>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
}

/// What happens when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Restart {
    #[default]
    Never,
    OnFailure,
    Always,
}

/// The most it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limits {
    pub(super) memory_bytes: Option<u64>,
    pub(super) cpu_millis: Option<u64>,
    pub(super) pids: Option<u64>,
}

/// `x-weft`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MeshOptions {
    pub(super) is_excluded: bool,
    pub(super) protocol: Option<String>,
    pub(super) service_account: Option<String>,
    pub(super) exclude_inbound_ports: Vec<u16>,
    pub(super) exclude_outbound_ports: Vec<u16>,
}

impl Service {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image it runs: the one given, or the name that its build gets.
    pub fn image(&self) -> String {
        self.image
            .clone()
            .unwrap_or_else(|| self.default_image.clone())
    }

    /// How its image is built, where it is.
    pub fn build(&self) -> Option<&Build> {
        self.build.as_ref()
    }
}

/// What a service is read from besides its own node.
pub(super) struct Context<'a> {
    pub(super) project: &'a str,
    pub(super) directory: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
}

/// Reads one service.
pub(super) fn read_service(
    name: &str,
    node: &Node,
    context: &Context<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Service, ComposeError> {
    let place = format!("services.{name}");
    schema::check(node, &place, schema::SERVICE, warnings)?;
    let what = |field: &str| format!("{place}.{field}");
    let text = |field: &str| {
        node.get(field)
            .map(|node| read::text(node, &what(field)))
            .transpose()
    };
    let texts = |field: &str| {
        node.get(field)
            .map_or(Ok(Vec::new()), |node| read::texts(node, &what(field)))
    };
    let boolean = |field: &str| {
        node.get(field)
            .map_or(Ok(false), |node| read::boolean(node, &what(field)))
    };
    let words = |field: &str| {
        node.get(field)
            .map(|node| read::words(node, &what(field)))
            .transpose()
    };
    let deploy = Deploy::read(node, &place, warnings)?;

    let service = Service {
        name: name.to_owned(),
        at: node.at.clone(),
        image: text("image")?,
        default_image: format!("{}-{name}:latest", context.project),
        build: node
            .get("build")
            .map(|node| read_build(node, &what("build"), context, warnings))
            .transpose()?,
        command: words("command")?,
        entrypoint: words("entrypoint")?,
        environment: environment(node, &place, context)?,
        ports: super::port::read_all(node.get("ports"), &what("ports"), warnings)?,
        expose: super::port::read_exposed(node.get("expose"), &what("expose"))?,
        depends_on: dependencies(node, &place, warnings)?,
        healthcheck: node
            .get("healthcheck")
            .map(|node| healthcheck(node, &what("healthcheck"), warnings))
            .transpose()?,
        replicas: match node.get("scale") {
            Some(node) => read::number(node, &what("scale"))?,
            None => deploy.replicas,
        },
        restart: deploy.restart,
        aliases: aliases(node, &place, warnings)?,
        mounts: super::mount::read_all(node, &place, context, warnings)?,
        configs: super::mount::read_files(node.get("configs"), &what("configs"), "/", warnings)?,
        secrets: super::mount::read_files(
            node.get("secrets"),
            &what("secrets"),
            "/run/secrets/",
            warnings,
        )?,
        user: text("user")?,
        working_dir: text("working_dir")?,
        hostname: text("hostname")?,
        is_read_only: boolean("read_only")?,
        capabilities_added: texts("cap_add")?,
        capabilities_dropped: texts("cap_drop")?,
        stop_grace: node
            .get("stop_grace_period")
            .map(|node| read::duration(node, &what("stop_grace_period")))
            .transpose()?,
        stop_signal: text("stop_signal")?,
        labels: pairs(node.get("labels"), &what("labels"))?,
        profiles: texts("profiles")?,
        extra_hosts: pairs(node.get("extra_hosts"), &what("extra_hosts"))?
            .into_iter()
            .collect(),
        has_terminal: boolean("tty")?,
        has_stdin: boolean("stdin_open")?,
        limits: deploy.limits,
        mesh: node
            .get("x-weft")
            .map_or(Ok(MeshOptions::default()), |node| {
                mesh_options(node, &what("x-weft"), warnings)
            })?,
    };
    if service.image.is_none() && service.build.is_none() {
        return Err(ComposeError::at(
            &node.at,
            format!("{place} has neither image nor build"),
        ));
    }
    Ok(service)
}

fn pairs(node: Option<&Node>, what: &str) -> Result<BTreeMap<String, String>, ComposeError> {
    let Some(node) = node else {
        return Ok(BTreeMap::new());
    };
    let pairs = read::pairs(node, what)?;
    Ok(pairs
        .into_iter()
        .map(|(name, value)| (name, value.unwrap_or_default()))
        .collect())
}

fn read_build(
    node: &Node,
    what: &str,
    context: &Context<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Build, ComposeError> {
    schema::check(node, what, schema::BUILD, warnings)?;
    let text = |field: &str| {
        node.get(field)
            .map(|node| read::text(node, &format!("{what}.{field}")))
            .transpose()
    };
    let folder = context
        .directory
        .join(text("context")?.unwrap_or_else(|| ".".to_owned()));
    let arguments = match node.get("args") {
        Some(node) => read::pairs(node, &format!("{what}.args"))?,
        None => Vec::new(),
    };
    let known = |(name, value): (String, Option<String>)| {
        let value = value.or_else(|| context.environment.get(&name).cloned())?;
        Some((name, value))
    };
    Ok(Build {
        context: std::path::absolute(&folder)
            .map_err(|error| ComposeError::at(&node.at, format!("{what}: {error}")))?,
        dockerfile: text("dockerfile")?.unwrap_or_else(|| "Dockerfile".to_owned()),
        target: text("target")?,
        arguments: arguments.into_iter().filter_map(known).collect(),
    })
}

/// Files first, then what is written out; a name alone takes its value from the user's environment.
fn environment(
    node: &Node,
    place: &str,
    context: &Context<'_>,
) -> Result<BTreeMap<String, String>, ComposeError> {
    let mut environment = BTreeMap::new();
    for item in node.get("env_file").map_or(Ok(&[][..]), |node| {
        read::list(node, &format!("{place}.env_file"))
    })? {
        let (path, is_required) = match &item.value {
            Value::Mapping(_) => {
                schema::check(item, "env_file", schema::ENV_FILE, &mut Vec::new())?;
                let path = item
                    .get("path")
                    .ok_or_else(|| ComposeError::at(&item.at, "env_file has no path"))?;
                let required = item
                    .get("required")
                    .map_or(Ok(true), |node| read::boolean(node, "env_file.required"))?;
                (read::text(path, "env_file.path")?, required)
            }
            _ => (read::text(item, "env_file")?, true),
        };
        let path = context.directory.join(path);
        if is_required && !path.exists() {
            return Err(ComposeError::at(
                &item.at,
                format!("there is no file {}", path.display()),
            ));
        }
        environment.extend(read_environment(&path)?);
    }
    let own = node.get("environment").map_or(Ok(Vec::new()), |node| {
        read::pairs(node, &format!("{place}.environment"))
    })?;
    for (name, value) in own {
        if let Some(value) = value.or_else(|| context.environment.get(&name).cloned()) {
            environment.insert(name, value);
        }
    }
    Ok(environment)
}

fn dependencies(
    node: &Node,
    place: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Dependency>, ComposeError> {
    let what = format!("{place}.depends_on");
    let Some(node) = node.get("depends_on") else {
        return Ok(Vec::new());
    };
    let Value::Mapping(entries) = &node.value else {
        return Err(read::expected(
            node,
            &what,
            "a list of services or a mapping",
        ));
    };
    let mut dependencies = Vec::new();
    for (key, node) in entries {
        let place = format!("{what}.{}", key.name);
        if node.value != Value::Null {
            schema::check(node, &place, schema::DEPENDENCY, warnings)?;
        }
        let condition = match node.get("condition") {
            Some(node) => match read::text(node, &place)?.as_str() {
                condition @ ("service_started"
                | "service_healthy"
                | "service_completed_successfully") => condition.to_owned(),
                _ => {
                    return Err(read::expected(
                        node,
                        &format!("{place}.condition"),
                        "service_started, service_healthy or service_completed_successfully",
                    ));
                }
            },
            None => "service_started".to_owned(),
        };
        let is_required = node
            .get("required")
            .map_or(Ok(true), |node| read::boolean(node, &place))?;
        dependencies.push(Dependency {
            service: key.name.clone(),
            at: key.at.clone(),
            condition,
            is_required,
        });
    }
    Ok(dependencies)
}

fn aliases(
    node: &Node,
    place: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<String>, ComposeError> {
    let what = format!("{place}.networks");
    let Some(node) = node.get("networks") else {
        return Ok(Vec::new());
    };
    let Value::Mapping(entries) = &node.value else {
        return Err(read::expected(
            node,
            &what,
            "a list of networks or a mapping",
        ));
    };
    let mut aliases = Vec::new();
    for (key, node) in entries.iter().filter(|(_, node)| node.value != Value::Null) {
        let place = format!("{what}.{}", key.name);
        schema::check(node, &place, schema::NETWORK, warnings)?;
        for alias in node
            .get("aliases")
            .map_or(Ok(&[][..]), |node| read::list(node, &place))?
        {
            let text = read::text(alias, &place)?;
            if !super::is_service_name(&text) {
                return Err(read::expected(
                    alias,
                    &format!("{place}.aliases"),
                    "lower-case letters, digits and dashes",
                ));
            }
            aliases.push(text);
        }
    }
    aliases.sort();
    aliases.dedup();
    Ok(aliases)
}

fn mesh_options(
    node: &Node,
    what: &str,
    warnings: &mut Vec<Warning>,
) -> Result<MeshOptions, ComposeError> {
    schema::check(node, what, schema::WEFT, warnings)?;
    let text = |field: &str| {
        node.get(field)
            .map(|node| read::text(node, &format!("{what}.{field}")))
            .transpose()
    };
    let ports =
        |field: &str| super::port::read_exposed(node.get(field), &format!("{what}.{field}"));
    let protocol = text("protocol")?;
    if let (Some(node), Some(protocol)) = (node.get("protocol"), &protocol)
        && !matches!(protocol.as_str(), "http" | "grpc" | "tcp")
    {
        return Err(read::expected(
            node,
            &format!("{what}.protocol"),
            "http, grpc or tcp",
        ));
    }
    Ok(MeshOptions {
        is_excluded: !node.get("inject").map_or(Ok(true), |node| {
            read::boolean(node, &format!("{what}.inject"))
        })?,
        protocol,
        service_account: text("service-account")?,
        exclude_inbound_ports: ports("exclude-inbound-ports")?,
        exclude_outbound_ports: ports("exclude-outbound-ports")?,
    })
}
