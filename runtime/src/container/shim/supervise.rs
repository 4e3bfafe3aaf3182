//! The life of a container: start, wait, decide, again.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::termios::{Winsize, tcsetwinsize};

use super::output::Output;
use super::requests::Clients;
use super::runs::{Ending, Runs};
use crate::container::Place;
use crate::container::bundle::{Bundle, Root};
use crate::container::control::Request;
use crate::container::launch::{self, LaunchError, Launched};
use crate::container::restart::Backoff;
use crate::container::status::{State, Status, now};
use crate::files;

/// What the deciding thread waits for.
#[derive(Debug)]
pub(super) enum Event {
    /// A first process has ended.
    Ended {
        pid: i32,
        exit_code: i32,
    },
    Request(Request),
}

/// How a run ended, and whether there may be another.
struct RunEnd {
    exit_code: i32,
    reason: String,
    was_stopped: bool,
}

impl RunEnd {
    fn failed(failure: LaunchError) -> RunEnd {
        RunEnd {
            exit_code: failure.exit_code,
            reason: failure.reason,
            was_stopped: false,
        }
    }
}

/// The deciding thread's state.
pub(super) struct Supervisor {
    place: Place,
    program: PathBuf,
    bundle: Bundle,
    status: Status,
    output: Output,
    clients: Arc<Clients>,
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    terminal: Option<OwnedFd>,
}

impl Supervisor {
    pub(super) fn new(
        place: &Place,
        program: &Path,
        bundle: Bundle,
        restarts: u32,
    ) -> io::Result<Supervisor> {
        let status = Status {
            shim_pid: std::process::id().cast_signed(),
            restarts,
            ..Status::default()
        };
        // Before anything runs, so that a server which starts now knows that there is a shim.
        status.write(&place.status())?;
        // Requests come one at a time from the server; a full queue makes their readers wait.
        let (sender, events) = sync_channel(16);
        Ok(Supervisor {
            output: Output::open(&place.log())?,
            clients: Clients::listen(place, status.clone(), sender.clone())?,
            place: place.clone(),
            program: program.to_owned(),
            bundle,
            status,
            events,
            sender,
            terminal: None,
        })
    }

    /// Returns when the container has ended for good. `started` is called after the first start, even a failed one,
    /// when the status says how it went.
    pub(super) fn run(mut self, started: impl FnOnce()) -> io::Result<()> {
        let first = self.launch();
        let Ok(pid) = first.map_err(|failure| self.note_failed_start(&failure)) else {
            started();
            return Ok(());
        };
        started();
        let mut backoff = Backoff::default();
        let mut began = Instant::now();
        let mut end = self.supervise(pid);
        loop {
            let pause = if end.was_stopped {
                None
            } else {
                backoff.after_end(self.bundle.restart, end.exit_code, began.elapsed())
            };
            let Some(pause) = pause else {
                self.note_end(&end, State::Exited);
                return Ok(());
            };
            self.note_end(&end, State::Restarting);
            if !self.pause(pause) {
                self.note_end(&end, State::Exited);
                return Ok(());
            }
            self.status.restarts += 1;
            began = Instant::now();
            match self.launch() {
                Ok(pid) => end = self.supervise(pid),
                Err(failure) => end = RunEnd::failed(failure),
            }
        }
    }

    /// A container that never ran is not tried again: whoever started it is told at once.
    fn note_failed_start(&mut self, failure: &LaunchError) {
        self.note_end(&RunEnd::failed(failure.clone()), State::Exited);
    }

    fn launch(&mut self) -> Result<i32, LaunchError> {
        self.terminal = None;
        let bundle = self.place.bundle();
        let pid = if self.bundle.process.terminal {
            let Launched { pid, terminal } =
                launch::launch(&self.program, &bundle, Stdio::null(), Stdio::null())?;
            if let Some(terminal) = terminal {
                self.terminal = terminal.try_clone().ok();
                let copying = self.output.terminal(terminal).map_err(failed)?;
                self.output.assign(copying, pid);
            }
            pid
        } else {
            self.launch_with_pipes(&bundle)?
        };
        self.status.state = State::Running;
        self.status.pid = pid;
        self.status.started_at = now();
        self.publish();
        Ok(pid)
    }

    fn launch_with_pipes(&mut self, bundle: &Path) -> Result<i32, LaunchError> {
        let (stdout, stderr, copying) = self.output.pipes().map_err(failed)?;
        let launched = launch::launch(&self.program, bundle, stdout, stderr)?;
        self.output.assign(copying, launched.pid);
        Ok(launched.pid)
    }

    /// Waits for the end of a run, and does what is asked for meanwhile.
    fn supervise(&mut self, pid: i32) -> RunEnd {
        let kills = self.bundle.group.memory_kills();
        self.wait_in_background(pid);
        let mut runs = Runs::of(pid);
        let mut stopping = false;
        let mut kill_at: Option<Instant> = None;
        loop {
            let event = match kill_at {
                None => self
                    .events
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self
                    .events
                    .recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Ended { pid, exit_code }) => {
                    let last_words = self.output.end(pid);
                    match runs.end(pid) {
                        Ending::Container => {
                            let mut end = run_end(exit_code, stopping);
                            if self.bundle.group.memory_kills() > kills {
                                "OOMKilled".clone_into(&mut end.reason);
                            }
                            return end;
                        }
                        Ending::Replacement => self.note_failed_replacement(exit_code, &last_words),
                        Ending::Older => {}
                        Ending::Relieved { pid, bundle } => self.note_relieved(pid, bundle),
                    }
                }
                Ok(Event::Request(Request::Stop {
                    signal,
                    grace_millis,
                })) => {
                    stopping = true;
                    // Without grace the deadline below has passed already.
                    if grace_millis > 0 {
                        runs.send(signal);
                    }
                    let at = Instant::now() + Duration::from_millis(grace_millis);
                    kill_at = Some(kill_at.map_or(at, |earlier| earlier.min(at)));
                }
                // What is being stopped is not begun again.
                Ok(Event::Request(Request::Replace { .. })) if stopping => {}
                Ok(Event::Request(Request::Replace { program })) => {
                    self.replace(program, &mut runs);
                }
                Ok(Event::Request(request)) => self.answer(request, &runs),
                Err(_) => {
                    runs.send(libc::SIGKILL);
                    kill_at = None;
                }
            }
        }
    }

    /// Starts a process beside those that run; it finds and relieves them by itself.
    fn replace(&mut self, program: PathBuf, runs: &mut Runs) {
        self.status.replacements += 1;
        self.status.replacement_failure.clear();
        match self.launch_beside(program, runs) {
            Ok((pid, bundle)) => {
                runs.add(pid, bundle);
                self.wait_in_background(pid);
            }
            Err(failure) => self.status.replacement_failure = failure.reason,
        }
        self.publish();
    }

    fn launch_beside(
        &mut self,
        program: PathBuf,
        runs: &Runs,
    ) -> Result<(i32, Bundle), LaunchError> {
        if runs.is_full() {
            return Err(failed(io::Error::other(
                "older processes still finish what they have begun: try again later",
            )));
        }
        let bundle = Bundle {
            root: Root::HostPrograms { program },
            ..self.bundle.clone()
        };
        let file = self.place.next_bundle();
        files::replace_json(&file, &bundle).map_err(failed)?;
        Ok((self.launch_with_pipes(&file)?, bundle))
    }

    fn note_failed_replacement(&mut self, exit_code: i32, last_words: &str) {
        let said = match last_words {
            "" => "it said nothing of why".to_owned(),
            words => format!("it said last: \"{words}\""),
        };
        self.status.replacement_failure = format!(
            "the newer process ended with exit status {exit_code} before it had relieved the older one; {said}"
        );
        self.publish();
    }

    /// A newer process is the container's: what is started after it is started like it.
    fn note_relieved(&mut self, pid: i32, bundle: Option<Box<Bundle>>) {
        if let Some(bundle) = bundle {
            self.bundle = *bundle;
            // Without space for it a later start is of the older program, which is better than none.
            let _ = files::replace_json(&self.place.bundle(), &self.bundle);
        }
        // The container goes on: it was started when its first process was.
        self.status.pid = pid;
        self.publish();
    }

    fn answer(&self, request: Request, runs: &Runs) {
        match request {
            Request::Signal { signal } => runs.send(signal),
            Request::Resize { rows, columns } => {
                if let Some(terminal) = &self.terminal {
                    let size = Winsize {
                        ws_row: rows,
                        ws_col: columns,
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    // A terminal that is gone has no size.
                    let _ = tcsetwinsize(terminal.as_fd(), size);
                }
            }
            Request::Stop { .. } | Request::Replace { .. } => {}
        }
    }

    fn wait_in_background(&self, pid: i32) {
        let sender = self.sender.clone();
        let wait = move || {
            let exit_code = launch::wait_for(pid).unwrap_or(125);
            // Fails only when the deciding thread is gone, and the shim with it.
            let _ = sender.send(Event::Ended { pid, exit_code });
        };
        let spawned = thread::Builder::new()
            .name("wait".to_owned())
            .stack_size(64 * 1024)
            .spawn(wait);
        if spawned.is_err() {
            // Without threads nothing else is left to do but to wait.
            let exit_code = launch::wait_for(pid).unwrap_or(125);
            let _ = self.sender.try_send(Event::Ended { pid, exit_code });
        }
    }

    /// Waits before a restart; false where the container is stopped meanwhile.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Request(Request::Stop { .. })) => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    }

    fn note_end(&mut self, end: &RunEnd, state: State) {
        self.status.state = state;
        self.status.pid = 0;
        self.status.exit_code = end.exit_code;
        self.status.exit_reason.clone_from(&end.reason);
        self.status.finished_at = now();
        self.publish();
    }

    fn publish(&self) {
        // The file first: who is told and looks must find it. Without space for it the clients still know.
        let _ = self.status.write(&self.place.status());
        self.clients.tell(&self.status);
    }
}

fn run_end(exit_code: i32, was_stopped: bool) -> RunEnd {
    let reason = match exit_code {
        0 => "Completed".to_owned(),
        code if code > 128 => Signal::try_from(code - 128).map_or_else(
            |_| "Error".to_owned(),
            |signal| format!("killed by {signal}"),
        ),
        _ => "Error".to_owned(),
    };
    RunEnd {
        exit_code,
        reason,
        was_stopped,
    }
}

fn failed(error: io::Error) -> LaunchError {
    LaunchError {
        exit_code: 125,
        reason: error.to_string(),
    }
}
