//! Health checks that are answered here, or whose answers are remembered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::Passing;
use crate::cluster::endpoint::Endpoint;
use crate::config::endpoints::EndpointHealth;
use crate::config::filter::health_check::{HealthAnswer, HealthCheckConfig};
use crate::config::percent::Percent;
use crate::http::failure::{Failure, LocalReply};
use crate::snapshot::Snapshot;
use crate::telemetry::report::ResponseFlags;

/// Tells whoever asks to send nothing more at once.
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// The upstream's last answer, and until when it counts.
type Remembered = Arc<Mutex<Option<(StatusCode, Instant)>>>;

/// Answers a request that is a health check.
pub(super) fn request(
    config: &HealthCheckConfig,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let line = passing.line();
    let headers = &passing.head.headers;
    if !config
        .headers
        .iter()
        .all(|test| test.is_match(line, headers))
    {
        return Ok(());
    }
    passing.completion.is_health_check();
    let environment = &passing.connection.environment;
    if environment.is_failed.load(Ordering::Relaxed) || environment.drain.is_started() {
        let mut reply = failed("health_check_failed");
        reply
            .headers
            .push((IMMEDIATE_FAIL, HeaderValue::from_static("true")));
        return Err(Failure::Answered(Box::new(reply)));
    }
    match &config.answer {
        HealthAnswer::Upstream(None) => Ok(()),
        HealthAnswer::Upstream(Some(time)) => {
            let remembered: &Remembered = config.live.get_or_init(Remembered::default);
            cached(remembered, *time, passing)
        }
        HealthAnswer::Proxy(clusters) => {
            let snapshot = &passing.scene.snapshot;
            let is_low = |(name, min): &(Arc<str>, Percent)| !is_enough(snapshot, name, *min);
            let reply = match clusters.iter().any(is_low) {
                true => failed("health_check_failed_cluster_unhealthy"),
                false => LocalReply::new(StatusCode::OK, "health_check_ok"),
            };
            Err(Failure::Answered(Box::new(reply)))
        }
    }
}

fn failed(details: &str) -> LocalReply {
    LocalReply {
        flag: ResponseFlags::FAILED_LOCAL_HEALTH_CHECK,
        ..LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, details)
    }
}

fn cached(
    remembered: &Remembered,
    time: Duration,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let now = Instant::now();
    if let Some((status, until)) = *remembered.lock()
        && now < until
    {
        let mut reply = LocalReply::new(status, "health_check_cached");
        if status != StatusCode::OK {
            reply.flag = ResponseFlags::FAILED_LOCAL_HEALTH_CHECK;
        }
        return Err(Failure::Answered(Box::new(reply)));
    }
    let remembered = Arc::clone(remembered);
    passing.passage.on_response(move |returning| {
        let until = Instant::now() + time;
        *remembered.lock() = Some((returning.response.status(), until));
    });
    Ok(())
}

/// Whether so many of a cluster's endpoints are healthy; one without endpoints is not, unless none need be.
fn is_enough(snapshot: &Snapshot, name: &str, min: Percent) -> bool {
    let Some(cluster) = snapshot.clusters.get(name) else {
        return false;
    };
    let now = Instant::now();
    let (mut healthy, mut all) = (0_u64, 0_u64);
    for endpoint in cluster.endpoints() {
        all += 1;
        healthy += u64::from(is_healthy(&endpoint, now));
    }
    match all {
        0 => min == Percent::ZERO,
        all => healthy * 1_000_000 >= u64::from(min.millionths()) * all,
    }
}

fn is_healthy(endpoint: &Endpoint, now: Instant) -> bool {
    endpoint.health == EndpointHealth::Healthy && !endpoint.state.outlier.is_ejected(now)
}
