//! The process that stays: it starts the server, restarts it when it dies, and cleans up when the mesh ends.
//!
//! Shims are its grandchildren and become its children, so it also reaps them. It ends when the server
//! ends by itself (exit status 0, after Shutdown or on SIGTERM), never because the server was killed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Boot, NodeError};
use crate::bootstrap::NodeOptions;
use crate::dns::{Dns, DnsSockets};
use crate::files;
use crate::server::programs;

/// Longest pause between two starts of a server that keeps ending.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A server that lived this long starts the pauses anew.
const STABLE: Duration = Duration::from_secs(10);

/// Runs the server until it ends by itself. `ready` is called once, when the first one serves; only until
/// then is there anything that this process gives up for.
pub(super) fn hold(
    options: &NodeOptions,
    ready: impl FnOnce() -> Result<(), NodeError>,
) -> Result<(), NodeError> {
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| NodeError::io("becoming the parent of orphans")(errno.into()))?;
    let signals = block_signals()?;
    let dns = DnsSockets::open().map_err(NodeError::io("listening for DNS on the gateway"))?;
    let mut server = start_server(options, &dns)?;
    ready()?;
    let mut pause = Duration::ZERO;
    loop {
        let started = Instant::now();
        if wait_for_end(&server, &signals) == Some(0) {
            return Ok(());
        }
        pause = match started.elapsed() {
            long if long > STABLE => Duration::ZERO,
            _ => next_pause(pause),
        };
        server = restart_server(options, &dns, &mut pause);
    }
}

/// A server that cannot be started now may be later: containers run, and must not lose their keeper.
fn restart_server(options: &NodeOptions, dns: &DnsSockets, pause: &mut Duration) -> Child {
    loop {
        sleep(*pause);
        match start_server(options, dns) {
            Ok(server) => return server,
            Err(error) => eprintln!("weft node: {}", super::chain(&error)),
        }
        *pause = next_pause(*pause);
    }
}

fn next_pause(pause: Duration) -> Duration {
    (pause * 2).clamp(Duration::from_millis(5), LONGEST_PAUSE)
}

/// The signals that this process waits for instead of being interrupted by them.
fn block_signals() -> Result<SigSet, NodeError> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    let blocked = signals.thread_block();
    blocked.map_err(|errno| NodeError::io("blocking signals")(errno.into()))?;
    Ok(signals)
}

/// Starts a server and waits until it serves.
fn start_server(options: &NodeOptions, dns: &DnsSockets) -> Result<Child, NodeError> {
    let stdin = dns
        .for_stdin()
        .map_err(NodeError::io("passing the DNS sockets on"))?;
    let mut server = Command::new(options.program())
        .arg("node-server")
        .args(options.to_arguments())
        // The lock of iptables' older backend must not be the host's: it is not ours to open.
        .env("XTABLES_LOCKFILE", options.runtime_dir.join("xtables.lock"))
        .stdin(stdin)
        .stdout(Stdio::piped())
        // What a terminal sends is for this process, which tells the server.
        .process_group(0)
        .spawn()
        .map_err(NodeError::io("starting the node's server"))?;
    let mut line = String::new();
    if let Some(output) = server.stdout.take() {
        let read = BufReader::new(output).read_line(&mut line);
        read.map_err(NodeError::io("waiting for the node's server"))?;
    }
    match line.trim_end() {
        "ready" => return Ok(server),
        "" => line = "it ended without a word".to_owned(),
        _ => {}
    }
    // It ends by itself after saying why it cannot serve.
    let _ = server.wait();
    Err(NodeError::Server(line.trim_end().to_owned()))
}

/// Waits for the server's end, and takes every other child that ends meanwhile. The exit status, if it has one.
fn wait_for_end(server: &Child, signals: &SigSet) -> Option<i32> {
    let server = Pid::from_raw(server.id().cast_signed());
    loop {
        // Before waiting: a child may have ended while the signals were not yet waited for.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(pid, code) if pid == server => return Some(code),
                WaitStatus::Signaled(pid, ..) if pid == server => return None,
                _ => {}
            }
        }
        if let Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP) = signals.wait() {
            // The mesh is to end: the server knows how, and its end comes as SIGCHLD.
            let _ = kill(server, Signal::SIGTERM);
        }
    }
}

/// Containers and sandboxes of a mesh whose namespaces are gone cannot be adopted.
pub(super) fn forget_earlier_mesh(options: &NodeOptions) -> Result<(), NodeError> {
    let places = [
        options.runtime_dir.join("containers"),
        options.runtime_dir.join("sandboxes"),
        options.runtime_dir.join("namespaces"),
        options.state_dir.join("containers"),
        options.state_dir.join(programs::DIRECTORY),
    ];
    for place in places {
        files::remove_tree(&place)
            .and_then(|()| fs::create_dir_all(&place))
            .map_err(NodeError::io(format!("clearing {}", place.display())))?;
    }
    let names = options.runtime_dir.join(Dns::FILE);
    files::remove(&names).map_err(NodeError::io(format!("removing {}", names.display())))
}

/// Removes what the mesh has made outside its namespaces, save its images, its volumes and its log.
pub(super) fn clean(options: &NodeOptions) {
    for name in [
        "node.sock",
        "handoff.sock",
        "xtables.lock",
        Dns::FILE,
        Boot::FILE,
    ] {
        let _ = files::remove(&options.runtime_dir.join(name));
    }
    for name in ["containers", "sandboxes", "namespaces"] {
        let _ = files::remove_tree(&options.runtime_dir.join(name));
    }
    let _ = files::remove_tree(&options.state_dir.join("containers"));
    let _ = files::remove_tree(&options.state_dir.join(programs::DIRECTORY));
    // Where real root bound the program, the bind is locked and the helper removes what it covers.
    let program = options.program();
    let _ = nix::mount::umount2(&program, nix::mount::MntFlags::MNT_DETACH);
    let _ = files::remove(&program);
    let _ = files::remove(&program.with_extension("copy"));
    let _ = fs::remove_dir(&options.runtime_dir);
}
