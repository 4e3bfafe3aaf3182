//! What is counted of an upstream connection among those of its cluster: bytes as they are read and written, after TLS
//! was taken off, and who has ended it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::UpstreamIo;
use crate::cluster::stats::ClusterStats;
use crate::tls::io::MaybeTls;
use crate::wire::{Bare, Wire};

/// What is counted of a connection; its end is counted when this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    stats: Arc<ClusterStats>,
    /// How many requests use it; `None`: it is always in use.
    requests: Option<Arc<AtomicU32>>,
    has_peer_ended: bool,
}

impl Counted {
    pub(super) fn new(stats: Arc<ClusterStats>) -> Self {
        Counted {
            stats,
            requests: None,
            has_peer_ended: false,
        }
    }

    pub(super) fn used_by(&mut self, requests: Arc<AtomicU32>) {
        self.requests = Some(requests);
    }

    fn read(&mut self, count: usize) {
        self.has_peer_ended |= count == 0;
        self.stats
            .bytes_read
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    fn written(&mut self, written: &io::Result<usize>) {
        match written {
            Ok(count) => {
                let counter = &self.stats.bytes_written;
                counter.fetch_add(*count as u64, Ordering::Relaxed);
            }
            Err(_) => self.has_peer_ended = true,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let requests = self.requests.as_ref();
        let is_in_use = requests.is_none_or(|requests| requests.load(Ordering::Relaxed) > 0);
        self.stats.connection_ended(self.has_peer_ended, is_in_use);
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = Pin::new(&mut this.bytes).poll_read(context, buffer);
        if let (Some(counted), Poll::Ready(read)) = (&mut this.counted, &read) {
            match read {
                Ok(()) if room > 0 => counted.read(buffer.filled().len() - before),
                Ok(()) => {}
                Err(_) => counted.has_peer_ended = true,
            }
        }
        read
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.bytes).poll_write(context, bytes);
        if let (Some(counted), Poll::Ready(written)) = (&mut this.counted, &written) {
            counted.written(written);
        }
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.bytes).poll_write_vectored(context, slices);
        if let (Some(counted), Poll::Ready(written)) = (&mut this.counted, &written) {
            counted.written(written);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_shutdown(context)
    }
}

/// What passes the bare socket is counted by who moves it.
impl Bare for UpstreamIo {
    fn bare(&mut self) -> Option<(Bytes, &Wire)> {
        match &mut self.bytes {
            MaybeTls::Plain(socket) => Some((Bytes::new(), &socket.0.wire)),
            MaybeTls::Tls(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::super::Socket;
    use super::*;

    fn pair() -> (UpstreamIo, UnixStream, Arc<ClusterStats>) {
        let (here, peer) = UnixStream::pair().expect("a pair");
        let stats: Arc<ClusterStats> = Arc::default();
        let bytes = MaybeTls::Plain(Socket::over(Wire::Local(here)));
        (UpstreamIo::new(bytes).counted(&stats), peer, stats)
    }

    fn ends(stats: &ClusterStats) -> [u64; 3] {
        [
            &stats.connections_ended_by_peer,
            &stats.connections_ended_in_use,
            &stats.connections_ended_in_use_by_peer,
        ]
        .map(|counter| counter.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn bytes_are_counted_each_way_and_an_end_of_our_own_is_none_of_the_peers() {
        let (mut io, mut peer, stats) = pair();

        io.write_all(b"request").await.expect("written");
        peer.write_all(b"answer").await.expect("written");
        io.read_exact(&mut [0; 6]).await.expect("read");
        drop(io);

        assert_eq!(stats.bytes_written.load(Ordering::Relaxed), 7);
        assert_eq!(stats.bytes_read.load(Ordering::Relaxed), 6);
        assert_eq!(ends(&stats), [0, 1, 0]);
    }

    #[tokio::test]
    async fn a_connection_that_its_peer_ends_between_requests_was_not_in_use() {
        let (mut io, peer, stats) = pair();
        io.used_by(&Arc::default());
        drop(peer);

        assert_eq!(io.read(&mut [0; 1]).await.expect("the end"), 0);
        drop(io);

        assert_eq!(ends(&stats), [1, 0, 0]);
    }

    #[tokio::test]
    async fn a_connection_that_its_peer_ends_within_a_request_was_in_use() {
        let (mut io, peer, stats) = pair();
        io.used_by(&Arc::new(AtomicU32::new(1)));
        drop(peer);

        assert_eq!(io.read(&mut [0; 1]).await.expect("the end"), 0);
        drop(io);

        assert_eq!(ends(&stats), [1, 1, 1]);
    }
}
