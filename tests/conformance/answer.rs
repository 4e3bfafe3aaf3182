//! What the upstream answers to a request, as a case spells it.

use serde::Deserialize;
use serde_json::Value;

use crate::text;

/// What is answered to a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// This status, with a short body.
    Status(u16),
    /// `close`, `reset` or `hang`.
    Word(Word),
    /// The rest.
    Full(FullAnswer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Closes the connection.
    Close,
    /// Resets the connection, or in HTTP/2 the stream.
    Reset,
    /// Never answers.
    Hang,
    /// Goes on.
    Keep,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FullAnswer {
    #[serde(default = "ok")]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    #[serde(default)]
    pub(crate) body: String,
    /// So many bytes of `x` after the body.
    #[serde(default)]
    pub(crate) fill: usize,
    /// Makes the body chunked.
    #[serde(default)]
    pub(crate) trailers: Vec<String>,
    /// The very bytes instead, of HTTP/1.1.
    pub(crate) raw: Option<String>,
    /// After so many seconds.
    #[serde(default)]
    pub(crate) delay: f64,
    /// What happens to the connection then.
    #[serde(default = "keep")]
    pub(crate) then: Word,
    /// The code of a reset stream.
    #[serde(default = "internal_error")]
    pub(crate) code: u32,
    /// Steps of HTTP/2 instead; stream 1 is that of the request.
    pub(crate) h2: Option<Vec<Value>>,
    /// Answers when the head is there, without waiting for the body.
    #[serde(default)]
    pub(crate) early: bool,
}

fn ok() -> u16 {
    200
}

fn keep() -> Word {
    Word::Keep
}

fn internal_error() -> u32 {
    2
}

impl Answer {
    pub(crate) fn read(answer: &Value) -> Self {
        serde_json::from_value(answer.clone())
            .unwrap_or_else(|error| panic!("an answer {answer}: {error}"))
    }

    /// As the fullest form of it; a word alone answers nothing.
    pub(crate) fn full(self) -> Result<FullAnswer, Word> {
        let status = match self {
            Answer::Status(status) => status,
            Answer::Word(word) => return Err(word),
            Answer::Full(full) => return Ok(full),
        };
        let body = format!("upstream {status}\n");
        Ok(FullAnswer {
            status,
            headers: vec![],
            body: if matches!(status, 204 | 304) {
                String::new()
            } else {
                body
            },
            fill: 0,
            trailers: vec![],
            raw: None,
            h2: None,
            delay: 0.0,
            then: Word::Keep,
            code: 0,
            early: false,
        })
    }
}

impl FullAnswer {
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = text::bytes(&self.body);
        body.resize(body.len() + self.fill, b'x');
        body
    }

    fn has_framing(&self) -> bool {
        self.headers.iter().any(|line| {
            let name = line
                .split(':')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            name == "content-length" || name == "transfer-encoding"
        })
    }

    /// As a message of HTTP/1.1.
    pub(crate) fn encode(&self, method: &str) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return text::bytes(raw);
        }
        let body = self.body();
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for line in &self.headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        let is_bodiless = matches!(self.status, 100..=199 | 204 | 304);
        if !self.trailers.is_empty() {
            head.push_str("transfer-encoding: chunked\r\n\r\n");
            let mut message = text::bytes(&head);
            if !body.is_empty() {
                message.extend(format!("{:x}\r\n", body.len()).bytes());
                message.extend(&body);
                message.extend(b"\r\n");
            }
            message.extend(format!("0\r\n{}\r\n\r\n", self.trailers.join("\r\n")).bytes());
            return message;
        }
        if !is_bodiless && !self.has_framing() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut message = text::bytes(&head);
        if method != "HEAD" {
            message.extend(body);
        }
        message
    }
}
