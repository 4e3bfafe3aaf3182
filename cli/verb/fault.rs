//! `weft fault`: make calls to a service fail or wait, to see what its callers make of it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::arguments::{Global, Output, duration};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::name;
use crate::verb::apply;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft fault ratings --abort 503 --percent 30\n  weft fault ratings --delay 2s --for 5m\n  weft fault ratings --clear"
)]
pub(crate) struct Fault {
    /// The service whose callers are to suffer
    service: String,
    /// Answer with this status instead of calling it
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..600))]
    abort: Option<u16>,
    /// Wait this long before calling it
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    delay: Option<Duration>,
    /// How many of the requests
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    percent: f64,
    /// End it by itself after this long (the command waits)
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasting: Option<Duration>,
    /// End it now
    #[arg(long, conflicts_with_all = ["abort", "delay", "lasting"])]
    clear: bool,
    /// Validate, print, change nothing
    #[arg(long)]
    dry_run: bool,
}

const WRITTEN_BY: &str = "weft.dev/written-by";

/// Adds the fault to the service's policy, or to a new one; takes it out again with `--clear`.
pub(crate) async fn run(global: &Global, fault: Fault) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    if fault.clear {
        return clear(global, &mesh, &fault.service).await;
    }
    let injection = injection(&fault)?;
    let (path, policy) = match find_policy(global, &mesh, &fault.service).await? {
        Some(mut policy) => {
            policy["spec"]["faultInjection"] = injection;
            (path(global, &name(&policy)), policy)
        }
        None => (
            path(global, &fault.service),
            new_policy(global, &fault.service, injection),
        ),
    };
    let applied = mesh.replace(&path, &policy, fault.dry_run).await?;
    match global.output {
        Output::Json => output::line(&serde_json::to_string_pretty(&clean(&policy))?),
        Output::Name => output::line(&format!("backendtrafficpolicy.weft.dev/{}", name(&policy))),
        _ => {
            output::line(output::yaml(&clean(&policy))?.trim_end());
            apply::report(
                global,
                &format!("backendtrafficpolicy.weft.dev/{}", name(&policy)),
                applied,
                fault.dry_run,
            );
        }
    }
    if let (Some(lasting), false) = (fault.lasting, fault.dry_run) {
        output::remark(
            global,
            &format!(
                "for {}; Ctrl-C ends it now",
                humantime::format_duration(lasting)
            ),
        );
        tokio::select! {
            () = tokio::time::sleep(lasting) => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return clear(global, &mesh, &fault.service).await;
    }
    Ok(ExitCode::SUCCESS)
}

fn injection(fault: &Fault) -> Result<Value, Failure> {
    if !(0.0..=100.0).contains(&fault.percent) {
        return Err(Failure::usage(format!(
            "--percent {} is not between 0 and 100",
            fault.percent
        )));
    }
    let mut injection = json!({});
    if let Some(status) = fault.abort {
        injection["abort"] = json!({ "httpStatus": status, "percentage": fault.percent });
    }
    if let Some(delay) = fault.delay {
        injection["delay"] = json!({ "fixedDelay": format!("{}ms", delay.as_millis()), "percentage": fault.percent });
    }
    if injection == json!({}) {
        return Err(Failure::usage(
            "say what is to go wrong: --abort STATUS, --delay DURATION, or both",
        ));
    }
    Ok(injection)
}

fn new_policy(global: &Global, service: &str, injection: Value) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {
            "name": service,
            "namespace": global.namespace,
            "annotations": { WRITTEN_BY: "fault" },
        },
        "spec": {
            "targetRefs": [{ "group": "", "kind": "Service", "name": service }],
            "faultInjection": injection,
        },
    })
}

/// The policy that is attached to the service as a whole.
async fn find_policy(
    global: &Global,
    mesh: &Mesh,
    service: &str,
) -> Result<Option<Value>, Failure> {
    let list = mesh.get(path(global, "").trim_end_matches('/')).await?;
    let targets_service = |policy: &&Value| {
        let targets = policy["spec"]["targetRefs"]
            .as_array()
            .into_iter()
            .flatten();
        targets
            .into_iter()
            .any(|target| target["kind"] == "Service" && target["name"] == service)
    };
    Ok(list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(targets_service)
        .map(|policy| {
            let mut policy = policy.clone();
            policy["apiVersion"] = json!("weft.dev/v1alpha1");
            policy["kind"] = json!("BackendTrafficPolicy");
            policy
        }))
}

async fn clear(global: &Global, mesh: &Mesh, service: &str) -> Result<ExitCode, Failure> {
    let policy = find_policy(global, mesh, service)
        .await?
        .filter(|policy| !policy["spec"]["faultInjection"].is_null());
    let Some(mut policy) = policy else {
        let path = format!("/api/v1/namespaces/{}/services/{service}", global.namespace);
        if mesh.find(&path).await?.is_none() {
            return Err(Failure::not_found(format!(
                "there is no service {service:?} in namespace {}: see `weft get services`",
                global.namespace
            )));
        }
        output::remark(
            global,
            &format!("no fault is injected into calls to {service}"),
        );
        return Ok(ExitCode::SUCCESS);
    };
    let path = path(global, &name(&policy));
    if policy["metadata"]["annotations"][WRITTEN_BY] == "fault" {
        mesh.delete(&path).await?;
    } else {
        if let Some(spec) = policy["spec"].as_object_mut() {
            spec.remove("faultInjection");
        }
        mesh.replace(&path, &policy, false).await?;
    }
    output::line(&format!("fault on {service} cleared"));
    Ok(ExitCode::SUCCESS)
}

fn path(global: &Global, name: &str) -> String {
    format!(
        "/apis/weft.dev/v1alpha1/namespaces/{}/backendtrafficpolicies/{name}",
        global.namespace
    )
}

/// The object as a person would write it: without what the API keeps.
fn clean(policy: &Value) -> Value {
    let mut policy = policy.clone();
    if let Some(metadata) = policy["metadata"].as_object_mut() {
        metadata.retain(|field, _| {
            matches!(
                field.as_str(),
                "name" | "namespace" | "annotations" | "labels"
            )
        });
    }
    if let Some(policy) = policy.as_object_mut() {
        policy.remove("status");
    }
    policy
}
