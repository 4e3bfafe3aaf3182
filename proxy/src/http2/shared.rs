//! How large the heads and trailers of requests of HTTP/1.1 are that share a connection.
//!
//! A byte can take four where heads are compressed, and a peer ends the connection, for all, over a head that is far too large.

use http::HeaderMap;

/// The largest head of a request that is shared, and its largest trailers.
pub const MAX_HEAD: usize = 16 * 1024;
/// So much a connection that is shared takes of one head, whatever it takes of others.
pub const TAKEN: u32 = 64 * 1024;
/// What a header counts besides its name and value (RFC 9113, section 10.5.1).
const HEADER_OVERHEAD: usize = 32;

/// The size of headers as RFC 9113 counts it.
pub fn size(headers: &HeaderMap) -> usize {
    let of = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD
    };
    headers.iter().map(of).sum()
}
