//! `/reset_counters`: counters begin anew for who looks at them.
//!
//! Nothing is set to zero, as much else is made of what is counted: what had been counted then is taken off what is
//! shown. Gauges stay what they are.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::prometheus::is_gauge;
use super::told::Told;

/// What counters had counted when they were last to begin anew, by whole names.
#[derive(Debug, Default)]
pub struct Baseline(Mutex<HashMap<String, u64>>);

impl Baseline {
    /// They begin anew now.
    pub(super) fn remember(&self, told: Told) {
        let counters = told.into_all().into_iter();
        let counters = counters.filter(|stat| stat.value > 0 && !is_gauge(stat));
        *self.0.lock() = counters
            .map(|stat| (stat.whole_name(), stat.value))
            .collect();
    }

    /// What has been counted since.
    pub(super) fn since(&self, mut told: Told) -> Told {
        let before = self.0.lock();
        if before.is_empty() {
            return told;
        }
        for stat in told.all_mut() {
            let counted = before.get(&stat.whole_name()).copied().unwrap_or(0);
            // One that shows less has begun anew by itself: its cluster or listener was gone meanwhile.
            stat.value = stat.value.checked_sub(counted).unwrap_or(stat.value);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::super::told::Stat;
    use super::*;

    fn told(all: &[(&str, u64)]) -> Told {
        let mut told = Told::default();
        for (name, value) in all {
            told.add(Stat::named(name, *value));
        }
        told
    }

    #[test]
    fn counters_begin_anew_and_gauges_do_not() {
        let baseline = Baseline::default();
        baseline.remember(told(&[
            ("cluster.a.upstream_rq_total", 7),
            ("cluster.a.upstream_cx_active", 3),
        ]));

        let since = baseline.since(told(&[
            ("cluster.a.upstream_rq_total", 9),
            ("cluster.a.upstream_cx_active", 4),
            ("cluster.b.upstream_rq_total", 1),
        ]));

        let expected = [
            ("cluster.a.upstream_cx_active", 4),
            ("cluster.a.upstream_rq_total", 2),
            ("cluster.b.upstream_rq_total", 1),
        ];
        assert_eq!(
            since.by_name(),
            expected.map(|(name, value)| (name.to_owned(), value))
        );
    }

    #[test]
    fn a_counter_that_was_gone_meanwhile_shows_what_it_has() {
        let baseline = Baseline::default();
        baseline.remember(told(&[("cluster.a.upstream_rq_total", 7)]));

        let since = baseline.since(told(&[("cluster.a.upstream_rq_total", 2)]));

        assert_eq!(
            since.by_name(),
            [("cluster.a.upstream_rq_total".to_owned(), 2)]
        );
    }
}
