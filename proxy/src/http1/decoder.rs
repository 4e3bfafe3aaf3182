//! The body of a message, taken off what has come of it.

use bytes::Bytes;
use http::HeaderMap;

use super::chunked::Chunked;
use super::malformed::Malformed;

/// Finds a body in what comes.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes are to come.
    Length(u64),
    /// In chunks.
    Chunked(Box<Chunked>),
    /// All that comes.
    UntilClose,
}

/// What is next of a body.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// Some of it.
    Data(Bytes),
    /// It is not here yet.
    More,
    /// Nothing but trailers, if there are any.
    End(Option<HeaderMap>),
}

impl Decoder {
    /// Takes what is next off what has come. Nothing is left of it where more is needed.
    pub(crate) fn decode(&mut self, unread: &mut Bytes) -> Result<Decoded, Malformed> {
        match self {
            Decoder::Length(0) => Ok(Decoded::End(None)),
            Decoder::Chunked(chunked) => chunked.decode(unread),
            _ if unread.is_empty() => Ok(Decoded::More),
            Decoder::UntilClose => Ok(Decoded::Data(std::mem::take(unread))),
            Decoder::Length(remaining) => {
                let all = usize::try_from(*remaining).unwrap_or(usize::MAX);
                let data = unread.split_to(all.min(unread.len()));
                *remaining -= data.len() as u64;
                Ok(Decoded::Data(data))
            }
        }
    }

    /// Whether the body has ended where its connection has.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self, Decoder::UntilClose)
    }

    /// Whether nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Decoder::Length(remaining) => *remaining == 0,
            Decoder::Chunked(chunked) => chunked.is_over(),
            Decoder::UntilClose => false,
        }
    }

    /// How much is to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Decoder::Length(remaining) => Some(*remaining),
            Decoder::Chunked(_) | Decoder::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_a_known_length_is_no_longer() {
        let mut body = Decoder::Length(5);
        let mut unread = Bytes::from_static(b"abc");
        assert!(matches!(body.decode(&mut unread), Ok(Decoded::Data(data)) if data == "abc"));
        assert!(matches!(body.decode(&mut unread), Ok(Decoded::More)));
        assert!(!body.ends_with_connection());

        let mut unread = Bytes::from_static(b"defg");
        assert!(matches!(body.decode(&mut unread), Ok(Decoded::Data(data)) if data == "de"));
        assert!(body.is_over());
        assert!(matches!(body.decode(&mut unread), Ok(Decoded::End(None))));
        assert_eq!(unread, "fg");
    }

    #[test]
    fn a_body_without_a_length_ends_with_its_connection() {
        let mut body = Decoder::UntilClose;
        let mut unread = Bytes::from_static(b"abc");

        assert!(matches!(body.decode(&mut unread), Ok(Decoded::Data(data)) if data == "abc"));

        assert!(matches!(body.decode(&mut unread), Ok(Decoded::More)));
        assert!(body.ends_with_connection());
    }
}
