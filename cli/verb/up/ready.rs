//! When an application is up: every pod that its deployments want is ready.

use std::time::{Duration, Instant};

use serde_json::Value;
use weft_injector::compose::Application;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::{name, text};
use crate::verb::{down, ps};

/// Between two looks at the pods.
const POLL: Duration = Duration::from_millis(25);

/// Waits until every chosen service has the pods it wants, and all of them are ready.
///
/// # Errors
/// Where a pod will not become ready by waiting, or the time is up.
pub(super) async fn wait(
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
        let mut pods = down::owned(global, mesh, "/api/v1", "pods", &application.name).await?;
        pods.retain(|pod| application.is_chosen(&ps::service(pod)));
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
