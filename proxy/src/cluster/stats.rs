//! What has happened in a cluster, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::outlier::Detector;

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
    /// Health checks.
    pub health_checks: AtomicU64,
    /// Of those, the ones that went well.
    pub health_checks_passed: AtomicU64,
    /// Of those, the ones that did not.
    pub health_checks_failed: AtomicU64,
}

impl ClusterStats {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
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
