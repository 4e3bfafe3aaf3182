//! The scripted upstream where the proxy speaks HTTP/2 with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::answer::{Answer, FullAnswer, Word};
use crate::frame::{self, Frame};
use crate::h2_step::Step;
use crate::hpack;
use crate::outcome::Seen;
use crate::upstream::{Connection, Shared, pause};

/// More than any case sends: the upstream never makes a proxy wait.
const WINDOW: u32 = 1 << 30;

/// SETTINGS_ENABLE_CONNECT_PROTOCOL of RFC 8441.
const CONNECT_PROTOCOL: u16 = 8;

#[derive(Default)]
struct Streams {
    decoder: hpack::Decoder,
    block: Vec<u8>,
    open: BTreeMap<u32, (usize, Seen)>,
    /// Streams of CONNECT that were agreed to: what comes is sent back.
    tunnels: BTreeSet<u32>,
    /// Those that are answered already, and not ended.
    early: BTreeSet<u32>,
}

/// Serves a connection after its preface.
pub(crate) fn serve(mut connection: Connection, shared: &Shared) {
    let mut streams = Streams::default();
    match &shared.settings {
        Some(settings) => send(&mut connection, &Frame::settings(settings)),
        None => {
            send(
                &mut connection,
                &Frame::settings(&[(4, WINDOW), (CONNECT_PROTOCOL, 1)]),
            );
            send(&mut connection, &Frame::window(0, WINDOW));
        }
    }
    loop {
        while let Some(frame) = Frame::take(&mut connection.received) {
            if !streams.take(&frame, &mut connection, shared) {
                return;
            }
        }
        if !connection.read(shared) {
            return;
        }
    }
}

fn send(connection: &mut Connection, frame: &Frame) {
    let _ = connection.stream.write_all(&frame.encode());
}

impl Streams {
    /// Takes a frame; tells whether the connection goes on.
    fn take(&mut self, frame: &Frame, connection: &mut Connection, shared: &Shared) -> bool {
        match frame.kind {
            frame::SETTINGS if !frame.has(frame::ACK) => {
                send(
                    connection,
                    &Frame::new(frame::SETTINGS, frame::ACK, 0, vec![]),
                );
            }
            frame::PING if !frame.has(frame::ACK) => {
                let pong = Frame::new(frame::PING, frame::ACK, 0, frame.payload.clone());
                send(connection, &pong);
            }
            frame::HEADERS | frame::CONTINUATION => {
                self.block.extend(frame.content());
                if frame.has(frame::END_HEADERS) && !self.begin(frame.stream, connection, shared) {
                    return false;
                }
            }
            frame::DATA => {
                if let Some((index, seen)) = self.open.get_mut(&frame.stream) {
                    seen.body.extend(frame.content());
                    shared.update(*index, seen);
                }
                if self.tunnels.contains(&frame.stream) {
                    let flags = frame.flags & frame::END_STREAM;
                    let back = Frame::new(frame::DATA, flags, frame.stream, frame.content());
                    send(connection, &back);
                    return true;
                }
            }
            frame::RST_STREAM => {
                if let Some((index, seen)) = self.open.get_mut(&frame.stream) {
                    seen.reset = Some(frame.code());
                    shared.update(*index, seen);
                }
            }
            _ => {}
        }
        let ends =
            matches!(frame.kind, frame::HEADERS | frame::DATA) && frame.has(frame::END_STREAM);
        !ends || self.end(frame.stream, connection, shared)
    }

    /// The request is there.
    fn end(&mut self, stream: u32, connection: &mut Connection, shared: &Shared) -> bool {
        let Some((index, seen)) = self.open.get_mut(&stream) else {
            return true;
        };
        seen.is_complete = true;
        shared.update(*index, seen);
        if self.early.remove(&stream) {
            return true;
        }
        answer(
            stream,
            shared.next_answer(connection.port),
            connection,
            shared,
        )
    }

    /// The head of a request is there, or its trailers.
    fn begin(&mut self, stream: u32, connection: &mut Connection, shared: &Shared) -> bool {
        let block = std::mem::take(&mut self.block);
        let fields = self.decoder.decode(&block).expect("a header block");
        if let Some((index, seen)) = self.open.get_mut(&stream) {
            seen.trailers = fields;
            shared.update(*index, seen);
            return true;
        }
        let pseudo = |name: &str| {
            fields
                .iter()
                .find(|(each, _)| each == name)
                .map_or("", |(_, value)| value)
        };
        let is_connect = pseudo(":method") == "CONNECT";
        let seen = Seen {
            port: connection.port,
            line: format!("{} {} HTTP/2", pseudo(":method"), pseudo(":path")),
            headers: fields
                .iter()
                .filter(|(name, _)| name != ":method" && name != ":path")
                .cloned()
                .collect(),
            tls: connection.stream.agreed(),
            ..Seen::default()
        };
        let index = shared.begin(seen.clone());
        self.open.insert(stream, (index, seen));
        if is_connect {
            self.connect(stream, connection, shared);
            return true;
        }
        match shared.early_answer(connection.port) {
            Some(early) => {
                self.early.insert(stream);
                answer(stream, early, connection, shared)
            }
            None => true,
        }
    }

    /// CONNECT is answered at once; where it is agreed to, the stream goes on.
    fn connect(&mut self, stream: u32, connection: &mut Connection, shared: &Shared) {
        let Ok(full) = shared.next_answer(connection.port).full() else {
            return reset(stream, 2, connection);
        };
        if !(200..300).contains(&full.status) {
            return respond(stream, &full, connection);
        }
        self.tunnels.insert(stream);
        let fields = [(":status".to_owned(), full.status.to_string())];
        let head = Frame::new(
            frame::HEADERS,
            frame::END_HEADERS,
            stream,
            hpack::encode(&fields),
        );
        send(connection, &head);
    }
}

/// Answers; tells whether the connection goes on.
fn answer(stream: u32, answer: Answer, connection: &mut Connection, shared: &Shared) -> bool {
    match answer.full() {
        Ok(full) => {
            pause(full.delay, shared);
            match &full.h2 {
                Some(steps) => play(steps, stream, connection, shared),
                None => respond(stream, &full, connection),
            }
            match full.then {
                Word::Reset if full.h2.is_none() => reset(stream, full.code, connection),
                Word::Close | Word::Hang => return false,
                Word::Keep | Word::Reset => {}
            }
            true
        }
        Err(Word::Reset) => {
            reset(stream, 2, connection);
            true
        }
        Err(Word::Close) => false,
        Err(Word::Hang | Word::Keep) => true,
    }
}

/// Sends steps, of which stream 1 is that of the request.
fn play(steps: &[Value], stream: u32, connection: &mut Connection, shared: &Shared) {
    for step in steps.iter().map(Step::read) {
        match step {
            Step::Pause(milliseconds) => {
                pause(Duration::from_millis(milliseconds).as_secs_f64(), shared);
            }
            Step::Repeat { times, steps } => {
                let bytes: Vec<u8> = steps
                    .iter()
                    .flat_map(|step| step.encode(stream - 1))
                    .collect();
                let _ = connection.stream.write_all(&bytes.repeat(times as usize));
            }
            step => drop(connection.stream.write_all(&step.encode(stream - 1))),
        }
    }
}

fn reset(stream: u32, code: u32, connection: &mut Connection) {
    send(
        connection,
        &Frame::new(frame::RST_STREAM, 0, stream, code.to_be_bytes()),
    );
}

fn respond(stream: u32, answer: &FullAnswer, connection: &mut Connection) {
    if answer.status == 0 {
        return;
    }
    let mut fields = vec![(":status".to_owned(), answer.status.to_string())];
    fields.extend(answer.headers.iter().map(|line| field(line)));
    let body = answer.body();
    let ends_at = |is_last: bool| {
        if is_last && answer.then != Word::Reset {
            frame::END_STREAM
        } else {
            0
        }
    };
    let has_trailers = !answer.trailers.is_empty();
    let flags = frame::END_HEADERS | ends_at(body.is_empty() && !has_trailers);
    send(
        connection,
        &Frame::new(frame::HEADERS, flags, stream, hpack::encode(&fields)),
    );
    let pieces = body.chunks(16384);
    let count = pieces.len();
    for (index, piece) in pieces.enumerate() {
        let flags = ends_at(index + 1 == count && !has_trailers);
        send(connection, &Frame::new(frame::DATA, flags, stream, piece));
    }
    if has_trailers {
        let trailers: hpack::Fields = answer.trailers.iter().map(|line| field(line)).collect();
        let flags = frame::END_HEADERS | frame::END_STREAM;
        send(
            connection,
            &Frame::new(frame::HEADERS, flags, stream, hpack::encode(&trailers)),
        );
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').expect("a header line");
    (name.trim().to_ascii_lowercase(), value.trim().to_owned())
}
