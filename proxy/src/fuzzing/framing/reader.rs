//! A reader of HTTP/1.1 requests that takes nothing but what RFC 9112 tells a sender to write.

use std::io::{self, Read};

/// The longest message; what is longer ends the connection.
const MAX_BYTES: usize = 4 << 20;

/// A request without its body.
#[derive(Debug)]
pub(super) struct Request {
    headers: Vec<(String, String)>,
}

impl Request {
    /// All values of a header.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let headers = self.headers.iter();
        let named = headers.filter(|(each, _)| each.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// Reads one request after the other.
pub(super) struct Reader<R> {
    source: R,
    bytes: Vec<u8>,
}

/// A message that ends before its end: the sender has given it up.
struct GivenUp;

type Line = Result<Vec<u8>, Wrong>;

enum Wrong {
    GivenUp,
    Said(String),
}

impl From<GivenUp> for Wrong {
    fn from(_: GivenUp) -> Self {
        Wrong::GivenUp
    }
}

fn wrong<T>(what: &str, bytes: &[u8]) -> Result<T, Wrong> {
    Err(Wrong::Said(format!("{what}: {}", bytes.escape_ascii())))
}

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            bytes: Vec::new(),
        }
    }

    /// The next request, its body read; none where there is no whole one any more. What is no request is told.
    pub(super) fn request(&mut self) -> Result<Option<Request>, String> {
        match self.message() {
            Ok(request) => Ok(Some(request)),
            Err(Wrong::GivenUp) => Ok(None),
            Err(Wrong::Said(what)) => Err(what),
        }
    }

    fn message(&mut self) -> Result<Request, Wrong> {
        let line = self.line()?;
        is_request_line(&line)?;
        let headers = self.headers()?;
        let request = Request { headers };
        match (
            request.values("content-length")[..].as_ref(),
            request.values("transfer-encoding")[..].as_ref(),
        ) {
            ([], []) => {}
            ([length], []) => {
                let is_number =
                    !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                match length.parse::<usize>() {
                    Ok(length) if is_number => drop(self.exactly(length)?),
                    _ => return wrong("no length", length.as_bytes()),
                }
            }
            ([], ["chunked"]) => self.chunks()?,
            (lengths, codings) => {
                let all = format!("{lengths:?} {codings:?}");
                return wrong("lengths that contradict each other", all.as_bytes());
            }
        }
        Ok(request)
    }

    fn headers(&mut self) -> Result<Vec<(String, String)>, Wrong> {
        let mut headers = vec![];
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return wrong("no header", &line);
            };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
                return wrong("no name of a header", &line);
            }
            if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
                return wrong("no value of a header", &line);
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            headers.push((text(name), text(value)));
        }
    }

    fn chunks(&mut self) -> Result<(), Wrong> {
        loop {
            let line = self.line()?;
            let is_size = !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
            let size = std::str::from_utf8(&line).ok();
            let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
            let Some(size) = size.filter(|_| is_size) else {
                return wrong("no size of a chunk", &line);
            };
            if size == 0 {
                return self.headers().map(drop);
            }
            self.exactly(size)?;
            let end = self.exactly(2)?;
            if end != b"\r\n" {
                return wrong("a chunk longer than its size", &end);
            }
        }
    }

    /// Up to the end of a line, which is left out.
    fn line(&mut self) -> Line {
        let mut searched = 0;
        loop {
            let end = self.bytes[searched..]
                .windows(2)
                .position(|pair| pair == b"\r\n");
            if let Some(end) = end.map(|end| searched + end) {
                let line = self.bytes[..end].to_vec();
                self.bytes.drain(..end + 2);
                return Ok(line);
            }
            searched = self.bytes.len().saturating_sub(1);
            self.more()?;
        }
    }

    fn exactly(&mut self, count: usize) -> Line {
        while self.bytes.len() < count {
            self.more()?;
        }
        Ok(self.bytes.drain(..count).collect())
    }

    fn more(&mut self) -> Result<(), GivenUp> {
        let mut buffer = [0; 8192];
        let count = loop {
            match self.source.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.unwrap_or(0),
            }
        };
        self.bytes.extend_from_slice(&buffer[..count]);
        match count == 0 || self.bytes.len() > MAX_BYTES {
            true => Err(GivenUp),
            false => Ok(()),
        }
    }
}

fn is_request_line(line: &[u8]) -> Result<(), Wrong> {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return wrong("no request line", line);
    };
    let is_method = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let is_target = !target.is_empty() && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    match is_method && is_target && version == b"HTTP/1.1" {
        true => Ok(()),
        false => wrong("no request line", line),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<usize, String> {
        let mut reader = Reader::new(bytes);
        let mut count = 0;
        while reader.request()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn messages_end_where_they_say() {
        let whole = b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc\
            POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";

        assert_eq!(read(whole), Ok(2));
        assert_eq!(read(&whole[..whole.len() - 1]), Ok(1));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for head in [
            "content-length: 1\r\ncontent-length: 1",
            "content-length: 1\r\ntransfer-encoding: chunked",
            "content-length: +1",
            "content-length : 1",
            " content-length: 1",
            "transfer-encoding: chunked, chunked",
        ] {
            let message = format!("POST / HTTP/1.1\r\n{head}\r\n\r\n0\r\n\r\n");
            assert!(read(message.as_bytes()).is_err(), "{head}");
        }
        assert!(read(b"GET /\tHTTP/1.1\r\n\r\n").is_err());
    }
}
