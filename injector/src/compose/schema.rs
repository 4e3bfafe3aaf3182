//! Every key of the Compose specification, and what weft makes of it. docs/reference/compose.md tells the same to users;
//! a test compares the two.

use super::document::{Key, Node, Value};
use super::error::{ComposeError, Warning};

/// What weft makes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// It does what the specification says.
    Yes,
    /// It is ignored with a warning, because that harms nobody.
    Ignored(&'static str),
    /// The file is refused, because ignoring it would change what the application does.
    Refused(&'static str),
}

use Support::{Ignored, Refused, Yes};

/// The keys of one kind of mapping.
pub(super) type Schema = [(&'static str, Support)];

const NO_HOST: &str = "a container has namespaces of its own in the mesh";
const NO_DEVICES: &str = "containers run without privileges and devices";
const ONE_NETWORK: &str = "all services share the mesh's network; use policies to keep them apart";

/// The top level.
pub(super) const FILE: &Schema = &[
    ("configs", Yes),
    ("include", Yes),
    ("models", Refused("weft runs no models")),
    ("name", Yes),
    ("networks", Ignored(ONE_NETWORK)),
    ("secrets", Yes),
    ("services", Yes),
    (
        "version",
        Ignored("the specification has no versions any more"),
    ),
    ("volumes", Yes),
];

/// A service.
pub(super) const SERVICE: &Schema = &[
    ("annotations", Yes),
    ("attach", Ignored("`weft logs` shows any service")),
    (
        "blkio_config",
        Refused("limits on block devices are not supported"),
    ),
    ("build", Yes),
    ("cap_add", Yes),
    ("cap_drop", Yes),
    ("cgroup", Refused(NO_HOST)),
    ("cgroup_parent", Refused(NO_HOST)),
    ("command", Yes),
    ("configs", Yes),
    (
        "container_name",
        Ignored("pods are named after their service"),
    ),
    ("cpu_count", Refused("use `cpus`")),
    ("cpu_percent", Refused("use `cpus`")),
    ("cpu_period", Refused("use `cpus`")),
    ("cpu_quota", Refused("use `cpus`")),
    (
        "cpu_rt_period",
        Refused("real-time scheduling is not supported"),
    ),
    (
        "cpu_rt_runtime",
        Refused("real-time scheduling is not supported"),
    ),
    ("cpu_shares", Ignored("processors are shared evenly")),
    ("cpus", Yes),
    ("cpuset", Refused("use `cpus`")),
    ("credential_spec", Refused("it is for Windows")),
    ("depends_on", Yes),
    ("deploy", Yes),
    ("develop", Ignored("weft does not watch files")),
    ("device_cgroup_rules", Refused(NO_DEVICES)),
    ("devices", Refused(NO_DEVICES)),
    ("dns", Refused("names are resolved by the mesh")),
    ("dns_opt", Refused("names are resolved by the mesh")),
    ("dns_search", Refused("names are resolved by the mesh")),
    ("domainname", Refused("names are resolved by the mesh")),
    ("driver_opts", Ignored("there are no drivers")),
    ("entrypoint", Yes),
    ("env_file", Yes),
    ("environment", Yes),
    ("expose", Yes),
    ("extends", Yes),
    ("external_links", Refused("use the service's name")),
    ("extra_hosts", Yes),
    ("gpus", Refused(NO_DEVICES)),
    ("group_add", Refused("set `user: uid:gid`")),
    ("healthcheck", Yes),
    ("hostname", Yes),
    ("image", Yes),
    (
        "init",
        Ignored("orphaned processes are reaped by the container's shim"),
    ),
    ("ipc", Refused(NO_HOST)),
    ("isolation", Refused("it is for Windows")),
    ("label_file", Refused("write the labels in the file")),
    ("labels", Yes),
    (
        "links",
        Refused(
            "services find each other by name; use `networks: {default: {aliases: […]}}` for other names",
        ),
    ),
    ("logging", Ignored("`weft logs` keeps what services write")),
    ("mac_address", Refused("addresses are the mesh's business")),
    ("mem_limit", Yes),
    (
        "mem_reservation",
        Ignored("nothing is reserved on one machine"),
    ),
    ("mem_swappiness", Ignored("swap is the machine's business")),
    ("memswap_limit", Ignored("swap is the machine's business")),
    ("models", Refused("weft runs no models")),
    ("network_mode", Refused(ONE_NETWORK)),
    ("networks", Yes),
    (
        "oom_kill_disable",
        Refused("a container that eats all memory is ended"),
    ),
    ("oom_score_adj", Ignored("all containers are equal")),
    ("pid", Refused(NO_HOST)),
    ("pids_limit", Yes),
    (
        "platform",
        Ignored("images are run for this machine's platform"),
    ),
    ("ports", Yes),
    ("post_start", Refused("lifecycle hooks are not supported")),
    ("pre_stop", Refused("lifecycle hooks are not supported")),
    ("privileged", Refused(NO_DEVICES)),
    ("profiles", Yes),
    ("provider", Refused("providers are not supported")),
    ("pull_policy", Ignored("images are imported or built")),
    ("read_only", Yes),
    ("restart", Yes),
    ("runtime", Refused("weft has one runtime")),
    ("scale", Yes),
    ("secrets", Yes),
    (
        "security_opt",
        Ignored("containers always run with no_new_privs and a seccomp profile"),
    ),
    (
        "shm_size",
        Refused("mount a tmpfs of the size wanted at /dev/shm"),
    ),
    ("stdin_open", Yes),
    ("stop_grace_period", Yes),
    ("stop_signal", Yes),
    (
        "storage_opt",
        Refused("root filesystems have no limit of their own"),
    ),
    ("sysctls", Refused("kernel parameters cannot be set")),
    ("tmpfs", Yes),
    ("tty", Yes),
    (
        "ulimits",
        Refused("limits of processes cannot be set yet; use `pids_limit`, `mem_limit`"),
    ),
    (
        "use_api_socket",
        Refused("there is no container engine's socket"),
    ),
    ("user", Yes),
    ("userns_mode", Refused(NO_HOST)),
    ("uts", Refused(NO_HOST)),
    ("volumes", Yes),
    ("volumes_from", Refused("name the volumes in both services")),
    ("working_dir", Yes),
    ("x-weft", Yes),
];

/// `build`
pub(super) const BUILD: &Schema = &[
    ("additional_contexts", Refused("one context only")),
    ("args", Yes),
    ("cache_from", Ignored("every step is cached here")),
    ("cache_to", Ignored("every step is cached here")),
    ("context", Yes),
    ("dockerfile", Yes),
    ("dockerfile_inline", Refused("write it to a file")),
    ("labels", Ignored("labels of images have no use here")),
    ("network", Ignored("RUN has no network")),
    ("no_cache", Ignored("use `weft image build --no-cache`")),
    (
        "platforms",
        Ignored("images are built for this machine's platform"),
    ),
    ("pull", Ignored("images are imported or built")),
    ("secrets", Refused("secrets in builds are not supported")),
    ("shm_size", Ignored("RUN has the default")),
    ("ssh", Refused("ssh in builds is not supported")),
    ("tags", Ignored("`image` names the result")),
    ("target", Yes),
];

/// `deploy`
pub(super) const DEPLOY: &Schema = &[
    (
        "endpoint_mode",
        Ignored("a service always has a virtual address"),
    ),
    ("labels", Ignored("put them at the service")),
    ("mode", Yes),
    ("placement", Ignored("there is one machine")),
    ("replicas", Yes),
    ("resources", Yes),
    ("restart_policy", Yes),
    (
        "rollback_config",
        Ignored("a failed update stops where it is"),
    ),
    (
        "update_config",
        Ignored("one new pod is started before an old one is stopped"),
    ),
];

/// `deploy.resources`
pub(super) const RESOURCES: &Schema = &[
    ("limits", Yes),
    (
        "reservations",
        Ignored("nothing is reserved on one machine"),
    ),
];

/// `deploy.resources.limits`
pub(super) const LIMITS: &Schema = &[("cpus", Yes), ("memory", Yes), ("pids", Yes)];

/// `deploy.restart_policy`
pub(super) const RESTART_POLICY: &Schema = &[
    ("condition", Yes),
    ("delay", Ignored("the wait grows with each failure")),
    ("max_attempts", Ignored("attempts go on, ever more slowly")),
    (
        "window",
        Ignored("a container that ran for a while starts afresh"),
    ),
];

/// `healthcheck`
pub(super) const HEALTHCHECK: &Schema = &[
    ("disable", Yes),
    ("interval", Yes),
    ("retries", Yes),
    (
        "start_interval",
        Ignored("a container that starts is looked at often until it is ready"),
    ),
    (
        "start_period",
        Ignored("a container is not ready before its first success, and not restarted for it"),
    ),
    ("test", Yes),
    ("timeout", Yes),
];

/// `x-weft`
pub(super) const WEFT: &Schema = &[
    ("egress", Refused("egress policies are not supported yet")),
    ("exclude-inbound-ports", Yes),
    ("exclude-outbound-ports", Yes),
    ("inject", Yes),
    ("protocol", Yes),
    ("service-account", Yes),
];

/// A port in its long form.
pub(super) const PORT: &Schema = &[
    ("app_protocol", Yes),
    ("host_ip", Yes),
    ("mode", Ignored("there is one machine")),
    ("name", Ignored("ports have their number for a name")),
    ("protocol", Yes),
    ("published", Yes),
    ("target", Yes),
];

/// A mount in its long form.
pub(super) const VOLUME: &Schema = &[
    ("bind", Ignored("a bind mount makes nothing on the host")),
    ("consistency", Ignored("files are consistent")),
    ("read_only", Yes),
    ("source", Yes),
    ("target", Yes),
    ("tmpfs", Yes),
    ("type", Yes),
    ("volume", Ignored("volumes start empty")),
];

/// A config or secret of a service.
pub(super) const FILE_MOUNT: &Schema = &[
    ("gid", Yes),
    ("mode", Yes),
    ("source", Yes),
    ("target", Yes),
    ("uid", Yes),
];

/// A config or secret of the file.
pub(super) const FILE_SOURCE: &Schema = &[
    ("content", Yes),
    ("environment", Yes),
    (
        "external",
        Refused("give the content, a file or a variable"),
    ),
    ("file", Yes),
    ("labels", Ignored("labels have no use here")),
    ("name", Ignored("names inside the file are enough")),
    ("template_driver", Refused("templates are not supported")),
];

/// A dependency.
pub(super) const DEPENDENCY: &Schema = &[
    ("condition", Yes),
    ("required", Yes),
    (
        "restart",
        Ignored("connections are made anew by the sidecar"),
    ),
];

/// A network of a service.
pub(super) const NETWORK: &Schema = &[
    ("aliases", Yes),
    ("driver_opts", Ignored("there are no drivers")),
    ("gw_priority", Ignored(ONE_NETWORK)),
    ("interface_name", Ignored("the interface is eth0")),
    ("ipv4_address", Refused("addresses are the mesh's business")),
    ("ipv6_address", Refused("addresses are the mesh's business")),
    (
        "link_local_ips",
        Refused("addresses are the mesh's business"),
    ),
    ("mac_address", Refused("addresses are the mesh's business")),
    ("priority", Ignored(ONE_NETWORK)),
];

/// `extends`, `include`, `env_file` in their long forms.
pub(super) const EXTENDS: &Schema = &[("file", Yes), ("service", Yes)];
/// An entry of `include`.
pub(super) const INCLUDE: &Schema = &[
    ("env_file", Refused("set the variables in .env")),
    ("path", Yes),
    ("project_directory", Yes),
];
/// An entry of `env_file`.
pub(super) const ENV_FILE: &Schema = &[
    ("format", Refused("only NAME=value files")),
    ("path", Yes),
    ("required", Yes),
];

/// Checks the keys of a mapping: unknown ones and unsupported ones are errors, ignored ones warnings. Keys that begin
/// with `x-` are the user's own.
pub(super) fn check(
    node: &Node,
    place: &str,
    schema: &Schema,
    warnings: &mut Vec<Warning>,
) -> Result<(), ComposeError> {
    let Value::Mapping(entries) = &node.value else {
        return Err(ComposeError::at(
            &node.at,
            format!("{place} must be a mapping, not {}", node.describe()),
        ));
    };
    for (key, _) in entries {
        match schema.iter().find(|(name, _)| *name == key.name) {
            Some((_, Yes)) => {}
            Some((name, Ignored(reason))) => warnings.push(Warning {
                message: format!("{place}: {name} is ignored: {reason}"),
                location: key.at.clone(),
            }),
            Some((name, Refused(reason))) => {
                return Err(ComposeError::at(
                    &key.at,
                    format!("{place}: {name} is not supported: {reason}"),
                ));
            }
            None if key.name.starts_with("x-") => {}
            None => return Err(unknown(key, place, schema)),
        }
    }
    Ok(())
}

fn unknown(key: &Key, place: &str, schema: &Schema) -> ComposeError {
    let known = schema.iter().map(|(name, _)| *name);
    let hint = nearest(&key.name, known)
        .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    ComposeError::at(
        &key.at,
        format!("unknown key {:?} in {place}{hint}", key.name),
    )
}

/// The word that was probably meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len() + 1)
        .min()
        .map(|(_, candidate)| candidate)
}
