//! Recognises how an archive is compressed by its first bytes, whatever its media type says.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// The largest window that a zstd frame may ask memory for: 2^27 bytes, what `zstd -d` allows.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The plain bytes of `source`, which is gzip, zstd or not compressed.
pub(super) fn decompress<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(6);
    source.by_ref().take(6).read_to_end(&mut magic)?;
    let format = Format::of(&magic);
    let whole = Cursor::new(magic).chain(source);
    match format {
        Format::Plain => Ok(Box::new(whole)),
        Format::Gzip => Ok(Box::new(MultiGzDecoder::new(whole))),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Ok(Box::new(decoder))
        }
        Format::Unsupported(name) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{name} compression is not supported; use gzip, zstd or none"),
        )),
    }
}

enum Format {
    Plain,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Format {
    fn of(magic: &[u8]) -> Format {
        match magic {
            [0x1f, 0x8b, ..] => Format::Gzip,
            // A frame, or a skippable frame before it (RFC 8878 §3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
            [b'B', b'Z', b'h', ..] => Format::Unsupported("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Format::Unsupported("xz"),
            _ => Format::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"some content").unwrap();

        assert_eq!(plain(b"some content").unwrap(), b"some content");
        assert_eq!(plain(&gzip.finish().unwrap()).unwrap(), b"some content");
        let zstd = zstd::encode_all(&b"some content"[..], 1).unwrap();
        assert_eq!(plain(&zstd).unwrap(), b"some content");
        assert_eq!(plain(b"").unwrap(), b"");
    }

    #[test]
    fn compression_that_is_not_supported_is_named() {
        let error = plain(b"BZh91AY").unwrap_err();
        assert!(error.to_string().contains("bzip2"), "{error}");
    }

    #[test]
    fn a_damaged_stream_is_an_error() {
        assert!(plain(&[0x1f, 0x8b, 1, 2, 3]).is_err());
        assert!(plain(&[0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff]).is_err());
    }
}
