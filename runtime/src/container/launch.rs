//! Starting a container's first process and learning whether its command runs.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::report::{Report, Reports};

/// How long the making of a container may take; a mount of a dead network file system would take for ever.
const DEADLINE: Duration = Duration::from_secs(60);

/// A first process whose command runs. The caller is its parent and must wait for it.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: i32,
    /// The other end of its terminal, if it has one.
    pub(crate) terminal: Option<OwnedFd>,
}

/// Why no command runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct LaunchError {
    /// 125, 126 or 127, as everywhere.
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
}

impl LaunchError {
    fn of(doing: &str) -> impl FnOnce(io::Error) -> LaunchError {
        let doing = doing.to_owned();
        move |error| LaunchError {
            exit_code: 125,
            reason: format!("{doing}: {error}"),
        }
    }
}

/// Starts what the bundle says. The first process ends when the calling *thread* ends.
pub(crate) fn launch(
    program: &Path,
    bundle: &Path,
    stdout: impl Into<Stdio>,
    stderr: impl Into<Stdio>,
) -> Result<Launched, LaunchError> {
    let (reports, theirs) = Reports::pair().map_err(LaunchError::of("making a socket"))?;
    set_socket_timeout(reports.as_fd(), Timeout::Recv, Some(DEADLINE))
        .map_err(|errno| LaunchError::of("setting a deadline")(errno.into()))?;
    let mut maker = Command::new(program)
        .arg("init")
        .arg(bundle)
        .env_clear()
        .stdin(theirs)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(LaunchError::of("starting `weft init`"))?;
    let outcome = follow(&reports);
    if outcome.is_err() {
        // It has said all it had to say, or nothing in time.
        let _ = maker.kill();
    }
    let _ = maker.wait();
    outcome
}

/// Reads reports until the command runs, or until it is clear that it will not.
fn follow(reports: &Reports) -> Result<Launched, LaunchError> {
    let (mut pid, mut terminal, mut failure) = (None, None, None);
    let received = loop {
        match reports.receive() {
            Ok(None) => break Ok(()),
            Ok(Some((Report::Born { pid: born }, _))) => pid = Some(born),
            Ok(Some((Report::Terminal, descriptor))) => terminal = descriptor,
            Ok(Some((Report::Failed { exit_code, reason }, _))) => {
                failure = Some(LaunchError { exit_code, reason });
            }
            Err(error) => break Err(error),
        }
    };
    let result = match (failure, received, pid) {
        (Some(failure), _, _) => Err(failure),
        (None, Err(error), _) => Err(LaunchError::of("waiting for the container to be made")(
            error,
        )),
        (None, Ok(()), None) => Err(LaunchError {
            exit_code: 125,
            reason: "`weft init` ended before there was a container".to_owned(),
        }),
        (None, Ok(()), Some(pid)) => Ok(Launched { pid, terminal }),
    };
    if let (Err(_), Some(pid)) = (&result, pid) {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        let _ = wait_for(pid);
    }
    result
}

/// Waits for a child's end: its exit code, or 128 + the signal that ended it.
pub(crate) fn wait_for(pid: i32) -> io::Result<i32> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
