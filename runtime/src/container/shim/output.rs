//! From a container's output to its log.

use std::fs::File;
use std::io::{self, PipeWriter, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::container::log::{LogWriter, Stream, copy_lines};

/// What a process that was left behind still holds open is not waited for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);

/// The log of a container, and the threads that write to it.
#[derive(Debug)]
pub(super) struct Output {
    log: Arc<Mutex<LogWriter>>,
    /// Closes when the last of the copying threads has ended.
    copying: Option<Receiver<()>>,
}

impl Output {
    pub(super) fn open(path: &Path) -> io::Result<Output> {
        Ok(Output {
            log: Arc::new(Mutex::new(LogWriter::open(path)?)),
            copying: None,
        })
    }

    /// Writing ends for standard output and standard error of a new run.
    pub(super) fn pipes(&mut self) -> io::Result<(PipeWriter, PipeWriter)> {
        let (from_stdout, stdout) = io::pipe()?;
        let (from_stderr, stderr) = io::pipe()?;
        let (copying, done) = sync_channel(0);
        self.copy(from_stdout, Stream::Stdout, copying.clone())?;
        self.copy(from_stderr, Stream::Stderr, copying)?;
        self.copying = Some(done);
        Ok((stdout, stderr))
    }

    /// Logs what arrives at a terminal.
    pub(super) fn log_terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        let (copying, done) = sync_channel(0);
        self.copy(File::from(terminal), Stream::Stdout, copying)?;
        self.copying = Some(done);
        Ok(())
    }

    /// Waits until everything that an ended run has written is in the log.
    pub(super) fn drain(&mut self) {
        let Some(copying) = self.copying.take() else {
            return;
        };
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            if copying.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn copy(
        &self,
        from: impl Read + Send + 'static,
        stream: Stream,
        copying: SyncSender<()>,
    ) -> io::Result<()> {
        let log = Arc::clone(&self.log);
        let copy = move || {
            let _copying = copying;
            // A full disk must not stop the application: what cannot be written is lost.
            let _ = copy_lines(from, stream, |line| {
                let _ = log.lock().write(&line);
                Ok(())
            });
        };
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(64 * 1024)
            .spawn(copy)?;
        Ok(())
    }
}
