//! The end of a request: told once, however it comes.
//!
//! Made when the request begins, filled in on its way, and handed to whatever lives longest: the response's
//! body, or the tunnel of an upgrade. Dropped early (the client went away), it reports just that.

mod counted;
mod ended;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body::Body as _;

use super::attempt::Borrowed;
use super::body::Watch;
use super::headers::{self, Head};
use super::limits::{Limits, Progress};
use super::{ActiveRequest, HttpConnection, expectation};
use crate::clock;
use crate::cluster::Cluster;
use crate::cluster::endpoint::Endpoint;
use crate::config::http::HttpConfig;
use crate::config::metadata::Metadata;
use crate::config::route::Route;
use crate::present;
use crate::snapshot::chain::HttpService;
use crate::snapshot::routes::matches::is_grpc;
use crate::telemetry::managers::HttpEvent;
use crate::telemetry::report::{Protocol, RequestReport, ResponseFlags, Upstream};
use crate::telemetry::trace::TraceContext;
use crate::upstream::HttpVersion;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;
use crate::upstream::lease::Lease;

/// What is still to be done when a request ends.
pub(super) struct Completion(Option<Box<Inner>>);

struct Inner {
    report: RequestReport,
    started: Instant,
    request: ActiveRequest,
    meter: Option<Arc<BodyMeter>>,
    endpoint: Option<Arc<Endpoint>>,
    borrowed: Option<Borrowed>,
    watch: Watch,
    /// What filters hold until the end.
    held: Vec<Box<dyn Held>>,
    has_ended: bool,
    /// Whether the request has a body.
    has_body: bool,
    is_upgraded: bool,
    keeps_response_headers: bool,
    /// Whether a filter has made gRPC of the request.
    translates_grpc: bool,
    /// What the caller's proxy is told that the operation is called.
    answered_operation: Option<HeaderValue>,
}

/// What a filter holds until the request is over; dropped then, however it ends.
pub(super) trait Held: Send {
    /// The response has ended as it should.
    fn ended(&mut self) {}
}

impl Completion {
    /// At the beginning of a request.
    pub(super) fn begin(
        connection: &Arc<HttpConnection>,
        config: &HttpConfig,
        request: &Request<ClientBody>,
    ) -> Self {
        let headers = request.headers();
        let protocol = match request.version() {
            http::Version::HTTP_2 => Protocol::Http2,
            http::Version::HTTP_10 | http::Version::HTTP_09 => Protocol::Http10,
            _ => Protocol::Http11,
        };
        let named = request.uri().authority();
        let authority = match named {
            Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
            None => headers.get(header::HOST).cloned(),
        };
        let has_body = request.method() == Method::CONNECT || !request.body().is_end_stream();
        connection.stats().request_begun(protocol);
        if has_body && !config.proxies_continue && expectation::is_of_continue(headers) {
            connection.stats().count(HttpEvent::Informational);
        }
        let downstream = Arc::clone(&connection.downstream);
        let is_grpc = is_grpc(headers);
        let method = request.method().clone();
        let path = request.uri().path_and_query().cloned();
        let user_agent = headers.get(header::USER_AGENT).cloned();
        let route = Arc::default();
        let access_logs = Arc::clone(&config.access_logs);
        let tracing = config.tracing.clone();
        let (started, start) = (clock::now(), clock::time_of_day());
        let active = connection.begin_request();
        // Made in its place, with nothing called meanwhile that is not inlined: else it is made on the stack, and copied.
        let room = Box::new_uninit();
        let inner = Box::write(
            room,
            Inner {
                report: RequestReport {
                    downstream,
                    client: None,
                    start,
                    duration: std::time::Duration::ZERO,
                    request_duration: None,
                    upstream_latency: None,
                    protocol,
                    is_grpc,
                    is_health_check: false,
                    scheme: "",
                    method,
                    path,
                    rewritten_path: None,
                    authority,
                    rewritten_authority: None,
                    user_agent,
                    forwarded_for: None,
                    request_id: None,
                    trace: None,
                    route,
                    cluster: None,
                    upstream: None,
                    attempts: 0,
                    response_code: 0,
                    flags: ResponseFlags::default(),
                    reason: None,
                    details: None,
                    grpc_status: None,
                    request_bytes: 0,
                    response_bytes: 0,
                    access_logs,
                    request_headers: None,
                    response_headers: None,
                    response_trailers: None,
                    route_metadata: None,
                    tracing,
                    operation: None,
                    metadata: Metadata::new(),
                },
                started,
                request: active,
                meter: None,
                endpoint: None,
                borrowed: None,
                watch: Watch::default(),
                held: vec![],
                has_ended: false,
                has_body,
                is_upgraded: false,
                keeps_response_headers: false,
                translates_grpc: false,
                answered_operation: None,
            },
        );
        Completion(Some(inner))
    }

    /// Whom a proxy in front names as the client.
    pub(super) fn sent_by(&mut self, client: Option<IpAddr>) {
        self.tell(|inner| inner.report.client = client);
    }

    /// Whoever has sent the request.
    pub(super) fn client(&self) -> Option<IpAddr> {
        let report = &self.0.as_ref()?.report;
        let peer = || report.downstream.peer.ip().to_canonical();
        Some(report.client.unwrap_or_else(peer))
    }

    /// Its `x-request-id`.
    pub(super) fn request_id(&self) -> Option<HeaderValue> {
        self.0.as_ref()?.report.request_id.clone()
    }

    /// Once the request's own headers are complete: continues its trace, and remembers what logs need.
    pub(super) fn identify(&mut self, head: &mut Head, service: &HttpService) {
        let Some(inner) = &mut self.0 else { return };
        inner.keeps_response_headers = service.keeps_response_headers;
        let report = &mut inner.report;
        report.scheme = head.scheme;
        if let Some(tracing) = &report.tracing {
            let context = TraceContext::from_headers(&head.headers, tracing.random_sampling);
            context.inject(&mut head.headers);
            inner.request.0.stats().count(match context.is_sampled() {
                true if context.is_of_caller() => HttpEvent::TracedForCaller,
                true => HttpEvent::TracedAtRandom,
                false => HttpEvent::NotTraced,
            });
            report.trace = Some(Box::new(context));
        }
        report.request_id = head.headers.get(headers::REQUEST_ID).cloned();
        report.forwarded_for = present::value(&head.headers, &headers::FORWARDED_FOR).cloned();
        if service.keeps_request_headers {
            report.request_headers = Some(Box::new(head.headers.clone()));
        }
    }

    /// Filters have made this of the request; logs and headers of responses speak of what goes on from here.
    pub(super) fn filtered(&mut self, head: &Head) {
        self.tell(|inner| {
            let report = &mut inner.report;
            // CONNECT has none.
            if let Some(path) = &mut report.path
                && *path != head.path
            {
                *path = head.path.clone();
            }
            if let Some(kept) = &mut report.request_headers {
                (**kept).clone_from(&head.headers);
            }
        });
    }

    /// The route has made this of the request.
    pub(super) fn changed(&mut self, head: &Head) {
        self.tell(|inner| {
            let report = &mut inner.report;
            if report.authority != head.authority {
                report.rewritten_authority.clone_from(&head.authority);
            }
            if let Some(kept) = &mut report.request_headers {
                (**kept).clone_from(&head.headers);
            }
        });
    }

    /// Where requests are traced: whether as what leaves here, seen from the application.
    pub(super) fn traced_as_egress(&self) -> Option<bool> {
        let tracing = self.report()?.tracing.as_ref()?;
        Some(tracing.is_egress)
    }

    /// What the request's span is called.
    pub(super) fn named(&mut self, operation: Arc<str>) {
        self.tell(|inner| inner.report.operation = Some(operation));
    }

    /// The response tells the caller's proxy what the operation is called.
    pub(super) fn answer_operation(&mut self, operation: Option<HeaderValue>) {
        self.tell(|inner| inner.answered_operation = operation);
    }

    /// What the response is to tell the caller's proxy.
    pub(super) fn operation_to_answer(&mut self) -> Option<HeaderValue> {
        self.0.as_mut()?.answered_operation.take()
    }

    /// What the client speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.0
            .as_ref()
            .map_or(Protocol::Http11, |inner| inner.report.protocol)
    }

    /// The request's method.
    pub(super) fn method(&self) -> Option<&Method> {
        self.report().map(|report| &report.method)
    }

    /// Whether the request is gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.report.is_grpc)
    }

    /// When the request began.
    pub(super) fn started(&self) -> Instant {
        self.0
            .as_ref()
            .map_or_else(clock::now, |inner| inner.started)
    }

    pub(super) fn routed(&mut self, route: &Route) {
        self.tell(|inner| {
            inner.report.route = Arc::clone(&route.name);
            inner.report.route_metadata = route.filters.shared_metadata().cloned();
        });
    }

    /// The cluster that the route chose; what filters answer is told of it, too.
    pub(super) fn bound_for(&mut self, cluster: &Arc<str>) {
        self.tell(|inner| inner.report.cluster = Some(Arc::clone(cluster)));
    }

    /// A route has rewritten the path.
    pub(super) fn rewritten(&mut self, path: &PathAndQuery) {
        self.tell(|inner| inner.report.rewritten_path = Some(path.clone()));
    }

    pub(super) fn metered(&mut self, meter: Arc<BodyMeter>) {
        self.tell(|inner| inner.meter = Some(meter));
    }

    pub(super) fn attempted(&mut self) {
        self.tell(|inner| inner.report.attempts += 1);
    }

    pub(super) fn reached(&mut self, endpoint: &Arc<Endpoint>) {
        self.tell(|inner| {
            inner.endpoint = Some(Arc::clone(endpoint));
            inner.report.upstream = Some(Upstream {
                address: endpoint.address,
                local: None,
                protocol: None,
                workload: Arc::clone(&endpoint.workload),
                is_mutual_tls: endpoint.transport.is_tls(),
                hostname: endpoint.hostname.clone(),
                session: None,
            });
        });
    }

    /// Whence the endpoint is reached, by which TLS, and what is spoken with it.
    pub(super) fn connected(&mut self, lease: &Lease) {
        self.tell(|inner| {
            if let Some(upstream) = &mut inner.report.upstream {
                upstream.local = lease.local_address();
                upstream.session = lease.session().cloned();
                upstream.protocol = Some(match lease.version() {
                    HttpVersion::Http1 => Protocol::Http11,
                    HttpVersion::Http2 => Protocol::Http2,
                });
            }
        });
    }

    pub(super) fn flag(&mut self, flag: ResponseFlags) {
        self.tell(|inner| inner.report.flags.add(flag));
    }

    pub(super) fn hold(&mut self, borrowed: Borrowed) {
        self.tell(|inner| inner.borrowed = Some(borrowed));
    }

    /// Whether all of the request has come.
    pub(super) fn has_request(&self) -> bool {
        let meter = self.0.as_ref().and_then(|inner| inner.meter.as_ref());
        meter.is_none_or(|meter| meter.ended_at().is_some())
    }

    /// What is known of the request so far.
    pub(super) fn report(&self) -> Option<&RequestReport> {
        self.0.as_ref().map(|inner| &inner.report)
    }

    /// The headers of the request as they are now, where they are kept.
    pub(super) fn kept_headers(&self) -> Option<&HeaderMap> {
        self.report()?.request_headers.as_deref()
    }

    /// How often it has been tried.
    pub(super) fn attempts(&self) -> u32 {
        self.report().map_or(0, |report| report.attempts)
    }

    /// What filters have found out about the request.
    pub(super) fn metadata(&self) -> &Metadata {
        static NONE: Metadata = Metadata::new();
        self.0
            .as_ref()
            .map_or(&NONE, |inner| &inner.report.metadata)
    }

    /// Adds to what filters have found out about the request.
    pub(super) fn with_metadata(&mut self, change: impl FnOnce(&mut Metadata)) {
        self.tell(|inner| change(&mut inner.report.metadata));
    }

    /// From now on the request is gRPC, though its caller speaks something else.
    pub(super) fn is_grpc_now(&mut self) {
        self.tell(|inner| {
            inner.report.is_grpc = true;
            inner.translates_grpc = true;
        });
    }

    /// Whether the proxy's own answers are gRPC: those that a filter makes gRPC-Web of are not.
    pub(super) fn replies_grpc(&self) -> bool {
        let is_spoken = |inner: &Inner| inner.report.is_grpc && !inner.translates_grpc;
        self.0.as_deref().is_some_and(is_spoken)
    }

    /// Keeps something until the request is over.
    pub(super) fn keep(&mut self, held: Box<dyn Held>) {
        self.tell(|inner| inner.held.push(held));
    }

    /// What the response's body may take.
    pub(super) fn limited_by(&mut self, limits: Limits, progress: &Progress<'_>) {
        self.tell(|inner| {
            inner.watch = Watch {
                deadline: limits.deadline(progress),
                idle: limits.idle,
                stream_deadline: limits.stream_deadline(inner.started),
            };
        });
    }

    /// The endpoint that was being tried did not answer in time.
    pub(super) fn blame_endpoint(&mut self, cluster: &Cluster) {
        if let Some(endpoint) = self.0.as_ref().and_then(|inner| inner.endpoint.as_ref()) {
            cluster.record_lost(endpoint, Instant::now());
        }
    }

    /// The address of the endpoint that was tried last.
    pub(super) fn endpoint_address(&self) -> Option<std::net::SocketAddr> {
        self.0
            .as_ref()?
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.address)
    }

    fn tell(&mut self, change: impl FnOnce(&mut Inner)) {
        if let Some(inner) = &mut self.0 {
            change(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C library's allocator keeps what is no larger at hand for its thread.
    const KEPT_AT_HAND: usize = 1032;

    #[test]
    fn what_is_known_of_a_request_is_small() {
        let bytes = size_of::<Inner>();

        assert!(bytes <= KEPT_AT_HAND, "{bytes}");
    }
}
