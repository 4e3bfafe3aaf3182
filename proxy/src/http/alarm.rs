//! A timer that is set as seldom as can be: for what is due now and then, and mostly done before.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::pace;

/// Goes off when something is due, or before: then it is set anew. So it serves one request after the other, of which most
/// are answered long before, without being set for each.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

/// What is due first, and when.
pub(super) fn first<T, const N: usize>(due: [Option<(Instant, T)>; N]) -> Option<(Instant, T)> {
    due.into_iter().flatten().min_by_key(|(at, _)| *at)
}

impl Alarm {
    /// Whether it has been set, for now or for later.
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// What is over, of what `due` says comes first; pending while nothing is, until it may be.
    pub(super) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut due: impl FnMut() -> Option<(Instant, T)>,
    ) -> Poll<T> {
        loop {
            let Some((at, _)) = due() else {
                return Poll::Pending;
            };
            let at = at.into();
            let sleep = self.0.get_or_insert_with(|| {
                pace::ask();
                Box::pin(tokio::time::sleep_until(at))
            });
            if sleep.is_elapsed() || sleep.deadline() > at {
                pace::ask();
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            // What was due may have moved on while the alarm was set.
            if let Some((at, over)) = due()
                && at <= Instant::now()
            {
                return Poll::Ready(over);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const NEVER: Duration = Duration::from_secs(600);

    async fn over(alarm: &mut Alarm, at: Instant) -> &'static str {
        poll_fn(|context| alarm.poll(context, || Some((at, "over")))).await
    }

    #[tokio::test]
    async fn it_goes_off_when_something_is_over_and_not_before() {
        let mut alarm = Alarm::default();
        let at = Instant::now() + SOON;

        assert_eq!(over(&mut alarm, at).await, "over");

        assert!(Instant::now() >= at);
    }

    #[tokio::test]
    async fn what_is_due_earlier_than_before_is_not_missed() {
        let mut alarm = Alarm::default();
        let pending = tokio::time::timeout(SOON, over(&mut alarm, Instant::now() + NEVER)).await;
        assert!(pending.is_err());

        let soon = over(&mut alarm, Instant::now() + SOON);

        assert_eq!(tokio::time::timeout(NEVER / 10, soon).await, Ok("over"));
    }

    #[tokio::test]
    async fn it_serves_what_is_due_later_and_another_task() {
        let mut alarm = Alarm::default();
        let before = Instant::now() + 5 * SOON;
        let first = tokio::spawn(async move {
            // On a slow machine it may have gone off by then, which is as good.
            let _ = tokio::time::timeout(Duration::ZERO, over(&mut alarm, before)).await;
            alarm
        });
        let mut alarm = first.await.expect("it ends");
        assert!(alarm.is_set());
        let at = before + 5 * SOON;

        let second = tokio::spawn(async move { over(&mut alarm, at).await });

        let over = tokio::time::timeout(NEVER / 10, second).await;
        assert_eq!(over.expect("it goes off").expect("it ends"), "over");
        assert!(Instant::now() >= at);
    }

    #[tokio::test]
    async fn what_moves_on_is_waited_for() {
        let mut alarm = Alarm::default();
        let begun = Instant::now();
        let mut at = begun + SOON;

        let moved = poll_fn(|context| {
            alarm.poll(context, || {
                if Instant::now() >= at && at < begun + 3 * SOON {
                    at += SOON;
                }
                Some((at, ()))
            })
        });
        moved.await;

        assert!(begun.elapsed() >= 3 * SOON);
    }
}
