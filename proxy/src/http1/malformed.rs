//! What can be wrong with a message of HTTP/1.1, whoever sends it.

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its head cannot be read.
    #[error("its head cannot be read: {0}")]
    Head(httparse::Error),
    /// Its head is larger than is allowed.
    #[error("its head has more than {max_bytes} bytes")]
    LargeHead {
        /// The limit.
        max_bytes: usize,
    },
    /// It has more headers than are allowed.
    #[error("it has more than {max_headers} headers")]
    ManyHeaders {
        /// The limit.
        max_headers: usize,
    },
    /// It is the beginning of HTTP/2.
    #[error("it is HTTP/2")]
    Http2,
    /// Its method is none.
    #[error("its method cannot be read")]
    Method,
    /// Its target is none.
    #[error("its target cannot be read")]
    Target,
    /// Its target is longer than any may be.
    #[error("its target is too long")]
    LongTarget,
    /// Its status is none.
    #[error("its status is below 100")]
    Status,
    /// Its length is none, or it has several.
    #[error("its content-length is no single number")]
    Length,
    /// Where its body ends cannot be told from its transfer-encoding, or HTTP/1.0 knows none.
    #[error("its transfer-encoding does not tell where it ends, or is of HTTP/1.0")]
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
