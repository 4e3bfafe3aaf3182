//! Lets as many requests through at a time as the upstream bears, and refuses the rest.

mod gradient;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use self::gradient::Gradient;
use super::Passing;
use crate::config::filter::adaptive_concurrency::AdaptiveConcurrencyConfig;
use crate::http::completion::Held;
use crate::http::failure::{Failure, LocalReply};
use crate::telemetry::counters::counted;

counted! {
    /// What is counted, and the numbers as they are.
    pub(super) struct Stats {
        rq_blocked, concurrency_limit, gradient, min_rtt_calculation_active, min_rtt_msecs,
        sample_rtt_msecs,
    }
}

/// A request that was let through.
struct Admitted {
    gradient: Arc<Gradient>,
    begun: Instant,
}

impl Held for Admitted {
    fn ended(&mut self) {
        let now = Instant::now();
        self.gradient.sample(now - self.begun, now);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gradient.leave();
    }
}

/// Lets a request through, or refuses it.
pub(super) fn request(
    config: &Arc<AdaptiveConcurrencyConfig>,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let now = Instant::now();
    let gradient: &Arc<Gradient> = config.live.get_or_init(|| {
        let prefix = format!(
            "http.{}.adaptive_concurrency.gradient_controller.",
            passing.stat_prefix()
        );
        let stats = Stats::new(&passing.connection.environment.counters, &prefix);
        // What lives in a configuration must not keep it alive: it has a copy.
        let own = AdaptiveConcurrencyConfig {
            live: Default::default(),
            ..(**config).clone()
        };
        Arc::new(Gradient::new(own, stats, now))
    });
    if gradient.enter(now) {
        passing.completion.keep(Box::new(Admitted {
            gradient: Arc::clone(gradient),
            begun: now,
        }));
        return Ok(());
    }
    Err(Failure::Answered(Box::new(LocalReply {
        body: Bytes::from_static(b"reached concurrency limit"),
        ..LocalReply::new(config.status, "reached_concurrency_limit")
    })))
}
