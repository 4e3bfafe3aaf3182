//! Why an exchange with an upstream has failed, whatever speaks HTTP there.
//!
//! Connections of HTTP/1.1 are this crate's own; the frames of HTTP/2 are the library's.

use std::io;

use super::http1::Http1Error;

/// Why there is no response, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Says our own HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] Http1Error),
    /// Says HTTP/2.
    #[error("HTTP/2")]
    Http2(#[from] h2::Error),
    /// The connection of HTTP/2 was over before the request was sent on it.
    #[error("the connection has ended")]
    Ended,
    /// The connection of HTTP/2 was given up: its peer has not answered a PING.
    #[error("the peer does not answer any more")]
    Silent,
}

impl ExchangeError {
    /// Whether the connection was closed before any of the response came.
    pub fn is_closed_early(&self) -> bool {
        match self {
            ExchangeError::Http1(error) => error.is_closed_early(),
            ExchangeError::Http2(error) => matches!(
                error.get_io().map(io::Error::kind),
                Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            ),
            ExchangeError::Ended | ExchangeError::Silent => false,
        }
    }

    /// Whether the peer of HTTP/2 says that it has not looked at the request: its stream is above the last that a GOAWAY
    /// names. Streams below it fail otherwise, when the connection ends.
    pub fn is_unprocessed(&self) -> bool {
        match self {
            ExchangeError::Http2(error) => error.is_go_away() && error.is_remote(),
            _ => false,
        }
    }
}
