//! What time it is: asked once in each turn of a connection's task, however often somebody wants to know.
//!
//! A request wants to know a dozen times, and each time costs as much as two hundred instructions. A turn takes some
//! microseconds, and all that happens in it has been caused by the events that it began with.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::None) };
    /// When this thread last asked what time of day it is, and what it was.
    static DAY: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}
/// A clock that has been set is believed so much later.
const DAY_IS_KNOWN: Duration = Duration::from_secs(1);

/// What is known of the time.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Nobody has said when a turn begins.
    None,
    /// One has begun.
    Begun,
    /// And this is when somebody has asked first.
    At(Instant),
}

/// Now: within one turn always the same.
pub fn now() -> Instant {
    match TURN.get() {
        Turn::None => Instant::now(),
        Turn::At(now) => now,
        Turn::Begun => {
            let now = Instant::now();
            TURN.set(Turn::At(now));
            now
        }
    }
}

/// The time of day: that of a second ago or less, and what has passed since.
pub fn time_of_day() -> SystemTime {
    let now = now();
    if let Some((then, day)) = DAY.get()
        && let Some(since) = now.checked_duration_since(then)
        && since < DAY_IS_KNOWN
    {
        return day + since;
    }
    let day = SystemTime::now();
    DAY.set(Some((now, day)));
    day
}

/// A future each poll of which is a turn.
#[derive(Debug)]
pub struct InTurns<F>(pub F);

impl<F: Future + Unpin> Future for InTurns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _turn = Begun::turn();
        Pin::new(&mut self.0).poll(context)
    }
}

/// A turn, until it is dropped.
struct Begun {
    outer: Turn,
}

impl Begun {
    fn turn() -> Self {
        Begun {
            outer: TURN.replace(Turn::Begun),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        TURN.set(self.outer);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{poll_fn, ready};

    use super::*;

    /// Long enough for any clock.
    fn pass_time() {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1) {}
    }

    #[tokio::test]
    async fn within_a_turn_time_stands_still() {
        let mut seen = vec![];
        let mut turns = InTurns(poll_fn(|context| {
            seen.push(now());
            pass_time();
            seen.push(now());
            context.waker().wake_by_ref();
            match seen.len() {
                4 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        (&mut turns).await;

        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[2], seen[3]);
        assert!(seen[1] < seen[2]);
    }

    #[tokio::test]
    async fn beyond_turns_it_passes() {
        InTurns(ready(())).await;
        let before = now();
        pass_time();

        assert!(before < now());
    }

    #[test]
    fn the_time_of_day_goes_on() {
        let before = time_of_day();
        pass_time();
        let after = time_of_day();

        assert!(before < after);
        let off = SystemTime::now().duration_since(after).unwrap_or_default();
        assert!(off < DAY_IS_KNOWN, "{off:?}");
    }
}
