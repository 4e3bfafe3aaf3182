//! What the tests stand on: a mesh of their own with the bookstore in it, commands with deadlines, and eyes for
//! what happens outside: metrics, spans, processes, the host's network.

pub(crate) mod bookstore;
pub(crate) mod command;
pub(crate) mod console;
pub(crate) mod host;
pub(crate) mod load;
pub(crate) mod mesh;
pub(crate) mod metrics;
pub(crate) mod otlp;
pub(crate) mod pod;
pub(crate) mod process;
pub(crate) mod statistics;
pub(crate) mod tally;
pub(crate) mod undo;
pub(crate) mod wait;

/// A test: what it shows, and how.
pub(crate) type Test = (&'static str, fn(&bookstore::Bookstore));

/// A list of tests out of functions: each is named by what it shows.
macro_rules! tests {
    ($($function:ident),* $(,)?) => {
        /// The tests of this module, in order.
        pub(crate) const TESTS: &[$crate::harness::Test] = &[$((stringify!($function), $function)),*];
    };
}
pub(crate) use tests;
