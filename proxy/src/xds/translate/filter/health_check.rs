//! Health checks that the proxy answers.

use weft_proto::envoy::extensions::filters::http::health_check::v3::HealthCheck;

use super::super::at::{At, Invalid, duration, required};
use super::super::share::percent;
use super::super::text::header_matches;
use crate::config::filter::health_check::{HealthAnswer, HealthCheckConfig};
use crate::config::filter::live::Live;

/// The filter.
pub(super) fn health_check(at: &At<'_>, wire: &HealthCheck) -> Result<HealthCheckConfig, Invalid> {
    let HealthCheck {
        pass_through_mode,
        cache_time,
        cluster_min_healthy_percentages,
        headers,
    } = wire;
    let at_mode = at.field("pass_through_mode");
    let passes_through = *required(&at_mode, pass_through_mode.as_ref())?;
    let at_time = at.field("cache_time");
    let cache_time = duration(&at_time, cache_time.as_ref())?;
    let at_clusters = at.field("cluster_min_healthy_percentages");
    let clusters = cluster_min_healthy_percentages.iter();
    let clusters = clusters.map(|(name, min)| {
        let min = percent(&at_clusters.key(name), min)?;
        Ok((name.as_str().into(), min))
    });
    let clusters: Vec<_> = clusters.collect::<Result<_, Invalid>>()?;
    let answer = match (passes_through, cache_time) {
        (false, Some(_)) => {
            return Err(at_time.refuse("only answers of the upstream are remembered"));
        }
        (true, _) if !clusters.is_empty() => {
            return Err(at_clusters.refuse("only the proxy's own answers depend on clusters"));
        }
        (true, time) => HealthAnswer::Upstream(time),
        (false, None) => HealthAnswer::Proxy(clusters),
    };
    Ok(HealthCheckConfig {
        headers: header_matches(&at.field("headers"), headers)?,
        answer,
        live: Live::default(),
    })
}
