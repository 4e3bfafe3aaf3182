//! Spans from reports, in OpenTelemetry's semantic conventions for HTTP and RPC.
//!
//! A proxy's span of a received request is of kind server, of a sent one of kind client.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>

use std::sync::LazyLock;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::report::{Protocol, RequestReport};
use super::trace::TraceContext;
use crate::config::listener::Direction;
use crate::config::tracing::TagValue;

static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("weft-proxy")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
});

/// The span of a request; none where it belongs to no trace.
pub fn span(report: &RequestReport) -> Option<SpanData> {
    let trace = report.trace.as_ref()?;
    let kind = match report.downstream.direction {
        Direction::Inbound => SpanKind::Server,
        Direction::Outbound => SpanKind::Client,
    };
    Some(SpanData {
        span_context: context(trace),
        parent_span_id: trace
            .parent_span_id()
            .map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_be_bytes())),
        parent_span_is_remote: trace.is_parent_remote(),
        name: name(report).into(),
        start_time: report.start,
        end_time: report.start + report.duration,
        attributes: attributes(report, &kind),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: status(report, &kind),
        span_kind: kind,
        instrumentation_scope: SCOPE.clone(),
    })
}

fn context(trace: &TraceContext) -> SpanContext {
    let state = trace
        .state()
        .and_then(|state| state.parse::<TraceState>().ok());
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id().to_be_bytes()),
        SpanId::from_bytes(trace.span_id().to_be_bytes()),
        if trace.is_sampled() {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        },
        false,
        state.unwrap_or_default(),
    )
}

/// Of low cardinality: what the route calls it, else the method and the route's name, or gRPC's full method.
fn name(report: &RequestReport) -> String {
    if let Some(operation) = &report.operation {
        return operation.to_string();
    }
    match grpc_method(report) {
        Some((service, method)) => format!("{service}/{method}"),
        None if report.route.is_empty() => report.method.to_string(),
        None => format!("{} {}", report.method, report.route),
    }
}

/// Service and method of a gRPC request's path.
fn grpc_method(report: &RequestReport) -> Option<(&str, &str)> {
    let path = report.path.as_ref().filter(|_| report.is_grpc)?.path();
    path.strip_prefix('/')?.rsplit_once('/')
}

fn attributes(report: &RequestReport, kind: &SpanKind) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(24);
    request_attributes(report, kind, &mut attributes);
    response_attributes(report, &mut attributes);
    network_attributes(report, kind, &mut attributes);
    if let Some((service, method)) = grpc_method(report) {
        attributes.push(KeyValue::new("rpc.system", "grpc"));
        attributes.push(KeyValue::new("rpc.service", service.to_owned()));
        attributes.push(KeyValue::new("rpc.method", method.to_owned()));
    }
    tags(report, &mut attributes);
    attributes
}

fn request_attributes(report: &RequestReport, kind: &SpanKind, attributes: &mut Vec<KeyValue>) {
    attributes.push(KeyValue::new(
        "http.request.method",
        report.method.to_string(),
    ));
    attributes.push(KeyValue::new("url.scheme", "http"));
    if let Some(path) = &report.path {
        attributes.push(KeyValue::new("url.path", path.path().to_owned()));
        attributes.extend(
            path.query()
                .map(|query| KeyValue::new("url.query", query.to_owned())),
        );
    }
    let authority = report
        .authority
        .as_ref()
        .and_then(|value| value.to_str().ok());
    if let Some(authority) = authority {
        let (host, port) = host_and_port(authority);
        attributes.push(KeyValue::new("server.address", host.to_owned()));
        attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
    }
    if let (SpanKind::Client, Some(authority), Some(path)) = (kind, authority, &report.path) {
        attributes.push(KeyValue::new(
            "url.full",
            format!("http://{authority}{path}"),
        ));
    }
    let user_agent = report
        .user_agent
        .as_ref()
        .and_then(|value| value.to_str().ok());
    attributes
        .extend(user_agent.map(|agent| KeyValue::new("user_agent.original", agent.to_owned())));
    let request_id = report
        .request_id
        .as_ref()
        .and_then(|value| value.to_str().ok());
    attributes.extend(request_id.map(|id| KeyValue::new("guid:x-request-id", id.to_owned())));
    attributes.push(KeyValue::new(
        "http.request.body.size",
        integer(report.request_bytes),
    ));
    if report.attempts > 1 {
        attributes.push(KeyValue::new(
            "http.request.resend_count",
            i64::from(report.attempts - 1),
        ));
    }
}

fn response_attributes(report: &RequestReport, attributes: &mut Vec<KeyValue>) {
    if report.response_code != 0 {
        let code = i64::from(report.response_code);
        attributes.push(KeyValue::new("http.response.status_code", code));
    }
    attributes.push(KeyValue::new(
        "http.response.body.size",
        integer(report.response_bytes),
    ));
    if let Some(status) = report.grpc_status {
        attributes.push(KeyValue::new("rpc.grpc.status_code", i64::from(status)));
    }
    if !report.flags.is_empty() {
        attributes.push(KeyValue::new("response_flags", report.flags.to_string()));
    }
    if let Some(reason) = &report.reason {
        attributes.push(KeyValue::new(
            "weft.reason",
            StringValue::from(reason.clone()),
        ));
    }
}

fn network_attributes(report: &RequestReport, kind: &SpanKind, attributes: &mut Vec<KeyValue>) {
    let version = match report.protocol {
        Protocol::Http10 => "1.0",
        Protocol::Http11 => "1.1",
        Protocol::Http2 => "2",
    };
    attributes.push(KeyValue::new("network.protocol.name", "http"));
    attributes.push(KeyValue::new("network.protocol.version", version));
    let peer = match kind {
        SpanKind::Client => report.upstream.as_ref().map(|upstream| upstream.address),
        _ => {
            let client = report.downstream.peer;
            let address = report.client.unwrap_or_else(|| client.ip());
            attributes.push(KeyValue::new("client.address", address.to_string()));
            Some(client)
        }
    };
    if let Some(peer) = peer {
        attributes.push(KeyValue::new("network.peer.address", peer.ip().to_string()));
        attributes.push(KeyValue::new("network.peer.port", i64::from(peer.port())));
    }
    if let Some(cluster) = &report.cluster {
        attributes.push(KeyValue::new(
            "upstream_cluster",
            StringValue::from(cluster.clone()),
        ));
    }
    if let Some(principal) = &report.downstream.principal {
        attributes.push(KeyValue::new(
            "peer.principal",
            StringValue::from(principal.clone()),
        ));
    }
}

/// Attributes that the configuration adds.
fn tags(report: &RequestReport, attributes: &mut Vec<KeyValue>) {
    let tags = report.tracing.iter().flat_map(|tracing| &tracing.tags);
    for tag in tags {
        let value = match &tag.value {
            TagValue::Literal(text) => Some(StringValue::from(text.clone())),
            TagValue::RequestHeader { name, default } => report
                .request_headers
                .as_ref()
                .and_then(|headers| headers.get(name)?.to_str().ok())
                .map(|value| StringValue::from(value.to_owned()))
                .or_else(|| default.clone().map(StringValue::from)),
        };
        attributes.extend(value.map(|value| KeyValue::new(tag.name.to_string(), value)));
    }
}

/// What counts as an error depends on the side: a caller is to blame for its 4xx.
fn status(report: &RequestReport, kind: &SpanKind) -> Status {
    let is_client = *kind == SpanKind::Client;
    let is_error = match (report.is_grpc, report.grpc_status) {
        // Server side: unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
        (true, Some(status)) if !is_client => matches!(status, 2 | 4 | 12 | 13 | 14 | 15),
        (true, Some(status)) => status != 0,
        _ => report.response_code >= if is_client { 400 } else { 500 } || report.response_code == 0,
    };
    if !is_error {
        return Status::Unset;
    }
    Status::error(report.reason.as_deref().unwrap_or_default().to_owned())
}

/// Host without brackets, and port; of `[::1]:80`, `::1` and 80.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let bracketed = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    if let Some((host, rest)) = bracketed {
        return (
            host,
            rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        );
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (authority, None),
    }
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use opentelemetry::Value;

    use super::super::testing::{inbound, request, upstream};
    use super::*;
    use crate::config::percent::Percent;

    fn traced(change: impl FnOnce(&mut RequestReport)) -> SpanData {
        let mut report = request();
        report.upstream = Some(upstream());
        let context = TraceContext::from_headers(&HeaderMap::new(), Percent::ALL);
        report.trace = Some(Box::new(context));
        change(&mut report);
        span(&report).expect("a span")
    }

    fn attribute(span: &SpanData, key: &str) -> Option<Value> {
        span.attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == key)
            .map(|attribute| attribute.value.clone())
    }

    #[test]
    fn a_sent_request_is_a_client_span_of_its_endpoint() {
        let span = traced(|_| {});

        assert_eq!(span.span_kind, SpanKind::Client);
        assert_eq!(span.name, "GET all");
        assert_eq!(span.status, Status::Unset);
        assert_eq!(
            attribute(&span, "http.response.status_code"),
            Some(Value::I64(200))
        );
        assert_eq!(attribute(&span, "server.port"), Some(Value::I64(9080)));
        assert_eq!(
            attribute(&span, "network.peer.address"),
            Some("10.96.0.7".into())
        );
        assert_eq!(
            attribute(&span, "url.full"),
            Some("http://reviews:9080/reviews/1?full=yes".into())
        );
    }

    #[test]
    fn a_received_request_is_a_server_span_of_its_client() {
        let span = traced(|report| report.downstream = inbound(None));

        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(attribute(&span, "client.address"), Some("10.96.0.9".into()));
    }

    #[test]
    fn a_call_of_grpc_is_named_by_service_and_method() {
        let span = traced(|report| {
            report.is_grpc = true;
            report.path = Some("/shop.v1.Cart/Add".parse().expect("a path"));
            report.grpc_status = Some(5);
        });

        assert_eq!(span.name, "shop.v1.Cart/Add");
        assert_eq!(attribute(&span, "rpc.method"), Some("Add".into()));
        assert_eq!(
            attribute(&span, "rpc.grpc.status_code"),
            Some(Value::I64(5))
        );
        assert!(
            matches!(span.status, Status::Error { .. }),
            "not found fails the caller"
        );
    }

    #[test]
    fn what_fails_depends_on_the_side() {
        let not_found = |report: &mut RequestReport| report.response_code = 404;
        let received = |report: &mut RequestReport| {
            report.downstream = inbound(None);
            report.response_code = 404;
        };

        assert!(matches!(traced(not_found).status, Status::Error { .. }));
        assert_eq!(traced(received).status, Status::Unset);
    }

    #[test]
    fn ports_are_told_from_addresses() {
        assert_eq!(host_and_port("[::1]:80"), ("::1", Some(80)));
        assert_eq!(host_and_port("reviews"), ("reviews", None));
    }
}
