//! Why a client's connection has ended in the middle of something.

use std::{fmt, io};

use crate::http::failure::Reset;
use crate::http1::malformed::Malformed;
use crate::http1::sending::SendError;

/// What has ended a connection early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Of HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The client of HTTP/2 has not answered whether it is there.
    #[error("the client has not answered a PING in time")]
    Silent,
    /// What came is no request.
    #[error("a request is no HTTP/1.1")]
    Malformed(#[from] Malformed),
    /// The head of a request did not come to its end in time.
    #[error("the head of a request has taken longer than request_headers_timeout")]
    HeadTimeout,
    /// The client has closed the connection.
    #[error("the client has closed the connection in the middle of a message")]
    Closed,
    /// It is broken.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// There was no more of a response.
    #[error("a response ended early: {0}")]
    Response(Box<str>),
    /// A response's body ended before its length.
    #[error("a response is {missing} bytes shorter than its content-length says")]
    ShortResponse {
        /// How much was not there.
        missing: u64,
    },
}

impl ServeError {
    /// Whether the client has not kept to the protocol.
    pub(super) fn is_of_protocol(&self) -> bool {
        match self {
            ServeError::Http2(error) => Reset::of_http2(error) == Reset::Protocol,
            error => matches!(error, ServeError::Malformed(_)),
        }
    }

    /// Whether the client has taken too long to say what it asks for.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, ServeError::HeadTimeout)
    }
}

impl<E: fmt::Display> From<SendError<E>> for ServeError {
    fn from(error: SendError<E>) -> Self {
        match error {
            SendError::Lost(source) => ServeError::Lost(source),
            SendError::Body(error) => ServeError::Response(error.to_string().into()),
            SendError::Short { missing } => ServeError::ShortResponse { missing },
        }
    }
}
