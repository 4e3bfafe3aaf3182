//! Why an exchange with an upstream has failed, whatever speaks HTTP there.
//!
//! Connections of HTTP/1.1 are this crate's own; those of HTTP/2 are hyper's.

use std::io;

use super::http1::Http1Error;

/// Why there is no response, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Says our own HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] Http1Error),
    /// Says hyper.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

impl ExchangeError {
    /// Whether the connection was closed before any of the response came.
    pub fn is_closed_early(&self) -> bool {
        let error = match self {
            ExchangeError::Http1(error) => return error.is_closed_early(),
            ExchangeError::Hyper(error) => error,
        };
        let cause = std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<io::Error>())
            .or_else(|| self.http2()?.get_io())
            .map(io::Error::kind);
        let is_reset = matches!(
            cause,
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        );
        is_reset || error.is_incomplete_message() || error.is_closed()
    }

    /// Whether the peer of HTTP/2 says that it has not looked at the request: its stream is above the last that a GOAWAY
    /// names. Streams below it fail otherwise, when the connection ends.
    pub fn is_unprocessed(&self) -> bool {
        self.http2()
            .is_some_and(|error| error.is_go_away() && error.is_remote())
    }

    fn http2(&self) -> Option<&h2::Error> {
        match self {
            ExchangeError::Http1(_) => None,
            ExchangeError::Hyper(error) => http2_error(error),
        }
    }
}

/// What a failure of HTTP/2 says, where it is one.
pub fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}
