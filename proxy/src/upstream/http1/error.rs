//! What can go wrong with a request on a connection of HTTP/1.1.

use std::io;

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

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its head cannot be read.
    #[error("its head cannot be read: {0}")]
    Head(httparse::Error),
    /// Its head is larger than is allowed.
    #[error("its head has more than {max_bytes} bytes")]
    LargeHead {
        /// The cluster's limit.
        max_bytes: usize,
    },
    /// It has more headers than are allowed.
    #[error("it has more than {max_headers} headers")]
    ManyHeaders {
        /// The cluster's limit.
        max_headers: usize,
    },
    /// Its status is none.
    #[error("its status is below 100")]
    Status,
    /// Its length is none, or it has several.
    #[error("its content-length is no single number")]
    Length,
    /// HTTP/1.0 knows no transfer-encoding.
    #[error("it is of HTTP/1.0 and has a transfer-encoding")]
    Coding,
    /// The line before a chunk is none.
    #[error("a chunk's size cannot be read")]
    ChunkSize,
    /// Extensions of chunks are not of a bounded length, or not of one line.
    #[error("the extensions of its chunks cannot be read")]
    ChunkExtension,
    /// A chunk is not followed by the end of a line.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// Its trailers are none, or too many.
    #[error("its trailers cannot be read")]
    Trailers,
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
