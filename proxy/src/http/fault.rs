//! Fault injection: holds requests up, or answers them with an error.

use std::sync::Arc;

use http::HeaderMap;

use super::completion::Completion;
use super::failure::Failure;
use super::target::Destination;
use crate::cluster::random;
use crate::config::fault::FaultConfig;
use crate::config::matching::RequestLine;
use crate::snapshot::routes::Selected;
use crate::telemetry::report::ResponseFlags;

/// The configuration closest to the route.
pub(super) fn closest<'a>(
    inherited: &'a Arc<FaultConfig>,
    selected: Selected<'a>,
    destination: &Destination<'a>,
) -> &'a FaultConfig {
    let weighted = destination
        .weighted
        .and_then(|weighted| weighted.filters.fault.as_ref());
    weighted
        .or(selected.route.filters.fault.as_ref())
        .or(selected.host.filters.fault.as_ref())
        .unwrap_or(inherited)
}

/// Delays, then aborts, each for its share of the requests that match.
pub(super) async fn inject(
    config: &FaultConfig,
    line: RequestLine<'_>,
    headers: &HeaderMap,
    completion: &mut Completion,
) -> Result<(), Failure> {
    if !config
        .headers
        .iter()
        .all(|header| header.is_match(line, headers))
    {
        return Ok(());
    }
    if let Some(delay) = &config.delay
        && delay.percent.covers(random::draw())
    {
        completion.flag(ResponseFlags::DELAY_INJECTED);
        tokio::time::sleep(delay.duration).await;
    }
    match &config.abort {
        Some(abort) if abort.percent.covers(random::draw()) => Err(Failure::Injected {
            answer: abort.answer,
        }),
        _ => Ok(()),
    }
}
