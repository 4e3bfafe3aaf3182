//! Where reports of the data path become metrics, access-log lines and spans.
//!
//! Called on the workers: nothing here waits. Spans are handed over as reports and built on the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::access_log::AccessLogs;
use super::access_log::operator::Entry;
use super::recent::{self, Counting};
use super::registry::Registry;
use super::report::{Downstream, ReportSink, RequestReport, TcpReport, Upstream};
use super::traffic::{RequestSeries, TcpSeries, Traffic};
use super::value::Counter;
use crate::config::Workload;
use crate::config::identity::IdentityReceiver;
use crate::config::listener::Direction;

/// How many reports may wait to become spans.
pub const SPAN_QUEUE: usize = 2048;

/// The sink of all reports.
#[derive(Debug)]
pub struct Recorder {
    number: usize,
    traffic: Traffic,
    access_logs: AccessLogs,
    own: Arc<Workload>,
    identity: IdentityReceiver,
    spans: mpsc::Sender<Box<RequestReport>>,
    spans_dropped: Arc<Counter>,
}

impl Recorder {
    /// A recorder of this workload, and the reports that are to become spans, for `export`.
    pub fn register(
        registry: &Registry,
        own: Arc<Workload>,
        identity: IdentityReceiver,
    ) -> (Self, mpsc::Receiver<Box<RequestReport>>) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (spans, reports) = mpsc::channel(SPAN_QUEUE);
        let recorder = Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            traffic: Traffic::register(registry),
            access_logs: AccessLogs::register(registry),
            own,
            identity,
            spans,
            spans_dropped: registry.counter(
                "weft_spans_dropped_total",
                "Spans that were dropped because the queue of the exporter was full.",
            ),
        };
        (recorder, reports)
    }

    /// Waits until the access logs are written, at most so long for each.
    pub fn flush(&self, limit: Duration) {
        self.access_logs.flush(limit);
    }

    /// Opens the files of access logs anew. Tells whether all will be.
    pub fn reopen_logs(&self) -> bool {
        self.access_logs.reopen()
    }

    /// Finds the series of what has passed between these two.
    fn with_counting<S>(
        &self,
        downstream: &Downstream,
        upstream: Option<&Upstream>,
        find: impl FnOnce(Counting<'_>) -> Arc<S>,
    ) -> Arc<S> {
        let is_shown = downstream.direction == Direction::Outbound
            && upstream.is_some_and(|upstream| upstream.is_mutual_tls);
        let identity = is_shown.then(|| self.identity.borrow());
        let identity = identity.as_ref().and_then(|identity| identity.as_ref());
        find(Counting {
            recorder: self.number,
            principal: identity.map(|identity| &identity.spiffe_id),
        })
    }

    fn series(&self, report: &RequestReport) -> Arc<RequestSeries> {
        self.with_counting(&report.downstream, report.upstream.as_ref(), |counting| {
            let principal = counting.principal.map(|text| &**text);
            recent::of_request(counting, report, || {
                self.traffic.request(report, &self.own, principal)
            })
        })
    }

    fn tcp_series(&self, report: &TcpReport) -> Arc<TcpSeries> {
        self.with_counting(&report.downstream, report.upstream.as_ref(), |counting| {
            let principal = counting.principal.map(|text| &**text);
            recent::of_connection(counting, report, || {
                self.traffic.connection(report, &self.own, principal)
            })
        })
    }

    fn count(&self, report: &RequestReport) {
        let series = self.series(report);
        series.requests.increment();
        series.duration.observe(report.duration);
        series.request_bytes.add(report.request_bytes);
        series.response_bytes.add(report.response_bytes);
    }

    fn trace(&self, report: &RequestReport) {
        let is_sampled = report
            .trace
            .as_ref()
            .is_some_and(|trace| trace.is_sampled());
        let has_collector = report
            .tracing
            .as_ref()
            .is_some_and(|tracing| tracing.cluster.is_some());
        if !is_sampled || !has_collector {
            return;
        }
        match self.spans.try_reserve() {
            Ok(place) => place.send(Box::new(report.clone())),
            Err(_) => self.spans_dropped.increment(),
        }
    }
}

impl ReportSink for Recorder {
    fn request(&self, report: &RequestReport) {
        self.count(report);
        self.access_logs
            .write(&report.access_logs, Entry::Request(report));
        self.trace(report);
    }

    fn tcp_open(&self, report: &TcpReport) {
        self.tcp_series(report).opened.increment();
    }

    fn tcp_close(&self, report: &TcpReport) {
        let series = self.tcp_series(report);
        series.closed.increment();
        series.sent.add(report.sent_bytes);
        series.received.add(report.received_bytes);
        self.access_logs
            .write(&report.access_logs, Entry::Connection(report));
        self.connection(report);
    }

    fn connection(&self, report: &TcpReport) {
        self.access_logs
            .write(&report.downstream.access_logs, Entry::Connection(report));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tokio::sync::watch;

    use super::super::testing::{connection, own_workload, request};
    use super::super::trace::TraceContext;
    use super::super::value::Shards;
    use super::*;
    use crate::config::percent::Percent;
    use crate::config::tracing::TracingConfig;

    fn recorder(registry: &Registry) -> (Recorder, mpsc::Receiver<Box<RequestReport>>) {
        Recorder::register(registry, Arc::new(own_workload()), watch::channel(None).1)
    }

    fn traced(sampling: Percent) -> RequestReport {
        let mut report = request();
        let context = TraceContext::from_headers(&HeaderMap::new(), sampling);
        report.trace = Some(Box::new(context));
        report.tracing = Some(Arc::new(TracingConfig {
            is_egress: false,
            random_sampling: sampling,
            client_sampling: Percent::ALL,
            overall_sampling: Percent::ALL,
            service_name: "".into(),
            cluster: Some("otlp".into()),
            tags: vec![],
        }));
        report
    }

    #[test]
    fn a_request_is_counted_with_its_time_and_bytes() {
        let registry = Registry::new(Shards::for_threads(1), 10);
        let (recorder, _reports) = recorder(&registry);

        recorder.request(&request());
        recorder.request(&request());

        let text = registry.render();
        assert!(text.contains("grpc_status=\"\"} 2\n"), "{text}");
        assert!(text.contains("weft_response_bytes_total"), "{text}");
        assert!(text.contains("grpc_status=\"\"} 714\n"), "{text}");
        assert!(
            text.contains("grpc_status=\"\",le=\"0.025\"} 2\n"),
            "{text}"
        );
    }

    #[test]
    fn a_connection_is_counted_when_it_opens_and_when_it_ends() {
        let registry = Registry::new(Shards::for_threads(1), 10);
        let (recorder, _reports) = recorder(&registry);

        recorder.tcp_open(&connection());
        let open = registry.render();
        recorder.tcp_close(&connection());
        let closed = registry.render();

        let value = |text: &str, name: &str| -> u64 {
            text.lines()
                .find(|line| line.starts_with(&format!("{name}{{")))
                .and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .expect(name)
        };
        assert_eq!(value(&open, "weft_tcp_connections_opened_total"), 1);
        assert_eq!(value(&open, "weft_tcp_connections_closed_total"), 0);
        assert_eq!(value(&closed, "weft_tcp_connections_closed_total"), 1);
        assert_eq!(value(&closed, "weft_tcp_sent_bytes_total"), 20);
        assert_eq!(value(&closed, "weft_tcp_received_bytes_total"), 10);
    }

    #[test]
    fn only_sampled_requests_become_spans_and_those_past_the_queue_are_counted() {
        let registry = Registry::new(Shards::for_threads(1), 10);
        let (recorder, mut reports) = recorder(&registry);

        recorder.request(&traced(Percent::ZERO));
        for _ in 0..SPAN_QUEUE + 3 {
            recorder.request(&traced(Percent::ALL));
        }

        assert_eq!(recorder.spans_dropped.value(), 3);
        assert!(
            reports
                .try_recv()
                .is_ok_and(|report| report.trace.is_some())
        );
    }
}
