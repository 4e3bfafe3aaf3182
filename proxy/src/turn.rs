//! When a task of a worker writes: after those have read that are ready to.
//!
//! What is written to a peer that waits wakes it, which costs as much as the rest of a small message. Where each
//! message is written as soon as it is made, a peer that is faster than this worker is woken for each of them. If all
//! that can be read is read first, the messages leave one after the other, and the peer is still awake when the next
//! one comes.

use std::future::poll_fn;
use std::task::Poll;

/// Lets the tasks of this worker go first that are ready now.
///
/// Unlike `tokio::task::yield_now` it does not look for new events first, which is a system call: who is alone goes on at
/// once.
pub async fn give_way() {
    let mut has_given_way = false;
    poll_fn(|context| {
        if has_given_way {
            return Poll::Ready(());
        }
        has_given_way = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn who_is_ready_goes_first() {
        let order: Arc<Mutex<Vec<&str>>> = Arc::default();
        let spawn = |names: [&'static str; 2]| {
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                order.lock().push(names[0]);
                give_way().await;
                order.lock().push(names[1]);
            })
        };

        let tasks = [
            spawn(["one reads", "one writes"]),
            spawn(["two reads", "two writes"]),
        ];
        for task in tasks {
            task.await.expect("it ends");
        }

        let expected = ["one reads", "two reads", "one writes", "two writes"];
        assert_eq!(*order.lock(), expected);
    }
}
