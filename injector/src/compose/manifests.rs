//! An application as Kubernetes objects, as docs/architecture.md describes.

mod container;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use self::container::{container_ports, environment, ids, limits, probe, security};
use super::Application;
use super::error::ComposeError;
use super::mount::{FileMount, MountSource};
use super::service::{Restart, Service};

/// What an image says of itself that matters to its service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// TCP ports of `EXPOSE`.
    pub exposed_ports: Vec<u16>,
    /// The OCI health check: `["CMD", …]`, `["CMD-SHELL", script]`, or nothing.
    pub healthcheck: Vec<String>,
}

impl ImageFacts {
    /// From the API's description of an image.
    pub fn of_json(image: &Json) -> Self {
        let texts = |field: &str| {
            let items = image[field].as_array().into_iter().flatten();
            items
                .filter_map(Json::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let tcp_port = |text: &String| match text.split_once('/') {
            Some((port, "tcp")) => port.parse().ok(),
            Some(_) => None,
            None => text.parse().ok(),
        };
        Self {
            exposed_ports: texts("exposedPorts").iter().filter_map(tcp_port).collect(),
            healthcheck: texts("healthcheck"),
        }
    }
}

/// Between stop signal and end, where a service does not say: Compose's default, not Kubernetes' 30 seconds.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The label by which a Service of an alias selects its pods.
fn alias_label(alias: &str) -> String {
    format!("weft.dev/alias.{alias}")
}

pub(super) fn manifests(
    application: &Application,
    namespace: &str,
    images: &BTreeMap<String, ImageFacts>,
) -> Result<Vec<Json>, ComposeError> {
    let scope = Scope {
        application,
        namespace,
    };
    let mut objects = scope.files()?;
    let nothing = ImageFacts::default();
    let mut aliases: BTreeMap<&str, BTreeMap<u16, Option<String>>> = BTreeMap::new();
    let mut accounts = BTreeSet::new();
    for service in application.services() {
        let image = images.get(service.name()).unwrap_or(&nothing);
        let ports = ports(service, image);
        for alias in service
            .aliases
            .iter()
            .filter(|alias| **alias != service.name)
        {
            aliases.entry(alias).or_default().extend(ports.clone());
        }
        if !application.is_chosen(service.name()) {
            continue;
        }
        if accounts.insert(account(service).to_owned()) {
            objects.push(scope.object("v1", "ServiceAccount", account(service)));
        }
        objects.push(scope.service(
            service.name(),
            &ports,
            json!({ "app": service.name }),
            service,
        ));
        objects.push(scope.deployment(service, image, &ports));
    }
    for (alias, ports) in aliases {
        // Its ports and protocol are those of all its members, chosen or not: another choice must not change them.
        let members: Vec<&Service> = application
            .services()
            .filter(|service| service.aliases.iter().any(|known| known == alias))
            .collect();
        let is_wanted = |member: &&Service| application.is_chosen(member.name());
        if let Some(member) = members.first().filter(|_| members.iter().any(is_wanted)) {
            objects.push(scope.service(
                alias,
                &ports,
                json!({ alias_label(alias): "true" }),
                member,
            ));
        }
    }
    Ok(objects)
}

/// Its ports with their pinned protocols.
fn ports(service: &Service, image: &ImageFacts) -> BTreeMap<u16, Option<String>> {
    let pinned = &service.mesh.protocol;
    let mut ports: BTreeMap<u16, Option<String>> = image
        .exposed_ports
        .iter()
        .chain(&service.expose)
        .map(|port| (*port, pinned.clone()))
        .collect();
    for port in &service.ports {
        ports.insert(
            port.target,
            port.app_protocol.clone().or_else(|| pinned.clone()),
        );
    }
    ports
}

fn account(service: &Service) -> &str {
    service
        .mesh
        .service_account
        .as_deref()
        .unwrap_or(&service.name)
}

struct Scope<'a> {
    application: &'a Application,
    namespace: &'a str,
}

impl Scope<'_> {
    fn object(&self, api_version: &str, kind: &str, name: &str) -> Json {
        json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": self.labels(),
            },
        })
    }

    fn labels(&self) -> Json {
        json!({
            "app.kubernetes.io/managed-by": "weft",
            "weft.dev/project": self.application.name,
        })
    }

    /// ConfigMaps and Secrets.
    fn files(&self) -> Result<Vec<Json>, ComposeError> {
        let mut objects = Vec::new();
        for (kind, field, sources) in [
            ("ConfigMap", "data", &self.application.configs),
            ("Secret", "stringData", &self.application.secrets),
        ] {
            for (name, source) in sources {
                let mut object = self.object("v1", kind, &self.file_name(name));
                object[field] = json!({ "content": source.content()? });
                objects.push(object);
            }
        }
        Ok(objects)
    }

    fn file_name(&self, name: &str) -> String {
        format!("{}-{name}", self.application.name)
            .replace('_', "-")
            .to_lowercase()
    }

    fn service(
        &self,
        name: &str,
        ports: &BTreeMap<u16, Option<String>>,
        selector: Json,
        of: &Service,
    ) -> Json {
        let mut object = self.object("v1", "Service", name);
        if let Some(protocol) = &of.mesh.protocol {
            object["metadata"]["annotations"] = json!({ "weft.dev/protocol": protocol });
        }
        object["spec"] = json!({ "selector": selector });
        if ports.is_empty() {
            // Kubernetes allows no ports only where there is no virtual address.
            object["spec"]["clusterIP"] = json!("None");
        } else {
            let ports = ports.iter().map(|(port, protocol)| {
                let mut port = json!({ "name": format!("port-{port}"), "port": port, "targetPort": port, "protocol": "TCP" });
                if let Some(protocol) = protocol {
                    port["appProtocol"] = json!(protocol);
                }
                port
            });
            object["spec"]["ports"] = ports.collect();
        }
        object
    }

    fn deployment(
        &self,
        service: &Service,
        image: &ImageFacts,
        ports: &BTreeMap<u16, Option<String>>,
    ) -> Json {
        let mut labels = self.labels();
        labels["app"] = json!(service.name);
        for alias in &service.aliases {
            labels[alias_label(alias)] = json!("true");
        }
        let mut object = self.object("apps/v1", "Deployment", service.name());
        object["spec"] = json!({
            "replicas": service.replicas,
            "selector": { "matchLabels": { "app": service.name } },
            "template": {
                "metadata": { "labels": labels, "annotations": annotations(service) },
                "spec": self.pod(service, image, ports),
            },
        });
        object
    }

    fn pod(
        &self,
        service: &Service,
        image: &ImageFacts,
        ports: &BTreeMap<u16, Option<String>>,
    ) -> Json {
        let (volumes, mounts) = self.volumes(service);
        let mut container = Map::new();
        container.insert("name".to_owned(), json!(service.name));
        container.insert("image".to_owned(), json!(service.image()));
        let mut set = |field: &str, value: Option<Json>| {
            if let Some(value) = value {
                container.insert(field.to_owned(), value);
            }
        };
        // Compose and Kubernetes use the word `command` for two things.
        set(
            "command",
            service.entrypoint.as_ref().map(|words| json!(words)),
        );
        set("args", service.command.as_ref().map(|words| json!(words)));
        set(
            "workingDir",
            service.working_dir.as_ref().map(|folder| json!(folder)),
        );
        set("env", some_list(environment(service)));
        set("ports", some_list(container_ports(service, ports)));
        set("readinessProbe", probe(service, image));
        set("securityContext", security(service));
        set("resources", limits(service));
        set("volumeMounts", some_list(mounts));
        set("tty", service.has_terminal.then(|| json!(true)));
        set("stdin", service.has_stdin.then(|| json!(true)));

        let grace = service.stop_grace.unwrap_or(STOP_GRACE);
        let mut pod = json!({
            "serviceAccountName": account(service),
            "terminationGracePeriodSeconds": whole_seconds(grace, 0),
            "containers": [container],
        });
        if let Some(hostname) = &service.hostname {
            pod["hostname"] = json!(hostname);
        }
        if let Some(volumes) = some_list(volumes) {
            pod["volumes"] = volumes;
        }
        if !service.extra_hosts.is_empty() {
            let hosts = service.extra_hosts.iter();
            pod["hostAliases"] = hosts
                .map(|(name, address)| json!({ "ip": address, "hostnames": [name] }))
                .collect();
        }
        pod
    }

    fn volumes(&self, service: &Service) -> (Vec<Json>, Vec<Json>) {
        let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
        for (index, mount) in service.mounts.iter().enumerate() {
            let name = format!("mount-{index}");
            let mut volume = json!({ "name": name });
            match &mount.source {
                MountSource::Host(path) => volume["hostPath"] = json!({ "path": path }),
                MountSource::Volume(volume_name) => {
                    let claim = format!("{}_{volume_name}", self.application.name);
                    volume["persistentVolumeClaim"] = json!({ "claimName": claim });
                }
                MountSource::Anonymous => volume["emptyDir"] = json!({}),
                MountSource::Tmpfs { bytes } => {
                    volume["emptyDir"] = json!({ "medium": "Memory" });
                    if let Some(bytes) = bytes {
                        volume["emptyDir"]["sizeLimit"] = json!(bytes.to_string());
                    }
                }
            }
            volumes.push(volume);
            mounts.push(
                json!({ "name": name, "mountPath": mount.target, "readOnly": mount.is_read_only }),
            );
        }
        for (kind, key, files) in [
            ("configMap", "name", &service.configs),
            ("secret", "secretName", &service.secrets),
        ] {
            for (index, file) in files.iter().enumerate() {
                let name = format!("{}-{index}", kind.to_lowercase());
                volumes.push(self.file_volume(&name, kind, key, file));
                mounts.push(json!({
                    "name": name, "mountPath": file.target, "subPath": "content", "readOnly": true,
                }));
            }
        }
        (volumes, mounts)
    }

    fn file_volume(&self, name: &str, kind: &str, key: &str, file: &FileMount) -> Json {
        let mut source = json!({ key: self.file_name(&file.source) });
        if let Some(mode) = file.mode {
            source["defaultMode"] = json!(mode);
        }
        json!({ "name": name, kind: source })
    }
}

/// Labels of a Compose file have any form; Kubernetes' annotations come closest.
fn annotations(service: &Service) -> Json {
    let mut annotations: Map<String, Json> = service
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            annotations.insert(format!("weft.dev/{name}"), json!(value));
        }
    };
    let numbers = |ports: &[u16]| {
        let texts: Vec<String> = ports.iter().map(u16::to_string).collect();
        (!texts.is_empty()).then(|| texts.join(","))
    };
    set(
        "inject",
        service.mesh.is_excluded.then(|| "false".to_owned()),
    );
    set(
        "exclude-inbound-ports",
        numbers(&service.mesh.exclude_inbound_ports),
    );
    set(
        "exclude-outbound-ports",
        numbers(&service.mesh.exclude_outbound_ports),
    );
    set("depends-on", depends_on(service));
    // A name means what the image's /etc/passwd says, and Kubernetes has no field for that.
    let named = service.user.as_deref().filter(|user| ids(user).is_none());
    set("user", named.map(str::to_owned));
    set("stop-signal", service.stop_signal.clone());
    set(
        "pids-limit",
        service.limits.pids.map(|pids| pids.to_string()),
    );
    set(
        "restart",
        Some(
            match service.restart {
                Restart::Never => "never",
                Restart::OnFailure => "on-failure",
                Restart::Always => "always",
            }
            .to_owned(),
        ),
    );
    Json::Object(annotations)
}

fn depends_on(service: &Service) -> Option<String> {
    let dependencies: Vec<Json> = service
        .depends_on
        .iter()
        .map(|dependency| {
            json!({
                "service": dependency.service,
                "condition": dependency.condition,
                "required": dependency.is_required,
            })
        })
        .collect();
    (!dependencies.is_empty()).then(|| Json::Array(dependencies).to_string())
}

fn some_list(items: Vec<Json>) -> Option<Json> {
    (!items.is_empty()).then_some(Json::Array(items))
}

/// Kubernetes counts in whole seconds.
fn whole_seconds(duration: Duration, least: u64) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000))
        .unwrap_or(u64::MAX)
        .max(least)
}
