//! Processes of others: a control plane of go-control-plane, told what to serve, and Envoy.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::server::PATIENCE;

/// Where `scripts/setup.sh --test` puts peers.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory")
        .join("peers")
}

fn program() -> PathBuf {
    peers().join("bin/xds-server")
}

/// Whether the control plane is not built, for want of Go: then the test is skipped, and says so.
pub(crate) fn is_missing(test: &str) -> bool {
    if program().exists() {
        return false;
    }
    let reason = format!(
        "{} is missing: scripts/setup.sh --test builds it where there is Go",
        program().display()
    );
    assert!(
        std::env::var_os("WEFT_TEST_SKIP").is_none_or(|skip| skip != "never"),
        "{reason}"
    );
    // Not by a macro, whose output is only shown of tests that fail.
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").expect("standard error");
    true
}

/// The control plane.
pub(crate) struct ControlPlane {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl ControlPlane {
    /// Starts one that has nothing to serve yet.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with these flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let mut process = Command::new(program())
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a control plane");
        let input = process.stdin.take().expect("piped");
        let output = process.stdout.take().expect("piped");
        let mut control_plane = Self {
            address: ([127, 0, 0, 1], 0).into(),
            process,
            input,
            output: BufReader::new(output).lines(),
        };
        let listening = control_plane
            .until(|event| event["event"] == "listening")
            .await;
        let address = listening["address"].as_str().expect("an address");
        control_plane.address = address.parse().expect("an address");
        control_plane
    }

    /// Serves these resources from now on.
    pub(crate) async fn set(&mut self, version: &str, resources: &[Value]) {
        let line = json!({"version": version, "resources": resources});
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .expect("it reads");
    }

    /// The next event of a sort; those before it are passed over.
    pub(crate) async fn until(&mut self, is_meant: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let line = self.output.next_line().await.expect("it writes");
                let event: Value = serde_json::from_str(&line.expect("it runs")).expect("JSON");
                if is_meant(&event) {
                    return event;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("an event in time")
    }

    /// The next stream that is opened for resources of a kind.
    pub(crate) async fn stream_of(&mut self, kind: &str) -> Value {
        self.until(|event| {
            let url = event["type_url"].as_str().unwrap_or_default();
            event["event"] == "stream" && url.rsplit('.').next() == Some(kind)
        })
        .await
    }

    /// Ends it at once, as a crash would.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.expect("killed");
    }
}

/// Envoy itself.
pub(crate) struct Envoy(Child);

impl Envoy {
    /// Starts it with this bootstrap.
    pub(crate) fn start(bootstrap: &Value, dir: &Path) -> Self {
        let file = dir.join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).expect("a file");
        let process = Command::new(envoy())
            .args(["--disable-hot-restart", "--concurrency", "1"])
            .args(["--log-level", "error", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy");
        Self(process)
    }

    /// Ends it.
    pub(crate) async fn kill(mut self) {
        self.0.kill().await.expect("killed");
    }
}

fn envoy() -> PathBuf {
    let libraries = peers().join("envoy/lib");
    let versions = std::fs::read_dir(&libraries)
        .unwrap_or_else(|_| panic!("Envoy is missing: scripts/setup.sh --test installs it"));
    versions
        .flatten()
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
        .expect("Envoy is missing: scripts/setup.sh --test installs it")
}
