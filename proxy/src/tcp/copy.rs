//! Copying bytes both ways between two connections, counted, until both have ended.
//!
//! The end of one direction is passed on as such (half-close), and the other goes on. An error of either
//! ends both.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::splice::{self, Moved, SpliceFailure};
use crate::telemetry::tunnels::{TcpEvent, TcpStats};
use crate::turn::give_way;
use crate::wire::Wire;

/// Bytes so far, seen from the proxy.
#[derive(Debug)]
pub struct Transfer {
    /// What is buffered each way at most.
    largest: usize,
    received: AtomicU64,
    sent: AtomicU64,
    first: OnceLock<FirstEnd>,
    /// Where bytes are counted as they flow, too.
    stats: Option<Arc<TcpStats>>,
}

/// How the first of both sides ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstEnd {
    /// The client has said all.
    Client,
    /// The client is gone.
    ClientFailed,
    /// The server has said all.
    Server,
    /// The server is gone.
    ServerFailed,
}

/// One direction: what is counted, and what its end is called.
struct Direction<'a> {
    transfer: &'a Transfer,
    count: &'a AtomicU64,
    event: TcpEvent,
    ended: FirstEnd,
    failed: FirstEnd,
}

impl Default for Transfer {
    fn default() -> Self {
        Transfer {
            largest: LARGEST_BUFFER_BYTES,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            first: OnceLock::new(),
            stats: None,
        }
    }
}

impl Transfer {
    /// Of a TCP proxy that counts.
    pub(super) fn counted_by(stats: Arc<TcpStats>) -> Self {
        Transfer {
            stats: Some(stats),
            ..Transfer::default()
        }
    }

    /// With so many bytes buffered each way at most; beyond a size that gains nothing any more, there are never more.
    pub(super) fn within(mut self, buffer_bytes: usize) -> Self {
        self.largest = buffer_bytes.clamp(1, LARGEST_BUFFER_BYTES);
        self
    }

    /// From the client.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// To the client.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How the first of both sides has ended, if one has.
    pub fn first_end(&self) -> Option<FirstEnd> {
        self.first.get().copied()
    }

    fn total(&self) -> u64 {
        self.received().wrapping_add(self.sent())
    }
}

/// Each direction has a buffer of this size while it is open.
const BUFFER_BYTES: usize = 16 * 1024;
/// The buffer grows up to this size while there is more to read than it holds: a long transfer takes a quarter of the calls.
const LARGEST_BUFFER_BYTES: usize = 64 * 1024;
/// What comes in smaller pieces is copied: a pipe takes twice the calls.
const TRICKLE_BYTES: usize = 4 * 1024;
/// So many pieces of that kind in a row end splicing.
const MAX_TRICKLES: u32 = 8;

/// Copies until both directions have ended, one has failed, or nothing has come for `idle_timeout`.
///
/// # Errors
/// What a read or write says; `TimedOut` where it was idle for too long.
pub async fn both_ways(
    downstream: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    idle_timeout: Option<Duration>,
    transfer: &Transfer,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(downstream);
    let (mut from_server, mut to_server) = tokio::io::split(upstream);
    let (up, down) = (Direction::up(transfer), Direction::down(transfer));
    let up = one_way(&mut from_client, &mut to_server, up);
    let down = one_way(&mut from_server, &mut to_client, down);
    unless_silent(up, down, idle_timeout, transfer).await
}

/// The same between sockets, of which the client's has already been read from. What comes in quantity stays in the
/// kernel.
///
/// # Errors
/// As [`both_ways`].
pub(super) async fn between_sockets(
    (client, first): (&Wire, Bytes),
    server: &Wire,
    idle_timeout: Option<Duration>,
    transfer: &Transfer,
) -> io::Result<()> {
    let up = async {
        let direction = Direction::up(transfer);
        let mut to_server = server;
        to_server.write_all(&first).await?;
        direction.count(first.len());
        drop(first);
        direction.carry(client, server).await
    };
    let down = Direction::down(transfer).carry(server, client);
    unless_silent(up, down, idle_timeout, transfer).await
}

async fn unless_silent(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
    idle_timeout: Option<Duration>,
    transfer: &Transfer,
) -> io::Result<()> {
    let copied = async { tokio::try_join!(up, down) };
    tokio::select! {
        biased;
        result = copied => result.map(|_| ()),
        () = silence(idle_timeout, transfer) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Why copying stops before the end.
enum Turn {
    /// The sender has said all.
    End,
    /// There is so much that a pipe is better.
    Plenty,
    /// It comes in small pieces.
    Trickle,
    /// These sockets cannot be spliced.
    Unsupported,
}

impl<'a> Direction<'a> {
    /// From the client.
    fn up(transfer: &'a Transfer) -> Self {
        Direction {
            transfer,
            count: &transfer.received,
            event: TcpEvent::ReceivedBytes,
            ended: FirstEnd::Client,
            failed: FirstEnd::ClientFailed,
        }
    }

    /// To the client.
    fn down(transfer: &'a Transfer) -> Self {
        Direction {
            transfer,
            count: &transfer.sent,
            event: TcpEvent::SentBytes,
            ended: FirstEnd::Server,
            failed: FirstEnd::ServerFailed,
        }
    }

    fn count(&self, bytes: usize) {
        self.count.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(stats) = &self.transfer.stats {
            stats.add(self.event, bytes as u64);
        }
    }

    fn sender_failed(&self) {
        let _ = self.transfer.first.set(self.failed);
    }

    /// Carries what one socket says to the other, until it has said all.
    async fn carry(self, mut from: &Wire, mut to: &Wire) -> io::Result<()> {
        let mut largest = LARGEST_BUFFER_BYTES;
        loop {
            let turn = match self.copy(&mut from, &mut to, Some(largest)).await? {
                Turn::Plenty => self.splice(from, to).await?,
                turn => turn,
            };
            match turn {
                Turn::End => {
                    let _ = self.transfer.first.set(self.ended);
                    return to.shutdown().await;
                }
                Turn::Unsupported => largest = usize::MAX,
                Turn::Plenty | Turn::Trickle => {}
            }
        }
    }

    /// Copies until the sender has said all, or, between sockets, a read fills a buffer of `plenty` bytes.
    async fn copy(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        plenty: Option<usize>,
    ) -> io::Result<Turn> {
        let largest = self.transfer.largest;
        let mut buffer = vec![0; BUFFER_BYTES.min(largest)];
        loop {
            let read = from.read(&mut buffer).await;
            let read = read.inspect_err(|_| self.sender_failed())?;
            if read == 0 {
                return Ok(Turn::End);
            }
            // Where there is no TLS on either side it costs more than it saves.
            if plenty.is_none() {
                give_way().await;
            }
            to.write_all(&buffer[..read]).await?;
            // TLS holds back what does not fill a record until it is told.
            to.flush().await?;
            self.count(read);
            if Some(read) == plenty {
                return Ok(Turn::Plenty);
            }
            if read == buffer.len() && read < largest {
                buffer.resize(largest.min(2 * read), 0);
            }
        }
    }

    /// Splices until the sender has said all, or comes to say little at a time.
    async fn splice(&self, from: &Wire, to: &Wire) -> io::Result<Turn> {
        let mut trickles = 0;
        while trickles < MAX_TRICKLES {
            let moved = splice::some(from, to)
                .await
                .map_err(|failure| match failure {
                    SpliceFailure::Sender(error) => {
                        self.sender_failed();
                        error
                    }
                    SpliceFailure::Receiver(error) => error,
                })?;
            match moved {
                Moved::Bytes(bytes) => {
                    self.count(bytes);
                    let is_trickle = bytes < TRICKLE_BYTES;
                    trickles = if is_trickle { trickles + 1 } else { 0 };
                }
                Moved::End => return Ok(Turn::End),
                Moved::Unsupported => return Ok(Turn::Unsupported),
            }
        }
        Ok(Turn::Trickle)
    }
}

/// Gives the client what the server has said already.
pub(super) async fn pass_on(
    client: &mut (impl AsyncWrite + Unpin),
    said: &[u8],
    transfer: &Transfer,
) -> io::Result<()> {
    if said.is_empty() {
        return Ok(());
    }
    client.write_all(said).await?;
    client.flush().await?;
    Direction::down(transfer).count(said.len());
    Ok(())
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    direction: Direction<'_>,
) -> io::Result<()> {
    direction.copy(from, to, None).await?;
    let _ = direction.transfer.first.set(direction.ended);
    to.shutdown().await
}

/// Returns when no byte has come for so long; never without a limit.
async fn silence(limit: Option<Duration>, transfer: &Transfer) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut before = transfer.total();
    loop {
        tokio::time::sleep(limit).await;
        let now = transfer.total();
        if now == before {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_direction_goes_on_after_the_other_has_ended() {
        let (mut client, downstream) = tokio::io::duplex(64);
        let (mut server, upstream) = tokio::io::duplex(64);
        let transfer = std::sync::Arc::new(Transfer::default());
        let counted = std::sync::Arc::clone(&transfer);
        let copying =
            tokio::spawn(async move { both_ways(downstream, upstream, None, &counted).await });

        client.write_all(b"question").await.expect("write");
        client.shutdown().await.expect("half-close");
        let mut question = String::new();
        server.read_to_string(&mut question).await.expect("read");
        server.write_all(b"an answer").await.expect("write");
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("read");

        copying.await.expect("joined").expect("copied");
        assert_eq!(
            (question.as_str(), answer.as_str()),
            ("question", "an answer")
        );
        assert_eq!((transfer.received(), transfer.sent()), (8, 9));
        assert_eq!(transfer.first_end(), Some(FirstEnd::Client));
    }

    #[tokio::test]
    async fn a_long_transfer_arrives_as_it_was_sent() {
        let (mut client, downstream) = tokio::io::duplex(LARGEST_BUFFER_BYTES);
        let (mut server, upstream) = tokio::io::duplex(LARGEST_BUFFER_BYTES);
        let said: Vec<u8> = (0..10 * LARGEST_BUFFER_BYTES)
            .map(|index| (index % 251) as u8)
            .collect();
        let copying = tokio::spawn(async move {
            both_ways(downstream, upstream, None, &Transfer::default()).await
        });

        let sending = said.clone();
        let sent = tokio::spawn(async move {
            client.write_all(&sending).await.expect("write");
            client.shutdown().await.expect("half-close");
            client
        });
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.expect("read");
        drop(server);

        drop(sent.await.expect("sent"));
        copying.await.expect("joined").expect("copied");
        assert!(heard == said, "{} of {} bytes", heard.len(), said.len());
    }

    /// Between sockets: what is said in quantity, in little pieces, and in quantity again.
    #[tokio::test]
    async fn plenty_and_little_arrive_in_turn_between_sockets() {
        let (mut client, downstream) = tokio::net::UnixStream::pair().expect("a pair");
        let (server, upstream) = tokio::net::UnixStream::pair().expect("a pair");
        let (mut from_proxy, mut to_proxy) = server.into_split();
        let transfer = std::sync::Arc::new(Transfer::default());
        let counted = std::sync::Arc::clone(&transfer);
        let copying = tokio::spawn(async move {
            let (client, server) = (Wire::Local(downstream), Wire::Local(upstream));
            let first = Bytes::from_static(b"first");
            between_sockets((&client, first), &server, None, &counted).await
        });

        let mut first = [0; 5];
        from_proxy.read_exact(&mut first).await.expect("first");
        let mut total = 0;
        for round in 0..3 {
            let plenty = vec![round; 20 * LARGEST_BUFFER_BYTES];
            let mut heard = vec![0; plenty.len()];
            let (said, read) =
                tokio::join!(client.write_all(&plenty), from_proxy.read_exact(&mut heard));
            said.expect("write");
            read.expect("read");
            assert!(heard == plenty, "round {round}");
            for piece in 0..2 * MAX_TRICKLES as u8 {
                client.write_all(&[piece]).await.expect("write");
                assert_eq!(from_proxy.read_u8().await.expect("read"), piece);
            }
            total += plenty.len() as u64 + 2 * u64::from(MAX_TRICKLES);
        }
        client.shutdown().await.expect("half-close");
        assert_eq!(from_proxy.read(&mut [0]).await.expect("the end"), 0);
        to_proxy.write_all(b"an answer").await.expect("write");
        drop((from_proxy, to_proxy));
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("read");

        copying.await.expect("joined").expect("copied");
        assert_eq!((&first, answer.as_str()), (b"first", "an answer"));
        assert_eq!((transfer.received(), transfer.sent()), (total + 5, 9));
        assert_eq!(transfer.first_end(), Some(FirstEnd::Client));
    }

    #[tokio::test]
    async fn a_silent_connection_ends() {
        let (_client, downstream) = tokio::io::duplex(64);
        let (_server, upstream) = tokio::io::duplex(64);
        let transfer = Transfer::default();

        let idle = Some(Duration::from_millis(20));
        let error = both_ways(downstream, upstream, idle, &transfer)
            .await
            .expect_err("idle");

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
