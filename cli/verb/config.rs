//! `weft config`: the application as weft understands it. Also the flags by which several verbs find its files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use weft_injector::compose::{self, Application, LoadOptions};

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::output;

/// Which application is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Files {
    /// Compose file; may be repeated, later ones override [default: compose.yaml, compose.yml, docker-compose.yml]
    #[arg(short, long = "file", value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Name of the application [default: its `name:`, or the folder's]
    #[arg(short, long = "project-name", value_name = "NAME")]
    project: Option<String>,
    /// Enable a profile; may be repeated
    #[arg(long)]
    profile: Vec<String>,
}

impl Files {
    /// Reads the files; warnings are printed.
    pub(crate) fn load(&self) -> Result<Application, Failure> {
        self.load_services(&[])
    }

    /// As [`Files::load`], with only some services, and what they depend on, chosen.
    pub(crate) fn load_services(&self, services: &[String]) -> Result<Application, Failure> {
        let options = LoadOptions {
            files: self.file.clone(),
            project: self.project.clone(),
            profiles: self.profile.clone(),
            working_directory: std::env::current_dir()?,
            environment: variables(),
            services: services.to_vec(),
        };
        let application = compose::load(&options).map_err(|error| match error.is_not_found() {
            true => Failure::not_found(error.to_string()),
            false => Failure::refused(error.to_string()),
        })?;
        for warning in &application.warnings {
            output::warn(&warning.to_string());
        }
        Ok(application)
    }

    /// The application's name, from `-p` alone where that is given.
    pub(crate) fn project(&self) -> Result<String, Failure> {
        match &self.project {
            Some(project) => Ok(project.clone()),
            None => Ok(self.load()?.name),
        }
    }
}

/// The environment. Variables that are not UTF-8 cannot stand in a file that is.
fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft config\n  weft config --services\n  weft config -o k8s    # the Kubernetes manifests it becomes"
)]
pub(crate) struct Config {
    #[command(flatten)]
    files: Files,
    /// Only the names of the services
    #[arg(long)]
    services: bool,
    /// Only the images
    #[arg(long)]
    images: bool,
    /// Only the volumes
    #[arg(long)]
    volumes: bool,
    /// yaml or json
    #[arg(long, value_name = "FORMAT", value_parser = ["yaml", "json"], default_value = "yaml")]
    format: String,
}

/// Prints the resolved application.
pub(crate) fn run(global: &Global, config: Config) -> Result<ExitCode, Failure> {
    let application = config.files.load()?;
    if config.services {
        application
            .services()
            .for_each(|service| output::line(service.name()));
    } else if config.images {
        application
            .services()
            .for_each(|service| output::line(&service.image()));
    } else if config.volumes {
        application.volumes().for_each(output::line);
    } else if global.output == Output::K8s {
        let manifests = application
            .manifests(&global.namespace, &BTreeMap::new())
            .map_err(|error| Failure::refused(error.to_string()))?;
        for manifest in manifests {
            output::line(&format!("---\n{}", output::yaml(&manifest)?.trim_end()));
        }
    } else if config.format == "json" || global.output == Output::Json {
        output::line(&serde_json::to_string_pretty(
            &application.to_compose_value(),
        )?);
    } else {
        output::line(output::yaml(&application.to_compose_value())?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
