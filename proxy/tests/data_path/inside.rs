//! A test that runs once more, by itself, in a user and network namespace of its own.

use std::process::Command;

/// Set where that is so.
const INSIDE: &str = "WEFT_TEST_INSIDE_NAMESPACE";

/// Whether this is the run inside.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this test inside, after what a shell does there first, and fails if it does.
pub(crate) fn run_inside(test: &str, setup: &str) {
    let program = std::env::current_exe().unwrap();
    let script = format!("set -e\n{setup}\nexec \"$0\" --exact {test} --nocapture");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &script])
        .arg(program)
        .env(INSIDE, "1")
        .output()
        .expect("unshare runs: apt-get install util-linux");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(
        output.status.success(),
        "inside the namespace (needs iptables, iproute2):\n{}\n{}",
        said[0],
        said[1]
    );
}
