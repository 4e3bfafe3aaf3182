//! The image configuration: what a container of an image runs, and how the image came about.
//!
//! The OCI image specification's configuration with Docker's health check, shell and triggers,
//! which the specification leaves out and everybody writes. Its digest is the image's id.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::Digest;
use super::error::ImageError;

/// What containers of an image run unless they are told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `uid[:gid]` or names of the image's `/etc/passwd` and `/etc/group`; empty: root.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub user: String,
    /// `6379/tcp`; sorted.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "keys")]
    pub exposed_ports: Vec<String>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    /// Default arguments; the program where there is no entry point.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    /// Paths whose content outlives the container; sorted.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "keys")]
    pub volumes: Vec<String>,
    /// Absolute; empty: `/`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub working_dir: String,
    /// Free key-value pairs.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub labels: BTreeMap<String, String>,
    /// A signal name or number; empty: `SIGTERM`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub stop_signal: String,
    /// How to find out whether a container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The shell of `RUN`, `CMD` and `ENTRYPOINT` in builds from this image; empty: `/bin/sh -c`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub shell: Vec<String>,
    /// Instructions for builds from this image. weft refuses to build from one that has any.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub on_build: Vec<String>,
}

impl ImageConfig {
    /// Sets one variable, in the place of an earlier value of it.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let prefix = format!("{name}=");
        match self.env.iter_mut().find(|known| known.starts_with(&prefix)) {
            Some(known) => *known = entry,
            None => self.env.push(entry),
        }
    }
}

/// A health check. Durations are nanoseconds; zero is the default of the field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", program, arguments…]` or `["CMD-SHELL", script]`.
    #[serde(deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Between two checks; default 30 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// Of one check; default 30 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// After the start, in which failures do not count; default none.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between two checks of the start period; default 5 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// Failures in a row that make it unhealthy; default 3.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

/// The configuration document of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Document {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) author: Option<String>,
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: ImageConfig,
    pub(super) rootfs: RootFs,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) history: Vec<History>,
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Document, ImageError> {
        serde_json::from_slice(bytes)
            .map_err(|error| ImageError::archive(format!("image configuration: {error}")))
    }

    /// Seconds since the epoch; 0 where the image does not say.
    pub(super) fn created_at(&self) -> i64 {
        let created = self.created.as_deref().unwrap_or_default();
        created
            .parse::<jiff::Timestamp>()
            .map_or(0, jiff::Timestamp::as_second)
    }

    /// Whether containers of this image can run on this machine.
    pub(super) fn runs_here(&self) -> bool {
        self.os == "linux" && self.architecture == host_architecture()
    }
}

/// The layers of an image, lowest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RootFs {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) diff_ids: Vec<Digest>,
}

/// One instruction that made the image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub(super) created_by: String,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub(super) comment: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) empty_layer: bool,
}

/// This machine's architecture in Go's words, which images use.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Docker writes `null` where others leave a field out.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Go's sets: `{"6379/tcp": {}}`.
mod keys {
    use super::*;

    pub(super) fn serialize<S: Serializer>(keys: &[String], into: S) -> Result<S::Ok, S::Error> {
        into.collect_map(keys.iter().map(|key| (key, BTreeMap::<(), ()>::new())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        let set = Option::<BTreeMap<String, serde_json::Value>>::deserialize(from)?;
        Ok(set.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{
        "architecture": "amd64", "os": "linux", "created": "2024-05-01T10:00:00.5Z",
        "config": {
            "Hostname": "", "User": "redis", "ExposedPorts": {"6379/tcp": {}}, "Env": ["A=b"],
            "Cmd": null, "Volumes": {"/data": {}}, "Entrypoint": ["/init"], "OnBuild": null, "Labels": null,
            "Healthcheck": {"Test": ["CMD", "ping"], "Interval": 1000000000, "Retries": 2}
        },
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [{"created_by": "x", "empty_layer": true}]
    }"#;

    #[test]
    fn dockers_configuration_is_understood_with_its_nulls_and_sets() {
        let document = Document::parse(DOCKER.as_bytes()).unwrap();

        assert_eq!(document.created_at(), 1_714_557_600);
        assert_eq!(document.config.exposed_ports, ["6379/tcp"]);
        assert_eq!(document.config.volumes, ["/data"]);
        assert!(document.config.cmd.is_empty());
        assert_eq!(document.config.healthcheck.as_ref().unwrap().retries, 2);
    }

    #[test]
    fn a_configuration_survives_being_written_and_read() {
        let config = Document::parse(DOCKER.as_bytes()).unwrap().config;
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ImageConfig>(&text).unwrap(), config);
    }

    #[test]
    fn setting_a_variable_again_replaces_it() {
        let mut config = ImageConfig::default();
        config.set_env("PATH", "/bin");
        config.set_env("PATHS", "x");
        config.set_env("PATH", "/usr/bin");
        assert_eq!(config.env, ["PATH=/usr/bin", "PATHS=x"]);
    }
}
