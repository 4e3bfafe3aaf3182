//! Many counts of one thing, side by side: what a connection manager or a TCP proxy counts.
//!
//! Each worker writes a row of its own, so that counting several things at once costs one look for the row and an
//! addition for each. A scrape sums the rows.

use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::RwLock;

use super::value::{Grid, Shards};
use crate::config::Named;

/// What is counted of one kind of thing: an enum, of which each variant has a column.
pub trait Event: Copy + 'static {
    /// All of them in the order of their columns, with Envoy's names.
    const ALL: &'static [(Self, &'static str)];

    /// Where it is counted.
    fn column(self) -> usize;
}

/// An [`Event`]: its variants with their names.
macro_rules! events {
    ($(#[$meta:meta])* $visibility:vis enum $name:ident { $($event:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $(#[doc = concat!("Envoy's `", $text, "`.")] $event),+
        }

        impl $crate::telemetry::tally::Event for $name {
            const ALL: &'static [(Self, &'static str)] = &[$(($name::$event, $text)),+];

            fn column(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use events;

/// Counts of one thing.
#[derive(Debug)]
pub struct Tally<E> {
    cells: Grid,
    events: PhantomData<fn(E)>,
}

impl<E: Event> Tally<E> {
    /// All at zero.
    pub fn new(shards: Shards) -> Self {
        Tally {
            cells: Grid::new(shards, E::ALL.len()),
            events: PhantomData,
        }
    }

    /// Counts one.
    pub fn count(&self, event: E) {
        self.add(event, 1);
    }

    /// Counts several.
    pub fn add(&self, event: E, amount: u64) {
        self.cells.row().add(event.column(), amount);
    }

    /// Counts one of each.
    pub fn count_all<const N: usize>(&self, events: [E; N]) {
        let row = self.cells.row();
        for event in events {
            row.add(event.column(), 1);
        }
    }

    /// Takes one of each away; whichever thread has counted them.
    pub fn uncount_all<const N: usize>(&self, events: [E; N]) {
        let row = self.cells.row();
        for event in events {
            // Wraps in this row; the sum of all rows does not.
            row.add(event.column(), 1_u64.wrapping_neg());
        }
    }

    /// Counts what another has counted.
    pub fn absorb(&self, other: &Self) {
        for (event, _) in E::ALL {
            self.add(*event, other.value(*event));
        }
    }

    /// What all threads have counted.
    pub fn value(&self, event: E) -> u64 {
        self.cells.sum(event.column())
    }
}

/// Stands for all listeners that are gone; none is called so.
const GONE: &str = "";

/// What is kept of things of one prefix, by listener.
type OfListeners<S> = Named<Arc<S>>;

/// What is kept of each thing of one kind, by its prefix and by its listener. Both come from configuration.
#[derive(Debug)]
pub struct Tallies<S> {
    shards: Shards,
    make: fn(Shards) -> S,
    absorb: fn(&S, &S),
    all: RwLock<Named<OfListeners<S>>>,
}

impl<S> Tallies<S> {
    /// None yet; `make` makes one, and `absorb` lets one count what another has counted.
    pub fn new(shards: Shards, make: fn(Shards) -> S, absorb: fn(&S, &S)) -> Self {
        Tallies {
            shards,
            make,
            absorb,
            all: RwLock::default(),
        }
    }

    /// That of a prefix on a listener, made where it is new. Looked up once for each connection.
    pub fn of(&self, prefix: &Arc<str>, listener: &Arc<str>) -> Arc<S> {
        let found = self.all.read();
        if let Some(found) = found.get(prefix).and_then(|found| found.get(listener)) {
            return Arc::clone(found);
        }
        drop(found);
        let mut all = self.all.write();
        let of_prefix = all.entry(Arc::clone(prefix)).or_default();
        let made = of_prefix
            .entry(Arc::clone(listener))
            .or_insert_with(|| Arc::new((self.make)(self.shards)));
        Arc::clone(made)
    }

    /// All of a prefix, those of listeners that are gone among them: what is counted never falls.
    pub fn of_prefix(&self, prefix: &str) -> Vec<Arc<S>> {
        let all = self.all.read();
        let found = all.get(prefix).into_iter().flatten();
        found.map(|(_, one)| Arc::clone(one)).collect()
    }

    /// Puts together what is kept of listeners that are gone, those that a connection still holds left out, and forgets
    /// prefixes that are on no listener any more. `is_used` says whether a prefix is on a listener.
    pub fn retain(&self, is_used: impl Fn(&str, &str) -> bool) {
        self.all.write().retain(|prefix, of_prefix| {
            let gone = |listener: &str, one: &Arc<S>| {
                let is_held = Arc::strong_count(one) > 1;
                listener != GONE && !is_held && !is_used(prefix, listener)
            };
            let gone: Vec<_> = of_prefix.extract_if(|name, one| gone(name, one)).collect();
            if of_prefix.keys().all(|listener| &**listener == GONE) {
                return false;
            }
            for (_, one) in gone {
                let made = of_prefix.entry(GONE.into());
                let sum = made.or_insert_with(|| Arc::new((self.make)(self.shards)));
                (self.absorb)(sum, &one);
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    events! {
        /// For the tests.
        enum Seen { Came = "came", Here = "here" }
    }

    fn seen() -> Tallies<Tally<Seen>> {
        Tallies::new(Shards::for_threads(1), Tally::new, Tally::absorb)
    }

    #[test]
    fn what_one_thread_counts_another_may_take_away() {
        let tally = Tally::<Seen>::new(Shards::for_threads(4));
        tally.count_all([Seen::Came, Seen::Here]);
        tally.add(Seen::Came, 2);

        std::thread::scope(|scope| {
            scope.spawn(|| tally.uncount_all([Seen::Here]));
        });

        assert_eq!((tally.value(Seen::Came), tally.value(Seen::Here)), (3, 0));
    }

    #[test]
    fn a_prefix_on_a_listener_is_one_and_a_prefix_that_nobody_uses_is_forgotten() {
        let tallies = seen();
        let (web, one, other) = ("web".into(), "one".into(), "other".into());
        tallies.of(&web, &one).count(Seen::Came);
        tallies.of(&web, &one).count(Seen::Came);
        tallies.of(&web, &other).count(Seen::Came);

        assert_eq!(tallies.of(&web, &one).value(Seen::Came), 2);
        assert_eq!(tallies.of_prefix("web").len(), 2);

        let held = tallies.of(&web, &one);
        tallies.retain(|_, _| false);
        assert_eq!(tallies.of_prefix("web").len(), 2);
        drop(held);
        tallies.retain(|_, _| false);
        assert!(tallies.of_prefix("web").is_empty());
    }

    #[test]
    fn what_listeners_that_are_gone_have_counted_stays_in_the_sum() {
        let tallies = seen();
        let (web, kept) = ("web".into(), "kept".into());
        tallies.of(&web, &kept).count(Seen::Came);
        for turn in 0..10 {
            let other: Arc<str> = format!("listener-{turn}").into();
            tallies.of(&web, &other).count(Seen::Came);
            tallies.retain(|_, listener| listener == "kept");
        }

        let all = tallies.of_prefix("web");

        assert_eq!(all.len(), 2);
        assert_eq!(all.iter().map(|one| one.value(Seen::Came)).sum::<u64>(), 11);
    }
}
