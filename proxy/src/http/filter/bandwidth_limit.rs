//! Slows bodies down, so that all of them together are no faster than they may be.

use std::sync::Arc;

use http_body::Body as _;

use super::Passing;
use super::rate::{Paced, Throughput};
use crate::config::filter::bandwidth_limit::BandwidthLimitConfig;
use crate::telemetry::counters::counted;

counted! {
    /// What is counted of bodies, and of their waits.
    struct Stats { request_enabled, response_enabled, request_enforced, response_enforced }
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
            throughput: Throughput::new(config.kibibytes, config.interval),
        }
    });
    if config.requests && !passing.body.is_end_stream() {
        state.stats.request_enabled.increment();
        let (throughput, waits) = shared(state, &state.stats.request_enforced);
        let body = std::mem::take(passing.body);
        *passing.body = body
            .filtered(|inner| Paced::sharing(inner, throughput).telling(move || waits.increment()));
    }
    if config.responses {
        state.stats.response_enabled.increment();
        let (throughput, waits) = shared(state, &state.stats.response_enforced);
        passing.passage.on_response(move |returning| {
            let body = returning.response.body_mut();
            if !body.is_end_stream() {
                body.filtered(|inner| {
                    Paced::sharing(inner, throughput).telling(move || waits.increment())
                });
            }
        });
    }
}

fn shared<T>(state: &State, count: &Arc<T>) -> (Arc<Throughput>, Arc<T>) {
    (Arc::clone(&state.throughput), Arc::clone(count))
}
