//! All metrics of the process, and what a scrape reads.
//!
//! Counters, gauges and histograms come in families of series; values that live elsewhere (clusters, the process)
//! are written at scrape time by collectors. Nothing here is on the request path.

use std::sync::Arc;

use parking_lot::Mutex;

use super::exposition::{Exposition, Kind};
use super::series::SeriesTable;
use super::value::{Counter, Gauge, Histogram, Shards};

/// The most series of one metric.
pub const DEFAULT_SERIES_CAP: usize = 2000;

/// Series of one metric name.
pub type Family<M> = SeriesTable<M>;

/// A value that is a family's series.
pub trait Metric: Send + Sync + 'static {
    /// Its kind in the exposition.
    const KIND: Kind;
    /// Writes its samples.
    fn write(&self, name: &str, labels: &[(&str, &str)], exposition: &mut Exposition);
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;

    fn write(&self, name: &str, labels: &[(&str, &str)], exposition: &mut Exposition) {
        exposition.sample(name, labels, self.value());
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn write(&self, name: &str, labels: &[(&str, &str)], exposition: &mut Exposition) {
        exposition.sample(name, labels, self.value());
    }
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;

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
        let never = Arc::new(Counter::new(Shards::for_threads(1)));
        let overflowed = Arc::new(SeriesTable::new(&["metric"], usize::MAX, never, || {
            Counter::new(Shards::for_threads(1))
        }));
        let registry = Self {
            shards,
            cap,
            overflowed: Arc::clone(&overflowed),
            collectors: Mutex::default(),
        };
        registry.expose(
            "weft_metrics_overflow_total",
            "Label sets that fell into the overflow series of a metric, because it holds its maximum of series.",
            overflowed,
        );
        registry
    }

    /// How values made elsewhere are sharded.
    pub fn shards(&self) -> Shards {
        self.shards
    }

    /// A counter without labels; `name` ends in `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Arc<Counter> {
        self.counters(name, help, &[]).with(&[])
    }

    /// A family of counters; `name` ends in `_total`.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Arc<Family<Counter>> {
        let shards = self.shards;
        self.family(name, help, labels, move || Counter::new(shards))
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Arc<Gauge> {
        self.gauges(name, help, &[]).with(&[])
    }

    /// A family of gauges.
    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Arc<Family<Gauge>> {
        self.family(name, help, labels, Gauge::default)
    }

    /// A family of histograms of durations; `name` ends in `_seconds`.
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Arc<Family<Histogram>> {
        let shards = self.shards;
        self.family(name, help, labels, move || Histogram::new(shards, bounds))
    }

    /// Series that a collector exposes, bounded like all others. `name` is what overflows are counted under.
    pub fn series<S>(
        &self,
        name: &'static str,
        labels: &'static [&'static str],
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Arc<SeriesTable<S>> {
        Arc::new(SeriesTable::new(
            labels,
            self.cap,
            self.overflowed.with(&[name]),
            make,
        ))
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
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Arc<Family<M>> {
        let family = self.series(name, labels, make);
        self.expose(name, help, Arc::clone(&family));
        family
    }

    fn expose<M: Metric>(&self, name: &'static str, help: &'static str, family: Arc<Family<M>>) {
        self.collector(name, move |exposition| {
            let all = family.read();
            if all.is_empty() {
                return;
            }
            exposition.family(name, help, M::KIND);
            for (values, series) in &all {
                series.write(name, &family.named(values), exposition);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_each_family_once_and_what_overflowed() {
        let registry = Registry::new(Shards::for_threads(1), 1);
        let things = registry.counters("weft_things_total", "Things.", &["kind"]);
        things.with(&["a"]).add(3);
        things.with(&["b"]).add(4);
        registry.gauge("weft_size", "Size.").set(-1);

        let text = registry.render();

        assert!(
            text.contains(
                "# HELP weft_things_total Things.\n\
                 # TYPE weft_things_total counter\n\
                 weft_things_total{kind=\"a\"} 3\n\
                 weft_things_total{kind=\"overflow\"} 4\n"
            ),
            "{text}"
        );
        assert!(text.contains("weft_size -1\n"), "{text}");
        assert!(
            text.contains("weft_metrics_overflow_total{metric=\"weft_things_total\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn a_family_without_series_is_not_shown() {
        let registry = Registry::new(Shards::for_threads(1), 10);
        registry.counters("weft_things_total", "Things.", &["kind"]);

        assert!(!registry.render().contains("weft_things_total "));
    }
}
