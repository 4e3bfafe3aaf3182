//! A command beside a container's first process: `weft init --exec`.
//!
//! The server starts it with the command's own streams (or, for a terminal, a report socket as standard input).
//! It enters the container's namespaces, starts the command, and ends as the command ends.

use std::convert::Infallible;
use std::io;
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns};
use nix::unistd::ForkResult;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::bundle::Process;
use super::init::{InitError, process, terminal};
use super::launch;
use super::report::{Report, Reports};
use crate::cgroup::Group;
use crate::sys;

/// The variable that carries the request: other processes cannot read it, as they can an argument.
pub(crate) const VARIABLE: &str = "WEFT_EXEC";

/// A command, and the container to run it in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// The container's first process.
    pub(crate) pid: i32,
    pub(crate) group: Group,
    pub(crate) hostname: String,
    pub(crate) process: Process,
}

/// Runs the command and ends as it does.
pub(crate) fn main() -> ExitCode {
    let request = std::env::var(VARIABLE)
        .ok()
        .and_then(|text| serde_json::from_str::<ExecRequest>(&text).ok());
    let Some(request) = request else {
        eprintln!("weft init --exec is a part of `weft node`, which starts it");
        return ExitCode::from(2);
    };
    let reports = match request
        .process
        .terminal
        .then(Reports::from_stdin)
        .transpose()
    {
        Ok(reports) => reports,
        Err(_) => return ExitCode::from(125),
    };
    match start(&request, reports.as_ref()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(error) => {
            tell(&error, reports.as_ref());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Returns in the outer process, with the exit code of the command.
fn start(request: &ExecRequest, reports: Option<&Reports>) -> Result<i32, InitError> {
    request
        .group
        .join()
        .map_err(InitError::system("entering the cgroup"))?;
    enter(request.pid).map_err(InitError::system("entering the container"))?;
    match sys::fork().map_err(InitError::system("starting a process"))? {
        ForkResult::Parent { child } => {
            launch::wait_for(child.as_raw()).map_err(InitError::system("waiting for the command"))
        }
        ForkResult::Child => become_command(request, reports).map(|never| match never {}),
    }
}

/// All namespaces but the user namespace, which is the mesh's. A pid that names another process by now
/// is found out: its namespaces could not be entered, or it is another container of the same mesh's root.
fn enter(pid: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    // Hidden before the container could see us.
    nix::sys::prctl::set_dumpable(false)?;
    Ok(setns(process, flags)?)
}

fn become_command(
    request: &ExecRequest,
    reports: Option<&Reports>,
) -> Result<Infallible, InitError> {
    if let Some(reports) = reports {
        terminal::take(reports)?;
    }
    process::run(&request.process, &request.hostname)
}

fn tell(error: &InitError, reports: Option<&Reports>) {
    match reports {
        Some(reports) => {
            let report = Report::Failed {
                exit_code: error.exit_code().into(),
                reason: error.to_string(),
            };
            let _ = reports.send(&report, None);
        }
        None => eprintln!("{error}"),
    }
}
