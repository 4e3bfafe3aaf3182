//! How HTTP is served on a filter chain: Envoy's HTTP connection manager.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;

use super::access_log::AccessLogConfig;
use super::filter::{FilterKind, HttpFilter};
use super::http1::Http1Options;
use super::lifespan::Lifespan;
use super::local_replies::LocalReplies;
use super::paths::{HostOptions, PathOptions};
use super::route::RouteConfig;
use super::tracing::TracingConfig;

/// The HTTP side of a filter chain.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// A name for its counters.
    pub stat_prefix: Arc<str>,
    /// Where its routes come from.
    pub routes: RouteSource,
    /// What the client speaks.
    pub codec: Codec,
    /// Filters, in order. The last is the router, which is not listed.
    pub filters: Vec<HttpFilter>,
    /// From the first byte of a request to the end of its headers.
    pub request_headers_timeout: Option<Duration>,
    /// The whole request must be here by then.
    pub request_timeout: Option<Duration>,
    /// How long a connection may be without requests.
    pub idle_timeout: Option<Duration>,
    /// How long it is used at all.
    pub lifespan: Lifespan,
    /// How long a request may see no byte either way.
    pub stream_idle_timeout: Option<Duration>,
    /// Header bytes of a request.
    pub max_header_bytes: u32,
    /// Headers of a request.
    pub max_headers: usize,
    /// Bytes that are buffered of a connection.
    pub buffer_bytes: usize,
    /// Whether connections end when the proxy is declared unhealthy (`drain_type: DEFAULT`).
    pub ends_when_failed: bool,
    /// Whether it does less when the proxy is short of something.
    pub heeds_overload: bool,
    /// HTTP/1.1 of the client side.
    pub http1: Http1Options,
    /// HTTP/2 of the client side.
    pub http2: Http2Options,
    /// What is written about each request.
    pub access_logs: Arc<[Arc<AccessLogConfig>]>,
    /// Which requests are traced.
    pub tracing: Option<Arc<TracingConfig>>,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_certificate: ForwardClientCertificate,
    /// What of it is told.
    pub client_certificate_details: CertificateDetails,
    /// Whether the peer of the connection is the client: it is then appended to `x-forwarded-for`.
    pub use_remote_address: bool,
    /// Whom in front of it this proxy believes, and what it tells of itself.
    pub forwarding: ForwardingOptions,
    /// Whether requests without `x-request-id` are given one.
    pub generate_request_id: bool,
    /// Protocols that a connection may be upgraded to, and `connect`; lower case. Routes may say otherwise.
    pub upgrades: Vec<Arc<str>>,
    /// What is done to paths.
    pub paths: PathOptions,
    /// What becomes of header names with underscores.
    pub underscored_names: UnderscoredNames,
    /// What is done to hosts.
    pub hosts: HostOptions,
    /// From the beginning of a request to the end of its response; routes may say otherwise.
    pub max_stream_duration: Option<Duration>,
    /// Who is inside: callers whose headers about retries and time-outs are listened to.
    pub internal_addresses: Vec<IpNet>,
    /// Whether the upstream is asked whether a body shall come, in place of an answer from here.
    pub proxies_continue: bool,
    /// How the router behaves.
    pub router: RouterOptions,
    /// What becomes of answers of the proxy's own.
    pub local_replies: Option<Arc<LocalReplies>>,
}

/// Whom in front of it a proxy believes, and what it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardingOptions {
    /// How many proxies in front are believed in what they wrote into `x-forwarded-for`.
    pub trusted_hops: u32,
    /// Whether the peer is appended to `x-forwarded-for`, where it is the client.
    pub appends_peer: bool,
    /// What is appended to `via`, both ways.
    pub via: Option<Arc<str>>,
    /// What becomes of `server`.
    pub server: ServerHeader,
    /// What every request is said to have come by: `http` or `https`; none: what it says itself.
    pub scheme: Option<&'static str>,
    /// Whether an upstream is told the scheme of its own connection instead.
    pub scheme_matches_upstream: bool,
    /// Whether a request from outside keeps the `x-request-id` that it has.
    pub preserves_request_id: bool,
    /// Whether responses have the request's `x-request-id`.
    pub returns_request_id: bool,
}

impl Default for ForwardingOptions {
    fn default() -> Self {
        ForwardingOptions {
            trusted_hops: 0,
            appends_peer: true,
            via: None,
            server: ServerHeader::Upstreams,
            scheme: None,
            scheme_matches_upstream: false,
            preserves_request_id: false,
            returns_request_id: false,
        }
    }
}

/// What a response says of who has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerHeader {
    /// What the upstream has said, if anything.
    Upstreams,
    /// This, whatever the upstream has said.
    Overwritten(HeaderValue),
    /// This, where the upstream has said nothing.
    IfAbsent(HeaderValue),
}

/// What becomes of header names with underscores: some servers cannot tell them from hyphens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnderscoredNames {
    /// They are passed on.
    #[default]
    Kept,
    /// The request is refused.
    Refused,
    /// They are left out.
    Dropped,
}

/// How the router behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouterOptions {
    /// Whether `x-envoy-*` headers are not added.
    pub suppresses_envoy_headers: bool,
    /// Whether the time-out that another proxy has announced goes before the route's.
    pub respects_expected_timeout: bool,
}

/// Envoy's default for what is buffered of a connection.
pub const DEFAULT_BUFFER_BYTES: usize = 1024 * 1024;
/// Envoy's default for the headers of a message.
pub const DEFAULT_MAX_HEADERS: usize = 100;
/// Envoy's default for the header bytes of a message.
pub const DEFAULT_MAX_HEADER_BYTES: u32 = 60 * 1024;

impl HttpConfig {
    /// With routes, and Envoy's defaults for all else; WebSocket upgrades are allowed.
    pub fn new(stat_prefix: &str, routes: RouteSource) -> Self {
        HttpConfig {
            stat_prefix: stat_prefix.into(),
            routes,
            codec: Codec::Auto,
            filters: vec![],
            request_headers_timeout: None,
            request_timeout: None,
            idle_timeout: Some(Duration::from_secs(3600)),
            lifespan: Lifespan::default(),
            stream_idle_timeout: None,
            max_header_bytes: DEFAULT_MAX_HEADER_BYTES,
            max_headers: DEFAULT_MAX_HEADERS,
            buffer_bytes: DEFAULT_BUFFER_BYTES,
            ends_when_failed: true,
            heeds_overload: true,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            access_logs: Arc::new([]),
            tracing: None,
            client_certificate: ForwardClientCertificate::Sanitize,
            client_certificate_details: CertificateDetails::default(),
            use_remote_address: false,
            forwarding: ForwardingOptions::default(),
            generate_request_id: true,
            upgrades: vec!["websocket".into()],
            paths: PathOptions::default(),
            underscored_names: UnderscoredNames::default(),
            hosts: HostOptions::default(),
            max_stream_duration: None,
            internal_addresses: vec![],
            proxies_continue: false,
            router: RouterOptions::default(),
            local_replies: None,
        }
    }
}

/// Where routes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// Given with the listener.
    Inline(Arc<RouteConfig>),
    /// Discovered under this name.
    Discovered(Arc<str>),
}

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Told by ALPN or the first bytes.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
}

/// Bounds of HTTP/2; `None` leaves the library's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http2Options {
    /// Streams at a time.
    pub max_concurrent_streams: Option<u32>,
    /// Bytes in flight of a stream.
    pub initial_stream_window: Option<u32>,
    /// Bytes in flight of a connection.
    pub initial_connection_window: Option<u32>,
    /// How often an idle connection is asked whether it lives.
    pub keepalive_interval: Option<Duration>,
    /// How long the answer may take.
    pub keepalive_timeout: Option<Duration>,
    /// A connection to an upstream that nobody has used for so long is not used again. Listeners open no streams: it is
    /// nothing to them.
    pub longest_silence: Option<Duration>,
    /// Whether clients may ask for other protocols by extended CONNECT (RFC 8441).
    pub allows_connect: bool,
}

/// So many requests of HTTP/1.1 share a connection at most.
const SHARED_STREAMS: u32 = 200;
/// The largest window there is: RFC 9113, section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Bytes in flight of a stream where nothing is said. Small beside those of a connection, so that many streams that nobody
/// reads leave room for the others.
pub const DEFAULT_STREAM_WINDOW: u32 = 256 * 1024;
/// RFC 9113, section 6.9.2.
const MIN_WINDOW: u32 = 65_535;
/// Bytes in flight of a connection where nothing is said: Envoy's, and the most that is held of one.
pub const DEFAULT_CONNECTION_WINDOW: u32 = 24 * 1024 * 1024;

impl Http2Options {
    /// Bytes in flight of a stream.
    pub fn stream_window(&self) -> u32 {
        self.initial_stream_window.unwrap_or(DEFAULT_STREAM_WINDOW)
    }

    /// Of a connection that requests of HTTP/1.1 share: who does not read holds up nobody else, because its window is as
    /// large as those of its streams together.
    pub fn shared(&self) -> Self {
        let together = self.stream_window().saturating_mul(SHARED_STREAMS);
        let window = self.connection_window().max(together.min(MAX_WINDOW));
        let streams = self.max_concurrent_streams.unwrap_or(SHARED_STREAMS);
        Http2Options {
            initial_connection_window: Some(window),
            max_concurrent_streams: Some(streams.min(SHARED_STREAMS)),
            ..self.clone()
        }
    }

    /// Lets no more be in flight of a stream than is buffered of a connection, where nothing is said of streams; RFC
    /// 9113's own window is the least.
    pub fn bound(&mut self, buffer_bytes: usize) {
        let bytes = u32::try_from(buffer_bytes).unwrap_or(u32::MAX);
        let window = DEFAULT_STREAM_WINDOW.min(bytes.max(MIN_WINDOW));
        self.initial_stream_window.get_or_insert(window);
    }

    /// Bytes in flight of a connection.
    pub fn connection_window(&self) -> u32 {
        let window = self.initial_connection_window;
        window.unwrap_or(DEFAULT_CONNECTION_WINDOW)
    }
}

/// Envoy's `ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardClientCertificate {
    /// Removed.
    #[default]
    Sanitize,
    /// Left alone where the client is authenticated, else removed.
    ForwardOnly,
    /// The peer's certificate is appended where it is authenticated, else removed.
    AppendForward,
    /// Replaced by the peer's certificate.
    SanitizeSet,
    /// Left alone.
    AlwaysForwardOnly,
}

/// Envoy's `SetCurrentClientCertDetails`: what of a client's certificate is told, besides its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CertificateDetails {
    /// Its subject.
    pub subject: bool,
    /// All of it.
    pub certificate: bool,
    /// All of it, with those that lead to the root.
    pub chain: bool,
    /// The names of hosts in it.
    pub hosts: bool,
    /// The URIs in it.
    pub uri: bool,
}

impl HttpConfig {
    /// Whether somebody asks for request headers when the request is over: they are kept only then.
    pub fn needs_request_headers(&self) -> bool {
        let by_logs = self
            .access_logs
            .iter()
            .any(|log| log.needs_request_headers());
        let by_tags = self
            .tracing
            .iter()
            .flat_map(|tracing| &tracing.tags)
            .any(|tag| matches!(tag.value, super::tracing::TagValue::RequestHeader { .. }));
        let by_filters = self.filters.iter().any(|filter| match &filter.kind {
            FilterKind::HeaderMutation(config) => config.asks_on_response(),
            _ => false,
        });
        let mut replies = self.local_replies.iter();
        by_logs || by_tags || by_filters || replies.any(|replies| replies.needs_request_headers())
    }

    /// Whether somebody asks for response headers when the request is over.
    pub fn needs_response_headers(&self) -> bool {
        let logs = &self.access_logs;
        logs.iter().any(|log| log.needs_response_headers())
    }
}
