//! `weft top`: the golden signals of each service and route, from the sidecars' own metrics.

mod samples;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::samples::Sample;
use self::signals::{Signals, Table};
use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::{Mesh, encode};
use crate::output;
use crate::resource::name;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft top\n  weft top reviews --interval 5s\n  weft top --no-stream -o json    # since the sidecars were started"
)]
pub(crate) struct Top {
    /// Only these services [default: all]
    services: Vec<String>,
    /// Print once, what has been counted since the sidecars were started
    #[arg(long)]
    no_stream: bool,
    /// The time that each screen is about
    #[arg(long, value_name = "DURATION", value_parser = crate::arguments::duration, default_value = "2s")]
    interval: Duration,
}

/// So many sidecars are asked at once.
const AT_ONCE: usize = 16;
/// No larger exposition is read.
const MAX_BYTES: usize = 64 << 20;

/// Prints once, or a screen for each interval until Ctrl-C.
pub(crate) async fn run(global: &Global, top: Top) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    for service in &top.services {
        let path = format!(
            "/api/v1/namespaces/{}/services/{}",
            global.namespace,
            encode(service)
        );
        mesh.get(&path).await?;
    }
    let mut before = (Instant::now(), look(global, &mesh).await?);
    if top.no_stream {
        print(global, &top, &before.1, None)?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(top.interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
        let now = (Instant::now(), look(global, &mesh).await?);
        output::clear_screen();
        let since = now.1.since(&before.1);
        print(global, &top, &since, Some(now.0 - before.0))?;
        before = now;
    }
}

/// What all sidecars of the namespace have counted.
async fn look(global: &Global, mesh: &Mesh) -> Result<Table, Failure> {
    let path = format!("/api/v1/namespaces/{}/pods", global.namespace);
    let pods = mesh.get(&path).await?;
    let running = pods["items"].as_array().into_iter().flatten();
    let names: Vec<String> = running.filter(|pod| has_sidecar(pod)).map(name).collect();
    let mut table = Table::default();
    for some in names.chunks(AT_ONCE) {
        let asked = some.iter().map(|pod| exposition(global, mesh, pod));
        // A pod that ends while it is asked has nothing more to say.
        for text in join_all(asked).await.into_iter().flatten() {
            Sample::all(&text).for_each(|sample| table.add(&sample));
        }
    }
    Ok(table)
}

fn has_sidecar(pod: &Value) -> bool {
    let started = pod["status"]["initContainerStatuses"].as_array();
    started.into_iter().flatten().any(|container| {
        container["name"] == "weft-proxy" && container["state"]["running"].is_object()
    })
}

async fn exposition(global: &Global, mesh: &Mesh, pod: &str) -> Result<String, Failure> {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}:{}/proxy/metrics",
        global.namespace,
        weft_proto::names::METRICS_PORT
    );
    let chunks = mesh.stream(&path).await?;
    let bytes: Vec<u8> = chunks
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            match all.len() <= MAX_BYTES {
                true => Ok(all),
                false => Err(Failure::new(format!(
                    "{pod} has more metrics than can be shown"
                ))),
            }
        })
        .await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Figures of some time, or, without one, since the sidecars were started.
fn print(
    global: &Global,
    top: &Top,
    table: &Table,
    elapsed: Option<Duration>,
) -> Result<(), Failure> {
    let is_asked = |service: &str| {
        top.services.is_empty() || top.services.iter().any(|asked| asked == service)
    };
    let rows = table.rows().filter(|((service, _), _)| is_asked(service));
    match global.output {
        Output::Json | Output::Yaml | Output::K8s => {
            let documents: Vec<Value> = rows
                .map(|((service, route), signals)| document(service, route, signals, elapsed))
                .collect();
            output::document(global.output, &documents)?;
        }
        Output::Name => rows.for_each(|((service, _), _)| output::line(service)),
        Output::Table | Output::Wide => {
            let headings = [
                "SERVICE", "ROUTE", "REQUESTS", "RATE", "SUCCESS", "P50", "P95", "P99",
            ];
            output::table(
                &headings,
                rows.map(|((service, route), signals)| row(service, route, signals, elapsed)),
            );
        }
    }
    Ok(())
}

fn row(service: &str, route: &str, signals: &Signals, elapsed: Option<Duration>) -> Vec<String> {
    let latency = |share| signals.quantile(share).map_or("-".to_owned(), seconds);
    vec![
        service.to_owned(),
        route.to_owned(),
        format!("{:.0}", signals.requests),
        rate(signals, elapsed).map_or("-".to_owned(), |rate| format!("{rate:.1}/s")),
        signals
            .success()
            .map_or("-".to_owned(), |share| format!("{:.2} %", 100.0 * share)),
        latency(0.5),
        latency(0.95),
        latency(0.99),
    ]
}

fn document(service: &str, route: &str, signals: &Signals, elapsed: Option<Duration>) -> Value {
    json!({
        "service": service,
        "route": route,
        "requests": signals.requests,
        "requestsPerSecond": rate(signals, elapsed),
        "success": signals.success(),
        "p50Seconds": signals.quantile(0.5),
        "p95Seconds": signals.quantile(0.95),
        "p99Seconds": signals.quantile(0.99),
    })
}

fn rate(signals: &Signals, elapsed: Option<Duration>) -> Option<f64> {
    Some(signals.requests / elapsed?.as_secs_f64())
}

/// `850 µs`, `12 ms`, `1.2 s`.
fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.001 => format!("{:.0} µs", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}
