//! Bodies in chunks (RFC 9112 §7.1), taken apart as they come in.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::decoder::Decoded;
use super::head::HeadLimits;
use super::malformed::Malformed;

/// Takes a body of chunks apart, whatever pieces it comes in.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// What is to come of the chunk.
    remaining: u64,
    /// How much of extensions has been passed over, in all.
    extension_bytes: usize,
    trailers: Vec<u8>,
    trailer_count: usize,
    limits: HeadLimits,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    Start,
    Size,
    /// Blanks after a size.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The end, or a trailer.
    Last,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// Extensions say nothing to us: no more of them is passed over in a body.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// What follows the last chunk where there are no trailers.
const PLAIN_END: &[u8] = b"\r\n0\r\n\r\n";

impl Chunked {
    /// Trailers are bounded as headers are.
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Chunked {
            state: State::Start,
            remaining: 0,
            extension_bytes: 0,
            trailers: vec![],
            trailer_count: 0,
            limits,
        }
    }

    /// What is next of the body. Nothing is left of the bytes where more are needed.
    pub(crate) fn decode(&mut self, unread: &mut Bytes) -> Result<Decoded, Malformed> {
        loop {
            match self.state {
                State::Data => return Ok(self.data(unread)),
                // What follows is no part of it.
                State::End => return Ok(Decoded::End(self.trailers()?)),
                _ if unread.is_empty() => return Ok(Decoded::More),
                _ => self.framing(unread)?,
            }
        }
    }

    /// What is between data, as far as it is here.
    fn framing(&mut self, unread: &mut Bytes) -> Result<(), Malformed> {
        let mut used = 0;
        for byte in unread.iter() {
            self.state = self.step(*byte)?;
            used += 1;
            if matches!(self.state, State::Data | State::End) {
                break;
            }
        }
        unread.advance(used);
        Ok(())
    }

    /// Whether nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::End
    }

    fn data(&mut self, unread: &mut Bytes) -> Decoded {
        if unread.is_empty() {
            return Decoded::More;
        }
        let here =
            usize::try_from(self.remaining).map_or(unread.len(), |all| all.min(unread.len()));
        let data = unread.split_to(here);
        self.remaining -= here as u64;
        if self.remaining == 0 {
            self.state = State::DataCr;
            // Where the end is here already, whoever gets the data need not ask again.
            if unread.starts_with(PLAIN_END) {
                unread.advance(PLAIN_END.len());
                self.state = State::End;
            }
        }
        Decoded::Data(data)
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Start, byte) => self.digit(byte)?,
            (State::Size | State::Blank, b'\t' | b' ') => State::Blank,
            (State::Size | State::Blank, b';') => State::Extension,
            (State::Size | State::Blank | State::Extension, b'\r') => State::SizeLf,
            (State::Size, byte) => self.digit(byte)?,
            (State::Extension, byte) => self.extension(byte)?,
            (State::SizeLf, b'\n') if self.remaining == 0 => State::Last,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::Last, b'\r') => self.trailer(byte, State::EndLf)?,
            (State::Trailer, b'\r') => self.trailer(byte, State::TrailerLf)?,
            (State::Last | State::Trailer, _) => self.trailer(byte, State::Trailer)?,
            (State::TrailerLf, b'\n') => self.trailer_end(byte)?,
            (State::EndLf, b'\n') => self.trailer(byte, State::End)?,
            (State::Blank | State::SizeLf, _) => return Err(Malformed::ChunkSize),
            (State::DataCr | State::DataLf, _) => return Err(Malformed::ChunkEnd),
            (State::TrailerLf | State::EndLf, _) => return Err(Malformed::Trailers),
            (State::Data | State::End, _) => self.state,
        })
    }

    fn digit(&mut self, byte: u8) -> Result<State, Malformed> {
        let digit = char::from(byte).to_digit(16).ok_or(Malformed::ChunkSize)?;
        let size = self.remaining.checked_mul(16);
        let size = size.and_then(|size| size.checked_add(u64::from(digit)));
        self.remaining = size.ok_or(Malformed::ChunkSize)?;
        Ok(State::Size)
    }

    /// A line feed alone would end a line for a lenient reader.
    fn extension(&mut self, byte: u8) -> Result<State, Malformed> {
        self.extension_bytes += 1;
        if byte == b'\n' || self.extension_bytes >= MAX_EXTENSION_BYTES {
            return Err(Malformed::ChunkExtension);
        }
        Ok(State::Extension)
    }

    /// Keeps a byte of the trailers; of the end too, as far as there are any.
    fn trailer(&mut self, byte: u8, next: State) -> Result<State, Malformed> {
        if next == State::Trailer || !self.trailers.is_empty() {
            self.trailers.push(byte);
        }
        match self.trailers.len() >= self.limits.max_bytes {
            true => Err(Malformed::Trailers),
            false => Ok(next),
        }
    }

    fn trailer_end(&mut self, byte: u8) -> Result<State, Malformed> {
        if self.trailer_count >= self.limits.max_headers {
            return Err(Malformed::Trailers);
        }
        self.trailer_count += 1;
        self.trailer(byte, State::Last)
    }

    fn trailers(&mut self) -> Result<Option<HeaderMap>, Malformed> {
        if self.trailers.is_empty() {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.trailers);
        let mut slots = vec![httparse::EMPTY_HEADER; self.trailer_count];
        let parsed = httparse::parse_headers(&bytes, &mut slots);
        let Ok(httparse::Status::Complete((_, parsed))) = parsed else {
            return Err(Malformed::Trailers);
        };
        let mut trailers = HeaderMap::with_capacity(parsed.len());
        for each in parsed {
            let name = HeaderName::from_bytes(each.name.as_bytes());
            let value = HeaderValue::from_bytes(each.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Malformed::Trailers);
            };
            trailers.append(name, value);
        }
        Ok(Some(trailers))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        max_headers: 3,
        max_bytes: 128,
    };

    /// What a body comes to, and its trailers.
    type Whole = (Vec<u8>, Option<HeaderMap>);

    /// What a body comes to that comes in these pieces; `None`: it is not over.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Whole>, Malformed> {
        let mut body = Chunked::new(LIMITS);
        let mut whole = vec![];
        for piece in pieces {
            let mut unread = Bytes::copy_from_slice(piece);
            loop {
                match body.decode(&mut unread)? {
                    Decoded::Data(data) => {
                        assert!(!data.is_empty());
                        whole.extend_from_slice(&data);
                    }
                    Decoded::More => break,
                    Decoded::End(trailers) => return Ok(Some((whole, trailers))),
                }
            }
            assert!(unread.is_empty());
        }
        Ok(None)
    }

    fn whole(text: &str) -> Result<Option<Whole>, Malformed> {
        read([text.as_bytes()])
    }

    fn plain(text: &str) -> Option<String> {
        let (body, trailers) = whole(text).expect("well formed")?;
        assert!(trailers.is_none());
        Some(String::from_utf8(body).expect("text"))
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(plain("0\r\n\r\n").as_deref(), Some(""));
        assert_eq!(
            plain("3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0 \t\r\n\r\n").as_deref(),
            Some("abc0123456789")
        );
    }

    #[test]
    fn a_body_that_is_not_whole_is_not_over() {
        let text = "3\r\nabc\r\n0\r\n\r\n";
        for end in 0..text.len() {
            assert!(whole(&text[..end]).expect("so far").is_none(), "{end}");
        }
    }

    #[test]
    fn any_pieces_make_the_same_body() {
        let text = b"3;a\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\nc: d\r\n\r\n";
        let mut random = SmallRng::seed_from_u64(7);
        let one = text.chunks(1);
        assert_eq!(read(one), read([&text[..]]));
        for _ in 0..500 {
            let mut pieces = vec![];
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.random_range(1..=rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let (body, trailers) = read(pieces).expect("well formed").expect("whole");
            assert_eq!(body, b"abc0123456789abcdef");
            let trailers = trailers.expect("two");
            assert_eq!(
                (&trailers["a"], &trailers["c"]),
                (&"b".parse().unwrap(), &"d".parse().unwrap())
            );
        }
    }

    #[test]
    fn the_end_is_known_with_the_last_data_where_it_is_here() {
        let mut body = Chunked::new(LIMITS);
        let mut unread = Bytes::from_static(b"3\r\nabc\r\n0\r\n\r\nHTTP");

        assert!(matches!(body.decode(&mut unread), Ok(Decoded::Data(data)) if data == "abc"));

        assert!(body.is_over());
        assert_eq!(unread, "HTTP");
    }

    #[test]
    fn what_follows_the_end_is_left_where_it_is() {
        let mut body = Chunked::new(LIMITS);
        let mut unread = Bytes::from_static(b"3\r\nabc\r\n0\r\n\r\nHTTP");

        assert!(matches!(body.decode(&mut unread), Ok(Decoded::Data(data)) if data == "abc"));
        for _ in 0..2 {
            assert!(matches!(body.decode(&mut unread), Ok(Decoded::End(None))));
            assert_eq!(unread, "HTTP");
        }
    }

    #[test]
    fn what_two_readers_could_see_differently_is_refused() {
        for text in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\na\r\n",
            "1\na\r\n",
            "1\ra\r\n",
            "1 1\r\na\r\n",
            "1;a\nb\r\n",
            "10000000000000000\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r",
            "0\r\n\rx",
            "0\r\na: b\rc: d\r\n\r\n",
            "0\r\n b\r\n\r\n",
            "0\r\na\r\n\r\n",
            "0\r\na: 1\r\na: 2\r\na: 3\r\na: 4\r\n\r\n",
        ] {
            assert!(whole(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = "x".repeat(MAX_EXTENSION_BYTES);
        assert_eq!(whole(&format!("1;{long}")), Err(Malformed::ChunkExtension));
        // In all chunks together.
        let half = "x".repeat(MAX_EXTENSION_BYTES / 2);
        let twice = format!("1;{half}\r\na\r\n1;{half}\r\na\r\n");
        assert_eq!(whole(&twice), Err(Malformed::ChunkExtension));
        let trailer = format!("0\r\na: {}", "x".repeat(LIMITS.max_bytes));
        assert_eq!(whole(&trailer), Err(Malformed::Trailers));
    }
}
