//! A container's log as a stream.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Status as Refusal;
use weft_proto::weft::node::v1::{LogChunk, LogsRequest};

use super::Shared;
use super::containers::Entry;
use super::failure::Failure;
use crate::container::log::{Line, LogReader, Stream};
use crate::container::status::State;

/// Lines that wait for the client.
const QUEUE: usize = 256;
/// Read from disk at a time.
const BATCH_BYTES: usize = 256 * 1024;
/// Between two looks at a log that is followed: the shorter while lines come.
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(200);

/// Sends what is there, and with `follow` what comes, until the container has ended.
pub(super) fn stream(
    shared: &Arc<Shared>,
    request: LogsRequest,
) -> Result<mpsc::Receiver<Result<LogChunk, Refusal>>, Failure> {
    let entry = shared.containers.find(&request.id)?;
    let reader = LogReader::open(&entry.place.log()).map_err(Failure::system("opening the log"))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(error) = send(&entry, reader, &request, &sender).await {
            let refusal = Failure::system("reading the log")(error);
            // A client that is gone needs no reason.
            let _ = sender.send(Err(refusal.into())).await;
        }
    });
    Ok(receiver)
}

async fn send(
    entry: &Entry,
    mut reader: LogReader,
    request: &LogsRequest,
    sender: &mpsc::Sender<Result<LogChunk, Refusal>>,
) -> io::Result<()> {
    let since = request.since.saturating_mul(1_000_000_000);
    let (first, mut reader) = {
        let tail = request.tail as usize;
        tokio::task::spawn_blocking(move || {
            existing(&mut reader, since, tail).map(|lines| (lines, reader))
        })
        .await??
    };
    if !send_lines(first, sender).await {
        return Ok(());
    }
    let mut pause = QUICK;
    while request.follow && !sender.is_closed() {
        // Asked before reading: what an ended container has written is in the log by then.
        let has_ended = entry.state() == State::Exited;
        let lines = reader.read(BATCH_BYTES)?;
        pause = if lines.is_empty() {
            (pause * 2).min(SLOW)
        } else {
            QUICK
        };
        if lines.is_empty() && has_ended {
            break;
        }
        if !send_lines(lines, sender).await {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// What is in the log now; with a tail only that many of the last lines are ever held.
fn existing(reader: &mut LogReader, since: i64, tail: usize) -> io::Result<VecDeque<Line>> {
    let mut kept = VecDeque::new();
    loop {
        let lines = reader.read(BATCH_BYTES)?;
        if lines.is_empty() {
            return Ok(kept);
        }
        for line in lines.into_iter().filter(|line| line.time >= since) {
            kept.push_back(line);
            if tail > 0 && kept.len() > tail {
                kept.pop_front();
            }
        }
    }
}

async fn send_lines(
    lines: impl IntoIterator<Item = Line>,
    sender: &mpsc::Sender<Result<LogChunk, Refusal>>,
) -> bool {
    for line in lines {
        let chunk = LogChunk {
            time: line.time,
            stderr: line.stream == Stream::Stderr,
            line: line.text.into(),
        };
        if sender.send(Ok(chunk)).await.is_err() {
            return false;
        }
    }
    true
}
