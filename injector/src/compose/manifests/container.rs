//! The container of a service: its environment, ports, probe, rights and limits.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::{ImageFacts, whole_seconds};
use crate::compose::service::{Healthcheck, Service};

pub(super) fn environment(service: &Service) -> Vec<Json> {
    service
        .environment
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

pub(super) fn container_ports(
    service: &Service,
    ports: &BTreeMap<u16, Option<String>>,
) -> Vec<Json> {
    let published = service.ports.iter().filter(|port| port.published.is_some());
    let published = published.map(|port| {
        json!({
            "containerPort": port.target, "protocol": "TCP",
            "hostPort": port.published, "hostIP": port.host_ip.to_string(),
        })
    });
    let is_published = |target: u16| {
        service
            .ports
            .iter()
            .any(|port| port.target == target && port.published.is_some())
    };
    let rest = ports.keys().filter(|port| !is_published(**port));
    published
        .chain(rest.map(|port| json!({ "containerPort": port, "protocol": "TCP" })))
        .collect()
}

/// The file's health check, else the image's.
pub(super) fn probe(service: &Service, image: &ImageFacts) -> Option<Json> {
    let of_image = || Healthcheck {
        command: match image.healthcheck.first().map(String::as_str) {
            Some("CMD") => image.healthcheck[1..].to_vec(),
            Some("CMD-SHELL") => {
                let script = image.healthcheck.get(1).cloned().unwrap_or_default();
                vec!["/bin/sh".to_owned(), "-c".to_owned(), script]
            }
            _ => Vec::new(),
        },
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(30),
        retries: 3,
    };
    let check = service.healthcheck.clone().unwrap_or_else(of_image);
    (!check.command.is_empty()).then(|| {
        json!({
            "exec": { "command": check.command },
            "periodSeconds": whole_seconds(check.interval, 1),
            "timeoutSeconds": whole_seconds(check.timeout, 1),
            "failureThreshold": check.retries.max(1),
        })
    })
}

/// The numbers of `user: "1000"` or `"1000:1000"`; none where a part is a name.
pub(super) fn ids(user: &str) -> Option<(u32, Option<u32>)> {
    match user.split_once(':') {
        Some((user, group)) => Some((user.parse().ok()?, Some(group.parse().ok()?))),
        None => Some((user.parse().ok()?, None)),
    }
}

pub(super) fn security(service: &Service) -> Option<Json> {
    let mut context = Map::new();
    if let Some((user, group)) = service.user.as_deref().and_then(ids) {
        context.insert("runAsUser".to_owned(), json!(user));
        if let Some(group) = group {
            context.insert("runAsGroup".to_owned(), json!(group));
        }
    }
    if service.is_read_only {
        context.insert("readOnlyRootFilesystem".to_owned(), json!(true));
    }
    let bare = |names: &[String]| {
        names
            .iter()
            .map(|name| name.trim_start_matches("CAP_").to_owned())
            .collect::<Vec<_>>()
    };
    let (added, dropped) = (
        bare(&service.capabilities_added),
        bare(&service.capabilities_dropped),
    );
    if !added.is_empty() || !dropped.is_empty() {
        context.insert(
            "capabilities".to_owned(),
            json!({ "add": added, "drop": dropped }),
        );
    }
    (!context.is_empty()).then_some(Json::Object(context))
}

pub(super) fn limits(service: &Service) -> Option<Json> {
    let mut limits = Map::new();
    if let Some(bytes) = service.limits.memory_bytes {
        limits.insert("memory".to_owned(), json!(bytes.to_string()));
    }
    if let Some(millis) = service.limits.cpu_millis {
        limits.insert("cpu".to_owned(), json!(format!("{millis}m")));
    }
    (!limits.is_empty()).then(|| json!({ "limits": limits }))
}
