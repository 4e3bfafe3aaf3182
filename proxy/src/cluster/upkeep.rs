//! What has to be done for a cluster from time to time, off the path of requests: pictures made anew, rates judged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::Notify;

use super::Cluster;
use super::outlier::rates::{self, Counted};
use super::outlier::{Detector, instant, millis};
use super::picture::Picture;
use super::subsets::Subsets;
use super::zones::Near;

impl Cluster {
    /// Does what is due; says when the next thing is. From the first call on, `keeper` is told when something has
    /// to be done sooner, and nothing is done on the path of requests any more.
    pub fn tend(&self, keeper: &Arc<Notify>, now: Instant) -> Option<Instant> {
        self.kept_by(keeper);
        let judged_next = self.judge(now);
        let is_due = self.picture.load().due.is_some_and(|due| due <= now);
        let vicinity = self.vicinity.as_ref();
        let is_stale =
            vicinity.is_some_and(|vicinity| vicinity.version() != self.picture.load().vicinity);
        if self.shared.is_dirty.load(Ordering::Acquire) || is_due || is_stale {
            self.refresh(now);
        }
        let due = self.picture.load().due;
        judged_next.into_iter().chain(due).min()
    }

    /// The health of an endpoint has changed.
    pub fn health_changed(&self, now: Instant) {
        self.shared.is_dirty.store(true, Ordering::Release);
        let keeper = self.shared.keeper.lock().clone();
        match keeper {
            Some(keeper) => keeper.notify_one(),
            None => self.refresh(now),
        }
    }

    /// Makes the picture anew.
    pub fn refresh(&self, now: Instant) {
        let mut turns = self.shared.turns.lock();
        self.shared.is_dirty.store(false, Ordering::Release);
        let near = self.vicinity.as_deref().map(|vicinity| Near {
            vicinity,
            stats: &self.stats,
        });
        let picture = Picture::new(&self.config, &self.members, &mut turns, (now, near));
        let before = self.picture.swap(Arc::new(picture));
        self.count_subsets(&before);
        self.tell_vicinity(now);
    }

    /// Counts subsets that there were not before, and those that are no more.
    fn count_subsets(&self, before: &Picture) {
        if self.config.subsets.is_none() {
            return;
        }
        let now = self.picture.load();
        let (now, before) = (now.subsets.as_ref(), before.subsets.as_ref());
        let beyond = |one: Option<&Subsets>, other| one.map_or(0, |one| one.beyond(other)) as u64;
        let stats = &self.stats.subsets;
        stats
            .created
            .fetch_add(beyond(now, before), Ordering::Relaxed);
        stats
            .removed
            .fetch_add(beyond(before, now), Ordering::Relaxed);
    }

    /// An endpoint has passed its health checks; says whether that has brought it back.
    pub fn passed_health_check(&self, address: std::net::SocketAddr, now: Instant) {
        let Some(config) = &self.config.outlier_detection else {
            return;
        };
        let Some(endpoint) = self.members.at(address) else {
            return;
        };
        let outlier = &endpoint.state.outlier;
        if config.is_ended_by_health_check && outlier.is_ejected(now) {
            outlier.return_now();
            self.health_changed(now);
        }
    }

    /// Where its endpoints are proxies like this one, other clusters want to know.
    fn tell_vicinity(&self, now: Instant) {
        let Some(vicinity) = &self.vicinity else {
            return;
        };
        if vicinity.cluster == *self.name()
            && vicinity.learn(&self.members, now)
            && let Some(keeper) = &*self.shared.keeper.lock()
        {
            keeper.notify_one();
        }
    }

    fn kept_by(&self, keeper: &Arc<Notify>) {
        let mut kept_by = self.shared.keeper.lock();
        if !kept_by
            .as_ref()
            .is_some_and(|kept| Arc::ptr_eq(kept, keeper))
        {
            *kept_by = Some(Arc::clone(keeper));
        }
    }

    /// Once an interval, judges the rates of it; says when the next one ends.
    fn judge(&self, now: Instant) -> Option<Instant> {
        let config = self.config.outlier_detection.as_ref()?;
        let interval = u64::try_from(config.interval.as_millis()).unwrap_or(u64::MAX);
        let now_millis = millis(now);
        let judged = self.shared.judged.load(Ordering::Relaxed);
        let next = judged.saturating_add(interval.max(1));
        if judged != 0 && now_millis < next {
            return Some(instant(next));
        }
        self.shared.judged.store(now_millis, Ordering::Relaxed);
        if judged != 0 {
            self.judge_rates(now);
        }
        Some(instant(now_millis.saturating_add(interval.max(1))))
    }

    fn judge_rates(&self, now: Instant) {
        let Some(config) = &self.config.outlier_detection else {
            return;
        };
        let endpoints: Vec<_> = self.members.endpoints().collect();
        let is_in = |index: &usize| !endpoints[*index].state.outlier.is_ejected(now);
        let external: Vec<Counted> = endpoints
            .iter()
            .map(|endpoint| endpoint.state.outlier.external.take())
            .collect();
        let local: Vec<Counted> = endpoints
            .iter()
            .map(|endpoint| endpoint.state.outlier.local.take())
            .collect();
        let found = [
            (
                Detector::SuccessRate,
                rates::below_the_others(&external, &config.success_rate),
            ),
            (
                Detector::FailurePercentage,
                rates::failing_too_many(&external, &config.failure_percentage),
            ),
            (
                Detector::LocalOriginSuccessRate,
                rates::below_the_others(&local, &config.success_rate),
            ),
            (
                Detector::LocalOriginFailurePercentage,
                rates::failing_too_many(&local, &config.failure_percentage),
            ),
        ];
        for (detector, outliers) in found {
            for index in outliers.into_iter().filter(is_in) {
                self.eject(endpoints[index], detector, now);
            }
        }
    }
}
