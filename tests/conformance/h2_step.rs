//! What is sent on a connection of HTTP/2, by the client of a case and by its upstream: steps, and their bytes.

use serde::Deserialize;
use serde_json::Value;

use crate::frame::{self, Frame};
use crate::hpack;
use crate::text;

/// What is sent. A client's preface and empty SETTINGS go first, unless the first is `no_preface`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    /// Nothing before what follows.
    NoPreface,
    /// A request as HEADERS and what continues them.
    Headers(Headers),
    /// A body.
    Data(Data),
    /// RST_STREAM.
    Reset { stream: u32, code: u32 },
    /// SETTINGS, as pairs of identifier and value.
    Settings(Vec<(u16, u32)>),
    /// WINDOW_UPDATE.
    Window { stream: u32, by: u32 },
    /// PING of eight bytes.
    Ping,
    /// GOAWAY.
    Goaway { last: u32, code: u32 },
    /// Any frame at all.
    Frame(Any),
    /// Any bytes at all, in hexadecimal digits.
    Raw(String),
    /// Waits so many milliseconds.
    Pause(u64),
    /// The same again; stream identifiers rise by two each time.
    Repeat { times: u32, steps: Vec<Step> },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Headers {
    #[serde(default = "one")]
    stream: u32,
    /// Method and path: short for the four pseudo-headers.
    request: Option<String>,
    /// Of a response.
    status: Option<u16>,
    /// Fields in order, after those of `request` and `status`.
    #[serde(default)]
    fields: Vec<(String, String)>,
    /// Whether the stream has no body.
    #[serde(default)]
    end: bool,
    /// Into how many frames the block is cut.
    #[serde(default = "one")]
    frames: u32,
    /// Whether the last of them says that it is the last.
    #[serde(default = "yes")]
    is_whole: bool,
    /// The block itself, in hexadecimal digits.
    block: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    #[serde(default = "one")]
    stream: u32,
    #[serde(default)]
    text: String,
    /// So many bytes of `x` after the text.
    #[serde(default)]
    fill: usize,
    #[serde(default)]
    end: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Any {
    kind: u8,
    #[serde(default)]
    flags: u8,
    #[serde(default)]
    stream: u32,
    /// In hexadecimal digits.
    #[serde(default)]
    payload: String,
    /// So many zero bytes after it.
    #[serde(default)]
    zeros: usize,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl Step {
    pub(crate) fn read(step: &Value) -> Self {
        serde_json::from_value(step.clone())
            .unwrap_or_else(|error| panic!("an HTTP/2 step {step}: {error}"))
    }

    /// Its bytes. Streams are numbered from `shift` on; 0 stays the connection.
    pub(crate) fn encode(&self, shift: u32) -> Vec<u8> {
        match self {
            Step::NoPreface | Step::Pause(_) | Step::Repeat { .. } => vec![],
            Step::Headers(headers) => headers.encode(shift),
            Step::Data(data) => data.encode(shift),
            Step::Reset { stream, code } => {
                Frame::new(frame::RST_STREAM, 0, stream + shift, code.to_be_bytes()).encode()
            }
            Step::Settings(settings) => Frame::settings(settings).encode(),
            Step::Window { stream, by } => Frame::window(shifted(*stream, shift), *by).encode(),
            Step::Ping => Frame::new(frame::PING, 0, 0, *b"weftping").encode(),
            Step::Goaway { last, code } => {
                let numbers = [shifted(*last, shift).to_be_bytes(), code.to_be_bytes()];
                Frame::new(frame::GOAWAY, 0, 0, numbers.concat()).encode()
            }
            Step::Frame(any) => {
                let mut payload = text::hex(&any.payload);
                payload.resize(payload.len() + any.zeros, 0);
                Frame::new(any.kind, any.flags, shifted(any.stream, shift), payload).encode()
            }
            Step::Raw(digits) => text::hex(digits),
        }
    }

    /// The stream that it ends.
    pub(crate) fn ended(&self, shift: u32) -> Option<u32> {
        match self {
            Step::Headers(headers) if headers.end => Some(headers.stream + shift),
            Step::Data(data) if data.end => Some(data.stream + shift),
            _ => None,
        }
    }
}

fn shifted(stream: u32, shift: u32) -> u32 {
    if stream == 0 { 0 } else { stream + shift }
}

impl Headers {
    fn encode(&self, shift: u32) -> Vec<u8> {
        let block = match &self.block {
            Some(digits) => text::hex(digits),
            None => hpack::encode(&self.all_fields()),
        };
        let size = block.len().div_ceil(self.frames as usize).max(1);
        let pieces: Vec<&[u8]> = match block.is_empty() {
            true => vec![&[]],
            false => block.chunks(size).collect(),
        };
        let mut bytes = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let is_first = index == 0;
            let is_last = index + 1 == pieces.len();
            let mut flags = 0;
            if is_first && self.end {
                flags |= frame::END_STREAM;
            }
            if is_last && self.is_whole {
                flags |= frame::END_HEADERS;
            }
            let kind = if is_first {
                frame::HEADERS
            } else {
                frame::CONTINUATION
            };
            bytes.extend(Frame::new(kind, flags, self.stream + shift, *piece).encode());
        }
        bytes
    }

    fn all_fields(&self) -> hpack::Fields {
        let mut fields = hpack::Fields::new();
        if let Some(request) = &self.request {
            let (method, path) = request.split_once(' ').expect("a method and a path");
            fields = [
                (":method", method),
                (":path", path),
                (":scheme", "http"),
                (":authority", "test"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        }
        if let Some(status) = self.status {
            fields.push((":status".to_owned(), status.to_string()));
        }
        fields.extend(self.fields.iter().cloned());
        fields
    }
}

impl Data {
    fn encode(&self, shift: u32) -> Vec<u8> {
        const LARGEST: usize = 16384;
        let stream = self.stream + shift;
        let mut bytes = text::bytes(&self.text);
        bytes.resize(bytes.len() + self.fill, b'x');
        let flag = if self.end { frame::END_STREAM } else { 0 };
        if bytes.is_empty() {
            return Frame::new(frame::DATA, flag, stream, vec![]).encode();
        }
        let count = bytes.chunks(LARGEST).len();
        let frames = bytes.chunks(LARGEST).enumerate().map(|(index, piece)| {
            let flags = if index + 1 == count { flag } else { 0 };
            Frame::new(frame::DATA, flags, stream, piece).encode()
        });
        frames.flatten().collect()
    }
}
