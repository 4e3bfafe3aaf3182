//! Bodies at a bounded number of bytes per second.
//!
//! As many bytes pass at once as come to [`INTERVAL`]'s worth; then the body waits for the next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::telemetry::counters::Count;

/// How often bytes pass.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// Bytes that may pass, shared by all bodies that count against them.
#[derive(Debug)]
pub(super) struct Throughput {
    per_interval: u64,
    /// A second's worth: no more is saved up.
    most: u64,
    interval: Duration,
    filled: Mutex<Filled>,
}

#[derive(Debug)]
struct Filled {
    left: u64,
    until: Instant,
}

impl Throughput {
    /// So many KiB per second, handed out once in each interval; what is left over is saved up. Begins with a second's
    /// worth, as Envoy's does where bodies share it.
    pub(super) fn saved_up(kibibytes_per_second: u64, interval: Duration) -> Arc<Self> {
        let throughput = Self::new(kibibytes_per_second, interval);
        throughput.filled.lock().left = throughput.most;
        throughput
    }

    /// The same, beginning with an interval's worth.
    fn new(kibibytes_per_second: u64, interval: Duration) -> Arc<Self> {
        let per_second = kibibytes_per_second.saturating_mul(1024);
        let share = u128::from(per_second) * interval.as_nanos() / 1_000_000_000;
        let per_interval = u64::try_from(share).unwrap_or(u64::MAX).max(1);
        Arc::new(Throughput {
            per_interval,
            most: per_second.max(per_interval),
            interval,
            filled: Mutex::new(Filled {
                left: per_interval,
                until: Instant::now() + interval,
            }),
        })
    }

    /// Takes at most `wanted` bytes; where there are none, says when there will be.
    fn take(&self, wanted: u64, now: Instant) -> Result<u64, Instant> {
        let mut filled = self.filled.lock();
        if let Some(late) = now.checked_duration_since(filled.until) {
            let missed = late.as_nanos() / self.interval.as_nanos().max(1);
            let intervals = u64::try_from(missed).unwrap_or(u64::MAX).saturating_add(1);
            let come = intervals.saturating_mul(self.per_interval);
            filled.left = filled.left.saturating_add(come).min(self.most);
            filled.until = now + self.interval;
        }
        match filled.left.min(wanted) {
            0 => Err(filled.until),
            taken => {
                filled.left -= taken;
                Ok(taken)
            }
        }
    }
}

/// A body whose bytes pass as a [`Throughput`] allows.
pub(super) struct Paced<B> {
    inner: B,
    throughput: Arc<Throughput>,
    /// What has been read and may not pass yet.
    waiting: Bytes,
    alarm: Option<Pin<Box<Sleep>>>,
    told: Option<Told>,
}

/// What is counted of a body that is slowed down.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Its waits.
    pub(super) waits: Arc<Count>,
    /// Bytes that have come.
    pub(super) come: Arc<Count>,
    /// Bytes that have passed.
    pub(super) passed: Arc<Count>,
}

impl<B> Paced<B> {
    /// At so many KiB per second, of its own.
    pub(super) fn at(inner: B, kibibytes_per_second: u64) -> Self {
        Self::sharing(inner, Throughput::new(kibibytes_per_second, INTERVAL))
    }

    /// Together with others.
    pub(super) fn sharing(inner: B, throughput: Arc<Throughput>) -> Self {
        Paced {
            inner,
            throughput,
            waiting: Bytes::new(),
            alarm: None,
            told: None,
        }
    }

    /// Counts what becomes of it.
    pub(super) fn telling(mut self, told: Told) -> Self {
        self.told = Some(told);
        self
    }

    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            if let Some(alarm) = &mut self.alarm {
                ready!(alarm.as_mut().poll(context));
                self.alarm = None;
            }
            let wanted = self.waiting.len() as u64;
            match self.throughput.take(wanted, Instant::now()) {
                Ok(taken) => {
                    if let Some(told) = &self.told {
                        told.passed.add(taken);
                    }
                    let taken = usize::try_from(taken).unwrap_or(usize::MAX);
                    return Poll::Ready(self.waiting.split_to(taken));
                }
                Err(until) => {
                    if let Some(told) = &self.told {
                        told.waits.increment();
                    }
                    self.alarm = Some(Box::pin(tokio::time::sleep_until(until)));
                }
            }
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        while this.waiting.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(told) = &this.told {
                            told.come.add(data.len() as u64);
                        }
                        this.waiting = data;
                    }
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let passed = ready!(this.poll_waiting(context));
        Poll::Ready(Some(Ok(Frame::data(passed))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let waiting = self.waiting.len() as u64;
        match self.inner.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + waiting),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_its_share_of_a_second() {
        let throughput = Throughput::new(1, INTERVAL);
        let begun = throughput.filled.lock().until - INTERVAL;

        assert_eq!(throughput.take(1000, begun), Ok(51));
        assert_eq!(throughput.take(1, begun), Err(begun + INTERVAL));
        assert_eq!(throughput.take(10, begun + INTERVAL), Ok(10));
        assert_eq!(throughput.take(1000, begun + INTERVAL), Ok(41));
    }

    #[test]
    fn an_interval_has_a_byte_at_least() {
        let throughput = Throughput::new(1, Duration::from_nanos(1));
        let begun = throughput.filled.lock().until;

        assert_eq!(throughput.take(9, begun), Ok(2));
    }

    #[test]
    fn what_nobody_takes_is_saved_up_for_a_second() {
        let throughput = Throughput::saved_up(1, INTERVAL);
        let begun = throughput.filled.lock().until - INTERVAL;

        assert_eq!(throughput.take(5000, begun), Ok(1024));
        assert_eq!(throughput.take(5000, begun + 3 * INTERVAL), Ok(3 * 51));
        assert_eq!(throughput.take(5000, begun + 900 * INTERVAL), Ok(1024));
    }

    #[tokio::test]
    async fn all_bytes_pass_in_the_end() {
        use http_body_util::{BodyExt, Full};
        let body = Full::new(Bytes::from(vec![b'x'; 70_000]));

        let all = Paced::at(body, 1024).collect().await.expect("a body");

        assert_eq!(all.to_bytes().len(), 70_000);
    }
}
