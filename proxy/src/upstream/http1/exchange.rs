//! One request on a connection, until the head of its response is here.
//!
//! Request and response are both driven: a response may come while the request is still being written, and a client
//! that expects to be asked for its body is asked by the upstream.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{HeaderMap, Request, StatusCode};

use super::Options;
use super::error::Http1Error;
use super::head::{self, ResponseHead};
use super::line::Line;
use super::request as outgoing;
use crate::http1::head::{may_end, names};
use crate::http1::maps;
use crate::http1::sending::Sending;
use crate::present;
use crate::upstream::body::RequestBody;
use crate::upstream::lease::Wanted;

/// Told of informational responses, where it is among a request's extensions.
#[derive(Clone)]
pub struct OnInformational(pub Arc<dyn Fn(StatusCode) + Send + Sync>);

impl fmt::Debug for OnInformational {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("OnInformational")
            .finish_non_exhaustive()
    }
}

/// A request that is being sent, and its response as far as it has come.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    /// Whose body is being sent.
    request: &'a mut Request<RequestBody>,
    wanted: Wanted,
    /// `None`: it was written, or cannot be.
    pub(super) sending: Option<Sending<RequestBody>>,
    /// Why the request cannot be written: the response may be here all the same.
    not_written: Option<Http1Error>,
    /// For the response: once any of it has come its headers take the place of the request's, unless those are wanted
    /// again.
    headers: Option<HeaderMap>,
    /// A head that came together with an informational one.
    held_back: Option<ResponseHead>,
    /// How much of the head had come when it was last looked at.
    looked_at: usize,
    has_begun: bool,
    /// Whether an informational response has been told of since this was last polled.
    has_told: bool,
}

/// An exchange that has failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Http1Error,
    /// Whether not a byte of the request was written: then it has its body again.
    pub(super) is_unsent: bool,
}

impl<'a> Exchange<'a> {
    /// Begins it on a connection that is free.
    pub(super) fn begin(
        request: &'a mut Request<RequestBody>,
        wanted: Wanted,
        line: &mut Line,
    ) -> Self {
        let body = std::mem::take(request.body_mut());
        let framing = outgoing::frame(request, &body);
        let head = outgoing::head(request, line.options.names);
        line.begin();
        if present::has(request.headers(), &CONNECTION) {
            let mut connection = request.headers().get_all(CONNECTION).iter();
            if connection.any(|list| names(list, "close")) {
                line.wear_out();
            }
        }
        Exchange {
            request,
            wanted,
            sending: Some(Sending::again(head, framing, body)),
            not_written: None,
            headers: None,
            held_back: None,
            looked_at: 0,
            has_begun: false,
            has_told: false,
        }
    }

    /// What the request's method is.
    pub(super) fn method(&self) -> &http::Method {
        self.request.method()
    }

    /// Goes on until the head of the response is here.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        line: &mut Line,
    ) -> Poll<Result<ResponseHead, Http1Error>> {
        self.poll_send(context, line)?;
        if let Some(head) = self.held_back.take() {
            return Poll::Ready(Ok(head));
        }
        self.has_told = false;
        loop {
            if !line.reading.unread.is_empty()
                && let Some(head) = self.take_head(line)?
            {
                if !self.has_told || self.sending.is_none() {
                    return Poll::Ready(Ok(head));
                }
                // The client is asked for its body before it is answered: the response waits for one turn of its
                // connection.
                self.poll_send(context, line)?;
                self.held_back = Some(head);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match line.poll_more(context, None) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.ended())),
                Poll::Ready(Ok(_)) => self.has_begun = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.lost(error))),
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, line: &mut Line) -> Result<(), Http1Error> {
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        let Poll::Ready(sent) = sending.poll(context, line.io()?) else {
            return Ok(());
        };
        match sent.map_err(Http1Error::from) {
            Ok(()) => {
                self.sending = None;
                line.end_writing();
                Ok(())
            }
            Err(error @ Http1Error::Lost { .. }) if sending.has_written() => {
                // Who answers early may not read on: the answer counts.
                self.sending = None;
                line.wear_out();
                self.not_written = Some(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether any of the request was written, or cannot be told from that.
    fn has_written(&self) -> bool {
        self.sending
            .as_ref()
            .is_none_or(|sending| sending.has_written())
    }

    /// A map for the headers of the response. Once anything is written and answered most requests are not wanted again:
    /// the memory of their headers is used.
    fn headers(&mut self) -> &mut HeaderMap {
        let of_request = self.wanted == Wanted::Once && self.has_written();
        let request = &mut *self.request;
        self.headers.get_or_insert_with(|| match of_request {
            true => {
                let mut headers = std::mem::take(request.headers_mut());
                headers.clear();
                headers
            }
            false => maps::take(),
        })
    }

    /// The head of the response, where it is whole; those of informational ones are told.
    fn take_head(&mut self, line: &mut Line) -> Result<Option<ResponseHead>, Http1Error> {
        let Options { limits, names, .. } = line.options;
        loop {
            if !may_end(&line.reading.unread, self.looked_at) {
                self.looked_at = line.reading.unread.len();
                return match self.looked_at >= limits.max_bytes {
                    true => Err(limits.too_large().into()),
                    false => Ok(None),
                };
            }
            let headers = self.headers();
            let Some(head) = head::take(&mut line.reading.unread, headers, limits, names)? else {
                self.looked_at = line.reading.unread.len();
                return Ok(None);
            };
            self.looked_at = 0;
            let status = head.response.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(head));
            }
            if let Some(told) = self.request.extensions().get::<OnInformational>() {
                (told.0)(status);
                self.has_told = true;
            }
            if line.reading.unread.is_empty() {
                return Ok(None);
            }
        }
    }

    fn ended(&mut self) -> Http1Error {
        match self.has_begun {
            true => Http1Error::CutOff,
            false => self.not_written.take().unwrap_or(Http1Error::Closed),
        }
    }

    fn lost(&self, error: Http1Error) -> Http1Error {
        match error {
            Http1Error::Lost { source, .. } => Http1Error::Lost {
                has_begun: self.has_begun,
                source,
            },
            error => error,
        }
    }

    /// The request gets its body back where not a byte was written.
    pub(super) fn failed(self, error: Http1Error) -> Failed {
        let is_lost = matches!(error, Http1Error::Lost { .. });
        let unsent = self
            .sending
            .filter(|sending| is_lost && !sending.has_written());
        let is_unsent = unsent.is_some();
        if let Some(sending) = unsent {
            *self.request.body_mut() = unwritten(sending);
        }
        Failed { error, is_unsent }
    }
}

/// The body as it was, where nothing was written.
fn unwritten(sending: Sending<RequestBody>) -> RequestBody {
    let (first, rest) = sending.into_unsent();
    let rest = rest.unwrap_or(RequestBody::Empty);
    match first {
        Some(first) => RequestBody::Begun {
            first: Some(first),
            rest: Box::new(rest),
        },
        None => rest,
    }
}
