//! A container's output: lines with their time and stream, in files of bounded size.
//!
//! The shim writes, the server reads; both may be killed at any byte. A frame is time (i64, nanoseconds),
//! stream (u8), length (u32), all big-endian, then the line. At the size bound the file becomes `log.1`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

mod reader;

pub(crate) use reader::LogReader;

/// Two files of this size are kept.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// A longer line becomes several.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;
const HEADER_BYTES: usize = 13;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Nanoseconds since the epoch.
    pub(crate) time: i64,
    pub(crate) stream: Stream,
    pub(crate) text: Vec<u8>,
}

impl Line {
    fn to_frame(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + self.text.len());
        frame.extend_from_slice(&self.time.to_be_bytes());
        frame.push(u8::from(self.stream == Stream::Stderr));
        frame.extend_from_slice(
            &u32::try_from(self.text.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        frame.extend_from_slice(&self.text);
        frame
    }
}

/// Now, in the log's unit.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// The older of the two files.
fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl LogWriter {
    pub(crate) fn open(path: &Path) -> io::Result<LogWriter> {
        LogWriter::with_bound(path, MAX_FILE_BYTES)
    }

    fn with_bound(path: &Path, max_bytes: u64) -> io::Result<LogWriter> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogWriter {
            path: path.to_owned(),
            file,
            bytes,
            max_bytes,
        })
    }

    /// Appends a line, in one write(2).
    pub(crate) fn write(&mut self, line: &Line) -> io::Result<()> {
        let frame = line.to_frame();
        if self.bytes > 0 && self.bytes + frame.len() as u64 > self.max_bytes {
            fs::rename(&self.path, rotated(&self.path))?;
            self.file = append_to(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(&frame)?;
        self.bytes += frame.len() as u64;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Copies a stream into a log, line by line, until its end.
pub(crate) fn copy_lines(
    mut from: impl Read,
    stream: Stream,
    mut write: impl FnMut(Line) -> io::Result<()>,
) -> io::Result<()> {
    let mut pending: Vec<u8> = Vec::new();
    let mut chunk = vec![0; MAX_LINE_BYTES];
    let mut line = |text: &[u8]| {
        write(Line {
            time: now(),
            stream,
            text: text.to_vec(),
        })
    };
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A terminal whose other end is closed.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => return Err(error),
        };
        pending.extend_from_slice(&chunk[..read]);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            line(
                pending[..end]
                    .strip_suffix(b"\r")
                    .unwrap_or(&pending[..end]),
            )?;
            pending.drain(..=end);
        }
        while pending.len() >= MAX_LINE_BYTES {
            line(&pending[..MAX_LINE_BYTES])?;
            pending.drain(..MAX_LINE_BYTES);
        }
    }
    if pending.is_empty() {
        Ok(())
    } else {
        line(&pending)
    }
}

#[cfg(test)]
mod tests {
    use super::reader::take_frames;
    use super::*;

    fn line(time: i64, text: &str) -> Line {
        Line {
            time,
            stream: Stream::Stdout,
            text: text.into(),
        }
    }

    fn lines_of(input: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        copy_lines(input, Stream::Stderr, |line| {
            lines.push(line.text);
            Ok(())
        })
        .expect("copied");
        lines
    }

    #[test]
    fn lines_come_back_in_order_with_stream_and_time() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("log");
        let mut writer = LogWriter::open(&path).expect("writer");
        let error = Line {
            stream: Stream::Stderr,
            ..line(2, "two")
        };
        writer.write(&line(1, "one")).expect("write");
        writer.write(&error).expect("write");

        let lines = LogReader::open(&path)
            .expect("reader")
            .read(1 << 20)
            .expect("lines");

        assert_eq!(lines, vec![line(1, "one"), error]);
    }

    #[test]
    fn a_reader_follows_the_writer_through_a_rotation() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("log");
        let mut writer = LogWriter::with_bound(&path, 100).expect("writer");
        let mut reader = LogReader::open(&path).expect("reader");
        let mut seen = Vec::new();

        for number in 0..50 {
            writer
                .write(&line(number, "some text of a line"))
                .expect("write");
            seen.extend(reader.read(1 << 20).expect("lines"));
        }

        assert_eq!(
            seen.iter().map(|line| line.time).collect::<Vec<_>>(),
            (0..50).collect::<Vec<_>>()
        );
        assert!(fs::metadata(&path).expect("metadata").len() <= 100);
    }

    #[test]
    fn a_frame_that_is_half_written_is_read_when_it_is_whole() {
        let frame = line(5, "hello").to_frame();
        let (mut buffer, mut lines) = (frame[..16].to_vec(), Vec::new());

        take_frames(&mut buffer, &mut lines);
        assert!(lines.is_empty());
        buffer.extend_from_slice(&frame[16..]);
        take_frames(&mut buffer, &mut lines);

        assert_eq!(lines, vec![line(5, "hello")]);
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        for length in 0..64_usize {
            for byte in [0_u8, 1, 2, 0x7f, 0xff] {
                let (mut buffer, mut lines) = (vec![byte; length], Vec::new());
                take_frames(&mut buffer, &mut lines);
            }
        }
    }

    #[test]
    fn a_last_line_without_an_end_is_kept() {
        assert_eq!(
            lines_of(b"a\r\n\nb"),
            vec![b"a".to_vec(), b"".to_vec(), b"b".to_vec()]
        );
    }

    #[test]
    fn an_endless_line_is_cut() {
        let input = vec![b'x'; MAX_LINE_BYTES * 2 + 1];

        let lengths: Vec<usize> = lines_of(&input).iter().map(Vec::len).collect();

        assert_eq!(lengths, vec![MAX_LINE_BYTES, MAX_LINE_BYTES, 1]);
    }
}
