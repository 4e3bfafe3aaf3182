//! Series by label values, bounded in number.
//!
//! The first look-up of new label values makes a series; whoever counts often keeps the handle. Past the cap all
//! new label values share one overflow series, and a counter tells how often that happened.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::value::Counter;

/// Every label of a series that stands for the ones past the cap.
pub const OVERFLOW: &str = "overflow";

/// Label values, in the order of the labels.
pub type LabelValues = Box<[Arc<str>]>;

/// Series of one kind, by label values.
pub struct SeriesTable<S> {
    labels: &'static [&'static str],
    cap: usize,
    make: Box<dyn Fn() -> S + Send + Sync>,
    series: RwLock<HashMap<LabelValues, Arc<S>>>,
    overflow: Arc<S>,
    overflowed: Arc<Counter>,
}

impl<S> std::fmt::Debug for SeriesTable<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SeriesTable")
            .field("labels", &self.labels)
            .field("cap", &self.cap)
            .finish_non_exhaustive()
    }
}

impl<S> SeriesTable<S> {
    /// An empty table of at most `cap` series; `overflowed` counts label values that found no place.
    pub fn new(
        labels: &'static [&'static str],
        cap: usize,
        overflowed: Arc<Counter>,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        Self {
            labels,
            cap,
            overflow: Arc::new(make()),
            make: Box::new(make),
            series: RwLock::default(),
            overflowed,
        }
    }

    /// The series with these label values, made where it is new.
    pub fn with(&self, values: &[&str]) -> Arc<S> {
        debug_assert_eq!(values.len(), self.labels.len(), "{:?}", self.labels);
        let key: LabelValues = values.iter().map(|value| Arc::from(*value)).collect();
        if let Some(series) = self.series.read().get(&key) {
            return Arc::clone(series);
        }
        let mut all = self.series.write();
        if all.len() >= self.cap && !all.contains_key(&key) {
            self.overflowed.increment();
            return Arc::clone(&self.overflow);
        }
        Arc::clone(all.entry(key).or_insert_with(|| Arc::new((self.make)())))
    }

    /// Forgets the series for which `keep` is false; handles to them go on counting, unseen.
    pub fn retain(&self, keep: impl Fn(&[Arc<str>]) -> bool) {
        self.series.write().retain(|values, _| keep(values));
    }

    /// All series in the order of their label values; the overflow series last, once the cap is reached.
    pub fn read(&self) -> Vec<(LabelValues, Arc<S>)> {
        let mut all: Vec<_> = {
            let series = self.series.read();
            series
                .iter()
                .map(|(values, series)| (values.clone(), Arc::clone(series)))
                .collect()
        };
        all.sort_by(|(left, _), (right, _)| left.cmp(right));
        if all.len() >= self.cap && !self.labels.is_empty() {
            let values = self.labels.iter().map(|_| Arc::from(OVERFLOW)).collect();
            all.push((values, Arc::clone(&self.overflow)));
        }
        all
    }

    /// Names and values of one series' labels, for the exposition.
    pub fn named<'series>(&self, values: &'series [Arc<str>]) -> Vec<(&'static str, &'series str)> {
        self.labels
            .iter()
            .copied()
            .zip(values.iter().map(|value| &**value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Shards;
    use super::*;

    fn table(cap: usize) -> SeriesTable<Counter> {
        let one = || Counter::new(Shards::for_threads(1));
        SeriesTable::new(&["kind"], cap, Arc::new(one()), one)
    }

    #[test]
    fn the_same_label_values_are_the_same_series() {
        let table = table(10);

        table.with(&["a"]).increment();
        table.with(&["a"]).increment();
        table.with(&["b"]).increment();

        assert_eq!(table.with(&["a"]).value(), 2);
        assert_eq!(table.with(&["b"]).value(), 1);
    }

    #[test]
    fn label_values_past_the_cap_share_one_series_and_are_counted() {
        let table = table(2);
        for kind in ["a", "b", "c", "d"] {
            table.with(&[kind]).increment();
        }

        let all: Vec<_> = table
            .read()
            .iter()
            .map(|(values, one)| (values[0].to_string(), one.value()))
            .collect();

        assert_eq!(
            all,
            [("a".into(), 1), ("b".into(), 1), (OVERFLOW.to_owned(), 2)]
        );
        assert_eq!(table.overflowed.value(), 2);
    }

    #[test]
    fn what_is_already_counted_stays_itself_when_the_table_is_full() {
        let table = table(1);
        table.with(&["a"]).increment();
        table.with(&["b"]).increment();

        table.with(&["a"]).increment();

        assert_eq!(table.with(&["a"]).value(), 2);
    }

    #[test]
    fn a_forgotten_series_is_no_longer_read() {
        let table = table(10);
        table.with(&["gone"]).increment();
        table.with(&["kept"]).increment();

        table.retain(|values| &*values[0] == "kept");

        assert_eq!(table.read().len(), 1);
    }
}
