//! `weft shim`: the parent of one container's first process.
//!
//! It keeps the log, the status and the restart policy, and answers on a socket. It has no tokio and hardly
//! any memory, because there is one for each container; and nothing it needs can be taken from it by the death of
//! the server. One thread decides; others only wait: for an end, for output, for requests.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{ForkResult, setsid};

use super::Place;
use super::bundle::Bundle;
use crate::{files, sys};

mod output;
mod requests;
mod runs;
mod supervise;

use supervise::Supervisor;

/// Detaches and supervises. The first process returns when the command runs, or has failed to. `restarts` is
/// how often a shim before this one has restarted the container.
pub(crate) fn main(place: &Place, program: &Path, restarts: u32) -> ExitCode {
    match start(place, program, restarts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(place: &Place, program: &Path, restarts: u32) -> io::Result<()> {
    let (mut outcome, tell) = io::pipe()?;
    // The child is nobody's child soon: the holder takes it, and the server may die.
    match sys::fork()? {
        ForkResult::Parent { .. } => {
            drop(tell);
            await_start(&mut outcome)
        }
        ForkResult::Child => {
            drop(outcome);
            supervise(place, program, restarts, tell)
        }
    }
}

/// The shim's child says nothing when all is well, and closes.
fn await_start(outcome: &mut PipeReader) -> io::Result<()> {
    let mut failure = String::new();
    outcome.read_to_string(&mut failure)?;
    if failure == "started" {
        Ok(())
    } else {
        Err(io::Error::other(failure))
    }
}

fn supervise(place: &Place, program: &Path, restarts: u32, mut tell: PipeWriter) -> io::Result<()> {
    let supervisor = prepare(place, program, restarts);
    match supervisor {
        Ok(supervisor) => supervisor.run(move || {
            // Whoever started us may be gone already; the status file says the same.
            let _ = tell.write_all(b"started");
        }),
        Err(error) => {
            let _ = tell.write_all(error.to_string().as_bytes());
            Err(error)
        }
    }
}

fn prepare(place: &Place, program: &Path, restarts: u32) -> io::Result<Supervisor> {
    setsid()?;
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let bundle: Bundle = files::read_json(&place.bundle())?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the container has no bundle"))?;
    Supervisor::new(place, program, bundle, restarts)
}
