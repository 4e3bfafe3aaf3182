//! `weft node`: the process that makes the mesh's namespaces, holds them open, and restarts the server in them.
//!
//! It has one thread and no state of its own. The helper stays outside the namespaces, because an id map is
//! written from outside. What the server needs to know of the making is in [`Boot`].

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::bootstrap::NodeOptions;
use crate::cgroup::Delegation;
use crate::{entry, files};

mod detach;
mod helper;
mod holder;
mod ids;
mod namespaces;
mod orphans;

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
    #[error("{0}")]
    Detached(String),
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
    let is_detached = arguments.iter().any(|argument| argument == "--detach");
    let options = NodeOptions::from_arguments(arguments).map_err(NodeError::Usage);
    let result = options.and_then(|options| match is_detached {
        true => detach::start(&options),
        false => run(&options, || Ok(())),
    });
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("weft node: {}", chain(&error));
    match error {
        NodeError::AlreadyRunning { .. } => ExitCode::from(entry::ALREADY_RUNNING),
        NodeError::Usage(_) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

/// Makes the namespaces, or joins those of a mesh that lost its holder, and holds them until the mesh ends.
/// `ready` is called once, when the server answers.
fn run(
    options: &NodeOptions,
    ready: impl FnOnce() -> Result<(), NodeError>,
) -> Result<(), NodeError> {
    let plan = IdPlan::of_this_user()?;
    namespaces::prepare_directories(options, &plan)?;
    let lock = namespaces::lock(options)?;
    let orphans = orphans::find(options);
    let entered = match &orphans {
        Some(orphans) => namespaces::enter_again(options, orphans)?,
        None => namespaces::enter(options, &plan)?,
    };
    if orphans.is_none() {
        holder::forget_earlier_mesh(options)?;
    }
    let boot = Boot {
        holder_pid: std::process::id().cast_signed(),
        delegation: entered.delegation,
    };
    files::replace_json(&options.runtime_dir.join(Boot::FILE), &boot)
        .map_err(NodeError::io("writing boot.json"))?;
    let result = holder::hold(options, ready);
    // A mesh that could not be taken over is left to the next attempt.
    if result.is_ok() || orphans.is_none() {
        holder::clean(options);
    }
    // The helper removes the rest when its pipe closes; another node may start after that.
    drop(entered.helper);
    drop(lock);
    result
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
