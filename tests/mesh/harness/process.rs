//! Processes, as `/proc` shows them; told apart by pid and time of start, so that a reused pid is another process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command: String,
    started: String,
}

impl Process {
    /// `None` where there is no such process, or only what is left of one.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name, in parentheses, may hold anything; proc_pid_stat(5).
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        let started = fields.nth(18)?.to_owned();
        let command = fs::read(folder.join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned();
        Some(Self {
            pid,
            command,
            started,
        })
    }

    /// Every process that can be seen.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        pids.filter_map(Self::of).collect()
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|found| found.started == self.started)
    }

    /// Inode of one of its namespaces (`net`, `user`, `mnt`); `None` where it has ended or may not be asked.
    pub(crate) fn namespace(&self, kind: &str) -> Option<u64> {
        fs::metadata(format!("/proc/{}/ns/{kind}", self.pid))
            .ok()
            .map(|metadata| metadata.ino())
    }

    /// Ends it at once, without a chance to clean up.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        assert!(
            self.is_alive(),
            "{self:?} has ended before it was to be signalled"
        );
        kill(Pid::from_raw(self.pid), signal)
            .unwrap_or_else(|error| panic!("{signal} to {self:?}: {error}"));
    }
}
