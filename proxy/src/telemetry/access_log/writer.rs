//! A thread that writes lines to one place, so that the data path never waits for a disk or a pipe.
//!
//! Lines wait in a bounded queue; those that find it full are dropped and counted. The thread ends when its
//! writer is dropped and what waits is written. A file is opened anew when somebody asks for it, who has moved it away.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::super::value::Counter;
use crate::config::access_log::AccessLogSink;

/// How many lines may wait.
const QUEUE_LINES: usize = 4096;

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

enum Message {
    Line(String),
    Reopen,
    Flush(SyncSender<()>),
}

/// Takes lines for one place.
#[derive(Debug)]
pub struct Writer {
    queue: SyncSender<Message>,
    dropped: Arc<Counter>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Message")
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
        let (queue, lines) = sync_channel(QUEUE_LINES);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&lines, BufWriter::new(place)))
            .map_err(OpenError::Thread)?;
        Ok(Self { queue, dropped })
    }

    /// Hands over a line with its end; never waits.
    pub fn write(&self, line: String) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.increment();
        }
    }

    /// What is handed over from now on goes into a file that is opened anew. Tells whether that will be done: not where
    /// too many lines wait.
    pub fn reopen(&self) -> bool {
        self.queue.try_send(Message::Reopen).is_ok()
    }

    /// Waits until what was handed over is written, at most so long.
    pub fn flush(&self, limit: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // A place that takes nothing is given up after the limit.
            let _ = is_done.recv_timeout(limit);
        }
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

/// Lines are flushed when no more wait: at once when there are few, in blocks when there are many. A line that
/// cannot be written is lost: there is nobody to tell.
fn write_all(lines: &Receiver<Message>, mut place: BufWriter<impl Place>) {
    while let Ok(first) = lines.recv() {
        write_one(first, &mut place);
        while let Ok(message) = lines.try_recv() {
            write_one(message, &mut place);
        }
        let _ = place.flush();
    }
}

fn write_one(message: Message, place: &mut BufWriter<impl Place>) {
    match message {
        Message::Line(line) => {
            let _ = place.write_all(line.as_bytes());
        }
        Message::Reopen => {
            let _ = place.flush();
            place.get_mut().reopen();
        }
        Message::Flush(done) => {
            let _ = place.flush();
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

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

        writer.write("one\n".into());
        writer.write("two\n".into());
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

        writer.write("one\n".into());
        writer.flush(limit);
        std::fs::rename(&path, &old).expect("moved");
        writer.write("two\n".into());
        assert!(writer.reopen());
        writer.write("three\n".into());
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
        for _ in 0..QUEUE_LINES + 100 {
            writer.write(line.clone());
        }

        assert!(dropped.value() > 0);
        drop(release);
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
