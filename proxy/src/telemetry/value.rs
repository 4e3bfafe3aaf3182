//! Metric values that many threads write and one reads: counters, gauges, histograms.
//!
//! Each thread that writes often has a shard of its own (cache lines that no other thread writes), so counting costs a
//! load and a store; a scrape sums the shards. Values only ever grow, except gauges.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How many shards a value has: one for each thread that writes often, and one that all others share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards(usize);

impl Shards {
    /// One for each of `threads`, at most 64.
    pub fn for_threads(threads: usize) -> Self {
        Self(threads.clamp(1, 64))
    }
}

/// A count that only grows.
#[derive(Debug)]
pub struct Counter {
    cells: Grid,
}

impl Counter {
    /// A counter at zero.
    pub fn new(shards: Shards) -> Self {
        Self {
            cells: Grid::new(shards, 1),
        }
    }

    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `amount`.
    pub fn add(&self, amount: u64) {
        self.cells.row().add(0, amount);
    }

    /// The count over all threads.
    pub fn value(&self) -> u64 {
        self.cells.sum(0)
    }
}

/// A value that goes up and down. Not sharded: gauges are written rarely.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to the value; negative takes away.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of Prometheus's classic buckets for request durations, in seconds. From half a millisecond (an
/// answer from the same machine) to a minute; the last bucket, `+Inf`, is implied.
pub const DURATION_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Durations counted into buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    bounds_nanos: Box<[u64]>,
    /// One column for each bucket, one for `+Inf`, one for the sum in nanoseconds.
    cells: Grid,
}

/// What a histogram holds at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramReading {
    /// Upper bound in seconds and how many fell at or below it; without `+Inf`.
    pub buckets: Vec<(f64, u64)>,
    /// How many in all.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl Histogram {
    /// An empty histogram; `bounds` are seconds, ascending.
    pub fn new(shards: Shards, bounds: &'static [f64]) -> Self {
        let bounds_nanos = bounds
            .iter()
            .map(|bound| nanos(Duration::from_secs_f64(*bound)))
            .collect();
        Self {
            bounds,
            bounds_nanos,
            cells: Grid::new(shards, bounds.len() + 2),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let value = nanos(duration);
        let bucket = self.bounds_nanos.partition_point(|bound| *bound < value);
        let row = self.cells.row();
        row.add(bucket, 1);
        row.add(self.bounds.len() + 1, value);
    }

    /// Counts what another of the same buckets has counted.
    pub fn absorb(&self, other: &Self) {
        let row = self.cells.row();
        for column in 0..self.bounds.len() + 2 {
            row.add(column, other.cells.sum(column));
        }
    }

    /// The cumulative buckets, as Prometheus wants them.
    pub fn read(&self) -> HistogramReading {
        let mut count = 0;
        let buckets = self
            .bounds
            .iter()
            .enumerate()
            .map(|(column, bound)| {
                count += self.cells.sum(column);
                (*bound, count)
            })
            .collect();
        count += self.cells.sum(self.bounds.len());
        let sum = Duration::from_nanos(self.cells.sum(self.bounds.len() + 1)).as_secs_f64();
        HistogramReading {
            buckets,
            count,
            sum,
        }
    }
}

impl HistogramReading {
    /// Of two histograms of the same buckets, what both hold.
    pub fn add(&mut self, other: &HistogramReading) {
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const CELLS_PER_LINE: usize = 8;

/// A cache line: what one thread writes shares it with nobody.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; CELLS_PER_LINE]);

/// A row of cells for each shard; rows start on cache lines of their own. The last one is for threads that have none.
#[derive(Debug)]
pub(super) struct Grid {
    lines: Box<[Line]>,
    lines_per_row: usize,
    own_rows: usize,
}

impl Grid {
    pub(super) fn new(shards: Shards, columns: usize) -> Self {
        let lines_per_row = columns.div_ceil(CELLS_PER_LINE);
        let lines = (0..(shards.0 + 1) * lines_per_row)
            .map(|_| Line::default())
            .collect();
        Self {
            lines,
            lines_per_row,
            own_rows: shards.0,
        }
    }

    /// The row of the calling thread.
    pub(super) fn row(&self) -> Row<'_> {
        let number = thread_number();
        let first = number.min(self.own_rows) * self.lines_per_row;
        Row {
            lines: &self.lines[first..first + self.lines_per_row],
            is_own: number < self.own_rows,
        }
    }

    pub(super) fn sum(&self, column: usize) -> u64 {
        self.lines
            .chunks_exact(self.lines_per_row)
            .map(|lines| cell(lines, column).load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

/// What one thread writes, or several do that have no row of their own.
pub(super) struct Row<'grid> {
    lines: &'grid [Line],
    is_own: bool,
}

impl Row<'_> {
    /// Adds to a cell. What nobody else writes needs no locked instruction, which costs as much as twenty others.
    pub(super) fn add(&self, column: usize, amount: u64) {
        let cell = cell(self.lines, column);
        match self.is_own {
            true => {
                let sum = cell.load(Ordering::Relaxed).wrapping_add(amount);
                cell.store(sum, Ordering::Relaxed);
            }
            false => {
                cell.fetch_add(amount, Ordering::Relaxed);
            }
        }
    }
}

fn cell(lines: &[Line], column: usize) -> &AtomicU64 {
    &lines[column / CELLS_PER_LINE].0[column % CELLS_PER_LINE]
}

/// Gives the calling thread one of the lowest numbers that are left: whoever counts often does so before others count.
pub fn claim_row() {
    thread_number();
}

/// A number for each thread, in the order in which threads first count something. No two threads ever have the same.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_threads_count_adds_up() {
        let counter = Counter::new(Shards::for_threads(2));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counter.increment()));
            }
        });

        assert_eq!(counter.value(), 4000);
    }

    #[test]
    fn a_row_is_of_one_thread_or_of_all_that_have_none() {
        let grid = Grid::new(Shards::for_threads(64), 1);
        let rows = |count: usize| {
            let barrier = std::sync::Barrier::new(count);
            std::thread::scope(|scope| {
                let number = || {
                    barrier.wait();
                    let row = grid.row();
                    (row.is_own, row.lines.as_ptr().addr())
                };
                let threads: Vec<_> = (0..count).map(|_| scope.spawn(number)).collect();
                let found = threads
                    .into_iter()
                    .map(|thread| thread.join().expect("a row"));
                found.collect::<Vec<_>>()
            })
        };

        let all = rows(80);

        let mut own: Vec<_> = all.iter().filter(|(is_own, _)| *is_own).collect();
        let shared: Vec<_> = all.iter().filter(|(is_own, _)| !is_own).collect();
        let before = own.len();
        own.sort_unstable();
        own.dedup();
        assert_eq!(own.len(), before);
        assert!(shared.len() >= 80 - 64);
        assert!(shared.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_equals() {
        let histogram = Histogram::new(Shards::for_threads(1), &[0.1, 1.0]);
        histogram.observe(Duration::from_millis(100));
        histogram.observe(Duration::from_millis(101));
        histogram.observe(Duration::from_secs(7));

        let reading = histogram.read();

        assert_eq!(reading.buckets, [(0.1, 1), (1.0, 2)]);
        assert_eq!(reading.count, 3);
        assert!((reading.sum - 7.201).abs() < 1e-9);
    }

    #[test]
    fn rows_of_two_threads_never_share_a_cache_line() {
        let grid = Grid::new(Shards::for_threads(3), 9);

        assert_eq!(grid.lines_per_row, 2);
        assert_eq!(grid.lines.len(), 8);
        assert_eq!(std::mem::align_of::<Line>(), 64);
    }
}
