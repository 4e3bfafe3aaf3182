//! Health checks by TCP: a connection, and perhaps some bytes either way.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::probe::{Place, Unwell};
use crate::cluster::health::Checked;

/// No more is read of what an endpoint says.
const MAX_BYTES: usize = 64 * 1024;

/// Connects, says something, and waits for the answer that is expected.
pub(super) async fn ask(
    place: &Place<'_>,
    send: &Bytes,
    receive: &[Bytes],
) -> Result<Checked, Unwell> {
    let mut io = place.dial(None).await?;
    if !send.is_empty() {
        io.write_all(send).await?;
        io.flush().await?;
    }
    let mut said = BytesMut::new();
    while !contains_in_order(&said, receive) {
        if said.len() >= MAX_BYTES {
            return Err(Unwell::Answer("too much, and not what is expected".into()));
        }
        if io.read_buf(&mut said).await? == 0 {
            return Err(Unwell::Answer("less than is expected, and closes".into()));
        }
    }
    Ok(Checked::Passed)
}

/// Whether all parts are there, one after the other, with anything between them.
pub(super) fn contains_in_order(bytes: &[u8], parts: &[Bytes]) -> bool {
    let mut rest = bytes;
    parts.iter().all(|part| {
        if part.is_empty() {
            return true;
        }
        match rest.windows(part.len()).position(|window| window == part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_their_order_only() {
        let parts = [Bytes::from_static(b"ab"), Bytes::from_static(b"cd")];

        assert!(contains_in_order(b"xabyycd", &parts));
        assert!(!contains_in_order(b"cdab", &parts));
        assert!(!contains_in_order(b"ab", &parts));
        assert!(contains_in_order(b"", &[]));
    }
}
