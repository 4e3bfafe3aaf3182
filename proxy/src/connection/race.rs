//! Who speaks first: the client, or the server that has been dialled meanwhile.
//!
//! Where bytes of unknown protocol may be opaque, their upstream is dialled at once and both sides are
//! listened to, so that a server that greets first is heard without delay. Where the last connections were
//! HTTP (or TLS), whose clients speak first, dialling ahead would be waste: then only a client that stays silent
//! for a moment makes us dial.
//!
//! Servers of HTTP/2 greet, too, and may be quicker than their clients: what they say first does not decide.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Connection;
use super::detect::{FIRST_READ, Seen, look};
use crate::cluster::stats::ClusterStats;
use crate::config::listener::TcpConfig;
use crate::snapshot::listener::Verdict;
use crate::tcp::{Dialled, TcpFailure};

/// A connection whose first words are awaited.
pub(super) struct Opening<'a> {
    pub(super) connection: &'a Connection,
    /// How it is proxied if it is opaque; `None`: opaque bytes are not served.
    pub(super) opaque: Option<&'a TcpConfig>,
}

/// Who has spoken.
pub(super) enum Outcome {
    /// The client; the upstream is here where it was dialled.
    ClientSpoke(Seen, Option<Result<Dialled, TcpFailure>>),
    /// The server; what it said is with it.
    ServerSpoke(Dialled),
    /// Nobody, and nobody will.
    Ended,
}

/// How long a client that is expected to speak first may be silent before its upstream is dialled after all.
const SILENCE: Duration = Duration::from_millis(100);
/// How long a client may be silent where its upstream cannot be reached, or where only TLS is served.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long both sides may be silent.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);

impl Opening<'_> {
    /// Waits for the first words, of which some may have been read. Gives back the client's connection with what
    /// has been read of it.
    pub(super) async fn run(
        &self,
        mut stream: TcpStream,
        mut buffer: BytesMut,
    ) -> (Outcome, TcpStream, Bytes) {
        buffer.reserve(FIRST_READ);
        let raced = async {
            match self.opaque {
                Some(config) => self.race(&mut stream, &mut buffer, config).await,
                None => self.await_client(&mut stream, &mut buffer).await,
            }
        };
        let outcome = tokio::select! {
            raced = raced => raced.unwrap_or(Outcome::Ended),
            () = self.connection.drain.patience_over() => Outcome::Ended,
        };
        (outcome, stream, buffer.freeze())
    }

    async fn await_client(
        &self,
        stream: &mut TcpStream,
        buffer: &mut BytesMut,
    ) -> io::Result<Outcome> {
        let patience = if self.connection.listener.has_tls() {
            PATIENCE
        } else {
            LONG_PATIENCE
        };
        match tokio::time::timeout(patience, look(stream, buffer)).await {
            Ok(seen) => match seen? {
                Seen::End => Ok(self.left()),
                seen => Ok(Outcome::ClientSpoke(seen, None)),
            },
            Err(_) => Ok(self.timed_out()),
        }
    }

    /// The client has gone.
    fn left(&self) -> Outcome {
        ClusterStats::count(&self.connection.listener.live.left_unseen);
        Outcome::Ended
    }

    /// Nobody has said enough.
    fn timed_out(&self) -> Outcome {
        ClusterStats::count(&self.connection.listener.live.openings_timed_out);
        Outcome::Ended
    }

    async fn race(
        &self,
        stream: &mut TcpStream,
        buffer: &mut BytesMut,
        config: &TcpConfig,
    ) -> io::Result<Outcome> {
        let mut looking = pin!(look(stream, buffer));
        let mut dialling = pin!(self.dial_ahead(config));
        let mut dialled = None;
        let mut has_greeted = false;
        let patience = tokio::time::sleep(LONG_PATIENCE);
        let mut patience = pin!(patience);
        let seen = loop {
            let is_dialling = dialled.is_none();
            tokio::select! {
                // The client first: where both have spoken, its protocol decides.
                biased;
                seen = looking.as_mut() => break seen?,
                ended = dialling.as_mut(), if is_dialling => {
                    if ended.is_err() {
                        patience.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
                    }
                    dialled = Some(ended);
                }
                said = first_words(&mut dialled), if !has_greeted => {
                    let Some(Ok(mut server)) = dialled else { return Ok(Outcome::Ended) };
                    server.said = said?;
                    if !is_http2_greeting(&server.said) {
                        return Ok(Outcome::ServerSpoke(server));
                    }
                    has_greeted = true;
                    ClusterStats::count(&self.connection.listener.live.http2_greetings);
                    dialled = Some(Ok(server));
                    patience.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
                }
                () = patience.as_mut() => return Ok(match dialled {
                    Some(Ok(server)) if has_greeted => Outcome::ServerSpoke(server),
                    _ => self.timed_out(),
                }),
            }
        };
        if seen == Seen::End && dialled.is_none() {
            return Ok(Outcome::Ended);
        }
        if seen == Seen::Opaque && dialled.is_none() && self.is_dialled_at_once() {
            dialled = Some(dialling.await);
        }
        Ok(Outcome::ClientSpoke(seen, dialled))
    }

    /// Dials: at once, or when the client has been silent for a moment.
    async fn dial_ahead(&self, config: &TcpConfig) -> Result<Dialled, TcpFailure> {
        if !self.is_dialled_at_once() {
            tokio::time::sleep(SILENCE).await;
        }
        ClusterStats::count(&self.connection.listener.live.dialled_ahead);
        let describe = || self.connection.described(None);
        self.connection.dial(config, describe).await
    }

    fn is_dialled_at_once(&self) -> bool {
        match self.connection.listener.live.verdict() {
            Verdict::Unknown | Verdict::Opaque | Verdict::ServerFirst => true,
            Verdict::Http1 | Verdict::Http2 | Verdict::Tls => false,
        }
    }
}

/// Whether this is how a server of HTTP/2 begins, which need not wait for its client: with a SETTINGS frame
/// (RFC 9113 §3.4, §6.5).
fn is_http2_greeting(said: &[u8]) -> bool {
    const SETTINGS: [u8; 6] = [4, 0, 0, 0, 0, 0];
    let Some((length, rest)) = said.split_first_chunk::<3>() else {
        return false;
    };
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]);
    rest.starts_with(&SETTINGS) && length.is_multiple_of(6)
}

/// What the server says first; never, where it has not been dialled, or cannot be. Cancel-safe.
async fn first_words(dialled: &mut Option<Result<Dialled, TcpFailure>>) -> io::Result<Bytes> {
    let Some(Ok(dialled)) = dialled else {
        return std::future::pending().await;
    };
    let mut said = BytesMut::with_capacity(FIRST_READ);
    dialled.io.read_buf(&mut said).await?;
    Ok(said.freeze())
}

#[cfg(test)]
mod tests {
    use super::is_http2_greeting;

    #[test]
    fn only_settings_greet_as_http2_does() {
        assert!(is_http2_greeting(&[0, 0, 0, 4, 0, 0, 0, 0, 0]));
        assert!(is_http2_greeting(
            b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64 and more"
        ));
    }

    #[test]
    fn other_greetings_are_none_of_http2() {
        for greeting in [
            &b"220 mail.example.com ESMTP"[..],
            b"\x4a\x00\x00\x00\x0a11.4.2-MariaDB",
            b"\x00\x00\x05\x04\x00\x00\x00\x00\x00",
            b"\x00\x00\x00\x04\x01\x00\x00\x00\x00",
            b"\x00\x00\x00\x04",
            b"",
        ] {
            assert!(!is_http2_greeting(greeting), "{greeting:?}");
        }
    }
}
