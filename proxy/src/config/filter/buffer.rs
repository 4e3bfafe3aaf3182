//! Requests that are sent on only when they are whole.

/// How much is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferConfig {
    /// Bytes of a request's body; a larger one is refused.
    pub max_request_bytes: usize,
}
