//! Headers of the PROXY protocol.

use crate::proxy_protocol::{Beginning, Header, decode, encode};

/// What is decided of the first bytes stays decided when more come, and what is read is what is written.
pub(super) fn run(bytes: &[u8]) {
    let whole = decode(bytes);
    for end in 0..bytes.len().min(256) {
        match decode(&bytes[..end]) {
            Ok(Beginning::Undecided) => {}
            decided => return assert_eq!(decided, whole, "after {end} bytes"),
        }
    }
    if let Ok(Beginning::Header(header)) = whole {
        check(bytes, &header);
    }
}

fn check(bytes: &[u8], header: &Header) {
    assert!(header.length <= bytes.len());
    let Some(endpoints) = header.endpoints else {
        return;
    };
    let written = encode(header.version, &endpoints);
    let expected = Header {
        length: written.len(),
        version: header.version,
        endpoints: Some(endpoints),
    };
    assert_eq!(decode(&written), Ok(Beginning::Header(expected)));
}
