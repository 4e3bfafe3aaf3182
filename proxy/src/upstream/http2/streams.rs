//! How many streams a connection may have at once, as its peer says, and whether it may have any more.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Semaphore;

/// So many are opened before the peer has said anything: one that allows fewer refuses the others, and it says what it
/// allows at once.
pub(super) const UNTOLD: u32 = 1;

/// No more are opened at once, whatever the peer says: what counts them ends somewhere, on small machines not far above.
const MOST: u32 = 1 << 28;

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    /// Closed when the connection is over.
    room: Semaphore,
    /// How many the peer allows.
    allowed: AtomicU32,
    /// How many there are places for, counting those that are open.
    places: AtomicU32,
    is_silent: AtomicBool,
}

impl Default for Streams {
    fn default() -> Self {
        Streams {
            room: Semaphore::new(UNTOLD as usize),
            allowed: AtomicU32::new(UNTOLD),
            places: AtomicU32::new(UNTOLD),
            is_silent: AtomicBool::new(false),
        }
    }
}

impl Streams {
    /// Opens one, once there is room; whether the connection still lives by then.
    pub(super) async fn open(&self) -> bool {
        if let Ok(place) = self.room.try_acquire() {
            place.forget();
            return true;
        }
        match self.room.acquire().await {
            Ok(place) => {
                place.forget();
                true
            }
            Err(_) => false,
        }
    }

    /// One that was opened has ended.
    pub(super) fn close_one(&self) {
        self.room.add_permits(1);
    }

    /// How many there may be at once.
    pub(super) fn allowed(&self) -> u32 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// The peer allows so many: said by the task of the connection alone.
    pub(super) fn allow(&self, streams: usize) {
        let streams = u32_of(streams).min(MOST);
        self.allowed.store(streams, Ordering::Relaxed);
        let places = self.places.load(Ordering::Relaxed);
        let places = match streams.checked_sub(places) {
            Some(more) => {
                self.room.add_permits(more as usize);
                streams
            }
            // Those that are open go on: their places are taken away when they have ended.
            None => places - u32_of(self.room.forget_permits((places - streams) as usize)),
        };
        self.places.store(places, Ordering::Relaxed);
    }

    /// The connection is given up because its peer does not answer.
    pub(super) fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    pub(super) fn are_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    /// The connection is over.
    pub(super) fn end(&self) {
        self.room.close();
    }

    pub(super) fn are_over(&self) -> bool {
        self.room.is_closed()
    }
}

fn u32_of(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(opening: impl Future<Output = bool>) -> Poll<bool> {
        pin!(opening).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// How many can be opened now.
    fn room(streams: &Streams) -> usize {
        (0..10).filter(|_| poll(streams.open()).is_ready()).count()
    }

    #[test]
    fn one_is_opened_before_the_peer_says_how_many() {
        let streams = Streams::default();
        assert_eq!(room(&streams), 1);

        streams.allow(4);

        assert_eq!(room(&streams), 3);
    }

    #[test]
    fn a_peer_that_allows_fewer_gets_fewer_once_some_have_ended() {
        let streams = Streams::default();
        streams.allow(4);
        assert_eq!(room(&streams), 4);

        streams.allow(2);
        for _ in 0..3 {
            streams.close_one();
        }
        streams.allow(2);

        assert_eq!(room(&streams), 1);
        streams.allow(3);
        assert_eq!(room(&streams), 1);
    }

    #[test]
    fn a_peer_may_allow_as_many_as_it_likes() {
        let streams = Streams::default();

        streams.allow(usize::MAX);

        assert_eq!(streams.allowed(), MOST);
        assert_eq!(room(&streams), 10);
    }

    #[tokio::test]
    async fn who_waits_learns_that_the_connection_is_over() {
        let streams = Streams::default();
        assert!(streams.open().await);
        let mut waiting = pin!(streams.open());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());

        streams.end();

        assert!(!waiting.await);
        assert!(streams.are_over());
    }
}
