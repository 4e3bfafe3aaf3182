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

use crate::container::log::{Line, LogWriter, Stream, copy_lines};

/// What a process that was left behind still holds open is not waited for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// What is remembered of the last line.
const MAX_LAST_WORDS: usize = 512;

/// The log of a container, and the threads that write to it.
#[derive(Debug)]
pub(super) struct Output {
    log: Arc<Mutex<LogWriter>>,
    /// What is copied from, by the first process that writes it.
    copies: Vec<(i32, Copying)>,
}

/// The output of one first process on its way to the log.
#[derive(Debug)]
pub(super) struct Copying {
    /// Closes when the last of the copying threads has ended.
    done: Receiver<()>,
    /// The last line of standard error that was not blank.
    last_words: Arc<Mutex<String>>,
}

impl Output {
    pub(super) fn open(path: &Path) -> io::Result<Output> {
        Ok(Output {
            log: Arc::new(Mutex::new(LogWriter::open(path)?)),
            copies: Vec::new(),
        })
    }

    /// Writing ends for standard output and standard error of a new process.
    pub(super) fn pipes(&self) -> io::Result<(PipeWriter, PipeWriter, Copying)> {
        let (from_stdout, stdout) = io::pipe()?;
        let (from_stderr, stderr) = io::pipe()?;
        let (copying, sender) = Copying::new();
        self.copy(from_stdout, Stream::Stdout, &copying, sender.clone())?;
        self.copy(from_stderr, Stream::Stderr, &copying, sender)?;
        Ok((stdout, stderr, copying))
    }

    /// Logs what arrives at a terminal.
    pub(super) fn terminal(&self, terminal: OwnedFd) -> io::Result<Copying> {
        let (copying, sender) = Copying::new();
        self.copy(File::from(terminal), Stream::Stdout, &copying, sender)?;
        Ok(copying)
    }

    /// What is copied is written by this process.
    pub(super) fn assign(&mut self, copying: Copying, pid: i32) {
        self.copies.push((pid, copying));
    }

    /// Waits until everything that an ended process has written is in the log; what it complained about last.
    pub(super) fn end(&mut self, pid: i32) -> String {
        let position = self.copies.iter().position(|(writer, _)| *writer == pid);
        position.map_or_else(String::new, |position| {
            self.copies.swap_remove(position).1.end()
        })
    }

    fn copy(
        &self,
        from: impl Read + Send + 'static,
        stream: Stream,
        copying: &Copying,
        done: SyncSender<()>,
    ) -> io::Result<()> {
        let log = Arc::clone(&self.log);
        let last_words = Arc::clone(&copying.last_words);
        let copy = move || {
            let _done = done;
            // A full disk must not stop the application: what cannot be written is lost.
            let _ = copy_lines(from, stream, |line| {
                let _ = log.lock().write(&line);
                if let Some(words) = words(&line) {
                    *last_words.lock() = words;
                }
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

impl Copying {
    /// The sender is held by whoever copies.
    fn new() -> (Self, SyncSender<()>) {
        let (sender, done) = sync_channel(0);
        let copying = Copying {
            done,
            last_words: Arc::default(),
        };
        (copying, sender)
    }

    fn end(self) -> String {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            if self.done.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        std::mem::take(&mut *self.last_words.lock())
    }
}

/// What people are told of a line of standard error, if it says anything.
fn words(line: &Line) -> Option<String> {
    let text = line.text.trim_ascii();
    if line.stream != Stream::Stderr || text.is_empty() {
        return None;
    }
    let text = &text[..text.len().min(MAX_LAST_WORDS)];
    let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
    Some(
        String::from_utf8_lossy(text)
            .chars()
            .map(printable)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::container::log::LogReader;

    #[test]
    fn each_process_has_its_own_last_words_and_all_are_in_one_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut output = Output::open(&path).expect("a log");
        let (older_stdout, mut older, copying) = output.pipes().expect("pipes");
        output.assign(copying, 1);
        let (mut stdout, mut newer, copying) = output.pipes().expect("pipes");
        output.assign(copying, 2);

        writeln!(older, "serving").expect("written");
        writeln!(newer, "first\nerror: \x1b[31mno port\n").expect("written");
        drop(newer);
        writeln!(stdout, "not a complaint").expect("written");
        drop(stdout);

        assert_eq!(output.end(2), "error:  [31mno port");
        drop((older, older_stdout));
        assert_eq!(output.end(1), "serving");
        assert_eq!(output.end(1), "", "it has ended before");
        let lines = LogReader::open(&path).expect("a log").read(1 << 20);
        assert_eq!(lines.expect("lines").len(), 5);
    }

    #[test]
    fn last_words_are_bounded() {
        let line = Line {
            time: 0,
            stream: Stream::Stderr,
            text: vec![b'x'; 16 * 1024],
        };

        assert_eq!(words(&line).map(|words| words.len()), Some(MAX_LAST_WORDS));
    }
}
