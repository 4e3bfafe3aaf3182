//! `weft up`: start an application, or change it to what its file says now.
//!
//! Everything that can be wrong is found before anything is changed: the file, the images, the published ports, and,
//! by the API's dry run, every object. Then objects are applied, and what the file no longer names is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use weft_injector::compose::{Application, ImageFacts};

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::{Applied, Mesh, encode};
use crate::output;
use crate::resource::{Kinds, name, text};
use crate::verb::config::Files;
use crate::verb::{down, image, logs, ps};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft up                      # compose.yaml here; logs follow, Ctrl-C takes it down\n  weft up -d -f shop.yaml\n  weft up -d --build"
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
}

/// Between two looks at the pods.
const POLL: Duration = Duration::from_millis(25);

/// Starts what the file says, waits until it is ready, and follows the logs or returns.
pub(crate) async fn run(global: &Global, up: Up) -> Result<ExitCode, Failure> {
    let application = up.files.load()?;
    let mesh = Mesh::of_started(global).await?;
    let existed = exists(global, &mesh, &application).await?;

    let began = Instant::now();
    let started = tokio::select! {
        started = start(global, &mesh, &application, up.build) => started,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    if let Err(failure) = started {
        if !existed && !failure.is_inspectable() {
            let silent = Global {
                quiet: true,
                ..global.clone()
            };
            down::take_down(&silent, &mesh, &application.name, false).await?;
        }
        return Err(failure);
    }
    output::remark(
        global,
        &format!(
            "{} is ready ({} ms)",
            application.name,
            began.elapsed().as_millis()
        ),
    );
    if up.detach || up.wait {
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        outcome = logs::follow(global, &mesh, &application.name) => outcome?,
        _ = tokio::signal::ctrl_c() => {}
    }
    down::take_down(global, &mesh, &application.name, false).await?;
    Ok(ExitCode::SUCCESS)
}

async fn exists(global: &Global, mesh: &Mesh, application: &Application) -> Result<bool, Failure> {
    let deployments = down::owned(
        global,
        mesh,
        "/apis/apps/v1",
        "deployments",
        &application.name,
    )
    .await?;
    Ok(!deployments.is_empty())
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
    prune(global, mesh, application, &objects).await?;
    if changed == 0 {
        output::remark(global, &format!("{}: nothing to change", application.name));
    }
    wait_until_ready(global, mesh, application, &objects).await
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
    weft_injector::broker::check_ports_free(&needed).map_err(|error| {
        Failure::new(format!(
            "{error}: end what uses it, or publish another port"
        ))
    })
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

async fn wait_until_ready(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
    objects: &[Value],
) -> Result<(), Failure> {
    let wanted: usize = objects
        .iter()
        .filter(|object| object["kind"] == "Deployment")
        .map(|object| {
            usize::try_from(object["spec"]["replicas"].as_u64().unwrap_or(1)).unwrap_or(0)
        })
        .sum();
    let deadline = Instant::now() + global.timeout;
    let bar = output::progress(global, "starting");
    loop {
        let deployments = down::owned(
            global,
            mesh,
            "/apis/apps/v1",
            "deployments",
            &application.name,
        )
        .await?;
        let pods = down::owned(global, mesh, "/api/v1", "pods", &application.name).await?;
        let waiting: Vec<&Value> = pods.iter().filter(|pod| !ps::is_settled(pod)).collect();
        if pods.len() == wanted && waiting.is_empty() && deployments.iter().all(is_observed) {
            bar.finish_and_clear();
            return Ok(());
        }
        if let Some(failure) = pods.iter().find_map(hopeless) {
            bar.finish_and_clear();
            return Err(failure);
        }
        if Instant::now() > deadline {
            bar.finish_and_clear();
            return Err(late(global, &waiting));
        }
        let ready = pods.len() - waiting.len();
        bar.set_message(format!(
            "{ready} of {wanted} pods ready{}",
            of_whom(&waiting)
        ));
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the launcher has seen the latest change of a deployment.
fn is_observed(deployment: &Value) -> bool {
    deployment["status"]["observedGeneration"].as_i64()
        >= deployment["metadata"]["generation"].as_i64()
}

fn of_whom(waiting: &[&Value]) -> String {
    match waiting {
        [] => String::new(),
        [pod, ..] => format!(", waiting for {} ({})", name(pod), ps::state(pod)),
    }
}

/// A pod that will not become ready by waiting, and why.
fn hopeless(pod: &Value) -> Option<Failure> {
    let state = ps::state(pod);
    let is_hopeless = matches!(
        state.as_str(),
        "CrashLoopBackOff"
            | "ImageNotFound"
            | "ErrImagePull"
            | "Failed"
            | "PortInUse"
            | "InvalidSpec"
    );
    is_hopeless.then(|| {
        let message = match text(&pod["status"]["message"]) {
            message if message.is_empty() => ps::waiting_message(pod),
            message => message,
        };
        Failure::inspectable(format!(
            "pod {} does not start: {state}: {message}\nsee `weft logs {}`, mend it and `weft up` again, or `weft down`",
            name(pod),
            ps::service(pod),
        ))
    })
}

fn late(global: &Global, waiting: &[&Value]) -> Failure {
    let pods: Vec<String> = waiting
        .iter()
        .map(|pod| format!("{} ({})", name(pod), ps::state(pod)))
        .collect();
    Failure::timed_out(format!(
        "not ready after {}: {}; see `weft logs` and `weft ps`, or wait longer with --timeout",
        humantime::format_duration(global.timeout),
        pods.join(", ")
    ))
}
