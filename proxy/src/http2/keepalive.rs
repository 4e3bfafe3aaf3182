//! Whether the peer of a connection is still there: it is asked, by PING, when nothing has come from it for some time.
//!
//! Polled by the task of the connection, whenever that is polled.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::http::Http2Options;
use crate::gather::Turns;

/// How long an answer may take where nothing is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks the peer of one connection.
#[derive(Debug)]
pub struct Keepalive {
    pings: PingPong,
    turns: Turns,
    interval: Duration,
    timeout: Duration,
    /// What had been read when this was last polled.
    reads: u32,
    heard_at: Instant,
    timer: Pin<Box<Sleep>>,
    state: State,
}

/// What the timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until the peer is asked.
    Quiet,
    /// Until its answer is late.
    Asked,
    /// The connection is over, and says so itself.
    Over,
}

impl Keepalive {
    /// `None` where the peer is not to be asked.
    pub fn of(options: &Http2Options, pings: Option<PingPong>, turns: &Turns) -> Option<Self> {
        let interval = options.keepalive_interval?;
        let now = Instant::now();
        Some(Keepalive {
            pings: pings?,
            turns: turns.clone(),
            interval,
            timeout: options.keepalive_timeout.unwrap_or(DEFAULT_TIMEOUT),
            reads: turns.reads(),
            heard_at: now,
            timer: Box::pin(sleep_until(now + interval)),
            state: State::Quiet,
        })
    }

    /// Returns when the peer has not answered in time. To be polled after the connection.
    pub fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let reads = self.turns.reads();
        if reads != self.reads {
            self.reads = reads;
            self.heard_at = Instant::now();
        }
        loop {
            match self.state {
                State::Quiet => {
                    ready!(self.timer.as_mut().poll(context));
                    let now = Instant::now();
                    let due = self.heard_at + self.interval;
                    if due > now {
                        self.timer.as_mut().reset(due);
                    } else if self.pings.send_ping(Ping::opaque()).is_ok() {
                        self.state = State::Asked;
                        self.timer.as_mut().reset(now + self.timeout);
                    } else {
                        self.state = State::Over;
                    }
                }
                State::Asked => match self.pings.poll_pong(context) {
                    Poll::Ready(Ok(_)) => {
                        self.state = State::Quiet;
                        self.heard_at = Instant::now();
                        self.timer.as_mut().reset(self.heard_at + self.interval);
                    }
                    Poll::Ready(Err(_)) => self.state = State::Over,
                    Poll::Pending => return self.timer.as_mut().poll(context),
                },
                State::Over => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::gather::Gathered;

    const INTERVAL: Duration = Duration::from_millis(40);
    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(60);

    /// How long a client goes on that asks its peer.
    async fn lasts(io: DuplexStream, timeout: Duration) -> Duration {
        let options = Http2Options {
            keepalive_interval: Some(INTERVAL),
            keepalive_timeout: Some(timeout),
            ..Http2Options::default()
        };
        let (io, turns) = Gathered::over(io);
        let connecting = h2::client::handshake(io).await;
        let (_sender, mut connection): (h2::client::SendRequest<Bytes>, _) =
            connecting.expect("a connection");
        let pings = connection.ping_pong();
        let begun = Instant::now();
        let mut keepalive = Keepalive::of(&options, pings, &turns).expect("it is asked");
        let mut connection = pin!(connection);
        poll_fn(|context| {
            let _ = connection.as_mut().poll(context);
            turns.end(context);
            keepalive.poll_silence(context)
        })
        .await;
        begun.elapsed()
    }

    /// Reads frames up to the next PING, which is answered.
    async fn answer(io: &mut DuplexStream) {
        const PING: u8 = 6;
        const ACK: u8 = 1;
        loop {
            let mut head = [0; 9];
            io.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            io.read_exact(&mut payload).await.expect("its payload");
            if head[3] == PING {
                head[4] = ACK;
                io.write_all(&head).await.expect("written");
                io.write_all(&payload).await.expect("written");
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_given_up() {
        let (ours, _theirs) = duplex(1024);

        assert!(lasts(ours, SOON).await >= INTERVAL + SOON);
    }

    #[tokio::test]
    async fn a_peer_that_answers_is_asked_again() {
        let (ours, mut theirs) = duplex(1024);
        let asking = lasts(ours, LATE);

        let answering = async {
            let mut preface = [0; 24];
            theirs.read_exact(&mut preface).await.expect("a preface");
            for _ in 0..3 {
                answer(&mut theirs).await;
            }
        };

        tokio::select! {
            _ = asking => panic!("it was given up"),
            () = answering => {}
        }
    }

    #[tokio::test]
    async fn who_says_something_is_asked_later() {
        let (ours, mut theirs) = duplex(1024);
        let begun = Instant::now();
        let saying = async {
            let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            tokio::time::sleep(INTERVAL / 2).await;
            theirs.write_all(&empty_settings).await.expect("written");
            begun.elapsed()
        };

        let (lasts, said) = tokio::join!(lasts(ours, SOON), saying);

        assert!(lasts >= said + INTERVAL / 2 + SOON, "{lasts:?}, {said:?}");
    }
}
