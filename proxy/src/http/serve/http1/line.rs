//! A client's connection as its bytes: what has been read of it and not been used, and how far its exchange is.
//!
//! Shared by who serves it and who reads the body of a request, mostly in one task, so that its lock is uncontended. The
//! lock is held for single steps only, and never while a body or an answer is polled: those may read the request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::Client;
use super::request::{self, RequestHead};
use crate::config::http::HttpConfig;
use crate::config::http1::HeaderNames;
use crate::http::serve::error::ServeError;
use crate::http1::head::{HeadLimits, may_end};
use crate::http1::reading::{Reading, most_at_once};
use crate::upstream::body::ClientError;

/// A connection, and what is known of the exchange on it.
pub(in crate::http::serve) struct Line<IO> {
    /// `None`: it is closed, or in other hands.
    io: Option<IO>,
    pub(super) reading: Reading,
    pub(super) options: Options,
    /// How much of a head had come when it was last looked at.
    looked_at: usize,
    /// When the head has to be here; made when it has begun and not come at once.
    alarm: Option<Pin<Box<Sleep>>>,
    request: RequestState,
    /// Whether there may be another request after this one.
    keeps_alive: bool,
    /// Whether there is to be none.
    is_finishing: bool,
    /// Whether one has begun and its exchange is not over.
    is_answering: bool,
    /// What is still to be said to ask the client for its body.
    ask: &'static [u8],
    is_switched: bool,
    /// Who waits for the end of the request.
    server: Option<Waker>,
    /// Who reads its body.
    reader: Option<Waker>,
    /// Who waits for another protocol.
    switcher: Option<Waker>,
}

/// A connection that several hold.
pub(in crate::http::serve) type SharedLine<IO> = Arc<Mutex<Line<IO>>>;

/// How HTTP is spoken.
#[derive(Debug, Clone, Copy)]
pub(in crate::http::serve) struct Options {
    pub(super) limits: HeadLimits,
    /// The most that is read of a body at once.
    pub(super) max_buffer: usize,
    /// From the first byte of a head to its last.
    pub(super) head_timeout: Option<Duration>,
    pub(super) names: HeaderNames,
}

impl Options {
    pub(in crate::http::serve) fn of(config: &HttpConfig) -> Self {
        Options {
            limits: HeadLimits {
                max_headers: config.max_headers,
                max_bytes: config.max_header_bytes as usize,
            },
            max_buffer: most_at_once(config.buffer_bytes),
            head_timeout: config.request_headers_timeout,
            names: config.http1.names,
        }
    }
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestState {
    /// All of it has been read.
    Over,
    /// There is more of its body.
    Coming,
    /// Nothing more is read: where its body ends is not known, or will not be.
    Abandoned,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection on which nothing has been said.
pub(in crate::http::serve) fn over<IO>(io: IO, options: Options) -> SharedLine<IO> {
    Arc::new(Mutex::new(Line {
        io: Some(io),
        reading: Reading::default(),
        options,
        looked_at: 0,
        alarm: None,
        request: RequestState::Over,
        keeps_alive: true,
        is_finishing: false,
        is_answering: false,
        ask: &[],
        is_switched: false,
        server: None,
        reader: None,
        switcher: None,
    }))
}

impl<IO> Line<IO> {
    /// There is to be no other request after the one that has begun.
    pub(in crate::http::serve) fn finish(&mut self) {
        self.is_finishing = true;
    }

    /// Whether a request is being answered.
    pub(in crate::http::serve) fn is_answering(&self) -> bool {
        self.is_answering
    }

    /// Where the response is written to.
    pub(super) fn io(&mut self) -> Option<&mut IO> {
        self.io.as_mut()
    }

    /// Whether there may be another request.
    pub(super) fn keeps_alive(&self) -> bool {
        self.keeps_alive && !self.is_finishing && self.request != RequestState::Abandoned
    }

    /// A request begins.
    pub(super) fn begin(&mut self, head: &RequestHead) {
        self.is_answering = true;
        self.keeps_alive &= head.keeps_alive;
        if head.has_body() {
            self.request = RequestState::Coming;
            self.reading.begin();
        }
        if head.has_body() && head.expects_continue {
            self.ask = CONTINUE;
        }
    }

    /// A body of this length, where it is here and has not to be asked for.
    pub(super) fn take_body(&mut self, length: u64) -> Option<Bytes> {
        let length = usize::try_from(length).ok()?;
        if length > self.reading.unread.len() || !self.ask.is_empty() {
            return None;
        }
        let body = self.reading.unread.split_to(length);
        self.reading.end();
        self.request = RequestState::Over;
        Some(body)
    }

    /// The response begins: the client is not asked for its body any more. What of that is half said is to be said first.
    pub(super) fn begin_response(&mut self) -> &'static [u8] {
        match std::mem::take(&mut self.ask) {
            whole if whole.len() == CONTINUE.len() => &[],
            rest => rest,
        }
    }

    /// All of the request has been read, by whoever this wakes.
    pub(super) fn end_request(&mut self, reader: &Waker) {
        self.request = RequestState::Over;
        self.reading.end();
        // Who reads in the task that serves looks by itself.
        if let Some(server) = self.server.take()
            && !server.will_wake(reader)
        {
            server.wake();
        }
    }

    /// Nobody reads the rest of the request.
    pub(super) fn end_early(&mut self) {
        self.request = RequestState::Abandoned;
        wake(&mut self.server);
    }

    /// From now on the connection is that of another protocol.
    pub(super) fn switch(&mut self) {
        self.is_switched = true;
        wake(&mut self.switcher);
    }

    /// The connection is served no longer.
    pub(super) fn close(&mut self) {
        if !self.is_switched {
            self.io = None;
        }
        wake(&mut self.reader);
        wake(&mut self.switcher);
    }

    /// Ready once no more of the request is read.
    pub(super) fn poll_request_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.request {
            RequestState::Coming => {
                remember(&mut self.server, context);
                Poll::Pending
            }
            RequestState::Over | RequestState::Abandoned => Poll::Ready(()),
        }
    }

    /// The connection, once it is that of another protocol, and what has come of that.
    pub(super) fn poll_switched(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(IO, Bytes)>> {
        if !self.is_switched && self.io.is_some() {
            remember(&mut self.switcher, context);
            return Poll::Pending;
        }
        let io = self.io.take().ok_or(io::ErrorKind::NotConnected)?;
        Poll::Ready(Ok((io, std::mem::take(&mut self.reading.unread))))
    }
}

impl<IO: Client> Line<IO> {
    /// The head of the next request; `None` where there is none.
    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<RequestHead>, ServeError>> {
        self.is_answering = false;
        loop {
            if !self.reading.unread.is_empty() {
                if let Some(head) = self.take_head()? {
                    return Poll::Ready(Ok(Some(head)));
                }
            } else if self.is_finishing {
                return Poll::Ready(Ok(None));
            }
            let io = self.io.as_mut().ok_or(ServeError::Closed)?;
            let Poll::Ready(read) = self.reading.poll_small(context, io) else {
                return self.poll_alarm(context);
            };
            let has_begun = self.has_begun();
            match read {
                Ok(0) if has_begun => return Poll::Ready(Err(ServeError::Closed)),
                Err(error) if has_begun => return Poll::Ready(Err(ServeError::Lost(error))),
                Ok(0) | Err(_) => return Poll::Ready(Ok(None)),
                Ok(_) => {}
            }
        }
    }

    /// Whether anything has come of a head; lines without anything on them may come before (RFC 9112 §2.2).
    fn has_begun(&self) -> bool {
        let mut unread = self.reading.unread.iter();
        unread.any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    fn take_head(&mut self) -> Result<Option<RequestHead>, ServeError> {
        let Options { limits, names, .. } = self.options;
        let unread = &mut self.reading.unread;
        let head = match may_end(unread, self.looked_at) {
            true => request::take(unread, limits, names)?,
            false if unread.len() >= limits.max_bytes => return Err(limits.too_large().into()),
            false => None,
        };
        match head {
            Some(_) => {
                self.looked_at = 0;
                self.alarm = None;
                self.reading.end();
            }
            None => self.looked_at = unread.len(),
        }
        Ok(head)
    }

    /// A head that has begun has to come to its end in time.
    fn poll_alarm(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<RequestHead>, ServeError>> {
        let limit = self.options.head_timeout;
        let Some(limit) = limit.filter(|_| !self.reading.unread.is_empty()) else {
            return Poll::Pending;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(alarm.as_mut().poll(context));
        Poll::Ready(Err(ServeError::HeadTimeout))
    }

    /// Looks whether the client is still there, as long as nobody else reads.
    ///
    /// What it says beyond its request is looked at later: no more of it is read than once.
    pub(super) fn look_at_client(&mut self, context: &mut Context<'_>) -> Result<(), ServeError> {
        match self.request {
            RequestState::Abandoned => return Ok(()),
            RequestState::Coming => {
                remember(&mut self.server, context);
                return Ok(());
            }
            RequestState::Over => {}
        }
        if !self.reading.unread.is_empty() {
            return Ok(());
        }
        let io = self.io.as_mut().ok_or(ServeError::Closed)?;
        match self.reading.poll_small(context, io) {
            Poll::Ready(Ok(0)) => Err(ServeError::Closed),
            Poll::Ready(Err(error)) => Err(ServeError::Lost(error)),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Asks a client for its body that waits to be asked.
    pub(super) fn poll_ask(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.ask.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let io = self.io.as_mut().ok_or(ClientError::CutOff)?;
        while !self.ask.is_empty() {
            remember(&mut self.reader, context);
            let written = ready!(Pin::new(&mut *io).poll_write(context, self.ask))?;
            if written == 0 {
                return Poll::Ready(Err(ClientError::CutOff));
            }
            self.ask = &self.ask[written..];
        }
        // What TLS still holds goes out with what is written next.
        let _ = Pin::new(io).poll_flush(context)?;
        Poll::Ready(Ok(()))
    }

    /// Reads more of a body; 0: the connection has ended.
    pub(super) fn poll_more(
        &mut self,
        context: &mut Context<'_>,
        expected: Option<u64>,
    ) -> Poll<Result<usize, ClientError>> {
        let io = self.io.as_mut().ok_or(ClientError::CutOff)?;
        let room = (expected, self.options.max_buffer);
        let read = self.reading.poll_more(context, io, room);
        if read.is_pending() {
            remember(&mut self.reader, context);
        }
        read.map_err(ClientError::Lost)
    }
}

fn remember(waker: &mut Option<Waker>, context: &Context<'_>) {
    let is_known = waker
        .as_ref()
        .is_some_and(|waker| waker.will_wake(context.waker()));
    if !is_known {
        *waker = Some(context.waker().clone());
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
