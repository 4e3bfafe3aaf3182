//! Real clients and real servers on both sides of one proxy, or of two with mutual TLS between them.
//!
//! Nothing here is a fake of ours, and nothing leaves the machine: every server has a loopback address of its own and
//! ends with its test. A test whose peer is not installed is skipped by name, or fails where `WEFT_TEST_SKIP` is
//! `never`; `scripts/setup.sh --test` installs them all. `cargo test --test peers FILTER` runs some.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod curl;
mod databases;
mod grpc;
mod h2spec;
mod harness;
mod messages;
mod nghttp;
mod statistics;
mod web_servers;
mod websocket;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use harness::Test;

/// By what is on the other side.
const GROUPS: [(&str, &[Test]); 9] = [
    ("h2spec", h2spec::TESTS),
    ("grpc", grpc::TESTS),
    ("websocket", websocket::TESTS),
    ("curl", curl::TESTS),
    ("nghttp", nghttp::TESTS),
    ("web_servers", web_servers::TESTS),
    ("databases", databases::TESTS),
    ("messages", messages::TESTS),
    ("statistics", statistics::TESTS),
];

/// Tests that run at the same time: most wait for their peers to start.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let may_skip = std::env::var_os("WEFT_TEST_SKIP").is_none_or(|skip| skip != "never");
    let trials = GROUPS
        .iter()
        .flat_map(|(group, tests)| tests.iter().map(move |test| trial(group, test, may_skip)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(group: &str, test: &Test, may_skip: bool) -> Trial {
    let title = format!("{group}::{}", test.name);
    let missing: Vec<String> = test
        .peers
        .iter()
        .filter(|peer| !peer.is_there())
        .map(ToString::to_string)
        .collect();
    let run = test.run;
    if missing.is_empty() {
        return Trial::test(title, move || {
            run();
            Ok(())
        });
    }
    let reason = format!(
        "{} not installed; scripts/setup.sh --test does it",
        missing.join(", ")
    );
    if may_skip {
        return Trial::test(format!("{title} ({reason})"), || Ok(())).with_ignored_flag(true);
    }
    Trial::test(title, move || Err(reason.into()))
}
