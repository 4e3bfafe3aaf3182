//! What a pod's environment and files are taken from: ConfigMaps, Secrets, and the pod itself.
//!
//! All objects that a pod names are fetched once, before its first container is made; after that mapping its spec is
//! pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Secret, Volume};

use super::failure::Failure;
use crate::api::{ApiError, Client, Collection};

/// The objects that a pod names; what does not exist is missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    config_maps: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// Which kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }
}

impl Sources {
    /// Fetches what a pod names.
    pub(super) async fn fetch(
        client: &Client,
        namespace: &str,
        spec: &PodSpec,
    ) -> Result<Self, Failure> {
        let names = Names::of(spec);
        let mut sources = Self::default();
        let failed = |source| Failure::Api {
            doing: "reading the pod's configuration",
            source,
        };
        for name in names.config_maps {
            let collection = Collection::of::<ConfigMap>(namespace);
            if let Some(object) = existing(client.get(&collection, &name).await).map_err(failed)? {
                sources.add_config_map(name, object);
            }
        }
        for name in names.secrets {
            let collection = Collection::of::<Secret>(namespace);
            if let Some(object) = existing(client.get(&collection, &name).await).map_err(failed)? {
                sources.add_secret(name, object);
            }
        }
        Ok(sources)
    }

    pub(super) fn add_config_map(&mut self, name: String, object: ConfigMap) {
        let texts = object.data.into_iter().flatten();
        let texts = texts.map(|(key, text)| (key, text.into_bytes()));
        let binary = object.binary_data.into_iter().flatten();
        let binary = binary.map(|(key, bytes)| (key, bytes.0));
        self.config_maps.insert(name, texts.chain(binary).collect());
    }

    pub(super) fn add_secret(&mut self, name: String, object: Secret) {
        let data = object.data.into_iter().flatten();
        let data = data.map(|(key, bytes)| (key, bytes.0));
        let texts = object.string_data.into_iter().flatten();
        let texts = texts.map(|(key, text)| (key, text.into_bytes()));
        self.secrets.insert(name, data.chain(texts).collect());
    }

    /// An object's entries; none where it is optional and missing.
    pub(super) fn entries(
        &self,
        kind: Kind,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<&BTreeMap<String, Vec<u8>>>, Failure> {
        let objects = match kind {
            Kind::ConfigMap => &self.config_maps,
            Kind::Secret => &self.secrets,
        };
        match objects.get(name) {
            None if optional != Some(true) => {
                let kind = kind.name();
                Err(Failure::Spec(format!(
                    "{kind} {name} does not exist: apply it"
                )))
            }
            found => Ok(found),
        }
    }

    /// One entry of an object.
    pub(super) fn entry(
        &self,
        kind: Kind,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<&[u8]>, Failure> {
        let Some(entries) = self.entries(kind, name, optional)? else {
            return Ok(None);
        };
        match entries.get(key) {
            None if optional != Some(true) => {
                let kind = kind.name();
                Err(Failure::Spec(format!("{kind} {name} has no key {key}")))
            }
            found => Ok(found.map(Vec::as_slice)),
        }
    }
}

fn existing<T>(result: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A field of the pod, by the path that the downward API gives it.
pub(super) fn pod_field(pod: &Pod, path: &str) -> Result<String, Failure> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(entry(metadata.labels.as_ref(), key));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(entry(metadata.annotations.as_ref(), key));
    }
    let value = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => Some(lines(metadata.labels.as_ref())),
        "metadata.annotations" => Some(lines(metadata.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" => status.and_then(|status| status.pod_ip.clone()),
        "status.hostIP" => status.and_then(|status| status.host_ip.clone()),
        "status.podIPs" => status.map(|status| {
            let ips = status.pod_ips.iter().flatten();
            ips.map(|ip| ip.ip.as_str()).collect::<Vec<_>>().join(",")
        }),
        _ => {
            return Err(Failure::Spec(format!(
                "a pod has no field {path} for its containers"
            )));
        }
    };
    Ok(value.unwrap_or_default())
}

/// `metadata.labels['app']` → `app`.
fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

fn entry(map: Option<&BTreeMap<String, String>>, key: &str) -> String {
    map.and_then(|map| map.get(key))
        .cloned()
        .unwrap_or_default()
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    lines
        .map(|(key, value)| format!("{key}={value:?}\n"))
        .collect()
}

/// The objects that a spec names.
#[derive(Default)]
struct Names {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

impl Names {
    fn of(spec: &PodSpec) -> Self {
        let mut names = Self::default();
        for container in spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
        {
            for source in container.env_from.iter().flatten() {
                names.config_maps.extend(
                    source
                        .config_map_ref
                        .iter()
                        .map(|source| source.name.clone()),
                );
                names
                    .secrets
                    .extend(source.secret_ref.iter().map(|source| source.name.clone()));
            }
            for source in container
                .env
                .iter()
                .flatten()
                .filter_map(|env| env.value_from.as_ref())
            {
                let config_map = source.config_map_key_ref.iter();
                names
                    .config_maps
                    .extend(config_map.map(|source| source.name.clone()));
                let secret = source.secret_key_ref.iter();
                names
                    .secrets
                    .extend(secret.map(|source| source.name.clone()));
            }
        }
        spec.volumes
            .iter()
            .flatten()
            .for_each(|volume| names.add_volume(volume));
        names
    }

    fn add_volume(&mut self, volume: &Volume) {
        self.config_maps
            .extend(volume.config_map.iter().map(|source| source.name.clone()));
        self.secrets.extend(
            volume
                .secret
                .iter()
                .filter_map(|source| source.secret_name.clone()),
        );
        let projected = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        for source in projected {
            self.config_maps
                .extend(source.config_map.iter().map(|source| source.name.clone()));
            self.secrets
                .extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn fields_of_the_pod_are_found_by_path() {
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some("a".to_owned()),
                labels: Some([("app".to_owned(), "books".to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };

        assert_eq!(pod_field(&pod, "metadata.name").unwrap(), "a");
        assert_eq!(pod_field(&pod, "metadata.labels['app']").unwrap(), "books");
        assert_eq!(pod_field(&pod, "metadata.labels['none']").unwrap(), "");
        assert!(pod_field(&pod, "spec.containers").is_err());
    }

    #[test]
    fn a_missing_object_is_an_error_unless_it_is_optional() {
        let sources = Sources::default();

        let error = sources
            .entry(Kind::Secret, "db", "password", None)
            .unwrap_err();
        assert!(error.to_string().contains("Secret db does not exist"));
        let optional = sources.entry(Kind::Secret, "db", "password", Some(true));
        assert_eq!(optional.unwrap(), None);
    }
}
