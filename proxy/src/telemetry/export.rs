//! Spans to their collectors, by OTLP over gRPC.
//!
//! Runs on the control thread: takes reports from a bounded queue, batches the spans of each collector, and sends
//! one batch at a time with OpenTelemetry's exporter, over a channel whose connections the caller makes (they may
//! go through the socket broker). A collector that is slow or away costs spans, which are counted, and nothing else.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;
use tracing::{debug, warn};

use super::registry::Registry;
use super::report::RequestReport;
use super::span::span;
use super::value::Counter;
use crate::config::Workload;

/// A connection, whatever it is made of.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Connects to an endpoint of a cluster.
pub type Connect = Arc<
    dyn Fn(Arc<str>) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>
        + Send
        + Sync,
>;

/// How long spans wait for company.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The most spans of one batch.
const BATCH_SPANS: usize = 512;
/// The most spans that wait for one collector.
const WAITING_SPANS: usize = 2048;
/// The longest one batch is tried.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting to a collector may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which collector, as which service.
type Destination = (Arc<str>, Arc<str>);

/// What became of spans.
#[derive(Debug, Clone)]
struct Counters {
    exported: Arc<Counter>,
    failed: Arc<Counter>,
    dropped: Arc<Counter>,
}

/// Exports the spans of all reports until cancelled, then what waits, at most for ten seconds.
pub async fn run(
    mut reports: mpsc::Receiver<Box<RequestReport>>,
    own: Arc<Workload>,
    connect: Connect,
    registry: Arc<Registry>,
    cancel: CancellationToken,
) {
    let mut exporters = Exporters {
        own,
        connect,
        counters: Counters {
            exported: registry.counter(
                "weft_spans_exported_total",
                "Spans that a collector has taken.",
            ),
            failed: registry.counter(
                "weft_spans_failed_total",
                "Spans that no collector took, because it was away or refused them.",
            ),
            dropped: registry.counter(
                "weft_spans_overflow_total",
                "Spans that were dropped because their collector did not keep up.",
            ),
        },
        waiting: HashMap::new(),
        running: JoinSet::new(),
    };
    let mut tick = interval_at(Instant::now() + BATCH_INTERVAL, BATCH_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            report = reports.recv() => match report {
                Some(report) => exporters.take(&report),
                None => break,
            },
            () = cancel.cancelled() => break,
            _ = tick.tick() => exporters.send_all(),
            Some(done) = exporters.running.join_next() => exporters.give_back(done),
        }
    }
    while let Ok(report) = reports.try_recv() {
        exporters.take(&report);
    }
    exporters.finish().await;
}

struct Exporters {
    own: Arc<Workload>,
    connect: Connect,
    counters: Counters,
    waiting: HashMap<Destination, Collector>,
    /// One batch of a collector at a time; an exporter comes back with its destination.
    running: JoinSet<(Destination, SpanExporter)>,
}

/// The spans of one collector and its exporter, which is away while it sends.
#[derive(Default)]
struct Collector {
    spans: Vec<SpanData>,
    exporter: Option<SpanExporter>,
    is_sending: bool,
}

impl Exporters {
    fn take(&mut self, report: &RequestReport) {
        let Some(tracing) = &report.tracing else {
            return;
        };
        let (Some(cluster), Some(span)) = (&tracing.cluster, span(report)) else {
            return;
        };
        let service = match tracing.service_name.is_empty() {
            true => &self.own.name,
            false => &tracing.service_name,
        };
        let destination = (Arc::clone(cluster), Arc::clone(service));
        let collector = self.waiting.entry(destination.clone()).or_default();
        if collector.spans.len() >= WAITING_SPANS {
            self.counters.dropped.increment();
            return;
        }
        collector.spans.push(span);
        if collector.spans.len() >= BATCH_SPANS {
            self.send(&destination);
        }
    }

    fn send_all(&mut self) {
        let destinations: Vec<_> = self.waiting.keys().cloned().collect();
        for destination in destinations {
            self.send(&destination);
        }
    }

    /// Sends one batch, unless there is nothing to send or one is on its way.
    fn send(&mut self, destination: &Destination) {
        let Some(collector) = self.waiting.get_mut(destination) else {
            return;
        };
        if collector.is_sending || collector.spans.is_empty() {
            return;
        }
        let exporter = match collector.exporter.take() {
            Some(exporter) => exporter,
            None => match exporter(destination, &self.own, &self.connect) {
                Ok(exporter) => exporter,
                Err(error) => {
                    warn!(cluster = %destination.0, %error, "spans not exported");
                    self.counters.failed.add(collector.spans.len() as u64);
                    collector.spans.clear();
                    return;
                }
            },
        };
        let count = collector.spans.len().min(BATCH_SPANS);
        let batch: Vec<_> = collector.spans.drain(..count).collect();
        collector.is_sending = true;
        self.running.spawn(export(
            destination.clone(),
            exporter,
            batch,
            self.counters.clone(),
        ));
    }

    fn give_back(&mut self, done: Result<(Destination, SpanExporter), tokio::task::JoinError>) {
        // A batch that panicked takes its exporter with it; `is_sending` is of no use then, so begin anew.
        let Ok((destination, exporter)) = done else {
            self.waiting
                .values_mut()
                .for_each(|collector| collector.is_sending = false);
            return;
        };
        let Some(collector) = self.waiting.get_mut(&destination) else {
            return;
        };
        collector.exporter = Some(exporter);
        collector.is_sending = false;
        if collector.spans.len() >= BATCH_SPANS {
            self.send(&destination);
        }
    }

    async fn finish(mut self) {
        let deadline = Instant::now() + EXPORT_TIMEOUT;
        loop {
            self.send_all();
            match tokio::time::timeout_at(deadline, self.running.join_next()).await {
                Ok(Some(done)) => self.give_back(done),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

async fn export(
    destination: Destination,
    exporter: SpanExporter,
    batch: Vec<SpanData>,
    counters: Counters,
) -> (Destination, SpanExporter) {
    let count = batch.len() as u64;
    match exporter.export(batch).await {
        Ok(()) => counters.exported.add(count),
        Err(error) => {
            debug!(cluster = %destination.0, %error, "spans not exported");
            counters.failed.add(count);
        }
    }
    (destination, exporter)
}

fn exporter(
    (cluster, service): &Destination,
    own: &Workload,
    connect: &Connect,
) -> Result<SpanExporter, opentelemetry_otlp::ExporterBuildError> {
    let (connect, cluster) = (Arc::clone(connect), Arc::clone(cluster));
    let connector = service_fn(move |_: Uri| {
        let connection = connect(Arc::clone(&cluster));
        async move { connection.await.map(TokioIo::new) }
    });
    // The cluster decides where connections go; the authority is only what is said on them.
    let channel = Endpoint::from_static("http://otlp.weft.dev")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector_lazy(connector);
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    exporter.set_resource(&resource(service, own));
    Ok(exporter)
}

fn resource(service: &str, own: &Workload) -> Resource {
    Resource::builder_empty()
        .with_service_name(service.to_owned())
        .with_attributes([
            KeyValue::new("k8s.namespace.name", own.namespace.to_string()),
            KeyValue::new("k8s.pod.name", own.pod.to_string()),
            KeyValue::new("telemetry.sdk.name", "weft"),
            KeyValue::new("telemetry.sdk.language", "rust"),
            KeyValue::new("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}
