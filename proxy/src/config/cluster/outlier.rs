//! Outlier detection: when an endpoint is taken out of the balancing for what it has answered.

use std::time::Duration;

use crate::config::percent::Percent;

/// When an endpoint is taken out of the balancing for a while. A count of zero switches a test off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Server errors in a row.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row.
    pub consecutive_gateway_failure: u32,
    /// Failed connections in a row; counted apart only with `split_local_origin`.
    pub consecutive_local_origin_failure: u32,
    /// Whether failures to connect are counted apart, instead of as server errors.
    pub split_local_origin: bool,
    /// How often rates are judged, and ejections forgotten, one at a time, where there are no new ones.
    pub interval: Duration,
    /// The first ejection; the n-th in a row is n times as long.
    pub base_ejection_time: Duration,
    /// The longest.
    pub max_ejection_time: Duration,
    /// Added to each ejection, drawn up to this.
    pub max_ejection_jitter: Duration,
    /// At most this share of the endpoints is out at a time.
    pub max_ejection_percent: Percent,
    /// Whether one may be out in any case.
    pub always_ejects_one: bool,
    /// Whether an active health check that succeeds ends an ejection.
    pub is_ended_by_health_check: bool,
    /// Whether an endpoint that answers with `x-envoy-degraded` is spared for a while.
    pub detects_degraded: bool,
    /// How often what a test finds is acted upon.
    pub enforcing: Enforcing,
    /// Who is far below the others.
    pub success_rate: SuccessRateTest,
    /// Who fails too many.
    pub failure_percentage: FailurePercentageTest,
}

impl Default for OutlierDetection {
    /// Envoy's, without the tests of rates; and gateway failures are acted upon where they are counted.
    fn default() -> Self {
        OutlierDetection {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 0,
            consecutive_local_origin_failure: 5,
            split_local_origin: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_jitter: Duration::ZERO,
            max_ejection_percent: Percent::of(10),
            always_ejects_one: true,
            is_ended_by_health_check: true,
            detects_degraded: false,
            enforcing: Enforcing::default(),
            success_rate: SuccessRateTest::default(),
            failure_percentage: FailurePercentageTest::default(),
        }
    }
}

/// How often what a test of outlier detection finds is acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enforcing {
    /// Server errors in a row.
    pub consecutive_5xx: Percent,
    /// Gateway errors in a row.
    pub gateway_failure: Percent,
    /// Failed connections in a row.
    pub local_origin_failure: Percent,
    /// Success rates.
    pub success_rate: Percent,
    /// Success rates of connecting.
    pub local_success_rate: Percent,
    /// Shares of failures.
    pub failure_percentage: Percent,
    /// Shares of failures to connect.
    pub local_failure_percentage: Percent,
}

impl Default for Enforcing {
    /// All that counts failures in a row, and nothing that judges rates.
    fn default() -> Self {
        Enforcing {
            consecutive_5xx: Percent::ALL,
            gateway_failure: Percent::ALL,
            local_origin_failure: Percent::ALL,
            success_rate: Percent::ZERO,
            local_success_rate: Percent::ZERO,
            failure_percentage: Percent::ZERO,
            local_failure_percentage: Percent::ZERO,
        }
    }
}

/// Who is far below the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRateTest {
    /// So many endpoints with enough requests there must be.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
    /// So many thousandths of a standard deviation below the mean.
    pub deviation_thousandths: u32,
}

impl Default for SuccessRateTest {
    /// Envoy's.
    fn default() -> Self {
        SuccessRateTest {
            minimum_hosts: 5,
            request_volume: 100,
            deviation_thousandths: 1900,
        }
    }
}

/// Who fails too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePercentageTest {
    /// This share of its requests.
    pub threshold: Percent,
    /// So many endpoints with enough requests there must be.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
}

impl Default for FailurePercentageTest {
    /// Envoy's.
    fn default() -> Self {
        FailurePercentageTest {
            threshold: Percent::of(85),
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}
