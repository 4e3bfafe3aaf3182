//! Encoders and decoders of content codings, fed piece by piece.

use std::io::{self, Write};

use super::Compressed;
use crate::config::filter::compression::Coding;

/// Pieces that a decoder is fed at a time.
const PIECE: usize = 1024;
/// What brotli buffers.
const BROTLI_BUFFER: usize = 4096;
/// No ratio is too large for so few bytes.
const ALWAYS_ALLOWED: u64 = 64 * 1024;

/// Something that changes bytes.
pub(super) trait Codec: Send {
    /// Changes some; what is not changed yet stays in `input`. Bounded in what it makes.
    fn change(&mut self, input: &mut &[u8]) -> io::Result<Vec<u8>>;
    /// What is left when all have been changed.
    fn finish(&mut self) -> io::Result<Vec<u8>>;
}

enum Writer {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// It could not be made.
    Broken,
}

/// Compresses; each piece that is given comes out at once.
pub(super) struct Encoder {
    writer: Writer,
    stats: Compressed,
}

impl Encoder {
    pub(super) fn new(coding: Coding, stats: Compressed) -> Self {
        let writer = match coding {
            Coding::Gzip(level) => {
                let level = flate2::Compression::new(level);
                Writer::Gzip(flate2::write::GzEncoder::new(vec![], level))
            }
            Coding::Brotli(quality, window) => {
                let writer = brotli::CompressorWriter::new(vec![], BROTLI_BUFFER, quality, window);
                Writer::Brotli(Box::new(writer))
            }
            Coding::Zstd(level) => match zstd::stream::write::Encoder::new(vec![], level) {
                Ok(encoder) => Writer::Zstd(encoder),
                Err(_) => Writer::Broken,
            },
        };
        Encoder { writer, stats }
    }

    fn counted(&self, made: Vec<u8>) -> Vec<u8> {
        self.stats.total_compressed_bytes.add(made.len() as u64);
        made
    }
}

impl Codec for Encoder {
    fn change(&mut self, input: &mut &[u8]) -> io::Result<Vec<u8>> {
        let all = std::mem::take(input);
        self.stats.total_uncompressed_bytes.add(all.len() as u64);
        let made = match &mut self.writer {
            Writer::Gzip(writer) => {
                writer.write_all(all)?;
                writer.flush()?;
                std::mem::take(writer.get_mut())
            }
            Writer::Brotli(writer) => {
                writer.write_all(all)?;
                writer.flush()?;
                std::mem::take(writer.get_mut())
            }
            Writer::Zstd(writer) => {
                writer.write_all(all)?;
                writer.flush()?;
                std::mem::take(writer.get_mut())
            }
            Writer::Broken => return Err(io::ErrorKind::OutOfMemory.into()),
        };
        Ok(self.counted(made))
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        let made = match std::mem::replace(&mut self.writer, Writer::Broken) {
            Writer::Gzip(writer) => writer.finish()?,
            Writer::Brotli(writer) => writer.into_inner(),
            Writer::Zstd(writer) => writer.finish()?,
            Writer::Broken => return Err(io::ErrorKind::OutOfMemory.into()),
        };
        Ok(self.counted(made))
    }
}

enum Reader {
    Gzip(Box<flate2::write::MultiGzDecoder<Room>>),
    Brotli(Box<brotli::DecompressorWriter<Room>>),
    Zstd(zstd::stream::write::Decoder<'static, Room>),
    /// It could not be made.
    Broken,
}

/// Where a decoder writes to: no more than is allowed, however much it has to say. Of a few bytes brotli alone can
/// make megabytes.
#[derive(Debug, Default)]
struct Room {
    made: Vec<u8>,
    left: u64,
}

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("it becomes too large"))?;
        self.made.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decompresses, up to a ratio.
pub(super) struct Decoder {
    reader: Reader,
    max_ratio: u64,
    read: u64,
    made: u64,
}

impl Decoder {
    pub(super) fn new(coding: Coding, max_ratio: u64) -> Self {
        let room = Room::default();
        let reader = match coding {
            Coding::Gzip(_) => Reader::Gzip(Box::new(flate2::write::MultiGzDecoder::new(room))),
            Coding::Brotli(..) => {
                let reader = brotli::DecompressorWriter::new(room, BROTLI_BUFFER);
                Reader::Brotli(Box::new(reader))
            }
            Coding::Zstd(_) => match zstd::stream::write::Decoder::new(room) {
                Ok(decoder) => Reader::Zstd(decoder),
                Err(_) => Reader::Broken,
            },
        };
        Decoder {
            reader,
            max_ratio,
            read: 0,
            made: 0,
        }
    }

    fn room(&mut self) -> io::Result<&mut Room> {
        match &mut self.reader {
            Reader::Gzip(reader) => Ok(reader.get_mut()),
            Reader::Brotli(reader) => Ok(reader.get_mut()),
            Reader::Zstd(reader) => Ok(reader.get_mut()),
            Reader::Broken => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Does something that writes, within what is allowed, and takes what was written.
    fn within(
        &mut self,
        write: fn(&mut dyn Write, &[u8]) -> io::Result<()>,
        piece: &[u8],
    ) -> io::Result<Vec<u8>> {
        let allowed = self.read.saturating_mul(self.max_ratio).max(ALWAYS_ALLOWED);
        self.room()?.left = allowed.saturating_sub(self.made);
        match &mut self.reader {
            Reader::Gzip(reader) => write(reader, piece)?,
            Reader::Brotli(reader) => write(reader, piece)?,
            Reader::Zstd(reader) => write(reader, piece)?,
            Reader::Broken => {}
        }
        let made = std::mem::take(&mut self.room()?.made);
        self.made += made.len() as u64;
        Ok(made)
    }
}

impl Codec for Decoder {
    fn change(&mut self, input: &mut &[u8]) -> io::Result<Vec<u8>> {
        let (piece, rest) = input.split_at(input.len().min(PIECE));
        *input = rest;
        self.read += piece.len() as u64;
        self.within(
            |writer, piece| {
                writer.write_all(piece)?;
                writer.flush()
            },
            piece,
        )
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.reader {
            Reader::Gzip(reader) => reader.try_finish()?,
            Reader::Brotli(reader) => reader.close()?,
            Reader::Zstd(reader) => reader.flush()?,
            Reader::Broken => {}
        }
        self.within(|_, _| Ok(()), &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::counters::Counters;

    const CODINGS: [Coding; 3] = [Coding::Gzip(6), Coding::Brotli(4, 18), Coding::Zstd(3)];

    fn all(codec: &mut impl Codec, mut input: &[u8]) -> io::Result<Vec<u8>> {
        let mut made = vec![];
        while !input.is_empty() {
            made.extend(codec.change(&mut input)?);
        }
        made.extend(codec.finish()?);
        Ok(made)
    }

    fn encoder(coding: Coding) -> Encoder {
        Encoder::new(coding, Compressed::new(&Counters::default(), "c."))
    }

    #[test]
    fn what_is_compressed_can_be_had_back() {
        let text = "all work and no play makes the proxy a dull box ".repeat(500);
        for coding in CODINGS {
            let packed = all(&mut encoder(coding), text.as_bytes()).expect("compressed");
            let back = all(&mut Decoder::new(coding, 1000), &packed).expect("decompressed");

            assert!(packed.len() < text.len() / 10, "{coding:?}");
            assert_eq!(back, text.as_bytes(), "{coding:?}");
        }
    }

    #[test]
    fn a_piece_comes_out_at_once() {
        for coding in CODINGS {
            let packed = encoder(coding)
                .change(&mut &b"hello"[..])
                .expect("compressed");
            let made = Decoder::new(coding, 1000)
                .change(&mut &packed[..])
                .expect("decompressed");

            assert_eq!(made, b"hello", "{coding:?}");
        }
    }

    #[test]
    fn what_becomes_too_large_is_an_error() {
        let zeros = vec![0; 8 * 1024 * 1024];
        for coding in CODINGS {
            let packed = all(&mut encoder(coding), &zeros).expect("compressed");

            let unpacked = all(&mut Decoder::new(coding, 100), &packed);

            assert!(unpacked.is_err(), "{coding:?}");
        }
    }

    #[test]
    fn no_more_is_made_than_is_allowed_even_of_one_piece() {
        let zeros = vec![0; 64 * 1024 * 1024];
        for coding in CODINGS {
            let packed = all(&mut encoder(coding), &zeros).expect("compressed");
            let mut decoder = Decoder::new(coding, 100);

            assert!(all(&mut decoder, &packed).is_err(), "{coding:?}");

            let held = decoder.room().expect("a room").made.capacity() as u64;
            let allowed = (decoder.read * 100).max(ALWAYS_ALLOWED);
            assert!(held <= 2 * allowed, "{coding:?}: {held} of {allowed}");
        }
    }

    #[test]
    fn what_is_not_compressed_is_an_error_and_no_panic() {
        for coding in CODINGS {
            let garbage: Vec<u8> = (0..5000_u32).map(|n| (n * 31 % 251) as u8).collect();

            assert!(
                all(&mut Decoder::new(coding, 100), &garbage).is_err(),
                "{coding:?}"
            );
        }
    }
}
