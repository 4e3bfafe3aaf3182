//! The process that stays: it starts the server, restarts it when it dies, and cleans up when the mesh ends.
//!
//! Shims are its grandchildren and become its children, so it also reaps them. It ends when the server
//! ends by itself (exit status 0 after Shutdown), never because the server was killed.

use std::cell::RefCell;
use std::fs;
use std::io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use super::NodeError;
use crate::bootstrap::NodeOptions;
use crate::files;

/// Longest pause between two starts of a server that keeps ending.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A server that lived this long starts the pauses anew.
const STABLE: Duration = Duration::from_secs(10);

/// Runs the server until it ends by itself.
pub(super) fn hold(
    options: &NodeOptions,
    ready: impl FnOnce(&NodeOptions) -> Result<(), NodeError>,
) -> Result<(), NodeError> {
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| NodeError::io("becoming the parent of orphans")(errno.into()))?;
    forget_earlier_mesh(options)?;
    let mut ready = Some(ready);
    let mut pause = Duration::ZERO;
    loop {
        let started = Instant::now();
        let mut server = start_server(options)?;
        let first_line = first_line_of(&mut server)?;
        if let Some(ready) = ready.take() {
            if first_line != "ready" {
                return Err(NodeError::Server(first_line));
            }
            ready(options)?;
        }
        if reap_until_end_of(&server)? == Some(0) {
            return Ok(());
        }
        pause = if started.elapsed() > STABLE {
            Duration::ZERO
        } else {
            next_pause(pause)
        };
        sleep(pause);
    }
}

/// Removes what the mesh has made outside its namespaces, save its images, its volumes and its log.
pub(super) fn clean(options: &NodeOptions) {
    for name in [
        "node.sock",
        "handoff.sock",
        "xtables.lock",
        super::Boot::FILE,
    ] {
        let _ = files::remove(&options.runtime_dir.join(name));
    }
    for name in ["containers", "sandboxes", "namespaces"] {
        let _ = files::remove_tree(&options.runtime_dir.join(name));
    }
    let _ = files::remove_tree(&options.state_dir.join("containers"));
    // Where real root bound the program, the bind is locked and the helper removes what it covers.
    let program = options.program();
    let _ = nix::mount::umount2(&program, nix::mount::MntFlags::MNT_DETACH);
    let _ = files::remove(&program);
    let _ = files::remove(&program.with_extension("copy"));
    let _ = fs::remove_dir(&options.runtime_dir);
}

/// Containers and sandboxes of a mesh whose namespaces are gone cannot be adopted.
fn forget_earlier_mesh(options: &NodeOptions) -> Result<(), NodeError> {
    let places = [
        options.runtime_dir.join("containers"),
        options.runtime_dir.join("sandboxes"),
        options.runtime_dir.join("namespaces"),
        options.state_dir.join("containers"),
    ];
    for place in places {
        files::remove_tree(&place)
            .and_then(|()| fs::create_dir_all(&place))
            .map_err(NodeError::io(format!("clearing {}", place.display())))?;
    }
    Ok(())
}

fn start_server(options: &NodeOptions) -> Result<Child, NodeError> {
    Command::new(options.program())
        .arg("node-server")
        .args(options.to_arguments())
        // The lock of iptables' older backend must not be the host's: it is not ours to open.
        .env("XTABLES_LOCKFILE", options.runtime_dir.join("xtables.lock"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(NodeError::io("starting the node's server"))
}

/// The server writes one line when it serves, or why it does not.
fn first_line_of(server: &mut Child) -> Result<String, NodeError> {
    let mut line = String::new();
    if let Some(output) = server.stdout.take() {
        BufReader::new(output)
            .read_line(&mut line)
            .map_err(NodeError::io("waiting for the node's server"))?;
    }
    let line = line.trim_end();
    Ok(if line.is_empty() {
        "it ended without a word".to_owned()
    } else {
        line.to_owned()
    })
}

/// Waits for the server's end, and takes every other child that ends meanwhile. The exit status, if it has one.
fn reap_until_end_of(server: &Child) -> Result<Option<i32>, NodeError> {
    loop {
        let status = match waitpid(Pid::from_raw(-1), None) {
            Err(Errno::EINTR) => continue,
            other => {
                other.map_err(|errno| NodeError::io("waiting for the server")(errno.into()))?
            }
        };
        let is_server = status
            .pid()
            .is_some_and(|pid| pid.as_raw().cast_unsigned() == server.id());
        match status {
            WaitStatus::Exited(_, code) if is_server => return Ok(Some(code)),
            WaitStatus::Signaled(..) if is_server => return Ok(None),
            _ => {}
        }
    }
}

fn next_pause(pause: Duration) -> Duration {
    (pause * 2).clamp(Duration::from_millis(5), LONGEST_PAUSE)
}

/// The first process of `--detach`: waits for what the second has to say.
pub(super) fn await_outcome(
    options: &NodeOptions,
    outcome: &mut PipeReader,
) -> Result<(), NodeError> {
    let mut text = String::new();
    outcome
        .read_to_string(&mut text)
        .map_err(NodeError::io("waiting for the node"))?;
    match text.as_str() {
        "ready" => Ok(()),
        "running" => Err(NodeError::AlreadyRunning {
            state_dir: options.state_dir.clone(),
        }),
        "" => Err(NodeError::Server("the node ended".to_owned())),
        _ => Err(NodeError::Server(text)),
    }
}

/// The second process of `--detach`: the node itself, in its own session, writing to its log.
pub(super) fn run_detached(options: &NodeOptions, tell: PipeWriter) -> Result<(), NodeError> {
    let tell = RefCell::new(Some(tell));
    let say = |text: &str| match tell.take() {
        Some(mut pipe) => pipe.write_all(text.as_bytes()),
        None => Ok(()),
    };
    let result = detach(options).and_then(|()| {
        super::run(options, |_| {
            say("ready").map_err(NodeError::io("saying that the node is ready"))
        })
    });
    if let Err(error) = &result {
        let _ = match error {
            NodeError::AlreadyRunning { .. } => say("running"),
            other => say(&super::chain(other)),
        };
    }
    result
}

/// A session of its own, so that no terminal's signals arrive, and a log in the place of its streams.
fn detach(options: &NodeOptions) -> Result<(), NodeError> {
    setsid().map_err(|errno| NodeError::io("making a session")(errno.into()))?;
    let redirect = || -> io::Result<()> {
        fs::create_dir_all(&options.state_dir)?;
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(options.state_dir.join("node.log"))?;
        rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?.as_fd())?;
        rustix::stdio::dup2_stdout(log.as_fd())?;
        rustix::stdio::dup2_stderr(log.as_fd())?;
        Ok(())
    };
    redirect().map_err(NodeError::io("opening node.log in the state directory"))
}
