//! What is known of a container's life, as its shim writes it down.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::files;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    #[default]
    Created,
    Running,
    /// Ended, and about to be started again.
    Restarting,
    Exited,
}

/// A container's life so far. Times are seconds since the epoch, 0 where it hasn't come to that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// The first process, as the host sees it; 0 where none runs.
    pub(crate) pid: i32,
    /// Of the last end; 128 + signal where a signal ended it.
    pub(crate) exit_code: i32,
    pub(crate) exit_reason: String,
    pub(crate) restarts: u32,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) shim_pid: i32,
    /// How often another process was started in place of the one that runs.
    #[serde(default)]
    pub(crate) replacements: u32,
    /// Why the last of them ended before it had relieved the older one.
    #[serde(default)]
    pub(crate) replacement_failure: String,
}

impl Status {
    pub(crate) fn read(path: &Path) -> io::Result<Option<Status>> {
        files::read_json(path)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        files::replace_json(path, self)
    }

    /// Whether this was overtaken by what is known: the same run, which has ended since. The file that a shim
    /// writes and the socket it speaks on may be read in either order.
    pub(crate) fn is_overtaken_by(&self, known: &Status) -> bool {
        let is_same_run = self.shim_pid == known.shim_pid && self.restarts == known.restarts;
        is_same_run && self.state == State::Running && known.state == State::Exited
    }

    /// The same container once nobody watches over it any more: it cannot be running.
    pub(crate) fn without_shim(self) -> Status {
        match self.state {
            State::Created | State::Exited => self,
            State::Running | State::Restarting => Status {
                state: State::Exited,
                pid: 0,
                exit_code: 128 + libc::SIGKILL,
                exit_reason: "its shim was killed".to_owned(),
                finished_at: now(),
                ..self
            },
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_whose_shim_is_gone_has_ended() {
        let status = Status {
            state: State::Running,
            pid: 7,
            ..Status::default()
        }
        .without_shim();

        assert_eq!(
            (status.state, status.pid, status.exit_code),
            (State::Exited, 0, 137)
        );
    }

    #[test]
    fn a_run_that_has_ended_does_not_run_again_until_it_is_started() {
        let status = |state, restarts, shim_pid| Status {
            state,
            restarts,
            shim_pid,
            ..Status::default()
        };
        let ended = status(State::Exited, 1, 7);

        assert!(status(State::Running, 1, 7).is_overtaken_by(&ended));
        assert!(!status(State::Running, 2, 7).is_overtaken_by(&ended));
        assert!(!status(State::Running, 1, 8).is_overtaken_by(&ended));
        assert!(!ended.is_overtaken_by(&status(State::Running, 1, 7)));
    }

    #[test]
    fn an_end_that_was_written_down_is_not_changed() {
        let status = Status {
            state: State::Exited,
            exit_code: 3,
            ..Status::default()
        };

        assert_eq!(status.clone().without_shim(), status);
    }
}
