//! `weft down`: stop an application and remove it; with the last one the daemon and the mesh namespace go too.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::{Mesh, encode};
use crate::output;
use crate::resource::name;
use crate::verb::config::Files;
use crate::verb::ps::service;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft down\n  weft down -p bookstore -v    # its volumes and images too"
)]
pub(crate) struct Down {
    #[command(flatten)]
    files: Files,
    /// Remove its volumes too; for this verb -v means this
    #[arg(long)]
    volumes: bool,
}

/// Between two looks at what is still there.
const POLL: Duration = Duration::from_millis(50);

/// What an application consists of: API root, plural, kind. Deployments first, so that nothing is started anew.
pub(crate) const OWNED: [(&str, &str, &str); 5] = [
    ("/apis/apps/v1", "deployments", "Deployment"),
    ("/api/v1", "services", "Service"),
    ("/api/v1", "serviceaccounts", "ServiceAccount"),
    ("/api/v1", "configmaps", "ConfigMap"),
    ("/api/v1", "secrets", "Secret"),
];

/// Takes the application down.
pub(crate) async fn run(global: &Global, down: Down) -> Result<ExitCode, Failure> {
    let project = down.files.project()?;
    let Some(mesh) = Mesh::find_running(global).await? else {
        output::remark(global, "no mesh is running here: nothing to take down");
        return Ok(ExitCode::SUCCESS);
    };
    // `-v` is the global flag's letter, and Compose's for volumes: after `down` Compose wins.
    let volumes = down.volumes || global.verbose > 0;
    take_down(global, &mesh, &project, volumes).await?;
    Ok(ExitCode::SUCCESS)
}

/// Deletes the application's objects, waits until its pods are gone, and ends the mesh where it was the last.
pub(crate) async fn take_down(
    global: &Global,
    mesh: &Mesh,
    project: &str,
    volumes: bool,
) -> Result<(), Failure> {
    let claims = match volumes {
        true => claims(&owned(global, mesh, "/apis/apps/v1", "deployments", project).await?),
        false => BTreeSet::new(),
    };
    remove(global, mesh, project, |_| true).await?;
    for claim in claims {
        let removed = mesh
            .delete(&format!("/weft/v1/volumes/{}", encode(&claim)))
            .await;
        removed.or_else(Failure::ignore_not_found)?;
    }
    let rest = mesh.get("/api/v1/pods").await?;
    if rest["items"].as_array().is_none_or(Vec::is_empty) {
        mesh.shut_down().await?;
    }
    output::remark(global, &format!("{project} is down"));
    Ok(())
}

/// Deletes the objects of some of the application's services, until neither they nor their pods are there.
///
/// Again and again: an `up` that was interrupted may have sent an object that arrives only after the first look.
pub(crate) async fn remove(
    global: &Global,
    mesh: &Mesh,
    project: &str,
    is_meant: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + global.timeout;
    let bar = output::progress(global, "stopping");
    loop {
        let deleted = delete_objects(global, mesh, project, &is_meant).await?;
        let mut pods = owned(global, mesh, "/api/v1", "pods", project).await?;
        pods.retain(|pod| is_meant(&service(pod)));
        if deleted == 0 && pods.is_empty() {
            bar.finish_and_clear();
            return Ok(());
        }
        if Instant::now() > deadline {
            let names: Vec<String> = pods.iter().map(name).collect();
            return Err(Failure::timed_out(format!(
                "still there: {}",
                names.join(", ")
            )));
        }
        bar.set_message(format!("{} pods are stopping", pods.len()));
        tokio::time::sleep(POLL).await;
    }
}

/// Deletes what is there of some services; how many objects that were.
async fn delete_objects(
    global: &Global,
    mesh: &Mesh,
    project: &str,
    is_meant: &impl Fn(&str) -> bool,
) -> Result<usize, Failure> {
    let mut deleted = 0;
    for (root, plural, _) in OWNED {
        for object in owned(global, mesh, root, plural, project).await? {
            let name = name(&object);
            if is_meant(&name) {
                let path = format!("{root}/namespaces/{}/{plural}/{name}", global.namespace);
                let outcome = mesh.delete(&path).await;
                outcome.or_else(Failure::ignore_not_found)?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// The named volumes of deployments.
fn claims(deployments: &[Value]) -> BTreeSet<String> {
    let volumes = deployments.iter().flat_map(|deployment| {
        deployment["spec"]["template"]["spec"]["volumes"]
            .as_array()
            .into_iter()
            .flatten()
    });
    let claims = volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str());
    claims.map(str::to_owned).collect()
}

/// The objects of one kind that belong to an application.
pub(crate) async fn owned(
    global: &Global,
    mesh: &Mesh,
    root: &str,
    plural: &str,
    project: &str,
) -> Result<Vec<Value>, Failure> {
    let selector = encode(&format!("weft.dev/project={project}"));
    let path = format!(
        "{root}/namespaces/{}/{plural}?labelSelector={selector}",
        global.namespace
    );
    Ok(mesh.get(&path).await?["items"]
        .as_array()
        .cloned()
        .unwrap_or_default())
}
