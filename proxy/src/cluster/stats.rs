//! What has happened in a cluster, counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::outlier::Detector;
use super::zones::ZoneStats;

/// Counters of a cluster; they survive configuration changes.
#[derive(Debug, Default)]
pub struct ClusterStats {
    /// Requests sent on, each once.
    pub requests: AtomicU64,
    /// Tries that had an endpoint and a connection to it.
    pub tries: AtomicU64,
    /// Tries after the first.
    pub retries: AtomicU64,
    /// Tries that were worth it, and not allowed by the budget.
    pub retries_refused: AtomicU64,
    /// Tries after the first that ended well.
    pub retries_succeeded: AtomicU64,
    /// Connections that were begun, whatever became of them.
    pub connections_begun: AtomicU64,
    /// Of those, the ones that are over.
    pub connections_ended: AtomicU64,
    /// Of those, the ones that their endpoint has ended.
    pub connections_ended_by_peer: AtomicU64,
    /// Connections that ended while they were in use.
    pub connections_ended_in_use: AtomicU64,
    /// Of those, the ones that their endpoint has ended.
    pub connections_ended_in_use_by_peer: AtomicU64,
    /// Bytes from endpoints, after TLS was taken off.
    pub bytes_read: AtomicU64,
    /// Bytes to endpoints, before TLS was put on.
    pub bytes_written: AtomicU64,
    /// Connections that did not speak HTTP as they should.
    pub protocol_errors: AtomicU64,
    /// Connections that could not have the address that they are to be made from.
    pub bind_failures: AtomicU64,
    /// Times that discovery has named other endpoints.
    pub updates: AtomicU64,
    /// Choices in clusters with subsets.
    pub subsets: SubsetStats,
    /// Connections of HTTP/1 that were made.
    pub http1_connections: AtomicU64,
    /// Connections of HTTP/2 that were made.
    pub http2_connections: AtomicU64,
    /// Connections closed because they had carried as many requests as they may.
    pub connections_worn: AtomicU64,
    /// Connections closed because they had not been used for too long.
    pub connections_idled: AtomicU64,
    /// Connections closed because they were too old.
    pub connections_aged: AtomicU64,
    /// Requests that had to wait for a connection.
    pub pending: AtomicU64,
    /// Tries that were worth it, and more than the policy allows.
    pub retries_beyond: AtomicU64,
    /// Retries whose wait the policy has said.
    pub waits_of_policy: AtomicU64,
    /// Retries whose wait the upstream has asked for.
    pub waits_of_upstream: AtomicU64,
    /// Tries in which nothing was said for too long.
    pub idle_tries: AtomicU64,
    /// Streams that an endpoint has reset.
    pub resets: AtomicU64,
    /// Choices that found no endpoint.
    pub none_healthy: AtomicU64,
    /// Connections of opaque bytes that were tried as often as they may be.
    pub connects_given_up: AtomicU64,
    /// Redirects of an upstream that were followed here.
    pub redirects_followed: AtomicU64,
    /// Redirects of an upstream that could have been followed here, and were not.
    pub redirects_not_followed: AtomicU64,
    /// Responses, by status.
    pub responses: Responses,
    /// Endpoints that came or went.
    pub membership_changes: AtomicU64,
    /// Choices among unhealthy endpoints, because too few were healthy.
    pub panics: AtomicU64,
    /// Requests that took longer than their route allows.
    pub request_timeouts: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// Connections that could not be made.
    pub connect_failures: AtomicU64,
    /// Of those, the ones that took too long.
    pub connect_timeouts: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_failures: AtomicU64,
    /// Requests that found a connection to reuse.
    pub reused: AtomicU64,
    /// Requests that met a connection just closed, and were sent on a fresh one.
    pub stale: AtomicU64,
    /// Tries that took too long.
    pub timeouts: AtomicU64,
    /// Endpoints taken out.
    pub ejections: AtomicU64,
    /// Endpoints that would have been, had not too many been out.
    pub ejections_refused: AtomicU64,
    /// Outliers found, by what found them.
    detected: [AtomicU64; 7],
    /// Of those, the ones that were ejected.
    enforced: [AtomicU64; 7],
    /// Requests refused because the control plane wants a share of them refused.
    pub dropped: AtomicU64,
    /// Requests that stay in the proxy's locality.
    pub zones: ZoneStats,
    /// Health checks.
    pub health_checks: AtomicU64,
    /// Of those, the ones that went well.
    pub health_checks_passed: AtomicU64,
    /// Of those, the ones that did not.
    pub health_checks_failed: AtomicU64,
}

/// How endpoints were chosen in a cluster with subsets.
#[derive(Debug, Default)]
pub struct SubsetStats {
    /// Subsets that there were not before.
    pub created: AtomicU64,
    /// Subsets that are no more.
    pub removed: AtomicU64,
    /// Choices from a subset that was asked for.
    pub selected: AtomicU64,
    /// Choices from what is used in its place.
    pub fallback: AtomicU64,
    /// Choices from all endpoints, because nothing else could be used.
    pub fallback_panic: AtomicU64,
}

/// Responses by status, those that were made in an upstream's place among them.
#[derive(Debug, Default)]
pub struct Responses(OnceLock<Box<[AtomicU64; STATUSES]>>);

/// From 100 to 599, and all above.
const STATUSES: usize = 501;

impl Responses {
    /// One more.
    pub fn count(&self, status: StatusCode) {
        let counters = self
            .0
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; STATUSES]));
        let place = usize::from(status.as_u16().saturating_sub(100)).min(STATUSES - 1);
        counters[place].fetch_add(1, Ordering::Relaxed);
    }

    /// Statuses with how often each came, in order; those that never came are left out. 600 is all above 599.
    pub fn read(&self) -> Vec<(u16, u64)> {
        let counters = self.0.get().map_or(&[][..], |counters| &counters[..]);
        (100..)
            .zip(counters)
            .map(|(status, counter)| (status, counter.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl ClusterStats {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended: whether by its endpoint, and whether it was in use.
    pub fn connection_ended(&self, is_by_peer: bool, is_in_use: bool) {
        if is_by_peer {
            Self::count(&self.connections_ended_by_peer);
        }
        if is_in_use {
            Self::count(&self.connections_ended_in_use);
        }
        if is_by_peer && is_in_use {
            Self::count(&self.connections_ended_in_use_by_peer);
        }
    }

    /// An outlier was found.
    pub fn detected(&self, detector: Detector) {
        Self::count(&self.detected[detector as usize]);
    }

    /// And ejected.
    pub fn enforced(&self, detector: Detector) {
        Self::count(&self.enforced[detector as usize]);
    }

    /// How many outliers were found and ejected by one test.
    pub fn outliers(&self, detector: Detector) -> (u64, u64) {
        let read = |counters: &[AtomicU64; 7]| counters[detector as usize].load(Ordering::Relaxed);
        (read(&self.detected), read(&self.enforced))
    }

    /// All counters with their names, for metrics and `/clusters`.
    pub fn all(&self) -> [(&'static str, u64); 13] {
        [
            ("requests", &self.requests),
            ("retries", &self.retries),
            ("retries_refused", &self.retries_refused),
            ("retries_succeeded", &self.retries_succeeded),
            ("connections", &self.connections),
            ("connect_failures", &self.connect_failures),
            ("connect_timeouts", &self.connect_timeouts),
            ("tls_failures", &self.tls_failures),
            ("connections_reused", &self.reused),
            ("connections_stale", &self.stale),
            ("timeouts", &self.timeouts),
            ("ejections", &self.ejections),
            ("ejections_refused", &self.ejections_refused),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}
