//! What the tests share: peers that may be missing, processes, addresses, and the proxies between.

pub(crate) mod chain;
pub(crate) mod config;
pub(crate) mod control_plane;
pub(crate) mod nginx;
pub(crate) mod peer;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod proxy;

use peer::Peer;

/// One test, and the peers without which it cannot run.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) peers: &'static [Peer],
    pub(crate) run: fn(),
}

/// The tests of a module, all with the same peers.
macro_rules! tests {
    ($peers:expr; $($function:ident),* $(,)?) => {
        /// The tests of this module.
        pub(crate) const TESTS: &[$crate::harness::Test] = &[$($crate::harness::Test {
            name: stringify!($function),
            peers: $peers,
            run: $function,
        }),*];
    };
}
pub(crate) use tests;
