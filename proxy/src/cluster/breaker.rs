//! Admission limits of a cluster: how much may be in flight at once.
//!
//! `http` and `tcp` ask before they pick an endpoint, `upstream` before it dials. Counts are shared by all
//! workers and survive configuration changes; lowering a limit never cancels what is already admitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::config::cluster::{RetryLimit, Thresholds};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// Connections, made and being made.
    Connections,
    /// Requests waiting for a connection.
    Pending,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

/// A limit has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many {} at once", self.noun())]
pub struct Overflow(pub Gauge);

impl Overflow {
    fn noun(&self) -> &'static str {
        match self.0 {
            Gauge::Connections => "connections",
            Gauge::Pending => "requests waiting for a connection",
            Gauge::Requests => "requests",
            Gauge::Retries => "retries",
        }
    }
}

/// What is in flight in a cluster, over all workers.
#[derive(Debug, Default)]
pub struct Counts {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
    /// How often each limit has refused.
    overflows: [AtomicU64; 4],
    /// Told when a connection ends or becomes free, while somebody waits for one.
    freed: Notify,
}

impl Counts {
    /// How many are in flight.
    pub fn current(&self, gauge: Gauge) -> u32 {
        self.of(gauge).load(Ordering::Relaxed)
    }

    /// How often the limit has refused.
    pub fn overflows(&self, gauge: Gauge) -> u64 {
        self.overflows[gauge as usize].load(Ordering::Relaxed)
    }

    /// Tells those who wait for a connection that there may be one.
    pub fn connection_freed(&self) {
        if self.pending.load(Ordering::Acquire) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Resolves at the next `connection_freed`; enable it before checking for a free connection.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    fn of(&self, gauge: Gauge) -> &AtomicU32 {
        match gauge {
            Gauge::Connections => &self.connections,
            Gauge::Pending => &self.pending,
            Gauge::Requests => &self.requests,
            Gauge::Retries => &self.retries,
        }
    }
}

/// The limits of a cluster, and what counts against them.
#[derive(Debug)]
pub struct Breakers {
    limits: Thresholds,
    counts: Arc<Counts>,
}

impl Breakers {
    /// Limits over counts, new or kept from before.
    pub fn new(limits: Thresholds, counts: Arc<Counts>) -> Self {
        Breakers { limits, counts }
    }

    /// The counts, which outlive a change of the limits.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The limits.
    pub fn limits(&self) -> &Thresholds {
        &self.limits
    }

    /// Counts one in, or refuses it. The permit counts it out again when dropped.
    pub fn admit(&self, gauge: Gauge) -> Result<Permit, Overflow> {
        let limit = self.limit(gauge);
        let in_flight = self.counts.of(gauge).fetch_add(1, Ordering::AcqRel);
        if in_flight >= limit {
            self.counts.of(gauge).fetch_sub(1, Ordering::AcqRel);
            return Err(self.refused(gauge));
        }
        Ok(self.permit(gauge))
    }

    /// Counts one in, whatever the limit says.
    pub fn admit_beyond(&self, gauge: Gauge) -> Permit {
        self.counts.of(gauge).fetch_add(1, Ordering::AcqRel);
        self.permit(gauge)
    }

    /// Counts one that is refused.
    pub fn refused(&self, gauge: Gauge) -> Overflow {
        self.counts.overflows[gauge as usize].fetch_add(1, Ordering::Relaxed);
        Overflow(gauge)
    }

    /// How many more would be admitted now.
    pub fn remaining(&self, gauge: Gauge) -> u32 {
        let current = self.counts.current(gauge);
        self.limit(gauge).saturating_sub(current)
    }

    fn permit(&self, gauge: Gauge) -> Permit {
        Permit {
            counts: Arc::clone(&self.counts),
            gauge,
        }
    }

    fn limit(&self, gauge: Gauge) -> u32 {
        match gauge {
            Gauge::Connections => self.limits.max_connections,
            Gauge::Pending => self.limits.max_pending_requests,
            Gauge::Requests => self.limits.max_requests,
            Gauge::Retries => self.retry_limit(),
        }
    }

    fn retry_limit(&self) -> u32 {
        match self.limits.retries {
            RetryLimit::Count(count) => count,
            RetryLimit::Budget {
                share,
                min_concurrency,
            } => {
                let active = self.counts.requests.load(Ordering::Relaxed) as usize;
                let allowed = share.share_of(active);
                u32::try_from(allowed)
                    .unwrap_or(u32::MAX)
                    .max(min_concurrency)
            }
        }
    }
}

/// One of the admitted; counted out when dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Counts>,
    gauge: Gauge,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.of(self.gauge).fetch_sub(1, Ordering::AcqRel);
        if self.gauge == Gauge::Connections {
            self.counts.connection_freed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::percent::Percent;

    fn limited_to(max_requests: u32) -> Thresholds {
        Thresholds {
            max_requests,
            ..Thresholds::default()
        }
    }

    #[test]
    fn what_is_over_the_limit_is_refused_until_something_ends() {
        let breakers = Breakers::new(limited_to(1), Arc::default());
        let held = breakers.admit(Gauge::Requests).expect("admitted");

        assert_eq!(
            breakers.admit(Gauge::Requests).err(),
            Some(Overflow(Gauge::Requests))
        );
        drop(held);
        assert!(breakers.admit(Gauge::Requests).is_ok());
        assert_eq!(breakers.counts().overflows(Gauge::Requests), 1);
    }

    #[test]
    fn counts_survive_a_change_of_the_limits() {
        let before = Breakers::new(limited_to(5), Arc::default());
        let _held = before.admit(Gauge::Requests).expect("admitted");

        let after = Breakers::new(limited_to(1), Arc::clone(before.counts()));

        assert!(after.admit(Gauge::Requests).is_err());
    }

    #[test]
    fn a_retry_budget_follows_the_active_requests() {
        let limits = Thresholds {
            retries: RetryLimit::Budget {
                share: Percent::of(20),
                min_concurrency: 1,
            },
            ..Thresholds::default()
        };
        let breakers = Breakers::new(limits, Arc::default());
        let _first = breakers.admit(Gauge::Retries).expect("the minimum");
        assert!(breakers.admit(Gauge::Retries).is_err());

        let _requests: Vec<_> = (0..10).map(|_| breakers.admit(Gauge::Requests)).collect();

        assert!(breakers.admit(Gauge::Retries).is_ok());
    }
}
