//! `weft node --detach`: two processes, of which the first returns when the second has made a mesh.

use std::cell::RefCell;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::unistd::{ForkResult, setsid};

use super::NodeError;
use crate::bootstrap::NodeOptions;
use crate::sys;

/// Returns in the first process once the mesh is ready, or has failed to be; in the second when it has ended.
pub(super) fn start(options: &NodeOptions) -> Result<(), NodeError> {
    let (mut outcome, tell) = io::pipe().map_err(NodeError::io("making a pipe"))?;
    match sys::fork().map_err(NodeError::io("detaching"))? {
        ForkResult::Parent { .. } => {
            drop(tell);
            await_outcome(options, &mut outcome)
        }
        ForkResult::Child => {
            drop(outcome);
            run(options, tell)
        }
    }
}

fn await_outcome(options: &NodeOptions, outcome: &mut PipeReader) -> Result<(), NodeError> {
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
        _ => Err(NodeError::Detached(text)),
    }
}

/// The node itself, in its own session, writing to its log.
fn run(options: &NodeOptions, tell: PipeWriter) -> Result<(), NodeError> {
    let tell = RefCell::new(Some(tell));
    // Once: the pipe closes, and the first process goes on.
    let say = |text: &str| match tell.take() {
        Some(mut pipe) => pipe.write_all(text.as_bytes()),
        None => Ok(()),
    };
    let result = detach(options).and_then(|()| {
        super::run(options, || {
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
