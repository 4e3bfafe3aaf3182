//! Slows bodies down, so that all of them together are no faster than they may be.

use std::sync::Arc;

use http_body::Body as _;

use super::Passing;
use super::rate::{Paced, Throughput, Told};
use crate::config::filter::bandwidth_limit::BandwidthLimitConfig;
use crate::telemetry::counters::counted;

counted! {
    /// What is counted of bodies, and of their waits.
    struct Stats {
        request_enabled, request_enforced, request_incoming_total_size, request_allowed_total_size,
        response_enabled, response_enforced, response_incoming_total_size, response_allowed_total_size,
    }
}

impl Stats {
    fn of_requests(&self) -> Told {
        Told {
            waits: Arc::clone(&self.request_enforced),
            come: Arc::clone(&self.request_incoming_total_size),
            passed: Arc::clone(&self.request_allowed_total_size),
        }
    }

    fn of_responses(&self) -> Told {
        Told {
            waits: Arc::clone(&self.response_enforced),
            come: Arc::clone(&self.response_incoming_total_size),
            passed: Arc::clone(&self.response_allowed_total_size),
        }
    }
}

/// What lives of a limit.
struct State {
    stats: Stats,
    throughput: Arc<Throughput>,
}

/// Slows a request's body down, and its response's when it comes.
pub(super) fn request(config: &BandwidthLimitConfig, passing: &mut Passing<'_>) {
    let state = config.live.get_or_init(|| {
        let prefix = format!("{}.http_bandwidth_limit.", config.stat_prefix);
        State {
            stats: Stats::new(&passing.connection.environment.counters, &prefix),
            throughput: Throughput::saved_up(config.kibibytes, config.interval),
        }
    });
    if config.requests {
        state.stats.request_enabled.increment();
    }
    if config.requests && !passing.body.is_end_stream() {
        let (throughput, told) = (Arc::clone(&state.throughput), state.stats.of_requests());
        let body = std::mem::take(passing.body);
        *passing.body = body.filtered(|inner| Paced::sharing(inner, throughput).telling(told));
    }
    if config.responses {
        state.stats.response_enabled.increment();
        let (throughput, told) = (Arc::clone(&state.throughput), state.stats.of_responses());
        passing.passage.on_response(move |returning| {
            let body = returning.response.body_mut();
            if !body.is_end_stream() {
                body.filtered(|inner| Paced::sharing(inner, throughput).telling(told));
            }
        });
    }
}
