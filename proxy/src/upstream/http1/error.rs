//! What can go wrong with a request on a connection of HTTP/1.1.

use std::io;

use crate::http1::malformed::Malformed;
use crate::http1::sending::SendError;
use crate::upstream::body::BodyError;

/// Why there is no response, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// The peer has ended the connection before any of the response.
    #[error("the connection was closed before the response")]
    Closed,
    /// The peer has ended it within the response.
    #[error("the connection was closed before the end of the response")]
    CutOff,
    /// It is broken.
    #[error("the connection was lost")]
    Lost {
        /// Whether any of the response had come.
        has_begun: bool,
        /// Why.
        source: io::Error,
    },
    /// What came is no response.
    #[error("the response is no HTTP/1.1")]
    Malformed(#[from] Malformed),
    /// The request could not be sent to its end.
    #[error("the request body failed")]
    RequestBody(#[source] BodyError),
    /// The request's body ended before its length.
    #[error("the request body is {missing} bytes shorter than its content-length says")]
    ShortBody {
        /// How much was not there.
        missing: u64,
    },
    /// The connection is not there any more, as another has taken it.
    #[error("the connection is in other hands")]
    Taken,
}

impl From<SendError<BodyError>> for Http1Error {
    fn from(error: SendError<BodyError>) -> Self {
        match error {
            SendError::Lost(source) => Http1Error::Lost {
                has_begun: false,
                source,
            },
            SendError::Body(error) => Http1Error::RequestBody(error),
            SendError::Short { missing } => Http1Error::ShortBody { missing },
        }
    }
}

impl Http1Error {
    /// Whether the connection was closed before any of the response came.
    pub fn is_closed_early(&self) -> bool {
        match self {
            Http1Error::Closed => true,
            Http1Error::Lost {
                has_begun: false,
                source,
            } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }
}
