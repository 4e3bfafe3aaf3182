//! The client of HTTP/2: sends the frames that a case spells out, and tells what came back for each stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::case::Exchange;
use crate::client::{Client, wait};
use crate::frame::{self, Frame};
use crate::hpack;
use crate::outcome::{End, Outcome, Response};
use crate::text;

/// What is sent. The preface and empty SETTINGS go first, unless the first is `no_preface`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
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
struct Headers {
    #[serde(default = "one")]
    stream: u32,
    /// Method and path: short for the four pseudo-headers.
    request: Option<String>,
    /// Fields in order, after those of `request`.
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
struct Data {
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
struct Any {
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

/// Plays the steps of an exchange.
pub(crate) fn http2(address: SocketAddr, exchange: &Exchange) -> (Client, Outcome) {
    let steps: Vec<Step> = exchange
        .h2
        .iter()
        .flatten()
        .map(|step| {
            serde_json::from_value(step.clone())
                .unwrap_or_else(|error| panic!("an HTTP/2 step {step}: {error}"))
        })
        .collect();
    let mut session = Session::new(Client::connect(address));
    if !matches!(steps.first(), Some(Step::NoPreface)) {
        let mut opening = frame::PREFACE.to_vec();
        opening.extend(Frame::settings(&[]).encode());
        session.client.send(&opening);
    }
    session.play(&steps, 0);
    session.read(wait(exchange), exchange.responses);
    let outcome = Outcome {
        responses: session.responses.into_values().collect(),
        end: session.client.end,
        goaway: session.goaway,
        ..Outcome::default()
    };
    (session.client, outcome)
}

struct Session {
    client: Client,
    decoder: hpack::Decoder,
    block: Vec<u8>,
    /// Of each stream that was ended, and of each that was answered.
    responses: BTreeMap<u32, Response>,
    asked: Vec<u32>,
    goaway: Option<u32>,
}

impl Session {
    fn new(client: Client) -> Self {
        Self {
            client,
            decoder: hpack::Decoder::default(),
            block: vec![],
            responses: BTreeMap::new(),
            asked: vec![],
            goaway: None,
        }
    }

    fn play(&mut self, steps: &[Step], shift: u32) {
        for step in steps {
            match step {
                Step::NoPreface => {}
                Step::Headers(headers) => self.headers(headers, shift),
                Step::Data(data) => self.data(data, shift),
                Step::Reset { stream, code } => {
                    let stream = stream + shift;
                    self.asked.retain(|asked| *asked != stream);
                    self.send(Frame::new(frame::RST_STREAM, 0, stream, code.to_be_bytes()));
                }
                Step::Settings(settings) => self.send(Frame::settings(settings)),
                Step::Window { stream, by } => self.send(Frame::window(stream + shift, *by)),
                Step::Ping => self.send(Frame::new(frame::PING, 0, 0, *b"weftping")),
                Step::Frame(any) => {
                    let mut payload = text::hex(&any.payload);
                    payload.resize(payload.len() + any.zeros, 0);
                    let stream = any.stream + if any.stream == 0 { 0 } else { shift };
                    self.send(Frame::new(any.kind, any.flags, stream, payload));
                }
                Step::Raw(digits) => self.client.send(&text::hex(digits)),
                Step::Pause(milliseconds) => {
                    let limit = Duration::from_millis(*milliseconds);
                    self.client.closes_within(limit);
                    self.take_frames();
                }
                Step::Repeat { times, steps } => self.repeat(*times, steps, shift),
            }
        }
    }

    fn repeat(&mut self, times: u32, steps: &[Step], shift: u32) {
        for turn in 0..times {
            if self.client.end == End::Closed {
                return;
            }
            self.play(steps, shift + 2 * turn);
        }
    }

    fn send(&mut self, frame: Frame) {
        self.client.send(&frame.encode());
    }

    fn headers(&mut self, headers: &Headers, shift: u32) {
        let stream = headers.stream + shift;
        let block = match &headers.block {
            Some(digits) => text::hex(digits),
            None => hpack::encode(&fields(headers)),
        };
        let count = headers.frames as usize;
        let size = block.len().div_ceil(count).max(1);
        let pieces: Vec<&[u8]> = match block.is_empty() {
            true => vec![&[]],
            false => block.chunks(size).collect(),
        };
        for (index, piece) in pieces.iter().enumerate() {
            let is_first = index == 0;
            let is_last = index + 1 == pieces.len();
            let mut flags = 0;
            if is_first && headers.end {
                flags |= frame::END_STREAM;
            }
            if is_last && headers.is_whole {
                flags |= frame::END_HEADERS;
            }
            let kind = if is_first {
                frame::HEADERS
            } else {
                frame::CONTINUATION
            };
            self.send(Frame::new(kind, flags, stream, *piece));
        }
        if headers.end {
            self.asked.push(stream);
        }
    }

    fn data(&mut self, data: &Data, shift: u32) {
        const LARGEST: usize = 16384;
        let stream = data.stream + shift;
        let mut bytes = text::bytes(&data.text);
        bytes.resize(bytes.len() + data.fill, b'x');
        let flag = if data.end { frame::END_STREAM } else { 0 };
        if bytes.is_empty() {
            self.send(Frame::new(frame::DATA, flag, stream, vec![]));
        }
        let count = bytes.chunks(LARGEST).len();
        for (index, piece) in bytes.chunks(LARGEST).enumerate() {
            let flags = if index + 1 == count { flag } else { 0 };
            self.send(Frame::new(frame::DATA, flags, stream, piece));
        }
        if data.end {
            self.asked.push(stream);
        }
    }

    /// Reads until all that was asked is answered and there is silence.
    fn read(&mut self, limit: Duration, wanted: Option<usize>) {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let is_answered = self.is_answered(wanted);
            let before = self.client.received.len();
            self.client.read_until(crate::client::SILENCE, |_| false);
            let is_silent = self.client.received.len() == before;
            self.take_frames();
            let is_over = std::time::Instant::now() >= deadline;
            if self.client.end == End::Closed || is_over || is_answered && is_silent {
                return;
            }
        }
    }

    fn is_answered(&self, wanted: Option<usize>) -> bool {
        let is_over = |stream: &u32| {
            self.responses
                .get(stream)
                .is_some_and(|response| response.is_complete || response.reset.is_some())
        };
        match wanted {
            Some(0) => false,
            Some(wanted) => {
                self.responses
                    .keys()
                    .filter(|stream| is_over(stream))
                    .count()
                    >= wanted
            }
            None => self.asked.iter().all(is_over),
        }
    }

    fn take_frames(&mut self) {
        let mut received = std::mem::take(&mut self.client.received);
        while let Some(frame) = Frame::take(&mut received) {
            self.take(&frame);
        }
        self.client.received = received;
    }

    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            frame::HEADERS | frame::CONTINUATION => {
                self.block.extend(frame.content());
                let response = self.responses.entry(frame.stream).or_default();
                response.is_complete |=
                    frame.kind == frame::HEADERS && frame.has(frame::END_STREAM);
                if frame.has(frame::END_HEADERS) {
                    let block = std::mem::take(&mut self.block);
                    let fields = self.decoder.decode(&block).expect("a header block");
                    take_fields(response, fields);
                }
            }
            frame::DATA => {
                let response = self.responses.entry(frame.stream).or_default();
                response.body.extend(frame.content());
                response.is_complete |= frame.has(frame::END_STREAM);
            }
            frame::RST_STREAM => {
                let response = self.responses.entry(frame.stream).or_default();
                response.reset = Some(frame.code());
            }
            frame::GOAWAY => self.goaway = Some(frame.code()),
            frame::SETTINGS if !frame.has(frame::ACK) => {
                self.send(Frame::new(frame::SETTINGS, frame::ACK, 0, vec![]));
            }
            _ => {}
        }
    }
}

fn take_fields(response: &mut Response, fields: hpack::Fields) {
    let status = fields
        .iter()
        .find(|(name, _)| name == ":status")
        .and_then(|(_, value)| value.parse().ok());
    match status {
        Some(status) => {
            response.status = status;
            response.headers = fields
                .into_iter()
                .filter(|(name, _)| name != ":status")
                .collect();
        }
        None => response.trailers = fields,
    }
}

fn fields(headers: &Headers) -> hpack::Fields {
    let mut fields = Vec::new();
    if let Some(request) = &headers.request {
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
    fields.extend(headers.fields.iter().cloned());
    fields
}
