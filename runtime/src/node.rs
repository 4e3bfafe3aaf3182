//! `weft node`: the process that makes the mesh's namespaces, holds them open, and restarts the server in them.
//!
//! It has one thread and no state of its own. The helper stays outside the namespaces, because an id map is
//! written from outside. What the server needs to know of the making is in [`Boot`].

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::unistd::ForkResult;
use serde::{Deserialize, Serialize};

use crate::bootstrap::NodeOptions;
use crate::cgroup::Delegation;
use crate::{entry, files, sys};

mod helper;
mod holder;
mod ids;
mod namespaces;

pub(crate) use helper::main as helper_main;
pub(crate) use ids::{IdPlan, user_name};
pub(crate) use namespaces::enter_scratch;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error(
        "usage: weft node [--detach] [--state-dir DIR] [--runtime-dir DIR] [--broker-socket PATH]: {0}"
    )]
    Usage(String),
    #[error("another node uses {}", state_dir.display())]
    AlreadyRunning { state_dir: PathBuf },
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    Ids(#[from] ids::IdsError),
    #[error("the id maps could not be written: {0}")]
    Maps(String),
    #[error(
        "making {what} was refused: {source}; `weft check` says whether this kernel lets ordinary users make namespaces"
    )]
    Namespace {
        what: &'static str,
        source: io::Error,
    },
    #[error("the node's server did not start: {0}; node.log in its state directory says more")]
    Server(String),
}

impl NodeError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NodeError {
        let doing = doing.into();
        move |source| NodeError::Io { doing, source }
    }
}

/// What the holder tells the server, in `boot.json` of the runtime directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) holder_pid: i32,
    pub(crate) delegation: Delegation,
}

impl Boot {
    pub(crate) const FILE: &str = "boot.json";
}

/// `weft node`: returns when the mesh has ended; with `--detach` when it is ready.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let detach = arguments.iter().any(|argument| argument == "--detach");
    let result = NodeOptions::from_arguments(arguments)
        .map_err(NodeError::Usage)
        .and_then(|options| {
            if detach {
                start_detached(&options)
            } else {
                run(&options, |_| Ok(()))
            }
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            match error {
                NodeError::AlreadyRunning { .. } => ExitCode::from(entry::ALREADY_RUNNING),
                NodeError::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Makes the namespaces and holds them until the mesh ends. `ready` is called once, when the server answers.
pub(crate) fn run(
    options: &NodeOptions,
    ready: impl FnOnce(&NodeOptions) -> Result<(), NodeError>,
) -> Result<(), NodeError> {
    let plan = IdPlan::of_this_user()?;
    namespaces::prepare_directories(options, &plan)?;
    let lock = namespaces::lock(options)?;
    let entered = namespaces::enter(options, &plan)?;
    let boot = Boot {
        holder_pid: std::process::id().cast_signed(),
        delegation: entered.delegation,
    };
    files::replace_json(&options.runtime_dir.join(Boot::FILE), &boot)
        .map_err(NodeError::io("writing boot.json"))?;
    let result = holder::hold(options, ready);
    holder::clean(options);
    // The helper removes the cgroups when its pipe closes; another node may start after that.
    drop(entered.helper);
    drop(lock);
    result
}

/// Goes on in a session of its own and returns in the first process once the mesh is ready, or has failed.
fn start_detached(options: &NodeOptions) -> Result<(), NodeError> {
    let (mut outcome, tell) = io::pipe().map_err(NodeError::io("making a pipe"))?;
    match sys::fork().map_err(NodeError::io("detaching"))? {
        ForkResult::Parent { .. } => {
            drop(tell);
            holder::await_outcome(options, &mut outcome)
        }
        ForkResult::Child => {
            drop(outcome);
            holder::run_detached(options, tell)
        }
    }
}

fn report(error: &NodeError) {
    eprintln!("weft node: {}", chain(error));
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
