//! What becomes of an endpoint by how its requests end: counted, and ejected or spared where that is one too many.

use std::time::{Duration, Instant};

use super::Cluster;
use super::endpoint::Endpoint;
use super::outlier::{Detector, Outcome};
use super::stats::ClusterStats;
use crate::config::balancing::Balancer;
use crate::random;

impl Cluster {
    /// Records how a request to an endpoint ended; ejects the endpoint where that was one failure too many.
    pub fn record(&self, endpoint: &Endpoint, outcome: Outcome, now: Instant) {
        if outcome != Outcome::Success {
            endpoint.state.count_failure();
        }
        let Some(config) = &self.config.outlier_detection else {
            return;
        };
        for detector in endpoint
            .state
            .outlier
            .record(outcome, config)
            .into_iter()
            .flatten()
        {
            self.eject(endpoint, detector, now);
        }
    }

    /// Records that a request which reached an endpoint has been lost or took too long: as in Envoy, that it was reached
    /// counts by itself where failures of ours are told apart.
    pub fn record_lost(&self, endpoint: &Endpoint, now: Instant) {
        if let Some(config) = &self.config.outlier_detection {
            endpoint.state.outlier.reached(config);
        }
        self.record(endpoint, Outcome::LocalOriginFailure, now);
    }

    /// Whether endpoints may ask to be spared with what they answer.
    pub fn heeds_degradation(&self) -> bool {
        let config = self.config.outlier_detection.as_ref();
        config.is_some_and(|config| config.detects_degraded)
    }

    /// An endpoint asks to be spared: others go before it for a while.
    pub fn record_degraded(&self, endpoint: &Endpoint, now: Instant) {
        let Some(config) = &self.config.outlier_detection else {
            return;
        };
        let outlier = &endpoint.state.outlier;
        if !outlier.is_degraded(now) && !outlier.is_ejected(now) {
            outlier.degrade(config, jitter(config.max_ejection_jitter), now);
            self.health_changed(now);
        }
    }

    /// Records how long an endpoint took to answer.
    pub fn record_latency(&self, endpoint: &Endpoint, latency: Duration, now: Instant) {
        if let Balancer::PeakEwma { decay, .. } = self.config.balancer {
            endpoint.state.latency.record(latency, decay, now);
        }
    }

    pub(super) fn eject(&self, endpoint: &Endpoint, detector: Detector, now: Instant) {
        let Some(config) = &self.config.outlier_detection else {
            return;
        };
        let outlier = &endpoint.state.outlier;
        if outlier.is_ejected(now) {
            return;
        }
        self.stats.detected(detector);
        if !self.may_eject_another(now) {
            ClusterStats::count(&self.stats.ejections_refused);
            return;
        }
        if !detector.enforcing(&config.enforcing).covers(random::draw()) {
            return;
        }
        outlier.eject(config, jitter(config.max_ejection_jitter), now);
        ClusterStats::count(&self.stats.ejections);
        self.stats.enforced(detector);
        tracing::info!(
            cluster = %self.name(),
            endpoint = %endpoint.address,
            why = detector.name(),
            "endpoint ejected"
        );
        self.health_changed(now);
    }

    /// No more than the configured share; one in any case, where that is so configured.
    fn may_eject_another(&self, now: Instant) -> bool {
        let Some(config) = &self.config.outlier_detection else {
            return false;
        };
        let (mut all, mut ejected) = (0, 0);
        for endpoint in self.members.endpoints() {
            all += 1;
            ejected += usize::from(endpoint.state.outlier.is_ejected(now));
        }
        let is_first = ejected == 0 && config.always_ejects_one;
        is_first || ejected < config.max_ejection_percent.share_of(all)
    }
}

fn jitter(longest: Duration) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random::with(|random| random::below(random, nanos)))
}
