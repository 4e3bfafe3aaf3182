//! The runtime as its clients see it: real namespaces, real containers, through `weft.node.v1`.
//!
//! Runs as whoever runs it; as root it then runs once more as the ordinary user in WEFT_TEST_USER (default
//! `weftdev`), if there is one. This program is the node, too: it dispatches the runtime's verbs before anything else.

use std::process::ExitCode;

#[path = "node/containers.rs"]
mod containers;
#[path = "node/exec.rs"]
mod exec;
#[path = "node/images.rs"]
mod images;
#[path = "node/isolation.rs"]
mod isolation;
#[path = "node/runner.rs"]
mod runner;
#[path = "node/sandboxes.rs"]
mod sandboxes;
#[path = "node/support.rs"]
mod support;
#[path = "node/survival.rs"]
mod survival;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if let Some((verb, rest)) = arguments.split_first()
        && let Some(code) = weft_runtime::entry::run(&verb.to_string_lossy(), rest)
    {
        return code;
    }
    let mut tests = runner::Tests::default();
    sandboxes::register(&mut tests);
    containers::register(&mut tests);
    exec::register(&mut tests);
    isolation::register(&mut tests);
    survival::register(&mut tests);
    images::register(&mut tests);
    tests.run(&arguments)
}
