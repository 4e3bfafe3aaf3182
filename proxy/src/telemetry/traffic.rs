//! Metrics of the traffic itself: requests and TCP connections, by who called whom.
//!
//! Routes are named by configuration, never by path.

use std::sync::Arc;

use super::exposition::Exposition;
use super::labels::{Peers, destination_service, known_method};
use super::registry::{Metric, Registry};
use super::report::{RequestReport, TcpReport};
use super::series::SeriesTable;
use super::value::{Counter, DURATION_BUCKETS, Histogram};
use crate::config::Workload;

/// Labels of requests, in order.
pub const REQUEST_LABELS: &[&str] = &[
    "reporter",
    "source_workload",
    "source_namespace",
    "source_principal",
    "destination_service",
    "destination_workload",
    "destination_namespace",
    "protocol",
    "method",
    "route",
    "response_code",
    "response_flags",
    "grpc_status",
];

/// Labels of TCP connections, in order.
pub const TCP_LABELS: &[&str] = &[
    "reporter",
    "source_workload",
    "source_namespace",
    "source_principal",
    "destination_service",
    "destination_workload",
    "destination_namespace",
    "protocol",
    "response_flags",
];

/// Everything counted of requests with the same labels.
#[derive(Debug)]
pub struct RequestSeries {
    /// How many.
    pub requests: Counter,
    /// How long they took.
    pub duration: Histogram,
    /// Bytes of their bodies.
    pub request_bytes: Counter,
    /// Bytes of the bodies of their responses.
    pub response_bytes: Counter,
}

/// Everything counted of TCP connections with the same labels.
#[derive(Debug)]
pub struct TcpSeries {
    /// Connections opened.
    pub opened: Counter,
    /// Connections closed.
    pub closed: Counter,
    /// Bytes to the client.
    pub sent: Counter,
    /// Bytes from the client.
    pub received: Counter,
}

/// The tables of both.
#[derive(Debug, Clone)]
pub struct Traffic {
    requests: Arc<SeriesTable<RequestSeries>>,
    connections: Arc<SeriesTable<TcpSeries>>,
}

impl Traffic {
    /// Makes the tables and exposes them.
    pub fn register(registry: &Registry) -> Self {
        let shards = registry.shards();
        let requests = registry.series("weft_requests", REQUEST_LABELS, move || RequestSeries {
            requests: Counter::new(shards),
            duration: Histogram::new(shards, DURATION_BUCKETS),
            request_bytes: Counter::new(shards),
            response_bytes: Counter::new(shards),
        });
        let connections = registry.series("weft_tcp", TCP_LABELS, move || TcpSeries {
            opened: Counter::new(shards),
            closed: Counter::new(shards),
            sent: Counter::new(shards),
            received: Counter::new(shards),
        });
        let traffic = Self {
            requests,
            connections,
        };
        let collected = traffic.clone();
        registry.collector("weft_requests", move |exposition| {
            collected.collect(exposition)
        });
        traffic
    }

    /// The series of a request. `own` is this proxy's workload, `principal` its identity.
    pub fn request(
        &self,
        report: &RequestReport,
        own: &Workload,
        principal: Option<&str>,
    ) -> Arc<RequestSeries> {
        let peers = Peers::of(&report.downstream, report.upstream.as_ref(), own, principal);
        let service = destination_service(
            report.downstream.direction,
            report.upstream.as_ref(),
            report.cluster.as_deref(),
            own,
        );
        let code = report.response_code.to_string();
        let flags = report.flags.to_string();
        let grpc_status = report
            .grpc_status
            .map(|status| status.to_string())
            .unwrap_or_default();
        self.requests.with(&[
            peers.reporter,
            peers.source_workload,
            peers.source_namespace,
            peers.source_principal,
            service,
            peers.destination_workload,
            peers.destination_namespace,
            if report.is_grpc { "grpc" } else { "http" },
            known_method(&report.method),
            &report.route,
            &code,
            &flags,
            &grpc_status,
        ])
    }

    /// The series of a TCP connection.
    pub fn connection(
        &self,
        report: &TcpReport,
        own: &Workload,
        principal: Option<&str>,
    ) -> Arc<TcpSeries> {
        let peers = Peers::of(&report.downstream, report.upstream.as_ref(), own, principal);
        let service = destination_service(
            report.downstream.direction,
            report.upstream.as_ref(),
            report.cluster.as_deref(),
            own,
        );
        self.connections.with(&[
            peers.reporter,
            peers.source_workload,
            peers.source_namespace,
            peers.source_principal,
            service,
            peers.destination_workload,
            peers.destination_namespace,
            "tcp",
            &report.flags.to_string(),
        ])
    }

    fn collect(&self, exposition: &mut Exposition) {
        let requests = Family {
            table: &self.requests,
            exposition,
        };
        requests.write(
            "weft_requests_total",
            "Requests, when they have ended.",
            |series| &series.requests,
        );
        let durations = Family {
            table: &self.requests,
            exposition,
        };
        durations.write(
            "weft_request_duration_seconds",
            "Time from a request's headers to the end of its response.",
            |series| &series.duration,
        );
        let request_bytes = Family {
            table: &self.requests,
            exposition,
        };
        request_bytes.write(
            "weft_request_bytes_total",
            "Bytes of request bodies.",
            |series| &series.request_bytes,
        );
        let response_bytes = Family {
            table: &self.requests,
            exposition,
        };
        response_bytes.write(
            "weft_response_bytes_total",
            "Bytes of response bodies.",
            |series| &series.response_bytes,
        );
        self.collect_connections(exposition);
    }

    fn collect_connections(&self, exposition: &mut Exposition) {
        let opened = Family {
            table: &self.connections,
            exposition,
        };
        opened.write(
            "weft_tcp_connections_opened_total",
            "TCP connections that were opened.",
            |series| &series.opened,
        );
        let closed = Family {
            table: &self.connections,
            exposition,
        };
        closed.write(
            "weft_tcp_connections_closed_total",
            "TCP connections that have ended.",
            |series| &series.closed,
        );
        let sent = Family {
            table: &self.connections,
            exposition,
        };
        sent.write(
            "weft_tcp_sent_bytes_total",
            "Bytes sent to clients.",
            |series| &series.sent,
        );
        let received = Family {
            table: &self.connections,
            exposition,
        };
        received.write(
            "weft_tcp_received_bytes_total",
            "Bytes received from clients.",
            |series| &series.received,
        );
    }
}

/// One exposed family of a table whose series hold several values.
struct Family<'scrape, S> {
    table: &'scrape SeriesTable<S>,
    exposition: &'scrape mut Exposition,
}

impl<S> Family<'_, S> {
    fn write<M: Metric>(self, name: &str, help: &str, value: impl Fn(&S) -> &M) {
        let all = self.table.read();
        if all.is_empty() {
            return;
        }
        self.exposition.family(name, help, M::KIND);
        for (values, series) in &all {
            value(series).write(name, &self.table.named(values), self.exposition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{inbound, own_workload, request, upstream};
    use super::super::value::Shards;
    use super::*;

    const OWN: &str = "spiffe://cluster.local/ns/default/sa/productpage";

    fn rendered(report: &RequestReport) -> String {
        let registry = Registry::new(Shards::for_threads(1), 100);
        let traffic = Traffic::register(&registry);
        traffic
            .request(report, &own_workload(), Some(OWN))
            .requests
            .increment();
        registry.render()
    }

    #[test]
    fn a_request_that_was_sent_names_both_ends() {
        let mut report = request();
        report.upstream = Some(upstream());

        let text = rendered(&report);

        assert!(
            text.contains(
                "weft_requests_total{reporter=\"source\",source_workload=\"productpage\",\
                 source_namespace=\"default\",\
                 source_principal=\"spiffe://cluster.local/ns/default/sa/productpage\",\
                 destination_service=\"reviews\",destination_workload=\"reviews-v1\",\
                 destination_namespace=\"default\",protocol=\"http\",method=\"GET\",route=\"all\",\
                 response_code=\"200\",response_flags=\"-\",grpc_status=\"\"} 1\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_request_that_was_received_names_its_caller_by_certificate() {
        let mut report = request();
        report.downstream = inbound(Some("spiffe://cluster.local/ns/shop/sa/cart"));

        let text = rendered(&report);

        assert!(text.contains("reporter=\"destination\""), "{text}");
        assert!(
            text.contains("source_workload=\"cart\",source_namespace=\"shop\""),
            "{text}"
        );
        assert!(
            text.contains("destination_workload=\"productpage\""),
            "{text}"
        );
    }

    #[test]
    fn a_request_without_an_endpoint_still_names_the_service_it_was_for() {
        assert!(rendered(&request()).contains("destination_service=\"reviews\""));
    }

    #[test]
    fn an_invented_method_is_other() {
        let mut report = request();
        report.method = http::Method::from_bytes(b"BREW").expect("a method");

        assert!(rendered(&report).contains("method=\"OTHER\""));
    }
}
