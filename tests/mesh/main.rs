//! The whole mesh, end to end: one bookstore, started once, and every test against it, one after the other. Each
//! test leaves the mesh as it found it.
//!
//! `tests/run-mesh.sh` builds what is needed and runs this; as an ordinary user too with `--as-user`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod api;
mod chaos;
mod cli;
mod databases;
mod harness;
mod host;
mod input;
mod observed;
mod protocols;
mod resilience;
mod security;
mod start;
mod telemetry;
mod tour;
mod traffic;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use harness::Test;
use harness::bookstore::Bookstore;

/// By what they look at. The last look at the host is after the mesh has been taken down.
const GROUPS: [(&str, &[Test]); 14] = [
    ("traffic", traffic::TESTS),
    ("protocols", protocols::TESTS),
    ("databases", databases::TESTS),
    ("resilience", resilience::TESTS),
    ("security", security::TESTS),
    ("telemetry", telemetry::TESTS),
    ("observed", observed::TESTS),
    ("api", api::TESTS),
    ("cli", cli::TESTS),
    ("input", input::TESTS),
    ("start", start::TESTS),
    ("chaos", chaos::TESTS),
    ("tour", tour::TESTS),
    ("host", host::TESTS),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One mesh, one test at a time.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let bookstore = Arc::new(Bookstore::start());
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&bookstore)));
    if conclusion.has_failed() {
        eprintln!("--- the daemon's log\n{}", bookstore.daemon_log());
    }
    host::take_down(&bookstore);
    conclusion.exit_code()
}

/// Whether a test is among those asked for: `run-mesh.sh` takes several filters, the test program itself only one.
fn is_wanted(test: &str, filters: &str) -> bool {
    let mut filters = filters.split_whitespace().peekable();
    filters.peek().is_none() || filters.any(|filter| test.contains(filter))
}

fn trials(bookstore: Option<&Arc<Bookstore>>) -> Vec<Trial> {
    let filters = std::env::var("WEFT_TEST_FILTERS").unwrap_or_default();
    let mut trials = Vec::new();
    for (group, tests) in GROUPS {
        for &(name, test) in tests {
            let title = format!("{group}::{name}");
            if !is_wanted(&title, &filters) {
                continue;
            }
            let bookstore = bookstore.cloned();
            trials.push(Trial::test(title, move || {
                if let Some(bookstore) = bookstore {
                    test(&bookstore);
                }
                Ok(())
            }));
        }
    }
    trials
}
