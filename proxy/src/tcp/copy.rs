//! Copying bytes both ways between two connections, counted, until both have ended.
//!
//! The end of one direction is passed on as such (half-close), and the other goes on. An error of either
//! ends both.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes so far, seen from the proxy.
#[derive(Debug, Default)]
pub struct Transfer {
    received: AtomicU64,
    sent: AtomicU64,
    first: OnceLock<FirstEnd>,
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
    ended: FirstEnd,
    failed: FirstEnd,
}

impl Transfer {
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
    let up = Direction {
        transfer,
        count: &transfer.received,
        ended: FirstEnd::Client,
        failed: FirstEnd::ClientFailed,
    };
    let down = Direction {
        transfer,
        count: &transfer.sent,
        ended: FirstEnd::Server,
        failed: FirstEnd::ServerFailed,
    };
    let copied = async {
        tokio::try_join!(
            one_way(&mut from_client, &mut to_server, up),
            one_way(&mut from_server, &mut to_client, down),
        )
    };
    tokio::select! {
        result = copied => result.map(|_| ()),
        () = silence(idle_timeout, transfer) => Err(io::ErrorKind::TimedOut.into()),
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
    transfer
        .sent
        .fetch_add(said.len() as u64, Ordering::Relaxed);
    Ok(())
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    direction: Direction<'_>,
) -> io::Result<()> {
    let Direction {
        transfer,
        count,
        ended,
        failed,
    } = direction;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.inspect_err(|_| {
            let _ = transfer.first.set(failed);
        })?;
        if read == 0 {
            let _ = transfer.first.set(ended);
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        // TLS holds back what does not fill a record until it is told.
        to.flush().await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
        if read == buffer.len() && read < LARGEST_BUFFER_BYTES {
            buffer.resize(2 * read, 0);
        }
    }
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
