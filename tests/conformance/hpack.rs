//! Header compression of HTTP/2 (RFC 7541). The encoder writes plain literals, so that a case has its very bytes;
//! the decoder reads all there is.

/// Lengths of the Huffman codes, by symbol; the last is the end. Codes follow from them: they are canonical
/// (RFC 7541, appendix B).
#[rustfmt::skip]
const CODE_LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// RFC 7541, appendix A: index 1 first.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

pub(crate) type Fields = Vec<(String, String)>;

/// Literals without indexing and without Huffman.
pub(crate) fn encode(fields: &[(String, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let bytes = crate::text::bytes(text);
            integer(&mut block, 7, bytes.len());
            block.extend(bytes);
        }
    }
    block
}

/// Appends an integer with a prefix of so many bits, whose other bits are zero.
fn integer(into: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        into.push(u8::try_from(value).unwrap());
        return;
    }
    into.push(u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        into.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    into.push(u8::try_from(rest).unwrap());
}

/// Reads header blocks of one connection, in order.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The newest first.
    dynamic: Vec<(String, String)>,
    limit: Option<usize>,
}

impl Decoder {
    /// The fields of a block, or nothing where it is none.
    pub(crate) fn decode(&mut self, mut block: &[u8]) -> Option<Fields> {
        let mut fields = Vec::new();
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = take_integer(&mut block, 7)?;
                fields.push(self.indexed(index)?);
            } else if first & 0xe0 == 0x20 {
                self.limit = Some(take_integer(&mut block, 5)?);
                self.evict();
            } else {
                let is_added = first & 0x40 != 0;
                let index = take_integer(&mut block, if is_added { 6 } else { 4 })?;
                let name = match index {
                    0 => take_text(&mut block)?,
                    index => self.indexed(index)?.0,
                };
                let field = (name, take_text(&mut block)?);
                if is_added {
                    self.dynamic.insert(0, field.clone());
                    self.evict();
                }
                fields.push(field);
            }
        }
        Some(fields)
    }

    fn indexed(&self, index: usize) -> Option<(String, String)> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some(((*name).to_owned(), (*value).to_owned())),
            None => self.dynamic.get(index - STATIC.len()).cloned(),
        }
    }

    fn evict(&mut self) {
        const DEFAULT_LIMIT: usize = 4096;
        const OVERHEAD: usize = 32;
        let mut size = 0;
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        let keep = self
            .dynamic
            .iter()
            .take_while(|(name, value)| {
                size += name.chars().count() + value.chars().count() + OVERHEAD;
                size <= limit
            })
            .count();
        self.dynamic.truncate(keep);
    }
}

fn take_integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let most = (1usize << bits) - 1;
    let (first, mut rest) = block.split_first()?;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (next, after) = rest.split_first()?;
            value = value.checked_add(usize::from(next & 127).checked_shl(shift)?)?;
            rest = after;
            shift += 7;
            if next & 128 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Some(value)
}

fn take_text(block: &mut &[u8]) -> Option<String> {
    let is_coded = block.first()? & 0x80 != 0;
    let length = take_integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length)?;
    *block = rest;
    let bytes = match is_coded {
        true => decode_huffman(bytes)?,
        false => bytes.to_vec(),
    };
    Some(bytes.into_iter().map(char::from).collect())
}

/// Symbols in order of their codes, with the lengths of these.
fn codes() -> Vec<(u8, u32, usize)> {
    let mut symbols: Vec<(u8, usize)> = CODE_LENGTHS
        .iter()
        .enumerate()
        .map(|(symbol, length)| (*length, symbol))
        .collect();
    symbols.sort_unstable();
    let mut code = 0u32;
    let mut before = 0;
    symbols
        .into_iter()
        .map(|(length, symbol)| {
            code <<= length - before;
            before = length;
            let own = code;
            code = code.wrapping_add(1);
            (length, own, symbol)
        })
        .collect()
}

fn decode_huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let codes = codes();
    let mut decoded = Vec::new();
    let (mut code, mut length) = (0u32, 0u8);
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
    {
        code = code << 1 | u32::from(bit);
        length += 1;
        let found =
            codes.binary_search_by(|(of_length, own, _)| (*of_length, *own).cmp(&(length, code)));
        if let Ok(at) = found {
            decoded.push(u8::try_from(codes[at].2).ok()?);
            (code, length) = (0, 0);
        } else if length > 30 {
            return None;
        }
    }
    Some(decoded)
}
