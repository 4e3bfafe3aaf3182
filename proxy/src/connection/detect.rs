//! What a client speaks, told by its first bytes.
//!
//! A decision needs as few bytes as possible: what cannot become a request line of HTTP, nor a TLS
//! handshake, is opaque at once. A client that stops in the middle of what might be a method is waited for
//! only shortly.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::io::DownstreamIo;
use crate::snapshot::listener::Verdict;
use crate::upstream::HttpVersion;

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A TLS handshake.
    Tls,
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// Something else.
    Opaque,
    /// Nothing: the client has ended its side.
    End,
}

/// RFC 9113 §3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No longer request line is waited for.
const MAX_REQUEST_LINE: usize = 16 * 1024;
/// Room for the first bytes.
pub(super) const FIRST_READ: usize = 4 * 1024;
/// How long a client may pause within what is not decided yet.
const PAUSE: Duration = Duration::from_secs(1);

/// Methods that HTTP requests come with: the IANA registry, without the rarest.
const METHODS: [&[u8]; 27] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"QUERY",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
    b"MERGE",
    b"CHECKOUT",
    b"CHECKIN",
    b"MKACTIVITY",
    b"ACL",
    b"LINK",
    b"UNLINK",
    b"PURGE",
];

impl Seen {
    /// What is remembered of it.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Seen::Tls => Verdict::Tls,
            Seen::Http1 => Verdict::Http1,
            Seen::Http2 => Verdict::Http2,
            Seen::Opaque | Seen::End => Verdict::Opaque,
        }
    }

    /// As filter chains name it (Envoy's `http_inspector`).
    pub(super) fn application_protocols(self) -> &'static [&'static str] {
        match self {
            Seen::Http1 => &["http/1.1"],
            Seen::Http2 => &["h2c"],
            Seen::Tls | Seen::Opaque | Seen::End => &[],
        }
    }

    /// The version to serve it as, where only HTTP is served.
    pub(super) fn http_version(self) -> HttpVersion {
        match self {
            Seen::Http2 => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        }
    }
}

/// What a client has said by now.
///
/// Most clients speak first, and have spoken by the time that their connection is accepted: then nobody waits for the
/// first words. What is read before a socket is registered is no event of it either.
///
/// # Errors
/// The connection was reset. Nobody is told that twice: whoever read next would take it for the end of what is said.
pub(super) fn first_words(stream: &TcpStream) -> io::Result<BytesMut> {
    let mut room = [MaybeUninit::uninit(); FIRST_READ];
    match recv(stream, &mut room, RecvFlags::DONTWAIT) {
        Ok(((said, _), _)) => Ok(BytesMut::from(&*said)),
        Err(Errno::WOULDBLOCK) => Ok(BytesMut::new()),
        Err(error) => Err(error.into()),
    }
}

/// Reads until it is decided, or the client pauses for too long; what was read is in the buffer. Waits for
/// the first byte without a limit. Cancel-safe: nothing read is lost.
pub(super) async fn look(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Seen> {
    loop {
        if let Some(seen) = classify(buffer) {
            return Ok(seen);
        }
        let read = if buffer.is_empty() {
            io.read_buf(buffer).await?
        } else {
            match tokio::time::timeout(PAUSE, io.read_buf(buffer)).await {
                Ok(read) => read?,
                Err(_) => return Ok(Seen::Opaque),
            }
        };
        if read == 0 {
            return Ok(if buffer.is_empty() {
                Seen::End
            } else {
                Seen::Opaque
            });
        }
    }
}

/// Looks, and puts back what was read.
pub(super) async fn look_ahead(io: &mut DownstreamIo) -> io::Result<Seen> {
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    let seen = look(io, &mut buffer).await?;
    io.unread(buffer.freeze());
    Ok(seen)
}

/// What bytes are, or `None` where more are needed.
pub(super) fn classify(bytes: &[u8]) -> Option<Seen> {
    match bytes.first() {
        // A record of type handshake, of a version that begins with 3.
        Some(0x16) => match bytes.get(1) {
            Some(0x03) => Some(Seen::Tls),
            Some(_) => Some(Seen::Opaque),
            None => None,
        },
        Some(_) => classify_text(bytes),
        None => None,
    }
}

fn classify_text(bytes: &[u8]) -> Option<Seen> {
    let preface = &HTTP2_PREFACE[..bytes.len().min(HTTP2_PREFACE.len())];
    if bytes.starts_with(preface) {
        return (bytes.len() >= HTTP2_PREFACE.len()).then_some(Seen::Http2);
    }
    let Some(space) = bytes.iter().position(|byte| *byte == b' ') else {
        let may_be_method = METHODS.iter().any(|method| method.starts_with(bytes));
        return (!may_be_method).then_some(Seen::Opaque);
    };
    if !METHODS.contains(&&bytes[..space]) {
        return Some(Seen::Opaque);
    }
    let within = &bytes[..bytes.len().min(MAX_REQUEST_LINE)];
    let end = within.iter().position(|byte| *byte == b'\n');
    let line = &within[..end.unwrap_or(within.len())];
    // Control characters are in no request line: whether it has come to its end makes no difference.
    if line.iter().any(|byte| *byte < b' ' && *byte != b'\r') {
        return Some(Seen::Opaque);
    }
    match end {
        Some(_) => Some(of_request_line(&line[space + 1..])),
        None if bytes.len() >= MAX_REQUEST_LINE => Some(Seen::Opaque),
        None => None,
    }
}

fn of_request_line(after_method: &[u8]) -> Seen {
    let line = after_method.strip_suffix(b"\r").unwrap_or(after_method);
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" if version.len() < line.len() => Seen::Http1,
        _ => Seen::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// A connection, accepted once its client has done this with its side.
    fn accepted(client: impl FnOnce(&mut TcpStream)) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client(&mut stream);
        (listener.accept().unwrap().0, stream)
    }

    #[test]
    fn a_client_that_has_spoken_is_heard_and_a_silent_one_not_waited_for() {
        let (spoken, _client) = accepted(|stream| stream.write_all(b"GET /").unwrap());
        let (silent, _client) = accepted(|_| {});

        assert_eq!(first_words(&spoken).unwrap(), b"GET /"[..]);
        assert!(first_words(&silent).unwrap().is_empty());
    }

    #[test]
    fn a_reset_is_no_end_of_what_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);

        let error = first_words(&served).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_request_line_is_http() {
        assert_eq!(classify(b"GET / HTTP/1.1\r\n"), Some(Seen::Http1));
        assert_eq!(classify(b"POST /a?b=c HTTP/1.0\nHost"), Some(Seen::Http1));
        assert_eq!(classify(HTTP2_PREFACE), Some(Seen::Http2));
    }

    #[test]
    fn a_client_hello_is_tls() {
        assert_eq!(classify(&[0x16, 0x03, 0x01, 0x02]), Some(Seen::Tls));
        assert_eq!(classify(&[0x16, 0x02]), Some(Seen::Opaque));
    }

    #[test]
    fn what_cannot_become_http_is_opaque_at_once() {
        for bytes in [
            &b"h"[..],
            b"*3\r\n$3\r\nSET",
            b"PING",
            b"EHLO mail",
            b"GET key\r\n",
            b"SSH-2.0-OpenSSH",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"get / HTTP/1.1\r\n",
            b"GET \x00",
            b"PRI * HTTP/2.0\r\n\r\nXX",
        ] {
            assert_eq!(classify(bytes), Some(Seen::Opaque), "{bytes:?}");
        }
    }

    #[test]
    fn what_may_become_http_is_waited_for() {
        for bytes in [
            &b""[..],
            b"G",
            b"GET",
            b"GET /index",
            b"P",
            b"PRI * HTTP/2.0",
            b"\x16",
        ] {
            assert_eq!(classify(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_request_line_without_end_is_not_waited_for_without_end() {
        let mut line = b"GET /".to_vec();
        line.resize(MAX_REQUEST_LINE, b'a');

        assert_eq!(classify(&line), Some(Seen::Opaque));
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_are_cut() {
        let line = b"GET /\x01 HTTP/1.1\r\n";

        for end in 6..=line.len() {
            assert_eq!(classify(&line[..end]), Some(Seen::Opaque), "{end}");
        }
        let mut late = b"GET /".to_vec();
        late.resize(MAX_REQUEST_LINE, b'a');
        late.extend(b" HTTP/1.1\r\n");
        assert_eq!(classify(&late), Some(Seen::Opaque));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = SmallRng::seed_from_u64(11);
        for _ in 0..20_000 {
            let mut bytes = b"GET / HTTP/1.1\r\n".to_vec();
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
            bytes.truncate(random.random_range(0..=bytes.len()));
            let _ = classify(&bytes);
        }
    }

    #[tokio::test]
    async fn a_pause_in_the_middle_of_a_method_is_short() {
        use tokio::io::AsyncWriteExt;
        let (mut client, mut here) = tokio::io::duplex(64);
        let mut buffer = BytesMut::new();
        client.write_all(b"GET").await.expect("write");

        let seen = look(&mut here, &mut buffer).await.expect("decided");

        assert_eq!(seen, Seen::Opaque);
        assert_eq!(&buffer[..], b"GET");
    }
}
