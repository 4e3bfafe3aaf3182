//! The client of HTTP/1.1: sends bytes, and reads responses until there is silence.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::case::{Exchange, OneOrMany};
use crate::message::{Body, Head};
use crate::outcome::{End, Outcome, Response};
use crate::text;
use crate::tls::{self, Transport};

/// So long nothing must come after the last response, until it is the last.
pub(crate) const SILENCE: Duration = Duration::from_millis(150);
/// Between pieces that a case sends apart.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer is waited for, where the case says nothing.
const WAIT: f64 = 5.0;
const TICK: Duration = Duration::from_millis(10);

/// A connection that a case has used, kept until it is known whether the proxy closes it.
pub(crate) struct Client {
    pub(crate) stream: Transport,
    pub(crate) received: Vec<u8>,
    pub(crate) end: End,
    /// Why TLS failed.
    pub(crate) failure: Option<String>,
}

impl Client {
    pub(crate) fn new(stream: Transport) -> Self {
        Self {
            stream,
            received: vec![],
            end: End::Open,
            failure: None,
        }
    }

    pub(crate) fn connect(address: SocketAddr, exchange: &Exchange) -> Self {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut client = Self::new(match &exchange.tls {
            Some(tls) => Transport::client(stream, tls),
            None => Transport::Plain(stream),
        });
        client.failure = client.stream.shake_hands();
        let socket = client.stream.socket();
        socket.set_read_timeout(Some(TICK)).unwrap();
        client
    }

    /// Sends; a connection that the proxy has closed meanwhile is no failure.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            self.failure = self.failure.take().or(tls::failure(&error));
        }
    }

    pub(crate) fn half_close(&mut self) {
        self.stream.half_close();
    }

    /// Reads once; tells whether anything came.
    pub(crate) fn read(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.end = End::Closed,
            Ok(count) => {
                self.received.extend(&buffer[..count]);
                return true;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => {
                self.failure = self.failure.take().or(tls::failure(&error));
                self.end = End::Closed;
            }
        }
        false
    }

    /// Reads until it is done and silent, or closed, or time is over.
    pub(crate) fn read_until(&mut self, limit: Duration, is_done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        let mut last = Instant::now();
        while self.end == End::Open && Instant::now() < deadline {
            if self.read() {
                last = Instant::now();
            } else if last.elapsed() >= SILENCE && is_done(self) {
                return;
            }
        }
    }

    /// Whether the proxy closes the connection within that time.
    pub(crate) fn closes_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.end == End::Open && Instant::now() < deadline {
            self.read();
        }
        self.end == End::Closed
    }
}

/// How long to wait for what an exchange waits for.
pub(crate) fn wait(exchange: &Exchange) -> Duration {
    Duration::from_secs_f64(exchange.wait.unwrap_or(WAIT))
}

/// Sends the requests of an exchange and reads their responses.
pub(crate) fn http1(address: SocketAddr, exchange: &Exchange) -> (Client, Outcome) {
    let mut client = Client::connect(address, exchange);
    let pieces = pieces(exchange);
    let method = method_of(&pieces);
    let wanted = exchange.responses.unwrap_or(1);
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            let start = Instant::now();
            while start.elapsed() < PAUSE {
                client.read();
            }
        }
        client.send(piece);
    }
    if exchange.half_close {
        client.half_close();
    }
    client.read_until(wait(exchange), |client| {
        let responses = responses(&client.received, &method, false);
        responses.len() >= wanted
            && responses
                .iter()
                .all(|each| each.is_complete || is_tunnel(each, &method))
    });
    let outcome = Outcome {
        responses: responses(&client.received, &method, client.end == End::Closed),
        end: client.end,
        ..Outcome::default()
    };
    (client, outcome)
}

/// Whether what follows is no HTTP any more.
fn is_tunnel(response: &Response, method: &str) -> bool {
    response.status == 101 || method == "CONNECT" && (200..300).contains(&response.status)
}

fn pieces(exchange: &Exchange) -> Vec<Vec<u8>> {
    if let Some(path) = &exchange.get {
        let mut request = format!("GET {path} HTTP/1.1\n");
        if !exchange
            .headers
            .iter()
            .any(|line| line.to_ascii_lowercase().starts_with("host:"))
        {
            request.push_str("host: test\n");
        }
        for line in &exchange.headers {
            request.push_str(line);
            request.push('\n');
        }
        return vec![text::message(&request)];
    }
    if let Some(request) = &exchange.request {
        return vec![text::message(request)];
    }
    match &exchange.raw {
        Some(OneOrMany::One(raw)) => vec![text::bytes(raw)],
        Some(OneOrMany::Many(pieces)) => pieces.iter().map(|piece| text::bytes(piece)).collect(),
        None => panic!("an exchange without get, request, raw, h2 or tcp"),
    }
}

/// Of the first request, which decides whether its response has a body.
fn method_of(pieces: &[Vec<u8>]) -> String {
    let first = pieces.first().map(Vec::as_slice).unwrap_or_default();
    let word = first.split(|byte| *byte == b' ').next().unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}

fn responses(mut bytes: &[u8], method: &str, has_ended: bool) -> Vec<Response> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let Some(head) = Head::parse(bytes) else {
            responses.push(Response {
                body: bytes.to_vec(),
                ..Response::default()
            });
            return responses;
        };
        let framing = head.response_framing(method);
        let body = Body::parse(&bytes[head.length..], framing, has_ended);
        responses.push(Response {
            status: head.status(),
            headers: head.headers,
            body: body.bytes,
            trailers: body.trailers,
            is_complete: body.complete.is_some(),
            reset: None,
        });
        match body.complete {
            Some(length) => bytes = &bytes[head.length + length..],
            None => return responses,
        }
    }
    responses
}
