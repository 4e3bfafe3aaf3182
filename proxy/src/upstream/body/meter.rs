//! What a request body has come to: counted as it is taken from the client, and copied where it is mirrored.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::BodyError;

/// What a request body has come to; shared by those who read it and those who tell about it.
#[derive(Debug, Default)]
pub struct BodyMeter {
    bytes: AtomicU64,
    ended_at: OnceLock<Instant>,
    is_malformed: AtomicBool,
    is_cut_off: AtomicBool,
    /// What a filter says of a body that it cannot read.
    unreadable: OnceLock<Arc<str>>,
    copies: Mutex<Vec<mpsc::Sender<Copied>>>,
}

/// A piece of a body that is handed over.
#[derive(Debug)]
pub enum Copied {
    /// Some of it.
    Data(Bytes),
    /// That was all. A copy that ends without this is not whole.
    End,
}

/// A copy lags behind by no more pieces than this, or is given up: the original waits for no copy.
const MAX_LAG: usize = 64;

impl BodyMeter {
    /// Bytes taken from the client.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the client has sent what is no body.
    pub fn is_malformed(&self) -> bool {
        self.is_malformed.load(Ordering::Relaxed)
    }

    /// Whether the client has gone before the body came to its end.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// Why a filter cannot read what the client has sent.
    pub fn unreadable(&self) -> Option<&Arc<str>> {
        self.unreadable.get()
    }

    /// When all of it had been taken, if it has.
    pub fn ended_at(&self) -> Option<Instant> {
        self.ended_at.get().copied()
    }

    /// A copy of it. Asked for before it is first read.
    pub fn copy(&self) -> mpsc::Receiver<Copied> {
        let (sender, receiver) = mpsc::channel(MAX_LAG);
        self.copies.lock().push(sender);
        receiver
    }

    /// A frame has been taken from the client.
    pub(super) fn count(self: &Arc<Self>, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else { return };
        self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let mut copies = self.copies.lock();
        copies.retain(|copy| copy.try_send(Copied::Data(data.clone())).is_ok());
    }

    /// No more can be taken from the client.
    pub(super) fn fail(&self, error: &BodyError) {
        match error {
            BodyError::Downstream(error) if error.is_malformed() => {
                self.is_malformed.store(true, Ordering::Relaxed);
            }
            BodyError::Downstream(_) => self.is_cut_off.store(true, Ordering::Relaxed),
            BodyError::Unreadable(reason) => {
                self.unreadable.get_or_init(|| Arc::clone(reason));
            }
            BodyError::Filter(_) | BodyError::TakenOver | BodyError::NotWhole => {}
        }
    }

    /// All of it has been taken.
    pub(super) fn end(&self) {
        if self.ended_at.set(Instant::now()).is_err() {
            return;
        }
        for copy in self.copies.lock().drain(..) {
            // A copy without room for this is not whole, and ends as such.
            let _ = copy.try_send(Copied::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_copy_gets_every_piece_and_the_end() {
        let meter = Arc::new(BodyMeter::default());
        let mut copy = meter.copy();

        meter.count(&piece("ab"));
        meter.end();

        assert!(matches!(copy.recv().await, Some(Copied::Data(data)) if data == "ab"));
        assert!(matches!(copy.recv().await, Some(Copied::End)));
        assert!(copy.recv().await.is_none());
        assert_eq!(meter.bytes(), 2);
    }

    #[tokio::test]
    async fn a_copy_that_lags_behind_is_given_up() {
        let meter = Arc::new(BodyMeter::default());
        let mut copy = meter.copy();

        for _ in 0..=MAX_LAG {
            meter.count(&piece("x"));
        }
        meter.end();

        let mut pieces = 0;
        while let Some(piece) = copy.recv().await {
            assert!(matches!(piece, Copied::Data(_)), "it is not whole");
            pieces += 1;
        }
        assert_eq!(pieces, MAX_LAG);
        assert_eq!(meter.bytes(), MAX_LAG as u64 + 1);
    }
}
