//! The client of HTTP/2: sends the frames that a case spells out, and tells what came back for each stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::case::Exchange;
use crate::client::{Client, wait};
use crate::frame::{self, Frame};
use crate::h2_step::Step;
use crate::hpack;
use crate::outcome::{End, Outcome, Response};

/// Plays the steps of an exchange.
pub(crate) fn http2(address: SocketAddr, exchange: &Exchange) -> (Client, Outcome) {
    let steps: Vec<Step> = exchange.h2.iter().flatten().map(Step::read).collect();
    let mut session = Session::new(Client::connect(address, exchange));
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
                Step::Pause(milliseconds) => {
                    let limit = Duration::from_millis(*milliseconds);
                    self.client.closes_within(limit);
                    self.take_frames();
                }
                Step::Repeat { times, steps } => self.repeat(*times, steps, shift),
                step => {
                    self.client.send(&step.encode(shift));
                    self.asked.extend(step.ended(shift));
                    if let Step::Reset { stream, .. } = step {
                        self.asked.retain(|asked| *asked != stream + shift);
                    }
                }
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
