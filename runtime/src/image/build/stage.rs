//! The state of a stage while its steps are carried out, and where stages begin.

use std::collections::BTreeMap;

use super::{Builder, Failure};
use crate::image::config::{Document, History, ImageConfig, RootFs, host_architecture};
use crate::image::dockerfile::{self, words};
use crate::image::error::ImageError;
use crate::image::layers::{self, Layer};
use crate::image::stack::Stack;
use crate::image::{ImageRecord, digest::Digest};

/// Variables that builds may be given without declaring them (Docker, "Predefined ARGs").
const PROXIES: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];
/// Sets the time that images and their steps carry (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// A stage so far.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layer>,
    /// Of `ARG`s of this stage.
    pub(super) arguments: BTreeMap<String, String>,
    /// RFC 3339, of the newest layer.
    pub(super) created: String,
    pub(super) author: Option<String>,
    /// Whether this stage has its own `CMD`; an `ENTRYPOINT` clears one of the base.
    pub(super) has_own_command: bool,
    history: Vec<History>,
}

impl Stage {
    fn empty() -> Stage {
        Stage {
            config: ImageConfig::default(),
            layers: Vec::new(),
            arguments: BTreeMap::new(),
            created: jiff::Timestamp::UNIX_EPOCH.to_string(),
            author: None,
            has_own_command: false,
            history: Vec::new(),
        }
    }

    /// The value of a variable; `ENV` hides `ARG`.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let environment = self
            .config
            .env
            .iter()
            .filter_map(|entry| entry.split_once('='));
        let mut found = environment.filter(|(key, _)| *key == name);
        let value = found.next().map(|(_, value)| value.to_owned());
        value.or_else(|| self.arguments.get(name).cloned())
    }

    /// Bytes of variables and labels.
    pub(super) fn settings_bytes(&self) -> usize {
        let environment = self.config.env.iter().map(String::len);
        let pairs = self.config.labels.iter().chain(&self.arguments);
        environment
            .chain(pairs.map(|(name, value)| name.len() + value.len()))
            .sum()
    }

    /// Adds a layer, or with None an instruction that only changed the configuration.
    pub(super) fn record(&mut self, text: &str, layer: Option<Layer>) {
        self.history.push(History {
            created: Some(self.created.clone()),
            created_by: text.to_owned(),
            comment: String::new(),
            empty_layer: layer.is_none(),
        });
        self.layers.extend(layer);
    }

    /// The files so far.
    pub(super) fn files(&self, builder: &Builder<'_>) -> Stack {
        let layout = &builder.store.layout;
        let folders: Vec<_> = self
            .layers
            .iter()
            .map(|layer| layout.layer(&layer.diff))
            .collect();
        Stack::of_layers(&folders)
    }

    /// The image configuration.
    pub(super) fn document(&self) -> Result<Vec<u8>, ImageError> {
        let document = Document {
            created: Some(self.created.clone()),
            author: self.author.clone(),
            architecture: host_architecture().to_owned(),
            os: "linux".to_owned(),
            config: self.config.clone(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: self.layers.iter().map(|layer| layer.diff.clone()).collect(),
            },
            history: self.history.clone(),
        };
        serde_json::to_vec(&document)
            .map_err(|error| ImageError::io("writing an image configuration")(error.into()))
    }
}

impl Builder<'_> {
    /// The stage before its first step.
    pub(super) fn begin(
        &mut self,
        plan: &dockerfile::Stage,
        index: usize,
    ) -> Result<Stage, Failure> {
        let globals = self.globals()?;
        let expand = |text: &str| {
            words::expand(text, self.dockerfile.escape, &|name| {
                globals.get(name).cloned()
            })
        };
        if let Some(platform) = &plan.platform {
            check_platform(&expand(platform)?)?;
        }
        let base = expand(&plan.base)?;
        if base.is_empty() {
            return Err(format!("{} is empty; give its ARG a value", plan.base).into());
        }
        if base == "scratch" {
            return Ok(Stage::empty());
        }
        if let Some(earlier) = self
            .dockerfile
            .stage(&base)
            .filter(|earlier| *earlier < index)
        {
            let stage = self.stage(earlier)?;
            return Ok(Stage {
                arguments: BTreeMap::new(),
                has_own_command: false,
                ..stage
            });
        }
        let image = self.store.find(&base)?;
        if let Some(trigger) = image.config.on_build.first() {
            return Err(format!(
                "{base} has ONBUILD triggers ({trigger}), which weft does not carry out"
            )
            .into());
        }
        self.of_image(&image).map_err(Failure::from)
    }

    fn of_image(&self, image: &ImageRecord) -> Result<Stage, ImageError> {
        let layout = &self.store.layout;
        let id: Digest = image.id.parse()?;
        let document = Document::parse(&layout.read_blob(&id)?)?;
        let find = |diff: &Digest| {
            layers::find(layout, diff).ok_or_else(|| ImageError::NotFound {
                reference: format!("layer {diff} of {}", image.id),
            })
        };
        let empty = Stage::empty();
        Ok(Stage {
            layers: document
                .rootfs
                .diff_ids
                .iter()
                .map(find)
                .collect::<Result<_, _>>()?,
            created: document.created.unwrap_or(empty.created),
            author: document.author,
            config: document.config,
            history: document.history,
            arguments: empty.arguments,
            has_own_command: false,
        })
    }

    /// Variables of `FROM` lines.
    pub(super) fn globals(&self) -> Result<BTreeMap<String, String>, String> {
        let mut globals = platform_arguments();
        for argument in &self.dockerfile.arguments {
            let given = self.request.arguments.get(&argument.name).cloned();
            let default = argument.default.as_ref().map(|default| {
                words::expand(default, self.dockerfile.escape, &|name| {
                    globals.get(name).cloned()
                })
            });
            let value = match given {
                Some(value) => Some(value),
                None => default.transpose()?,
            };
            if let Some(value) = value {
                globals.insert(argument.name.clone(), value);
            }
        }
        Ok(globals)
    }

    /// Proxy settings, which a command gets but its result does not depend on.
    pub(super) fn proxies(&self) -> Vec<String> {
        let given = self.request.arguments.iter();
        let proxies = given.filter(|(name, _)| PROXIES.contains(&name.to_uppercase().as_str()));
        proxies
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// The time of a step that is carried out now.
    pub(super) fn now(&self) -> String {
        let epoch = self
            .request
            .arguments
            .get(EPOCH)
            .and_then(|text| text.parse().ok());
        let epoch = epoch.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        epoch.unwrap_or_else(jiff::Timestamp::now).to_string()
    }
}

/// Whether a value may be given although no `ARG` declares it.
pub(super) fn is_predefined(name: &str) -> bool {
    name == EPOCH
        || PROXIES.contains(&name.to_uppercase().as_str())
        || platform_arguments().contains_key(name)
}

fn platform_arguments() -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for kind in ["TARGET", "BUILD"] {
        arguments.insert(format!("{kind}OS"), "linux".to_owned());
        arguments.insert(format!("{kind}ARCH"), host_architecture().to_owned());
        arguments.insert(
            format!("{kind}PLATFORM"),
            format!("linux/{}", host_architecture()),
        );
    }
    arguments
}

fn check_platform(platform: &str) -> Result<(), String> {
    let here = format!("linux/{}", host_architecture());
    if platform == here || platform.starts_with(&format!("{here}/")) {
        return Ok(());
    }
    Err(format!(
        "--platform={platform}: this machine runs {here} only"
    ))
}
