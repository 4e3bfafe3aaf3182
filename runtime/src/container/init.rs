//! `weft init`: from a process of the shim to the container's first process.
//!
//! Everything that can fail happens before execve(2) and is reported to the shim; after it nothing of weft is
//! left in the process. The order is part of the security: namespaces, root filesystem, identity, filter, command.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{ForkResult, sethostname};

use super::bundle::{Bundle, Network};
use super::report::{Report, Reports};
use crate::network::{NetworkError, namespace};
use crate::{files, sys};

pub(crate) mod capabilities;
mod devices;
mod mounts;
pub(crate) mod process;
mod root;
mod seccomp;
pub(crate) mod terminal;
pub(crate) mod users;
mod volumes;

/// Why the command does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("{doing}: {source}")]
    System { doing: String, source: io::Error },
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    User(#[from] users::UserError),
    #[error("capability {0} does not exist")]
    Capability(String),
    #[error("the system call filter: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("the system call filter: {0}")]
    InstallFilter(#[from] seccompiler::Error),
    #[error("{command}: no such executable in $PATH")]
    NotFound { command: String },
    #[error("{command}: {source}")]
    CannotExecute { command: String, source: io::Error },
    #[error("there is no command: the image has none, and none was given")]
    NoCommand,
}

impl InitError {
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> InitError {
        let doing = doing.into();
        move |source| InitError::System { doing, source }
    }

    /// As shells and other runtimes number it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            InitError::NotFound { .. } | InitError::NoCommand => 127,
            InitError::CannotExecute { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                127
            }
            InitError::CannotExecute { .. } => 126,
            _ => 125,
        }
    }
}

/// Turns this process into the maker of a container; returns only in the maker, or when it failed.
pub(crate) fn main(bundle: &Path) -> ExitCode {
    let reports = match Reports::from_stdin() {
        Ok(reports) => reports,
        Err(_) => return ExitCode::from(125),
    };
    match make(bundle, &reports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit_code = error.exit_code();
            let report = Report::Failed {
                exit_code: exit_code.into(),
                reason: error.to_string(),
            };
            // Where nobody listens any more nobody waits for the container either.
            let _ = reports.send(&report, None);
            ExitCode::from(exit_code)
        }
    }
}

/// Returns in the maker once the first process exists.
fn make(bundle: &Path, reports: &Reports) -> Result<(), InitError> {
    let bundle: Bundle = files::read_json(bundle)
        .and_then(|bundle| bundle.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(InitError::system("reading the bundle"))?;
    bundle
        .group
        .join()
        .map_err(InitError::system("entering the cgroup"))?;
    enter_namespaces(&bundle)?;
    let fork = sys::fork_sibling_into_pid_namespace();
    match fork.map_err(InitError::system("making a pid namespace"))? {
        ForkResult::Parent { child } => reports
            .send(
                &Report::Born {
                    pid: child.as_raw(),
                },
                None,
            )
            .map_err(InitError::system("reporting")),
        ForkResult::Child => become_container(&bundle, reports).map(|never| match never {}),
    }
}

fn enter_namespaces(bundle: &Bundle) -> Result<(), InitError> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    match &bundle.network {
        Network::Sandbox(path) => std::fs::File::open(path)
            .and_then(|namespace| Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?))
            .map_err(InitError::system("entering the sandbox's network"))?,
        Network::Isolated => flags |= CloneFlags::CLONE_NEWNET,
    }
    unshare(flags).map_err(|errno| InitError::system("making namespaces")(errno.into()))?;
    if bundle.network == Network::Isolated {
        namespace::set_up_loopback_here()?;
    }
    Ok(())
}

/// The rest of the way, as process 1 of the new pid namespace.
fn become_container(bundle: &Bundle, reports: &Reports) -> Result<Infallible, InitError> {
    // Until execve(2) this process holds more than the container may see: nobody in it may look inside.
    nix::sys::prctl::set_dumpable(false)
        .map_err(|errno| InitError::system("hiding from the container")(errno.into()))?;
    sethostname(&bundle.hostname)
        .map_err(|errno| InitError::system("setting the host name")(errno.into()))?;
    // Lowering is for root only; a raised value is what ordinary users may set.
    let _ = std::fs::write(
        "/proc/self/oom_score_adj",
        bundle.oom_score_adjust.to_string(),
    );
    root::enter(bundle)?;
    if bundle.process.terminal {
        terminal::take(reports)?;
    }
    process::run(&bundle.process, &bundle.hostname)
}
