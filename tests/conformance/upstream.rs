//! The scripted upstream: answers as the case says, and remembers what it saw.
//!
//! Each proxy has its own, on several ports of an address of its own. A connection is HTTP/2 where it begins
//! with the preface, else HTTP/1.1; with a TCP script it is neither.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::case::Exchange;
use crate::frame::PREFACE;
use crate::message::{Body, Head};
use crate::outcome::Seen;
use crate::{tcp, text, upstream_h2};

/// Where it listens. Port 8009 stays closed: nobody is there.
pub(crate) const PORTS: [u16; 4] = [8001, 8002, 8003, 8004];
const TICK: Duration = Duration::from_millis(10);

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

/// What is to come, and what has been.
#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    tcp: Option<Vec<Value>>,
    seen: Vec<Seen>,
}

/// What all connections share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    is_over: AtomicBool,
}

/// The servers of one proxy.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

impl Upstream {
    pub(crate) fn start(ip: IpAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let acceptors = PORTS
            .iter()
            .map(|port| {
                let address = SocketAddr::new(ip, *port);
                let listener = TcpListener::bind(address)
                    .unwrap_or_else(|error| panic!("binding the upstream at {address}: {error}"));
                listener.set_nonblocking(true).unwrap();
                let shared = Arc::clone(&shared);
                thread::spawn(move || accept(&listener, &shared))
            })
            .collect();
        Self { shared, acceptors }
    }

    /// Gets ready for an exchange.
    pub(crate) fn script(&self, exchange: &Exchange) {
        let mut state = self.shared.lock();
        state.answers = exchange
            .upstream
            .iter()
            .map(|answer| {
                serde_json::from_value(answer.clone())
                    .unwrap_or_else(|error| panic!("an answer {answer}: {error}"))
            })
            .collect();
        state.tcp.clone_from(&exchange.upstream_tcp);
        state.seen.clear();
    }

    /// What was seen since the script.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Remembers a request that has begun; tells where.
    pub(crate) fn begin(&self, seen: Seen) -> usize {
        let mut state = self.lock();
        state.seen.push(seen);
        state.seen.len() - 1
    }

    /// Remembers more of a request, unless its exchange is over.
    pub(crate) fn update(&self, index: usize, seen: &Seen) {
        let mut state = self.lock();
        if let Some(old) = state
            .seen
            .get_mut(index)
            .filter(|old| old.line == seen.line)
        {
            old.clone_from(seen);
        }
    }

    pub(crate) fn next_answer(&self) -> Answer {
        self.lock()
            .answers
            .pop_front()
            .unwrap_or(Answer::Status(200))
    }
}

impl Answer {
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
    fn encode(&self, method: &str) -> Vec<u8> {
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

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_over() {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                // Ends with its connection, which ends with the proxy.
                thread::spawn(move || serve(stream, &shared));
            }
            Err(_) => thread::sleep(TICK),
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_nodelay(true);
    let port = stream.local_addr().map_or(0, |address| address.port());
    let script = shared.lock().tcp.clone();
    if let Some(steps) = script {
        let mut seen = Seen {
            port,
            line: "TCP".into(),
            ..Seen::default()
        };
        let index = shared.begin(seen.clone());
        (seen.body, seen.is_complete) = tcp::upstream(stream, &steps);
        return shared.update(index, &seen);
    }
    let mut connection = Connection::new(stream, port);
    while connection.received.len() < PREFACE.len()
        && PREFACE.starts_with(&connection.received)
        && connection.read(shared)
    {}
    if connection.received.starts_with(PREFACE) {
        connection.received.drain(..PREFACE.len());
        return upstream_h2::serve(connection, shared);
    }
    while connection.serve_one(shared) {}
}

/// A connection that the proxy has made.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) received: Vec<u8>,
    pub(crate) port: u16,
    has_ended: bool,
}

impl Connection {
    fn new(stream: TcpStream, port: u16) -> Self {
        let _ = stream.set_read_timeout(Some(TICK));
        Self {
            stream,
            received: vec![],
            port,
            has_ended: false,
        }
    }

    /// Reads some; tells whether there can be more.
    pub(crate) fn read(&mut self, shared: &Shared) -> bool {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.has_ended = true,
            Ok(count) => self.received.extend(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.has_ended = true,
        }
        !self.has_ended && !shared.is_over()
    }

    /// Serves a request; tells whether there can be another.
    fn serve_one(&mut self, shared: &Shared) -> bool {
        let head = loop {
            if let Some(head) = Head::parse(&self.received) {
                break head;
            }
            if !self.read(shared) {
                return false;
            }
        };
        let method = head.line.split(' ').next().unwrap_or_default().to_owned();
        let mut seen = Seen {
            port: self.port,
            line: head.line.clone(),
            headers: head.headers.clone(),
            ..Seen::default()
        };
        let index = shared.begin(seen.clone());
        let answer = shared.next_answer();
        let is_early = matches!(&answer, Answer::Full(full) if full.early);
        if is_early {
            let goes_on = self.answer(answer, &method, shared);
            return self.read_body(&head, &mut seen, index, shared) && goes_on;
        }
        self.read_body(&head, &mut seen, index, shared)
            && self.answer(answer, &method, shared)
            && !self.tunnel(&mut seen, index, shared)
    }

    fn read_body(&mut self, head: &Head, seen: &mut Seen, index: usize, shared: &Shared) -> bool {
        loop {
            let body = Body::parse(&self.received[head.length..], head.request_framing(), false);
            seen.body = body.bytes;
            seen.trailers = body.trailers;
            seen.is_complete = body.complete.is_some();
            shared.update(index, seen);
            if let Some(length) = body.complete {
                self.received.drain(..head.length + length);
                return true;
            }
            if !self.read(shared) {
                return false;
            }
        }
    }

    fn answer(&mut self, answer: Answer, method: &str, shared: &Shared) -> bool {
        match answer.full() {
            Ok(full) => {
                pause(full.delay, shared);
                let _ = self.stream.write_all(&full.encode(method));
                self.follow(full.then, shared)
            }
            Err(word) => self.follow(word, shared),
        }
    }

    fn follow(&mut self, word: Word, shared: &Shared) -> bool {
        match word {
            Word::Keep => true,
            Word::Close => {
                let _ = self.stream.shutdown(Shutdown::Both);
                false
            }
            Word::Reset => {
                tcp::reset_when_dropped(&self.stream);
                false
            }
            Word::Hang => {
                while self.read(shared) {}
                false
            }
        }
    }

    /// After an upgrade, everything that comes is sent back.
    fn tunnel(&mut self, seen: &mut Seen, index: usize, shared: &Shared) -> bool {
        let is_upgrade = seen
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        if !is_upgrade && !seen.line.starts_with("CONNECT ") {
            return false;
        }
        loop {
            let bytes = std::mem::take(&mut self.received);
            if !bytes.is_empty() {
                seen.body.extend(&bytes);
                shared.update(index, seen);
                let _ = self.stream.write_all(&bytes);
            }
            if !self.read(shared) {
                return true;
            }
        }
    }
}

pub(crate) fn pause(seconds: f64, shared: &Shared) {
    let mut left = Duration::from_secs_f64(seconds);
    while !left.is_zero() && !shared.is_over() {
        let part = left.min(Duration::from_millis(50));
        thread::sleep(part);
        left -= part;
    }
}
