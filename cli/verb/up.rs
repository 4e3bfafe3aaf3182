//! `weft up`: start an application, or change it to what its file says now.
//!
//! Everything that can be wrong is found before anything is changed: the file, the images, the published ports, and,
//! by the API's dry run, every object. Then objects are applied, and what the file no longer names is deleted. With
//! services named, only they and what they depend on are started or changed, and nothing is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::Value;
use weft_injector::compose::{Application, ImageFacts};

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::{Applied, Mesh, encode};
use crate::output;
use crate::resource::{Kinds, name, text};
use crate::verb::config::Files;
use crate::verb::{down, image, logs};

mod ready;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft up                      # compose.yaml here; logs follow, Ctrl-C takes it down\n  weft up -d -f shop.yaml\n  weft up -d books             # books, and what it depends on\n  weft up -d --build"
)]
pub(crate) struct Up {
    #[command(flatten)]
    files: Files,
    /// Return when everything is ready, instead of following the logs
    #[arg(short, long)]
    detach: bool,
    /// The same as --detach
    #[arg(long)]
    wait: bool,
    /// Build images even where they exist
    #[arg(long)]
    build: bool,
    /// Only these, and what they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Starts what the file says, waits until it is ready, and follows the logs or returns.
pub(crate) async fn run(global: &Global, up: Up) -> Result<ExitCode, Failure> {
    let application = up.files.load_services(&up.services)?;
    let mesh = Mesh::of_started(global).await?;
    let before = deployments(global, &mesh, &application).await?;

    let began = Instant::now();
    let started = tokio::select! {
        started = start(global, &mesh, &application, up.build) => started,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    if let Err(failure) = started {
        if !failure.is_inspectable() {
            let silent = Global {
                quiet: true,
                ..global.clone()
            };
            take_back(&silent, &mesh, &application, &before).await?;
        }
        return Err(failure);
    }
    output::remark(
        global,
        &format!(
            "{} is ready ({} ms)",
            title(&application, &up.services),
            began.elapsed().as_millis()
        ),
    );
    if up.detach || up.wait {
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        outcome = logs::follow(global, &mesh, &application) => outcome?,
        _ = tokio::signal::ctrl_c() => {}
    }
    if application.is_partial() {
        take_back(global, &mesh, &application, &before).await?;
    } else {
        down::take_down(global, &mesh, &application.name, false).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The application, or those of its services that were asked for.
fn title(application: &Application, services: &[String]) -> String {
    match services {
        [] => application.name.clone(),
        services => format!("{} ({})", application.name, services.join(", ")),
    }
}

/// The application's deployments, by name.
async fn deployments(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
) -> Result<BTreeSet<String>, Failure> {
    let found = down::owned(
        global,
        mesh,
        "/apis/apps/v1",
        "deployments",
        &application.name,
    )
    .await?;
    Ok(found.iter().map(name).collect())
}

/// Removes the services that this command has started; those that ran before stay.
async fn take_back(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
    before: &BTreeSet<String>,
) -> Result<(), Failure> {
    if before.is_empty() {
        return down::take_down(global, mesh, &application.name, false).await;
    }
    let is_new = |name: &str| application.is_chosen(name) && !before.contains(name);
    down::remove(global, mesh, &application.name, is_new).await
}

async fn start(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
    build: bool,
) -> Result<(), Failure> {
    let images = images(global, mesh, application, build).await?;
    let objects = application
        .manifests(&global.namespace, &images)
        .map_err(|error| Failure::refused(error.to_string()))?;
    check_ports(global, mesh, application, &objects).await?;

    let kinds = Kinds::discover(mesh).await?;
    let changed = apply_all(global, mesh, &kinds, &objects).await?;
    if !application.is_partial() {
        prune(global, mesh, application, &objects).await?;
    }
    if changed == 0 {
        output::remark(global, &format!("{}: nothing to change", application.name));
    }
    ready::wait(global, mesh, application, &objects).await
}

/// Builds what has to be built, and learns of every image what the manifests need to know.
async fn images(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
    build: bool,
) -> Result<BTreeMap<String, ImageFacts>, Failure> {
    let mut built = BTreeSet::new();
    let mut facts = BTreeMap::new();
    for service in application.services() {
        let reference = service.image();
        let path = format!("/weft/v1/images/{}", encode(&reference));
        let mut found = mesh.find(&path).await?;
        if !application.is_chosen(service.name()) {
            // It may share an alias, and so ports, with one that is.
            facts.extend(
                found.map(|image| (service.name().to_owned(), ImageFacts::of_json(&image))),
            );
            continue;
        }
        if let Some(steps) = service.build()
            && (found.is_none() || (build && !built.contains(&reference)))
        {
            let steps = image::Build {
                context: steps.context.clone(),
                tag: reference.clone(),
                dockerfile: steps.dockerfile.clone(),
                target: steps.target.clone(),
                arguments: steps
                    .arguments
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
                no_cache: false,
            };
            image::build_image(global, mesh, &steps).await?;
            found = mesh.find(&path).await?;
        }
        built.insert(reference.clone());
        let image = found.ok_or_else(|| {
            Failure::not_found(format!(
                "services.{}: there is no image {reference:?} on this machine: import it with `weft image import \
                 ARCHIVE`, or give the service a `build:`",
                service.name()
            ))
        })?;
        facts.insert(service.name().to_owned(), ImageFacts::of_json(&image));
    }
    Ok(facts)
}

/// Ports that a running pod of this application already has are its own; every other must be free.
async fn check_ports(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
    objects: &[Value],
) -> Result<(), Failure> {
    let running = down::owned(global, mesh, "/api/v1", "pods", &application.name).await?;
    let held: BTreeSet<SocketAddr> = running
        .iter()
        .flat_map(|pod| host_ports(&pod["spec"]))
        .collect();
    let wanted = objects
        .iter()
        .flat_map(|object| host_ports(&object["spec"]["template"]["spec"]));
    let needed: Vec<SocketAddr> = wanted.filter(|address| !held.contains(address)).collect();
    weft_injector::broker::check_ports_free(&needed)
        .map_err(|error| Failure::new(error.to_string()))
}

fn host_ports(spec: &Value) -> Vec<SocketAddr> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    let ports =
        containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = u16::try_from(port["hostPort"].as_u64()?).ok()?;
            let address = port["hostIP"]
                .as_str()
                .filter(|address| !address.is_empty())
                .unwrap_or("0.0.0.0");
            Some(SocketAddr::new(address.parse().ok()?, host_port))
        })
        .collect()
}

/// A dry run of everything, then everything; how many objects changed.
async fn apply_all(
    global: &Global,
    mesh: &Mesh,
    kinds: &Kinds,
    objects: &[Value],
) -> Result<usize, Failure> {
    let mut changed = 0;
    for object in objects {
        let kind = kinds.of(object)?;
        let path = kind.path(&global.namespace, &name(object));
        let title = kind.title(&name(object));
        let applied = mesh
            .apply(&path, object, false)
            .await
            .map_err(|failure| failure.while_doing(&title))?;
        changed += usize::from(applied != Applied::Unchanged);
        if global.verbose > 0 {
            output::remark(global, &format!("{title} {applied:?}"));
        }
    }
    Ok(changed)
}

/// Deletes the application's objects that the file no longer names.
async fn prune(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
    objects: &[Value],
) -> Result<(), Failure> {
    let wanted: BTreeSet<(String, String)> = objects
        .iter()
        .map(|object| (text(&object["kind"]), name(object)))
        .collect();
    for (root, plural, kind) in down::OWNED {
        for object in down::owned(global, mesh, root, plural, &application.name).await? {
            if !wanted.contains(&(kind.to_owned(), name(&object))) {
                let path = format!(
                    "{root}/namespaces/{}/{plural}/{}",
                    global.namespace,
                    name(&object)
                );
                mesh.delete(&path).await?;
                output::remark(
                    global,
                    &format!(
                        "{kind} {} removed: the file no longer has it",
                        name(&object)
                    ),
                );
            }
        }
    }
    Ok(())
}
