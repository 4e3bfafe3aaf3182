//! Outliers by rate: who is far below the others, and who fails too many.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::cluster::outlier::{FailurePercentageTest, SuccessRateTest};

/// Requests of an interval, and how many of them went well.
#[derive(Debug, Default)]
pub struct Rate {
    all: AtomicU32,
    good: AtomicU32,
}

impl Rate {
    /// Counts one.
    pub fn count(&self, is_good: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if is_good {
            self.good.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts so far, which begin anew.
    pub fn take(&self) -> Counted {
        // Good ones first: a request counted between the two never makes more good ones than all.
        let good = self.good.swap(0, Ordering::Relaxed);
        let all = self.all.swap(0, Ordering::Relaxed);
        Counted {
            all: all.max(good),
            good,
        }
    }
}

/// The requests of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// All.
    pub all: u32,
    /// Those that went well.
    pub good: u32,
}

impl Counted {
    /// In percent.
    fn success_rate(self) -> f64 {
        match self.all {
            0 => 100.0,
            all => f64::from(self.good) * 100.0 / f64::from(all),
        }
    }
}

/// Those whose success rate is too far below the mean; by their places.
pub fn below_the_others(counted: &[Counted], test: &SuccessRateTest) -> Vec<usize> {
    let rates = with_volume(counted, test.request_volume);
    if rates.is_empty() || rates.len() < test.minimum_hosts as usize {
        return vec![];
    }
    #[allow(clippy::cast_precision_loss, reason = "a few thousand at most")]
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates
        .iter()
        .map(|(_, rate)| (rate - mean).powi(2))
        .sum::<f64>()
        / count;
    let factor = f64::from(test.deviation_thousandths) / 1000.0;
    let threshold = mean - factor * variance.sqrt();
    let outliers = rates.into_iter().filter(|(_, rate)| *rate < threshold);
    outliers.map(|(index, _)| index).collect()
}

/// Those that fail too large a share; by their places.
pub fn failing_too_many(counted: &[Counted], test: &FailurePercentageTest) -> Vec<usize> {
    let rates = with_volume(counted, test.request_volume);
    if rates.is_empty() || rates.len() < test.minimum_hosts as usize {
        return vec![];
    }
    let threshold = f64::from(test.threshold.millionths()) / 10_000.0;
    let outliers = rates
        .into_iter()
        .filter(|(_, rate)| 100.0 - rate >= threshold);
    outliers.map(|(index, _)| index).collect()
}

fn with_volume(counted: &[Counted], volume: u32) -> Vec<(usize, f64)> {
    counted
        .iter()
        .enumerate()
        .filter(|(_, each)| each.all > 0 && each.all >= volume)
        .map(|(index, each)| (index, each.success_rate()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::percent::Percent;

    fn rates(percents: &[u32]) -> Vec<Counted> {
        let counted = |good: &u32| Counted {
            all: 100,
            good: *good,
        };
        percents.iter().map(counted).collect()
    }

    /// The example of Envoy's documentation: a mean of 90, a deviation of 20, a threshold of 52.
    #[test]
    fn who_is_far_below_the_mean_is_found() {
        let test = SuccessRateTest::default();

        assert_eq!(
            below_the_others(&rates(&[50, 100, 100, 100, 100]), &test),
            [0]
        );
        assert!(below_the_others(&rates(&[95, 100, 97, 99, 96]), &test).is_empty());
        assert!(below_the_others(&rates(&[50, 50, 50, 50, 50]), &test).is_empty());
    }

    #[test]
    fn too_few_endpoints_or_requests_prove_nothing() {
        let test = SuccessRateTest::default();
        let mut few = rates(&[50, 100, 100, 100, 100]);
        few[4].all = 99;
        few[4].good = 99;

        assert!(below_the_others(&few, &test).is_empty());
        assert!(below_the_others(&rates(&[0, 100, 100, 100]), &test).is_empty());
    }

    #[test]
    fn who_fails_the_share_is_found_whatever_the_others_do() {
        let test = FailurePercentageTest {
            threshold: Percent::of(85),
            minimum_hosts: 2,
            request_volume: 100,
        };

        assert_eq!(failing_too_many(&rates(&[15, 16, 0]), &test), [0, 2]);
    }

    #[test]
    fn counts_begin_anew_when_they_are_taken() {
        let rate = Rate::default();
        rate.count(true);
        rate.count(false);

        assert_eq!(rate.take(), Counted { all: 2, good: 1 });
        assert_eq!(rate.take(), Counted { all: 0, good: 0 });
    }
}
