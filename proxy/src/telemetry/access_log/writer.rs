//! A thread that writes lines to one place, so that the data path never waits for a disk or a pipe.
//!
//! The first line is written at once; those of the next few milliseconds are gathered and written together, for to wake the
//! thread costs as much as a request. What waits is bounded; a line that finds no room is dropped and counted. The thread ends when
//! its writer is dropped and what waits is written. A file is opened anew when somebody asks for it, who has moved it away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::value::Counter;
use crate::config::access_log::AccessLogSink;

/// How much may wait.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// How long lines are gathered after others were written.
const GATHERING: Duration = Duration::from_millis(10);
/// How often the thread may be asked for something before it has done it.
const MAX_PARTS: usize = 256;
/// As much is written before that.
const BLOCK_BYTES: usize = 64 * 1024;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be appended to.
    #[error("opening access log {path}; check the path and its permissions")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Logs to a collector are written elsewhere.
    #[error("access logs to cluster {0} are not supported; use a file or standard output")]
    Collector(String),
    /// No thread could be made.
    #[error("starting the access log's thread")]
    Thread(#[source] io::Error),
}

/// Takes lines for one place.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    dropped: Arc<Counter>,
}

/// What waits, and how the thread hears of it.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// In the order in which they were handed over.
    parts: Vec<Part>,
    bytes: usize,
    /// Room for lines that was used before.
    spare: Vec<u8>,
    /// The thread waits for whatever comes next.
    is_idle: bool,
    /// Nothing more will come.
    is_over: bool,
}

#[derive(Debug)]
enum Part {
    Lines(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

impl Waiting {
    /// Whether there is room for a line.
    fn take(&mut self, line: &str) -> bool {
        if self.bytes + line.len() > MAX_WAITING_BYTES {
            return false;
        }
        self.bytes += line.len();
        match self.parts.last_mut() {
            Some(Part::Lines(lines)) => lines.extend_from_slice(line.as_bytes()),
            _ => {
                let mut lines = std::mem::take(&mut self.spare);
                lines.extend_from_slice(line.as_bytes());
                self.parts.push(Part::Lines(lines));
            }
        }
        true
    }

    /// Whether the thread is not to gather any longer.
    fn is_due(&self) -> bool {
        let is_asked = |part: &Part| !matches!(part, Part::Lines(_));
        self.is_over || self.bytes >= BLOCK_BYTES || self.parts.iter().any(is_asked)
    }
}

impl Queue {
    /// Changes what waits, and wakes the thread where it has to hear of that now.
    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.waiting.lock();
        let changed = change(&mut waiting);
        if waiting.is_idle || waiting.is_due() {
            self.changed.notify_one();
        }
        changed
    }

    /// Waits for what there is to write; `None`: it is over.
    fn next(&self) -> Option<Vec<Part>> {
        let mut waiting = self.waiting.lock();
        waiting.is_idle = true;
        while waiting.parts.is_empty() && !waiting.is_over {
            self.changed.wait(&mut waiting);
        }
        waiting.is_idle = false;
        waiting.bytes = 0;
        let parts = std::mem::take(&mut waiting.parts);
        (!parts.is_empty()).then_some(parts)
    }

    /// Waits for lines to be gathered.
    fn gather(&self) {
        let end = Instant::now() + GATHERING;
        let mut waiting = self.waiting.lock();
        while !waiting.is_due() {
            if self.changed.wait_until(&mut waiting, end).timed_out() {
                return;
            }
        }
    }

    /// Keeps room that lines have left for those to come.
    fn give_back(&self, mut lines: Vec<u8>) {
        lines.clear();
        if lines.capacity() <= 2 * BLOCK_BYTES {
            self.waiting.lock().spare = lines;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.change(|waiting| waiting.is_over = true);
    }
}

impl Writer {
    /// Opens the place and starts its thread; `dropped` counts lines that found no room.
    pub fn open(sink: &AccessLogSink, dropped: Arc<Counter>) -> Result<Self, OpenError> {
        match sink {
            AccessLogSink::Stdout => Self::start(Stream(io::stdout()), dropped),
            AccessLogSink::Stderr => Self::start(Stream(io::stderr()), dropped),
            AccessLogSink::File(path) => {
                let file = LogFile::open(path).map_err(|source| OpenError::File {
                    path: path.display().to_string(),
                    source,
                })?;
                Self::start(file, dropped)
            }
            AccessLogSink::Otlp { cluster } => Err(OpenError::Collector(cluster.to_string())),
        }
    }

    fn start(place: impl Place + Send + 'static, dropped: Arc<Counter>) -> Result<Self, OpenError> {
        let queue = Arc::new(Queue::default());
        let taken = Arc::clone(&queue);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&taken, place))
            .map_err(OpenError::Thread)?;
        Ok(Self { queue, dropped })
    }

    /// Hands over a line with its end; never waits for the place.
    pub fn write(&self, line: &str) {
        if !self.queue.change(|waiting| waiting.take(line)) {
            self.dropped.increment();
        }
    }

    /// What is handed over from now on goes into a file that is opened anew. Tells whether that will be done: not where
    /// too much waits.
    pub fn reopen(&self) -> bool {
        self.ask(Part::Reopen)
    }

    /// Waits until what was handed over is written, at most so long.
    pub fn flush(&self, limit: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.ask(Part::Flush(done)) {
            // A place that takes nothing is given up after the limit.
            let _ = is_done.recv_timeout(limit);
        }
    }

    fn ask(&self, part: Part) -> bool {
        self.queue.change(|waiting| {
            let has_room = waiting.parts.len() < MAX_PARTS;
            if has_room {
                waiting.parts.push(part);
            }
            has_room
        })
    }
}

/// Where lines go.
trait Place: Write {
    /// Begins again, where it may have been moved away.
    fn reopen(&mut self) {}
}

/// A stream of the process.
struct Stream<T>(T);

impl<T: Write> Write for Stream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<T: Write> Place for Stream<T> {}

/// A file that is appended to.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Place for LogFile {
    /// A file that cannot be opened any more leaves the one that is open.
    fn reopen(&mut self) {
        match Self::open(&self.path) {
            Ok(file) => *self = file,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the access log is not opened anew");
            }
        }
    }
}

/// Writes until it is over. A line that cannot be written is lost: there is nobody to tell.
fn write_all(queue: &Queue, mut place: impl Place) {
    while let Some(parts) = queue.next() {
        for part in parts {
            match part {
                Part::Lines(lines) => {
                    let _ = place.write_all(&lines);
                    let _ = place.flush();
                    queue.give_back(lines);
                }
                Part::Reopen => place.reopen(),
                Part::Flush(done) => {
                    let _ = done.try_send(());
                }
            }
        }
        queue.gather();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::super::super::value::Shards;
    use super::*;

    fn counter() -> Arc<Counter> {
        Arc::new(Counter::new(Shards::for_threads(1)))
    }

    /// A place that takes nothing until told.
    struct Blocked(Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Place for Blocked {}

    fn blocked() -> (Sender<()>, Blocked) {
        let (release, released) = channel();
        (release, Blocked(released))
    }

    #[test]
    fn lines_are_appended_to_a_file() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("access.log");
        std::fs::write(&path, "before\n").expect("written");
        let writer = Writer::open(&AccessLogSink::File(path.clone()), counter()).expect("a writer");

        writer.write("one\n");
        writer.write("two\n");
        writer.flush(Duration::from_secs(10));

        assert_eq!(
            std::fs::read_to_string(path).expect("read"),
            "before\none\ntwo\n"
        );
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew_when_that_is_asked_for() {
        let dir = tempfile::tempdir().expect("directory");
        let (path, old) = (dir.path().join("access.log"), dir.path().join("old.log"));
        let writer = Writer::open(&AccessLogSink::File(path.clone()), counter()).expect("a writer");
        let read = |path| std::fs::read_to_string(path).expect("read");
        let limit = Duration::from_secs(10);

        writer.write("one\n");
        writer.flush(limit);
        std::fs::rename(&path, &old).expect("moved");
        writer.write("two\n");
        assert!(writer.reopen());
        writer.write("three\n");
        writer.flush(limit);

        assert_eq!(
            (read(&old), read(&path)),
            ("one\ntwo\n".into(), "three\n".into())
        );
    }

    #[test]
    fn a_blocked_place_costs_lines_and_never_time() {
        let (release, place) = blocked();
        let dropped = counter();
        let writer = Writer::start(place, Arc::clone(&dropped)).expect("a writer");

        let line = "x".repeat(16 * 1024);
        for _ in 0..2 * MAX_WAITING_BYTES / line.len() + 2 {
            writer.write(&line);
        }

        assert!(dropped.value() > 0);
        drop(release);
    }

    /// A place that tells what it is given.
    struct Told(Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Place for Told {}

    #[test]
    fn lines_come_without_being_asked_for_whole_and_in_order() {
        let (given, taken) = channel();
        let writer = Writer::start(Told(given), counter()).expect("a writer");
        let limit = Duration::from_secs(10);

        writer.write("0\n");
        assert_eq!(taken.recv_timeout(limit).expect("written"), b"0\n");
        let lines: Vec<String> = (1..20_000).map(|number| format!("{number}\n")).collect();
        lines.iter().for_each(|line| writer.write(line));
        let mut text = Vec::new();
        while text.len() < lines.concat().len() {
            text.extend(taken.recv_timeout(limit).expect("written"));
        }

        assert_eq!(text, lines.concat().into_bytes());
    }

    #[test]
    fn what_waits_is_written_when_the_writer_is_dropped() {
        let (given, taken) = channel();
        let writer = Writer::start(Told(given), counter()).expect("a writer");

        writer.write("one\n");
        writer.write("two\n");
        drop(writer);

        assert_eq!(taken.iter().flatten().collect::<Vec<u8>>(), b"one\ntwo\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let sink = AccessLogSink::File("/nonexistent/dir/access.log".into());

        let error = Writer::open(&sink, counter()).expect_err("no such directory");

        assert!(
            error.to_string().contains("/nonexistent/dir/access.log"),
            "{error}"
        );
    }
}
