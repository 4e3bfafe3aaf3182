//! HTTP/1.1 messages as they are on the wire, for both ends of a proxy. Strict about nothing: it shows what came.

/// The head of a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    /// How many bytes it is long.
    pub(crate) length: usize,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

/// A body, as far as it has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// How many bytes of the connection it took, where it is complete.
    pub(crate) complete: Option<usize>,
}

impl Head {
    /// The head at the beginning, where it is all there.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        Some(Self {
            line,
            headers: lines.map(field).collect(),
            length: end + 4,
        })
    }

    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(each, _)| each.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn status(&self) -> u16 {
        let code = self.line.split(' ').nth(1).unwrap_or_default();
        code.parse().unwrap_or(0)
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.values("transfer-encoding")
            .any(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    pub(crate) fn content_length(&self) -> Option<usize> {
        self.values("content-length").next()?.trim().parse().ok()
    }

    pub(crate) fn request_framing(&self) -> Framing {
        match (self.is_chunked(), self.content_length()) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Length(0),
        }
    }

    /// Of a response to a request that was, or was not, `HEAD`.
    pub(crate) fn response_framing(&self, method: &str) -> Framing {
        let status = self.status();
        if status == 101 || method == "CONNECT" && (200..300).contains(&status) {
            return Framing::UntilEnd;
        }
        if method == "HEAD" || (100..200).contains(&status) || matches!(status, 204 | 304) {
            return Framing::Length(0);
        }
        match (self.is_chunked(), self.content_length()) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilEnd,
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

impl Body {
    /// The body at the beginning of what comes after a head.
    pub(crate) fn parse(bytes: &[u8], framing: Framing, has_ended: bool) -> Self {
        match framing {
            Framing::Length(length) => Self {
                bytes: bytes[..length.min(bytes.len())].to_vec(),
                trailers: vec![],
                complete: (bytes.len() >= length).then_some(length),
            },
            Framing::UntilEnd => Self {
                bytes: bytes.to_vec(),
                trailers: vec![],
                complete: has_ended.then_some(bytes.len()),
            },
            Framing::Chunked => Self::chunked(bytes),
        }
    }

    fn chunked(bytes: &[u8]) -> Self {
        let mut body = Self::default();
        let mut at = 0;
        while let Some(end) = line_end(&bytes[at..]) {
            let line = String::from_utf8_lossy(&bytes[at..at + end]);
            let size = line.split(';').next().unwrap_or_default().trim();
            let Ok(size) = usize::from_str_radix(size, 16) else {
                return body;
            };
            at += end + 2;
            if size == 0 {
                body.finish_trailers(bytes, at);
                return body;
            }
            let there = bytes.len().saturating_sub(at).min(size);
            body.bytes.extend(&bytes[at..at + there]);
            at += size + 2;
            if at > bytes.len() {
                return body;
            }
        }
        body
    }

    fn finish_trailers(&mut self, bytes: &[u8], mut at: usize) {
        let mut trailers = Vec::new();
        while let Some(end) = line_end(&bytes[at..]) {
            let line: String = bytes[at..at + end]
                .iter()
                .map(|byte| char::from(*byte))
                .collect();
            at += end + 2;
            if line.is_empty() {
                self.trailers = trailers;
                self.complete = Some(at);
                return;
            }
            trailers.push(field(&line));
        }
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|two| two == b"\r\n")
}
