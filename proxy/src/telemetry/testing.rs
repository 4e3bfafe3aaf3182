//! Reports for the tests of this module.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, Method};

use super::report::{Downstream, Protocol, RequestReport, ResponseFlags, TcpReport, Upstream};
use crate::config::Workload;
use crate::config::listener::Direction;

/// The workload whose proxy reports.
pub(crate) fn own_workload() -> Workload {
    Workload {
        name: "productpage".into(),
        namespace: "default".into(),
        pod: "productpage-x1y2z".into(),
        service: "productpage".into(),
    }
}

/// The endpoint that answered.
pub(crate) fn upstream() -> Upstream {
    Upstream {
        address: "10.96.0.7:15006".parse().expect("an address"),
        local: "10.96.0.5:50000".parse().ok(),
        protocol: Some(Protocol::Http2),
        workload: Arc::new(Workload {
            name: "reviews-v1".into(),
            namespace: "default".into(),
            pod: "reviews-v1-abcde".into(),
            service: "reviews".into(),
        }),
        is_mutual_tls: true,
        hostname: None,
        session: None,
    }
}

/// A connection of the application.
pub(crate) fn outbound() -> Arc<Downstream> {
    Arc::new(Downstream {
        id: 7,
        listener: "outbound|9080||reviews.default".into(),
        direction: Direction::Outbound,
        peer: "10.96.0.5:40000".parse().expect("an address"),
        direct_peer: "10.96.0.5:40000".parse().expect("an address"),
        local: "240.240.0.9:9080".parse().expect("an address"),
        principal: None,
        server_name: None,
        session: None,
        access_logs: Arc::new([]),
    })
}

/// A connection to the application.
pub(crate) fn inbound(principal: Option<&str>) -> Arc<Downstream> {
    Arc::new(Downstream {
        id: 7,
        listener: "inbound".into(),
        direction: Direction::Inbound,
        peer: "10.96.0.9:40000".parse().expect("an address"),
        direct_peer: "10.96.0.9:40000".parse().expect("an address"),
        local: "10.96.0.5:9080".parse().expect("an address"),
        principal: principal.map(Arc::from),
        server_name: None,
        session: None,
        access_logs: Arc::new([]),
    })
}

/// A request that was answered well; at 2001-09-09T01:46:40.123Z.
pub(crate) fn request() -> RequestReport {
    RequestReport {
        downstream: outbound(),
        client: None,
        start: UNIX_EPOCH + Duration::from_millis(1_000_000_000_123),
        duration: Duration::from_millis(12),
        request_duration: Some(Duration::from_millis(3)),
        upstream_latency: Some(Duration::from_millis(9)),
        protocol: Protocol::Http11,
        is_grpc: false,
        is_health_check: false,
        scheme: "http",
        method: Method::GET,
        path: Some("/reviews/1?full=yes".parse().expect("a path")),
        rewritten_path: None,
        authority: Some(HeaderValue::from_static("reviews:9080")),
        rewritten_authority: None,
        user_agent: Some(HeaderValue::from_static("curl/8")),
        forwarded_for: None,
        request_id: Some(HeaderValue::from_static("4f6c")),
        trace: None,
        route: "all".into(),
        cluster: Some("outbound|9080||reviews.default".into()),
        upstream: None,
        attempts: 1,
        response_code: 200,
        flags: ResponseFlags::default(),
        reason: None,
        details: None,
        grpc_status: None,
        request_bytes: 0,
        response_bytes: 357,
        access_logs: Arc::new([]),
        request_headers: None,
        response_headers: None,
        response_trailers: None,
        route_metadata: None,
        tracing: None,
        operation: None,
        metadata: Default::default(),
    }
}

/// A connection that was proxied as bytes.
pub(crate) fn connection() -> TcpReport {
    TcpReport {
        downstream: outbound(),
        start: UNIX_EPOCH + Duration::from_millis(1_000_000_000_123),
        duration: Duration::from_millis(1500),
        cluster: Some("outbound|6379||redis.default".into()),
        upstream: Some(upstream()),
        received_bytes: 10,
        sent_bytes: 20,
        flags: ResponseFlags::default(),
        reason: None,
        termination: None,
        access_logs: Arc::new([]),
    }
}
