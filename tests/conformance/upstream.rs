//! The scripted upstream: answers as the case says, and remembers what it saw.
//!
//! Each proxy has its own, on several ports of an address of its own. A connection is HTTP/2 where it begins
//! with the preface, else HTTP/1.1; with a TCP script it is neither.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::answer::{Answer, Word};
use crate::case::Exchange;
use crate::frame::PREFACE;
use crate::message::{Body, Head};
use crate::outcome::Seen;
use crate::tls::Transport;
use crate::{tcp, upstream_h2};

/// Where it listens. Port 8009 stays closed: nobody is there.
const PORTS: [u16; 4] = [8001, 8002, 8003, 8004];
/// Where it speaks TLS; at the second a client without a certificate is refused.
const TLS_PORTS: [u16; 2] = [8443, 8444];
/// Health checks ask for paths that begin so.
const HEALTH: &str = "/health";
const TICK: Duration = Duration::from_millis(10);

/// What is to come, and what has been.
#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    /// By port, whatever else is to be answered.
    always: BTreeMap<u16, Answer>,
    /// To health checks, by port.
    health: BTreeMap<u16, Answer>,
    tcp: Option<Vec<Value>>,
    seen: Vec<Seen>,
}

/// What all connections share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// SETTINGS with which a connection of HTTP/2 begins.
    pub(crate) settings: Option<Vec<(u16, u32)>>,
    is_over: AtomicBool,
}

/// The servers of one proxy.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    acceptors: Vec<(SocketAddr, JoinHandle<()>)>,
}

impl Upstream {
    pub(crate) fn start(ip: IpAddr, settings: Option<&Vec<(u16, u32)>>) -> Self {
        let shared = Arc::new(Shared {
            settings: settings.cloned(),
            ..Shared::default()
        });
        let acceptors = PORTS
            .iter()
            .chain(&TLS_PORTS)
            .map(|port| {
                let address = SocketAddr::new(ip, *port);
                let listener = TcpListener::bind(address)
                    .unwrap_or_else(|error| panic!("binding the upstream at {address}: {error}"));
                let shared = Arc::clone(&shared);
                (address, thread::spawn(move || accept(&listener, &shared)))
            })
            .collect();
        Self { shared, acceptors }
    }

    /// Gets ready for an exchange.
    pub(crate) fn script(&self, exchange: &Exchange) {
        let mut state = self.shared.lock();
        state.answers = exchange.upstream.iter().map(Answer::read).collect();
        state.always = by_port(&exchange.upstream_at);
        state.health = by_port(&exchange.health);
        state.tcp.clone_from(&exchange.upstream_tcp);
        state.seen.clear();
    }

    /// Forgets what was seen.
    pub(crate) fn forget(&self) {
        self.shared.lock().seen.clear();
    }

    /// What was seen since the script.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for (address, acceptor) in self.acceptors.drain(..) {
            // It waits for a connection, and looks whether it is over when one comes.
            if TcpStream::connect(address).is_ok() {
                let _ = acceptor.join();
            }
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

    /// What a port answers now.
    pub(crate) fn next_answer(&self, port: u16) -> Answer {
        let mut state = self.lock();
        if let Some(answer) = state.always.get(&port) {
            return answer.clone();
        }
        state.answers.pop_front().unwrap_or(Answer::Status(200))
    }

    /// What a port answers before the body of the request is there.
    pub(crate) fn early_answer(&self, port: u16) -> Option<Answer> {
        let is_early = |answer: &Answer| matches!(answer, Answer::Full(full) if full.early);
        let mut state = self.lock();
        if let Some(answer) = state.always.get(&port) {
            return Some(answer).filter(|answer| is_early(answer)).cloned();
        }
        state.answers.pop_front_if(|answer| is_early(answer))
    }

    /// What a port answers to a health check.
    fn health(&self, port: u16) -> Answer {
        let answer = self.lock().health.get(&port).cloned();
        answer.unwrap_or(Answer::Status(200))
    }
}

fn by_port(answers: &BTreeMap<u16, Value>) -> BTreeMap<u16, Answer> {
    answers
        .iter()
        .map(|(port, answer)| (*port, Answer::read(answer)))
        .collect()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.is_over() {
            return;
        }
        let shared = Arc::clone(shared);
        // Ends with its connection, which ends with the proxy.
        thread::spawn(move || serve(stream, &shared));
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(TICK));
    let port = stream.local_addr().map_or(0, |address| address.port());
    let stream = match TLS_PORTS.iter().position(|each| *each == port) {
        Some(index) => Transport::server(stream, index == 1),
        None => Transport::Plain(stream),
    };
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
    pub(crate) stream: Transport,
    pub(crate) received: Vec<u8>,
    pub(crate) port: u16,
    has_ended: bool,
}

impl Connection {
    fn new(stream: Transport, port: u16) -> Self {
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
            tls: self.stream.agreed(),
            ..Seen::default()
        };
        if target(&head.line).starts_with(HEALTH) {
            self.received.drain(..head.length);
            return self.answer(shared.health(self.port), &method, shared);
        }
        let index = shared.begin(seen.clone());
        let answer = shared.next_answer(self.port);
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
                self.stream.close();
                false
            }
            Word::Reset => {
                tcp::reset_when_dropped(self.stream.socket());
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

fn target(line: &str) -> &str {
    line.split(' ').nth(1).unwrap_or_default()
}

pub(crate) fn pause(seconds: f64, shared: &Shared) {
    let mut left = Duration::from_secs_f64(seconds);
    while !left.is_zero() && !shared.is_over() {
        let part = left.min(Duration::from_millis(50));
        thread::sleep(part);
        left -= part;
    }
}
