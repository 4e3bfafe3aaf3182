//! All metrics of the process: families of series by label values, and what a scrape reads.
//!
//! A family makes a series the first time its label values are seen and hands out a handle that counts without
//! looking anything up. Series are bounded: past its cap a family answers with one series whose labels all say
//! `overflow`, and `weft_metrics_overflow_total` tells how often. Values that live elsewhere (clusters,
//! connections, the process) are read at scrape time by collectors.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::exposition::{Exposition, Kind};
use super::value::{Counter, Gauge, Histogram, Shards};

/// Every label of a series that stands for the ones past the cap.
pub const OVERFLOW: &str = "overflow";

/// Series of one name, by label values.
#[derive(Debug)]
pub struct Family<M> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    shape: Shape,
    cap: usize,
    series: RwLock<HashMap<Box<[Arc<str>]>, Arc<M>>>,
    overflow: Arc<M>,
    overflowed: Option<Arc<Counter>>,
}

/// What a series is made from.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    shards: Shards,
    bounds: &'static [f64],
}

/// A kind of metric that can be in a family.
pub trait Metric: Send + Sync + 'static {
    /// Its kind in the exposition.
    const KIND: Kind;
    /// A series at zero.
    fn new(shape: Shape) -> Self;
    /// Writes its samples.
    fn write(&self, name: &str, labels: &[(&str, &str)], exposition: &mut Exposition);
}

impl<M: Metric> Family<M> {
    /// The series with these label values, made where it is new. `values` are in the order of the family's labels.
    pub fn with(&self, values: &[&str]) -> Arc<M> {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let key: Box<[Arc<str>]> = values.iter().map(|value| Arc::from(*value)).collect();
        if let Some(series) = self.series.read().get(&key) {
            return Arc::clone(series);
        }
        let mut all = self.series.write();
        if all.len() >= self.cap && !all.contains_key(&key) {
            if let Some(overflowed) = &self.overflowed {
                overflowed.increment();
            }
            return Arc::clone(&self.overflow);
        }
        let series = all
            .entry(key)
            .or_insert_with(|| Arc::new(M::new(self.shape)));
        Arc::clone(series)
    }

    /// Forgets the series for which `keep` is false; handles to them go on counting, unseen.
    pub fn retain(&self, keep: impl Fn(&[Arc<str>]) -> bool) {
        self.series.write().retain(|values, _| keep(values));
    }

    fn collect(&self, exposition: &mut Exposition) {
        let mut all: Vec<_> = {
            let series = self.series.read();
            series
                .iter()
                .map(|(key, value)| (key.clone(), Arc::clone(value)))
                .collect()
        };
        let is_full = all.len() >= self.cap;
        if all.is_empty() {
            return;
        }
        all.sort_by(|(left, _), (right, _)| left.cmp(right));
        exposition.family(self.name, self.help, M::KIND);
        for (values, series) in &all {
            let labels: Vec<_> = self
                .labels
                .iter()
                .copied()
                .zip(values.iter().map(|value| &**value))
                .collect();
            series.write(self.name, &labels, exposition);
        }
        if is_full && !self.labels.is_empty() {
            let labels: Vec<_> = self.labels.iter().map(|label| (*label, OVERFLOW)).collect();
            self.overflow.write(self.name, &labels, exposition);
        }
    }
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;

    fn new(shape: Shape) -> Self {
        Counter::new(shape.shards)
    }

    fn write(&self, name: &str, labels: &[(&str, &str)], exposition: &mut Exposition) {
        exposition.sample(name, labels, self.value());
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn new(_: Shape) -> Self {
        Gauge::default()
    }

    fn write(&self, name: &str, labels: &[(&str, &str)], exposition: &mut Exposition) {
        exposition.sample(name, labels, self.value());
    }
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn new(shape: Shape) -> Self {
        Histogram::new(shape.shards, shape.bounds)
    }

    fn write(&self, name: &str, labels: &[(&str, &str)], exposition: &mut Exposition) {
        exposition.histogram(name, labels, &self.read());
    }
}

type Collector = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// All families and collectors of the process.
pub struct Registry {
    shards: Shards,
    cap: usize,
    overflowed: Arc<Family<Counter>>,
    collectors: Mutex<Vec<(&'static str, Collector)>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Registry")
            .field("cap", &self.cap)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry whose families hold at most `cap` series each.
    pub fn new(shards: Shards, cap: usize) -> Self {
        let overflowed = Arc::new(Family {
            name: "weft_metrics_overflow_total",
            help: "Label sets that fell into the overflow series of a metric, because it holds its maximum of series.",
            labels: &["metric"],
            shape: Shape {
                shards: Shards::for_threads(1),
                bounds: &[],
            },
            cap: usize::MAX,
            series: RwLock::default(),
            overflow: Arc::new(Counter::new(Shards::for_threads(1))),
            overflowed: None,
        });
        let registry = Self {
            shards,
            cap,
            overflowed: Arc::clone(&overflowed),
            collectors: Mutex::default(),
        };
        registry.collector("weft_metrics_overflow_total", move |exposition| {
            overflowed.collect(exposition)
        });
        registry
    }

    /// A family of counters; `name` ends in `_total`.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Arc<Family<Counter>> {
        self.family(name, help, labels, &[])
    }

    /// A family of gauges.
    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Arc<Family<Gauge>> {
        self.family(name, help, labels, &[])
    }

    /// A family of histograms of durations; `name` ends in `_seconds`.
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Arc<Family<Histogram>> {
        self.family(name, help, labels, bounds)
    }

    /// Adds something that writes whole families when asked. `name` orders it among the others.
    pub fn collector(
        &self,
        name: &'static str,
        collect: impl Fn(&mut Exposition) + Send + Sync + 'static,
    ) {
        let mut collectors = self.collectors.lock();
        collectors.push((name, Box::new(collect)));
        collectors.sort_by_key(|(name, _)| *name);
    }

    /// Everything, in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut exposition = Exposition::default();
        for (_, collect) in self.collectors.lock().iter() {
            collect(&mut exposition);
        }
        exposition.into_text()
    }

    fn family<M: Metric>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Arc<Family<M>> {
        let shape = Shape {
            shards: self.shards,
            bounds,
        };
        let family = Arc::new(Family {
            name,
            help,
            labels,
            shape,
            cap: self.cap,
            series: RwLock::default(),
            overflow: Arc::new(M::new(shape)),
            overflowed: Some(self.overflowed.with(&[name])),
        });
        let collected = Arc::clone(&family);
        self.collector(name, move |exposition| collected.collect(exposition));
        family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(cap: usize) -> Registry {
        Registry::new(Shards::for_threads(1), cap)
    }

    #[test]
    fn the_same_label_values_are_the_same_series() {
        let registry = registry(10);
        let family = registry.counters("weft_things_total", "Things.", &["kind"]);

        family.with(&["a"]).increment();
        family.with(&["a"]).increment();
        family.with(&["b"]).increment();

        assert_eq!(family.with(&["a"]).value(), 2);
        assert_eq!(family.with(&["b"]).value(), 1);
    }

    #[test]
    fn series_past_the_cap_fall_into_one_and_are_counted() {
        let registry = registry(2);
        let family = registry.counters("weft_things_total", "Things.", &["kind"]);
        for kind in ["a", "b", "c", "d"] {
            family.with(&[kind]).increment();
        }

        let text = registry.render();

        assert!(
            text.contains("weft_things_total{kind=\"overflow\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("weft_metrics_overflow_total{metric=\"weft_things_total\"} 2\n"),
            "{text}"
        );
        assert!(!text.contains("kind=\"c\""), "{text}");
    }

    #[test]
    fn a_forgotten_series_is_no_longer_exposed() {
        let registry = registry(10);
        let family = registry.gauges("weft_size", "Size.", &["cluster"]);
        family.with(&["gone"]).set(1);
        family.with(&["kept"]).set(2);

        family.retain(|values| &*values[0] == "kept");

        let text = registry.render();
        assert!(text.contains("weft_size{cluster=\"kept\"} 2\n"), "{text}");
        assert!(!text.contains("gone"), "{text}");
    }
}
