//! What HTTP connection managers count, in Envoy's words: `http.<stat_prefix>.…`.
//!
//! A connection looks its own up when it begins and keeps it. Of what follows from other counts (all requests are
//! those of each version, all responses those of each class) only the parts are counted; the sums are made when asked for.

use std::sync::Arc;
use std::time::Duration;

use super::report::Protocol;
use super::tally::{Event, Tally, events};
use super::value::{Histogram, HistogramReading, Shards};

events! {
    /// What is counted of a connection manager on one listener.
    pub enum HttpEvent {
        // Once or twice for each request: in the first two cache lines.
        Http1Requests = "downstream_rq_http1_total",
        Http2Requests = "downstream_rq_http2_total",
        Ended = "downstream_rq_ended",
        ReceivedBytes = "downstream_cx_rx_bytes_total",
        SentBytes = "downstream_cx_tx_bytes_total",
        Routed = "rq_total",
        Informational = "downstream_rq_1xx",
        Successful = "downstream_rq_2xx",
        Redirection = "downstream_rq_3xx",
        ClientError = "downstream_rq_4xx",
        ServerError = "downstream_rq_5xx",
        OtherStatus = "downstream_rq_of_other_class",
        ResetReceived = "downstream_rq_rx_reset",
        ResetSent = "downstream_rq_tx_reset",
        RequestTimeout = "downstream_rq_timeout",
        HeadersTimeout = "downstream_rq_header_timeout",
        StreamIdle = "downstream_rq_idle_timeout",
        StreamTooLong = "downstream_rq_max_duration_reached",
        NonRelativePath = "downstream_rq_non_relative_path",
        BodyTooLarge = "downstream_rq_too_large",
        AnsweredEarly = "downstream_rq_response_before_rq_complete",
        PathRefused = "downstream_rq_failed_path_normalization",
        PathRedirected = "downstream_rq_redirected_with_normalized_path",
        UpgradeRefused = "downstream_rq_ws_on_non_ws_route",
        Overloaded = "downstream_rq_overload_close",
        NoRoute = "no_route",
        NoCluster = "no_cluster",
        DirectResponse = "rq_direct_response",
        CutOff = "rq_reset_after_downstream_response_started",
        RedirectBadLocation = "passthrough_internal_redirect_bad_location",
        RedirectNoRoute = "passthrough_internal_redirect_no_route",
        RedirectPredicate = "passthrough_internal_redirect_predicate",
        RedirectTooMany = "passthrough_internal_redirect_too_many_redirects",
        RedirectUnsafeScheme = "passthrough_internal_redirect_unsafe_scheme",
        Http1Connections = "downstream_cx_http1_total",
        Http1Active = "downstream_cx_http1_active",
        Http2Connections = "downstream_cx_http2_total",
        Http2Active = "downstream_cx_http2_active",
        TlsConnections = "downstream_cx_ssl_total",
        TlsActive = "downstream_cx_ssl_active",
        Connections = "downstream_cx_total",
        ConnectionsActive = "downstream_cx_active",
        Upgrades = "downstream_cx_upgrades_total",
        UpgradesActive = "downstream_cx_upgrades_active",
        EndedHere = "downstream_cx_destroy_local",
        EndedHereInRequest = "downstream_cx_destroy_local_active_rq",
        EndedByClient = "downstream_cx_destroy_remote",
        EndedByClientInRequest = "downstream_cx_destroy_remote_active_rq",
        ProtocolError = "downstream_cx_protocol_error",
        ConnectionIdle = "downstream_cx_idle_timeout",
        ConnectionTooOld = "downstream_cx_max_duration_reached",
        ConnectionUsedUp = "downstream_cx_max_requests_reached",
        Drained = "downstream_cx_drain_close",
        KeepaliveDisabled = "downstream_cx_overload_disable_keepalive",
        TracedAtRandom = "tracing.random_sampling",
        TracedForCaller = "tracing.service_forced",
        NotTraced = "tracing.not_traceable",
        HealthCheck = "tracing.health_check",
    }
}

/// Envoy's buckets for the time of a request, in seconds.
const TIME_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 600.0, 1800.0, 3600.0,
];

/// What is counted of a connection manager on one listener.
#[derive(Debug)]
pub struct ManagerStats {
    events: Tally<HttpEvent>,
    times: Histogram,
}

impl ManagerStats {
    /// All at zero.
    pub fn new(shards: Shards) -> Self {
        ManagerStats {
            events: Tally::new(shards),
            times: Histogram::new(shards, TIME_BUCKETS),
        }
    }

    /// Counts one.
    pub fn count(&self, event: HttpEvent) {
        self.events.count(event);
    }

    /// Counts one of each.
    pub fn count_all<const N: usize>(&self, events: [HttpEvent; N]) {
        self.events.count_all(events);
    }

    /// Takes one away.
    pub fn uncount(&self, event: HttpEvent) {
        self.events.uncount_all([event]);
    }

    /// Counts bytes.
    pub fn add(&self, event: HttpEvent, amount: u64) {
        self.events.add(event, amount);
    }

    /// A request begins.
    pub fn request_begun(&self, protocol: Protocol) {
        self.count(match protocol {
            Protocol::Http2 => HttpEvent::Http2Requests,
            Protocol::Http10 | Protocol::Http11 => HttpEvent::Http1Requests,
        });
    }

    /// Its client is told how it went.
    pub fn responded(&self, status: u16) {
        self.count(match status / 100 {
            1 => HttpEvent::Informational,
            2 => HttpEvent::Successful,
            3 => HttpEvent::Redirection,
            4 => HttpEvent::ClientError,
            5 => HttpEvent::ServerError,
            _ => HttpEvent::OtherStatus,
        });
    }

    /// It is over, after so long.
    pub fn request_ended(&self, duration: Duration) {
        self.count(HttpEvent::Ended);
        self.times.observe(duration);
    }

    /// Counts what another has counted.
    pub fn absorb(&self, other: &Self) {
        self.events.absorb(&other.events);
        self.times.absorb(&other.times);
    }

    /// How long requests have taken.
    pub fn times(&self) -> HistogramReading {
        self.times.read()
    }

    fn sum(&self, events: &[HttpEvent]) -> u64 {
        events.iter().map(|event| self.events.value(*event)).sum()
    }

    /// All of it with Envoy's names.
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        let counted = HttpEvent::ALL
            .iter()
            .filter(|(event, _)| !matches!(event, HttpEvent::Ended | HttpEvent::OtherStatus))
            .map(|(event, name)| (*name, self.events.value(*event)));
        counted
            .chain(self.sums())
            .chain(NEVER.map(|name| (name, 0)))
            .collect()
    }

    /// What follows from what is counted.
    fn sums(&self) -> [(&'static str, u64); 4] {
        let begun = self.sum(&[HttpEvent::Http1Requests, HttpEvent::Http2Requests]);
        let ended = self.sum(&[HttpEvent::Ended]);
        let destroyed = self.sum(&[HttpEvent::EndedHere, HttpEvent::EndedByClient]);
        let in_request = [
            HttpEvent::EndedHereInRequest,
            HttpEvent::EndedByClientInRequest,
        ];
        [
            ("downstream_rq_total", begun),
            // Rows are read one after the other: what ends in between must not make it negative.
            ("downstream_rq_active", begun.saturating_sub(ended)),
            ("downstream_cx_destroy", destroyed),
            ("downstream_cx_destroy_active_rq", self.sum(&in_request)),
        ]
    }

    /// Responses by class and all of them, which Envoy also tells by listener.
    pub fn responses(&self) -> [(&'static str, u64); 6] {
        let classes = [
            (HttpEvent::Informational, "downstream_rq_1xx"),
            (HttpEvent::Successful, "downstream_rq_2xx"),
            (HttpEvent::Redirection, "downstream_rq_3xx"),
            (HttpEvent::ClientError, "downstream_rq_4xx"),
            (HttpEvent::ServerError, "downstream_rq_5xx"),
        ];
        let [one, two, three, four, five] = classes.map(|(event, name)| (name, self.sum(&[event])));
        let known = one.1 + two.1 + three.1 + four.1 + five.1;
        let all = known + self.sum(&[HttpEvent::OtherStatus]);
        [
            one,
            two,
            three,
            four,
            five,
            ("downstream_rq_completed", all),
        ]
    }
}

/// What cannot happen here: there is no HTTP/3, no response is held back to be looked at as a whole, a connection is closed
/// without waiting for its client, and streams are limited by the HTTP library.
const NEVER: [&str; 11] = [
    "downstream_cx_http3_total",
    "downstream_cx_http3_active",
    "downstream_rq_http3_total",
    "downstream_cx_http1_soft_drain",
    "downstream_cx_delayed_close_timeout",
    "downstream_rq_rejected_via_ip_detection",
    "downstream_rq_too_many_premature_resets",
    "rq_overload_local_reply",
    // As in Envoy, a redirect is a direct response.
    "rq_redirect",
    "rs_too_large",
    "tracing.client_enabled",
];

/// A connection among those of its manager; counted out when dropped.
#[derive(Debug)]
pub struct ManagedConnection {
    stats: Arc<ManagerStats>,
    protocol: Option<Protocol>,
    is_tls: bool,
}

impl ManagedConnection {
    /// Counts a connection in, of which it may not be known yet what it speaks.
    pub fn begin(stats: Arc<ManagerStats>, is_tls: bool) -> Self {
        stats.count_all([HttpEvent::Connections, HttpEvent::ConnectionsActive]);
        if is_tls {
            stats.count_all([HttpEvent::TlsConnections, HttpEvent::TlsActive]);
        }
        ManagedConnection {
            stats,
            protocol: None,
            is_tls,
        }
    }

    /// It speaks this.
    pub fn speak(&mut self, protocol: Protocol) {
        let stats = &self.stats;
        match protocol {
            Protocol::Http2 => {
                stats.count_all([HttpEvent::Http2Connections, HttpEvent::Http2Active]);
            }
            _ => stats.count_all([HttpEvent::Http1Connections, HttpEvent::Http1Active]),
        }
        self.protocol = Some(protocol);
    }

    /// Only HTTP/2 is spoken here, and this is none: counted as what it should have been, as in Envoy.
    pub fn end_without_http2(mut self) {
        self.speak(Protocol::Http2);
        self.stats.count(HttpEvent::EndedHere);
    }

    /// What is counted.
    pub fn stats(&self) -> &Arc<ManagerStats> {
        &self.stats
    }
}

impl Drop for ManagedConnection {
    fn drop(&mut self) {
        self.stats.uncount(HttpEvent::ConnectionsActive);
        match self.protocol {
            Some(Protocol::Http2) => self.stats.uncount(HttpEvent::Http2Active),
            Some(_) => self.stats.uncount(HttpEvent::Http1Active),
            None => {}
        }
        if self.is_tls {
            self.stats.uncount(HttpEvent::TlsActive);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stats: &ManagerStats, name: &str) -> u64 {
        let all = stats.read();
        let found = all.iter().find(|(each, _)| *each == name);
        found.map(|(_, value)| *value).expect(name)
    }

    #[test]
    fn a_request_in_flight_is_active_until_it_ends() {
        let stats = ManagerStats::new(Shards::for_threads(2));
        stats.request_begun(Protocol::Http11);
        stats.request_begun(Protocol::Http2);
        stats.responded(200);
        stats.request_ended(Duration::from_millis(3));

        assert_eq!(told(&stats, "downstream_rq_total"), 2);
        assert_eq!(told(&stats, "downstream_rq_active"), 1);
        assert_eq!(told(&stats, "downstream_rq_2xx"), 1);
        assert_eq!(stats.times().count, 1);
    }

    #[test]
    fn a_response_of_no_class_is_completed_all_the_same() {
        let stats = ManagerStats::new(Shards::for_threads(1));
        stats.responded(600);
        stats.responded(404);

        let responses = stats.responses();

        assert!(responses.contains(&("downstream_rq_completed", 2)));
        assert!(responses.contains(&("downstream_rq_4xx", 1)));
    }

    #[test]
    fn no_name_is_told_twice() {
        let stats = ManagerStats::new(Shards::for_threads(1));
        let mut names: Vec<_> = stats.read().into_iter().map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();

        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_connection_is_active_as_long_as_it_is_held() {
        let stats = Arc::new(ManagerStats::new(Shards::for_threads(1)));
        let mut one = ManagedConnection::begin(Arc::clone(&stats), true);
        one.speak(Protocol::Http2);

        assert_eq!(told(&stats, "downstream_cx_http2_active"), 1);
        assert_eq!(told(&stats, "downstream_cx_ssl_active"), 1);
        drop(one);
        assert_eq!(told(&stats, "downstream_cx_active"), 0);
        assert_eq!(told(&stats, "downstream_cx_total"), 1);
        assert_eq!(told(&stats, "downstream_cx_http2_active"), 0);
    }
}
