//! `weft node-helper`: what only a process outside the mesh's user namespace can do.
//!
//! It reads the holder's pid from its standard input, writes the id maps of that process, and answers one line.
//! Where it runs as real root it then waits until the holder has ended, and removes what is not the mesh's own.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::ids::{IdPlan, SubordinateRange};
use super::{Boot, NodeError};
use crate::cgroup::Delegation;
use crate::files;
use crate::network::rules;

/// What the helper is to do, as its one argument.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The maps to write; none where the namespace has them already.
    pub(super) plan: Option<IdPlan>,
    pub(super) delegation: Delegation,
    /// The runtime directory, and the file in it which the program covers.
    pub(super) runtime_dir: PathBuf,
    pub(super) program: PathBuf,
}

impl Task {
    /// What the mesh's root could not remove itself, if the mesh has ended: its holder may have been killed, and
    /// what goes on needs all of it.
    fn clean(&self) {
        if self.runtime_dir.join(Boot::FILE).exists() {
            return;
        }
        self.delegation.remove();
        let _ = files::remove(&self.program);
        // Goes only when it is empty.
        let _ = fs::remove_dir(&self.runtime_dir);
    }
}

/// The helper as the holder sees it. Dropping it tells the helper that the mesh has ended.
pub(super) struct Helper {
    process: Child,
    requests: ChildStdin,
}

impl Helper {
    pub(super) fn spawn(task: &Task) -> Result<Helper, NodeError> {
        let task =
            serde_json::to_string(task).map_err(|error| NodeError::Maps(error.to_string()))?;
        let mut process = Command::new("/proc/self/exe")
            .arg("node-helper")
            .arg(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It outlives what a terminal sends to the holder.
            .process_group(0)
            .spawn()
            .map_err(NodeError::io("starting the node's helper"))?;
        let requests = process
            .stdin
            .take()
            .ok_or_else(|| NodeError::Maps("the helper has no input".to_owned()))?;
        Ok(Helper { process, requests })
    }

    /// Has the id maps of this process written, if the task says so; it has just made its user namespace.
    pub(super) fn begin(&mut self) -> Result<(), NodeError> {
        let mut answer = String::new();
        let output = self.process.stdout.take();
        writeln!(self.requests, "{}", std::process::id())
            .and_then(|()| {
                let output = output.ok_or(io::ErrorKind::BrokenPipe)?;
                BufReader::new(output).read_line(&mut answer)
            })
            .map_err(NodeError::io("talking to the node's helper"))?;
        match answer.trim_end() {
            "done" => Ok(()),
            "" => Err(NodeError::Maps("the helper ended".to_owned())),
            refusal => Err(NodeError::Maps(refusal.to_owned())),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Reaps it where it has ended already, as an ordinary user's has.
        let _ = self.process.try_wait();
    }
}

/// The helper's own process.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let task = arguments.first().and_then(|text| text.to_str());
    let Some(task) = task.and_then(|text| serde_json::from_str::<Task>(text).ok()) else {
        eprintln!("weft node-helper is a part of `weft node`, which starts it");
        return ExitCode::from(2);
    };
    let mut requests = io::stdin().lines();
    let Some(Ok(Ok(pid))) = requests
        .next()
        .map(|line| line.map(|pid| pid.parse::<u32>()))
    else {
        task.clean();
        return ExitCode::FAILURE;
    };
    match task
        .plan
        .as_ref()
        .map_or(Ok(()), |plan| write_maps(plan, pid))
    {
        Ok(()) => println!("done"),
        Err(refusal) => println!("{}", refusal.replace('\n', " ")),
    }
    if Uid::effective().is_root() || !task.delegation.is_empty() {
        // Nothing more is ever written: the next event is the end of the holder.
        let _ = requests.next();
        task.clean();
    }
    ExitCode::SUCCESS
}

fn write_maps(plan: &IdPlan, pid: u32) -> Result<(), String> {
    match plan {
        IdPlan::Root { uids, gids } => {
            write_map(pid, "gid_map", *gids)?;
            write_map(pid, "uid_map", *uids)
        }
        IdPlan::User {
            uid,
            gid,
            uids,
            gids,
        } => {
            run_mapper("newgidmap", pid, *gid, *gids)?;
            run_mapper("newuidmap", pid, *uid, *uids)
        }
    }
}

fn write_map(pid: u32, file: &str, range: SubordinateRange) -> Result<(), String> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(
        Path::new(&path),
        format!("0 {} {}\n", range.first, range.count),
    )
    .map_err(|error| format!("{path}: {error}"))
}

fn run_mapper(program: &str, pid: u32, own: u32, others: SubordinateRange) -> Result<(), String> {
    let numbers = [pid, 0, own, 1, 1, others.first, others.count];
    // Where they are installed, whatever PATH says: as `weft check` looks for them.
    let found = rules::find(program).unwrap_or_else(|| program.into());
    let output = Command::new(found)
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}; install the package `uidmap`"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
