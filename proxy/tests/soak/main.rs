//! The soak: one proxy for half an hour under everything at once, and at the end what it was at the beginning.
//!
//! 500 connections of HTTP/1.1, HTTP/2 and plain TCP, in the clear and through mutual TLS, some of them rude; a
//! control plane that changes listeners, routes, clusters and endpoints all the while; upstreams that come and go. The
//! proxy is a process of its own, in a network namespace of its own. `make soak` runs it; without `SOAK_SECONDS` this
//! does nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of the server")]

mod clients;
mod control_plane;
mod measure;
mod resources;
mod rude;
#[path = "../xds/server.rs"]
mod server;
mod upstreams;

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clients::Load;
use control_plane::ControlPlane;
use measure::{Measured, Watcher};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use upstreams::Upstreams;

/// Which part of the soak this process is.
const ROLE: &str = "WEFT_SOAK_ROLE";
/// Where the processes meet.
const FOLDER: &str = "WEFT_SOAK_FOLDER";
/// How much of the time is for warming up: pools, caches and allocators are as large then as they will be.
const WARM_UP: f64 = 0.25;
/// How much larger memory may be at the end.
const ALLOWED_GROWTH: f64 = 1.10;

fn main() -> ExitCode {
    let Ok(seconds) = std::env::var("SOAK_SECONDS") else {
        println!("soak: nothing to do without SOAK_SECONDS; see `make soak`");
        return ExitCode::SUCCESS;
    };
    let seconds = seconds.parse().expect("SOAK_SECONDS is a number");
    let folder = std::env::var(FOLDER).unwrap_or_default();
    match std::env::var(ROLE).as_deref() {
        Ok("proxy") => serve(Path::new(&folder)),
        Ok("inside") => soak(Path::new(&folder), Duration::from_secs(seconds)),
        _ => in_own_network(),
    }
}

/// The proxy under test: what `weft proxy` is, with an identity.
fn serve(folder: &Path) -> ExitCode {
    let options = weft_proxy::Options {
        state_dir: Some(folder.join("state")),
        identity: Some(true),
        admin: Some(([127, 0, 0, 1], resources::ADMIN).into()),
        ..weft_proxy::Options::new(folder.join("bootstrap.json"))
    };
    match weft_proxy::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => panic!("{error}"),
    }
}

/// Begins again where there is nothing but a loopback interface.
fn in_own_network() -> ExitCode {
    raise_limit();
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c"])
        .arg("ip link set lo up && exec \"$0\"")
        .arg(std::env::current_exe().unwrap())
        .env(ROLE, "inside")
        .env(FOLDER, folder.path())
        .status()
        .expect("unshare(1) starts");
    match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Of descriptors: both ends of most connections are in one process.
fn raise_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

struct Proxy(Child);

impl Proxy {
    fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("state")).unwrap();
        let bootstrap = resources::bootstrap(&folder.join("xds.sock"));
        std::fs::write(folder.join("bootstrap.json"), bootstrap.to_string()).unwrap();
        let log = std::fs::File::create(folder.join("proxy.log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, "proxy")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Proxy(child)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn soak(folder: &Path, time: Duration) -> ExitCode {
    let mut upstreams = Upstreams::start().await;
    let mut plane = ControlPlane::start(&folder.join("xds.sock"));
    let mut proxy = Proxy::start(folder);
    plane.configure(&upstreams).await;
    let watcher = Watcher::new(proxy.0.id());
    watcher.until_ready().await;

    let load = Load::new();
    let warm_up = time.mul_f64(WARM_UP);
    let changes = plane.change_for(warm_up, &mut upstreams);
    watcher.under(&load, changes).await;
    let before = watcher.at_rest().await;
    println!("soak: warm after {warm_up:?}: {before}");
    let changes = plane.change_for(time - warm_up, &mut upstreams);
    watcher.under(&load, changes).await;
    let after = watcher.at_rest().await;
    println!("soak: at the end: {after}");

    let exited = proxy.0.try_wait().unwrap();
    let log = std::fs::read_to_string(folder.join("proxy.log")).unwrap();
    let mut problems = problems(&before, &after, &log);
    problems.extend(exited.map(|status| format!("the proxy has ended: {status}")));
    problems.extend(load.problems());
    println!("soak: {load}");
    println!("soak: {} changes of configuration", plane.changes());
    println!("soak: {watcher}");
    for problem in &problems {
        println!("soak: PROBLEM: {problem}");
    }
    match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn problems(before: &Measured, after: &Measured, log: &str) -> Vec<String> {
    let mut problems = vec![];
    let growth = after.anonymous_kib as f64 / before.anonymous_kib as f64;
    if growth > ALLOWED_GROWTH {
        problems.push(format!("memory has grown to {growth:.2} of what it was"));
    }
    if after.descriptors > before.descriptors {
        let leaked = after.descriptors - before.descriptors;
        problems.push(format!("{leaked} descriptors more than before"));
    }
    let panics = log.lines().filter(|line| line.contains("panicked"));
    problems.extend(panics.map(|line| format!("panic: {line}")));
    problems
}
