//! The environment of a container, and `$(NAME)` in its command.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, ResourceFieldSelector};

use super::failure::Failure;
use super::quantity;
use super::sources::{Kind, Sources, pod_field};

/// Variables in the order they were given; later ones win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    /// Resolves a container's `envFrom` and `env`.
    pub(super) fn of(container: &Container, pod: &Pod, sources: &Sources) -> Result<Self, Failure> {
        let mut environment = Self::default();
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let config_map = source.config_map_ref.as_ref();
            let secret = source.secret_ref.as_ref();
            let references = config_map
                .map(|source| (Kind::ConfigMap, &source.name, source.optional))
                .into_iter()
                .chain(secret.map(|source| (Kind::Secret, &source.name, source.optional)));
            for (kind, name, optional) in references {
                let entries = sources.entries(kind, name, optional)?.into_iter().flatten();
                for (key, value) in entries {
                    environment.set(format!("{prefix}{key}"), text(value));
                }
            }
        }
        for variable in container.env.iter().flatten() {
            if let Some(value) = environment.value(variable, container, pod, sources)? {
                environment.set(variable.name.clone(), value);
            }
        }
        Ok(environment)
    }

    /// `NAME=value` each.
    pub(super) fn lines(&self) -> Vec<String> {
        self.variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// Replaces `$(NAME)` by its value and `$$` by `$`; what is not known stays as it is.
    pub(super) fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('$') {
            expanded.push_str(&rest[..start]);
            rest = &rest[start..];
            if let Some(after) = rest.strip_prefix("$$") {
                expanded.push('$');
                rest = after;
            } else if let Some((value, after)) = self.reference(rest) {
                expanded.push_str(value);
                rest = after;
            } else {
                expanded.push('$');
                rest = &rest[1..];
            }
        }
        expanded.push_str(rest);
        expanded
    }

    /// The value of the reference that a text begins with, and the text after it.
    fn reference<'a>(&'a self, text: &'a str) -> Option<(&'a str, &'a str)> {
        let (name, after) = text.strip_prefix("$(")?.split_once(')')?;
        let known = self.variables.iter().find(|(known, _)| known == name)?;
        Some((&known.1, after))
    }

    fn set(&mut self, name: String, value: String) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value));
    }

    fn value(
        &self,
        variable: &EnvVar,
        container: &Container,
        pod: &Pod,
        sources: &Sources,
    ) -> Result<Option<String>, Failure> {
        let Some(from) = &variable.value_from else {
            return Ok(Some(
                self.expand(variable.value.as_deref().unwrap_or_default()),
            ));
        };
        if let Some(field) = &from.field_ref {
            return pod_field(pod, &field.field_path).map(Some);
        }
        if let Some(key) = &from.config_map_key_ref {
            let entry = sources.entry(Kind::ConfigMap, &key.name, &key.key, key.optional)?;
            return Ok(entry.map(text));
        }
        if let Some(key) = &from.secret_key_ref {
            let entry = sources.entry(Kind::Secret, &key.name, &key.key, key.optional)?;
            return Ok(entry.map(text));
        }
        if let Some(resource) = &from.resource_field_ref {
            return resource_field(container, resource).map(Some);
        }
        Err(Failure::Spec(format!(
            "environment variable {} of container {} has a source that weft does not know",
            variable.name, container.name
        )))
    }
}

/// A limit or request of the container, in units of the divisor; rounded up, as Kubernetes does.
fn resource_field(
    container: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, Failure> {
    let unknown = || {
        Failure::Spec(format!(
            "{} is no resource of a container",
            selector.resource
        ))
    };
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.clone().unwrap_or_default();
    let amounts: BTreeMap<_, _> = match list {
        "limits" => resources.limits.unwrap_or_default(),
        "requests" => resources.requests.unwrap_or_default(),
        _ => return Err(unknown()),
    };
    let amount = amounts.get(name).and_then(quantity::amount).unwrap_or(0.0);
    let divisor = selector.divisor.as_ref().and_then(quantity::amount);
    let divisor = divisor.filter(|divisor| *divisor > 0.0).unwrap_or(1.0);
    Ok(format!("{:.0}", (amount / divisor).ceil()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::{
        ConfigMap, ConfigMapEnvSource, EnvFromSource, EnvVarSource, ObjectFieldSelector, Secret,
        SecretKeySelector,
    };

    use super::*;

    fn variable(name: &str, value: &str) -> EnvVar {
        EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
        }
    }

    fn from(name: &str, source: EnvVarSource) -> EnvVar {
        EnvVar {
            name: name.to_owned(),
            value: None,
            value_from: Some(source),
        }
    }

    #[test]
    fn references_are_expanded_and_escapes_kept() {
        let container = Container {
            env: Some(vec![
                variable("HOST", "redis"),
                variable("URL", "redis://$(HOST):6379"),
            ]),
            ..Container::default()
        };

        let environment =
            Environment::of(&container, &Pod::default(), &Sources::default()).unwrap();

        assert_eq!(environment.lines()[1], "URL=redis://redis:6379");
        assert_eq!(
            environment.expand("$(HOST) $$(HOST) $(NONE) $5 $"),
            "redis $(HOST) $(NONE) $5 $"
        );
    }

    #[test]
    fn values_come_from_secrets_config_maps_and_the_pod() {
        let mut sources = Sources::default();
        sources.add_secret(
            "db".to_owned(),
            Secret {
                data: Some([("password".to_owned(), ByteString(b"s3cret".to_vec()))].into()),
                ..Secret::default()
            },
        );
        sources.add_config_map(
            "settings".to_owned(),
            ConfigMap {
                data: Some([("LEVEL".to_owned(), "debug".to_owned())].into()),
                ..ConfigMap::default()
            },
        );
        let mut pod = Pod::default();
        pod.metadata.name = Some("books-1".to_owned());
        let container = Container {
            env_from: Some(vec![EnvFromSource {
                prefix: Some("APP_".to_owned()),
                config_map_ref: Some(ConfigMapEnvSource {
                    name: "settings".to_owned(),
                    optional: None,
                }),
                secret_ref: None,
            }]),
            env: Some(vec![
                from(
                    "PASSWORD",
                    EnvVarSource {
                        secret_key_ref: Some(SecretKeySelector {
                            name: "db".to_owned(),
                            key: "password".to_owned(),
                            optional: None,
                        }),
                        ..EnvVarSource::default()
                    },
                ),
                from(
                    "POD",
                    EnvVarSource {
                        field_ref: Some(ObjectFieldSelector {
                            field_path: "metadata.name".to_owned(),
                            api_version: None,
                        }),
                        ..EnvVarSource::default()
                    },
                ),
            ]),
            ..Container::default()
        };

        let environment = Environment::of(&container, &pod, &sources).unwrap();

        assert_eq!(
            environment.lines(),
            ["APP_LEVEL=debug", "PASSWORD=s3cret", "POD=books-1"]
        );
    }
}
