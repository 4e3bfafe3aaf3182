//! `weft logs`: what services have written.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::AnsiColor;
use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::task::JoinSet;
use weft_injector::compose::Application;

use crate::arguments::{Global, duration};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::name;
use crate::suggest;
use crate::verb::down;
use crate::verb::ps::service;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft logs front\n  weft logs -f --tail 10\n  weft logs --proxy books    # what the sidecar says"
)]
pub(crate) struct Logs {
    /// Services or pods; none: all
    services: Vec<String>,
    /// Go on as they write
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only what is younger, like 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// The sidecar's log, not the application's
    #[arg(long)]
    proxy: bool,
}

/// Prints the logs, each line after its pod where there are several.
pub(crate) async fn run(global: &Global, logs: Logs) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let pods = chosen(global, &mesh, &logs.services).await?;
    tokio::select! {
        outcome = print_all(global, &mesh, &pods, &logs) => outcome?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Follows the logs of an application's chosen services, until stopped.
pub(crate) async fn follow(
    global: &Global,
    mesh: &Mesh,
    application: &Application,
) -> Result<(), Failure> {
    let mut pods = down::owned(global, mesh, "/api/v1", "pods", &application.name).await?;
    pods.retain(|pod| application.is_chosen(&service(pod)));
    let logs = Logs {
        services: Vec::new(),
        follow: true,
        tail: None,
        since: None,
        proxy: false,
    };
    print_all(global, mesh, &pods, &logs).await
}

/// The pods of these services, or with these names; none: all.
pub(crate) async fn chosen(
    global: &Global,
    mesh: &Mesh,
    wanted: &[String],
) -> Result<Vec<Value>, Failure> {
    let list = mesh
        .get(&format!("/api/v1/namespaces/{}/pods", global.namespace))
        .await?;
    let mut pods = list["items"].as_array().cloned().unwrap_or_default();
    for word in wanted {
        if !pods
            .iter()
            .any(|pod| name(pod) == *word || service(pod) == *word)
        {
            let services: Vec<String> = pods.iter().map(service).collect();
            let hint = suggest::hint(word, services.iter().map(String::as_str));
            return Err(Failure::not_found(format!(
                "no pod and no service is called {word:?}{hint}: see `weft ps -a`"
            )));
        }
    }
    pods.retain(|pod| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|word| name(pod) == *word || service(pod) == *word)
    });
    Ok(pods)
}

async fn print_all(
    global: &Global,
    mesh: &Mesh,
    pods: &[Value],
    logs: &Logs,
) -> Result<(), Failure> {
    let width = pods
        .iter()
        .map(|pod| name(pod).len())
        .max()
        .unwrap_or_default();
    let mut tasks = JoinSet::new();
    for (index, pod) in pods.iter().enumerate() {
        let prefix = match pods.len() {
            1 => String::new(),
            _ => colored(index, &format!("{:width$} | ", name(pod))),
        };
        tasks.spawn(print_one(mesh.clone(), path(global, pod, logs), prefix));
    }
    while let Some(outcome) = tasks.join_next().await {
        match outcome.map_err(|error| Failure::new(error.to_string()))? {
            // Nobody reads any more (`weft logs -f | head`): the other tasks end with the set.
            Err(Stopped::Unread(error)) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(Stopped::Unread(error)) => {
                return Err(Failure::new(format!("writing the logs: {error}")));
            }
            Err(Stopped::Failed(failure)) => return Err(failure),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Why a log was not printed to its end.
enum Stopped {
    Unread(std::io::Error),
    Failed(Failure),
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::Unread(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn print_one(mesh: Mesh, path: String, prefix: String) -> Result<(), Stopped> {
    let mut chunks = mesh.stream(&path).await?;
    let mut rest = Vec::new();
    while let Some(chunk) = chunks.next().await {
        rest.extend_from_slice(&chunk?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            output::try_line(&format!("{prefix}{line}"))?;
        }
    }
    if !rest.is_empty() {
        output::try_line(&format!("{prefix}{}", String::from_utf8_lossy(&rest)))?;
    }
    Ok(())
}

fn path(global: &Global, pod: &Value, logs: &Logs) -> String {
    let mut path = format!(
        "/api/v1/namespaces/{}/pods/{}/log?follow={}",
        global.namespace,
        name(pod),
        logs.follow
    );
    if logs.proxy {
        path.push_str("&container=weft-proxy");
    }
    if let Some(lines) = logs.tail {
        path.push_str(&format!("&tailLines={lines}"));
    }
    if let Some(since) = logs.since {
        path.push_str(&format!("&sinceSeconds={}", since.as_secs().max(1)));
    }
    path
}

/// Each pod has its colour.
fn colored(index: usize, text: &str) -> String {
    const COLORS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Green,
        AnsiColor::Yellow,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::BrightRed,
    ];
    let color = COLORS[index % COLORS.len()].on_default();
    format!("{color}{text}{color:#}")
}
