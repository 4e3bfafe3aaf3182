//! A future beside another that wakes their task far more often: it is polled when it has asked for it, and else not.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// What is polled only when it has been woken itself.
pub(super) struct Seldom<'a, F> {
    future: Pin<&'a mut F>,
    turn: Arc<Turn>,
    waker: Waker,
}

/// Whether it is the future's turn, and the task to wake then.
#[derive(Debug)]
struct Turn {
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl<'a, F> Seldom<'a, F> {
    /// A future that has not been polled yet.
    pub(super) fn new(future: Pin<&'a mut F>) -> Self {
        let turn = Arc::new(Turn {
            is_due: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Seldom {
            future,
            waker: Waker::from(Arc::clone(&turn)),
            turn,
        }
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future> Future for Seldom<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // First: whoever wakes it from now on wakes this task.
        self.turn.task.register(context.waker());
        if !self.turn.is_due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.turn.is_due.store(false, Ordering::Release);
        let Seldom { future, waker, .. } = &mut *self;
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often a future is polled.
    fn counted<F: Future>(future: F, polls: &AtomicUsize) -> impl Future<Output = F::Output> {
        let mut future = Box::pin(future);
        poll_fn(move |context| {
            polls.fetch_add(1, Ordering::Relaxed);
            future.as_mut().poll(context)
        })
    }

    #[tokio::test]
    async fn it_is_not_polled_for_what_wakes_others() {
        let (tell, told) = oneshot::channel();
        let polls = AtomicUsize::new(0);
        let told = pin!(counted(told, &polls));
        let mut seldom = Seldom::new(told);

        for _ in 0..100 {
            let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut seldom).poll(context)));
            assert!(polled.await.is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);

        tell.send("over").expect("somebody waits");
        assert_eq!(seldom.await, Ok("over"));
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn it_wakes_whoever_waits_for_it() {
        let (tell, told) = oneshot::channel();
        let waiting = tokio::spawn(async move {
            let told = pin!(told);
            Seldom::new(told).await
        });
        // It has been polled by then, and waits.
        tokio::task::yield_now().await;

        tell.send("over").expect("somebody waits");

        assert_eq!(waiting.await.expect("it ends"), Ok("over"));
    }
}
