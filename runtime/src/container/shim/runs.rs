//! The first processes of one container: one as a rule, and more while newer ones relieve older ones.
//!
//! A newer process that ends before the older ones has failed, and they go on; one that outlives them is the
//! container's from then on.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container::bundle::Bundle;

/// Processes that run at a time: older ones that take long to finish are not piled up without end.
const MAX_RUNS: usize = 4;

/// One first process.
#[derive(Debug)]
struct Run {
    pid: i32,
    /// What it was started from, where that is not the container's bundle.
    bundle: Option<Bundle>,
}

/// Those that run, the oldest first.
#[derive(Debug)]
pub(super) struct Runs(Vec<Run>);

/// What the end of a process means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was the last: the container's run has ended.
    Container,
    /// It was the newest, and has not outlived the older ones.
    Replacement,
    /// It was an older one; others wait to end.
    Older,
    /// Only this one is left: it is the container's, with the bundle that it was started from.
    Relieved {
        pid: i32,
        bundle: Option<Box<Bundle>>,
    },
}

impl Runs {
    pub(super) fn of(pid: i32) -> Runs {
        Runs(vec![Run { pid, bundle: None }])
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_RUNS
    }

    pub(super) fn add(&mut self, pid: i32, bundle: Bundle) {
        let bundle = Some(bundle);
        self.0.push(Run { pid, bundle });
    }

    /// A process has ended.
    pub(super) fn end(&mut self, pid: i32) -> Ending {
        let was_newest = self.0.last().is_some_and(|run| run.pid == pid);
        self.0.retain(|run| run.pid != pid);
        match self.0.as_mut_slice() {
            [] => Ending::Container,
            _ if was_newest => Ending::Replacement,
            [left] => Ending::Relieved {
                pid: left.pid,
                bundle: left.bundle.take().map(Box::new),
            },
            _ => Ending::Older,
        }
    }

    /// To all of them: the end of each takes what it has started with it.
    pub(super) fn send(&self, signal: i32) {
        let Ok(signal) = Signal::try_from(signal) else {
            return;
        };
        for run in &self.0 {
            let _ = kill(Pid::from_raw(run.pid), signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::bundle::tests::bundle;

    fn relieved(pid: i32, bundle: Option<Bundle>) -> Ending {
        let bundle = bundle.map(Box::new);
        Ending::Relieved { pid, bundle }
    }

    #[test]
    fn whoever_outlives_the_older_ones_is_the_containers() {
        let mut runs = Runs::of(1);
        runs.add(2, bundle("second"));
        runs.add(3, bundle("third"));

        assert_eq!(runs.end(1), Ending::Older);
        assert_eq!(runs.end(2), relieved(3, Some(bundle("third"))));
        assert_eq!(runs.end(3), Ending::Container);
    }

    #[test]
    fn one_that_ends_before_the_older_ones_has_failed_and_they_go_on() {
        let mut runs = Runs::of(1);
        runs.add(2, bundle("second"));

        assert_eq!(runs.end(2), Ending::Replacement);
        runs.add(3, bundle("third"));
        assert_eq!(runs.end(1), relieved(3, Some(bundle("third"))));
    }

    #[test]
    fn not_more_than_a_few_run_at_a_time() {
        let mut runs = Runs::of(1);
        for pid in 2..=4 {
            assert!(!runs.is_full());
            runs.add(pid, bundle("another"));
        }
        assert!(runs.is_full());
    }
}
