//! The reading end of a log: goes through the older file, then the current one, and on through rotations.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{HEADER_BYTES, Line, MAX_LINE_BYTES, Stream, rotated};

/// Reads a log that somebody else writes.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    current: Option<File>,
    /// Bytes of a frame that is not complete yet.
    partial: Vec<u8>,
}

impl LogReader {
    /// Starts at the oldest line that is kept.
    pub(crate) fn open(path: &Path) -> io::Result<LogReader> {
        let current = open_if_there(&rotated(path))?;
        Ok(LogReader {
            path: path.to_owned(),
            current,
            partial: Vec::new(),
        })
    }

    /// All lines that were written since the last call, at most about `max_bytes` of them.
    pub(crate) fn read(&mut self, max_bytes: usize) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut taken = 0;
        while taken < max_bytes {
            let read = self.fill(max_bytes - taken)?;
            take_frames(&mut self.partial, &mut lines);
            if read == 0 && !self.advance()? {
                break;
            }
            taken += read;
        }
        Ok(lines)
    }

    fn fill(&mut self, max_bytes: usize) -> io::Result<usize> {
        let Some(file) = &mut self.current else {
            return Ok(0);
        };
        let limit = u64::try_from(max_bytes.min(1 << 20)).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut self.partial)
    }

    /// At the end of a file: goes on with the next, if this one is no longer being written.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(next) = open_if_there(&self.path)? else {
            return Ok(false);
        };
        let is_same = match &self.current {
            Some(current) => current.metadata()?.ino() == next.metadata()?.ino(),
            None => false,
        };
        if is_same {
            return Ok(false);
        }
        // The writer may have added lines between our last read and its rotation.
        if self.fill(MAX_LINE_BYTES)? > 0 {
            return Ok(true);
        }
        // What the writer did not finish before it was killed will never be finished.
        self.partial.clear();
        self.current = Some(next);
        Ok(true)
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves complete frames out of the buffer. Bytes that cannot be a frame are dropped with all that follow.
pub(super) fn take_frames(buffer: &mut Vec<u8>, lines: &mut Vec<Line>) {
    let mut at = 0;
    while let Some(header) = buffer.get(at..at + HEADER_BYTES) {
        let (time, rest) = header.split_at(8);
        let time = i64::from_be_bytes(time.try_into().unwrap_or_default());
        let length = u32::from_be_bytes(rest[1..].try_into().unwrap_or_default()) as usize;
        if rest[0] > 1 || length > MAX_LINE_BYTES {
            buffer.clear();
            return;
        }
        let Some(text) = buffer.get(at + HEADER_BYTES..at + HEADER_BYTES + length) else {
            break;
        };
        lines.push(Line {
            time,
            stream: if rest[0] == 0 {
                Stream::Stdout
            } else {
                Stream::Stderr
            },
            text: text.to_vec(),
        });
        at += HEADER_BYTES + length;
    }
    buffer.drain(..at);
}
