//! Compression of files, by the stream: what is written is bounded in memory whatever its length.
//!
//! Each format is one that a usual tool reads: `zstd -d`, `lz4 -d`, `gzip -d`.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use serde::{Deserialize, Serialize};

use crate::options::Choice;

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard frames.
    #[default]
    Zstd,
    /// LZ4 frames.
    Lz4,
    /// Gzip members.
    Gzip,
}

impl Choice for Compression {
    const WORDS: &'static [(&'static str, Self)] =
        &[("zstd", Self::Zstd), ("lz4", Self::Lz4), ("gzip", Self::Gzip), ("none", Self::None)];
}

impl Compression {
    /// What a file's name ends with, the dot included.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
            Self::Gzip => ".gz",
        }
    }

    /// The levels that can be asked for, and the one that is taken otherwise; none when there are no levels.
    pub const fn levels(self) -> Option<(i32, i32, i32)> {
        match self {
            Self::None | Self::Lz4 => None,
            Self::Zstd => Some((-7, 1, 19)),
            Self::Gzip => Some((1, 6, 9)),
        }
    }

    /// Compresses into `inner`, at `level` or the usual one.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub fn encoder<W: Write>(self, inner: W, level: Option<i32>) -> io::Result<Encoder<W>> {
        let level = level.or(self.levels().map(|(_, usual, _)| usual)).unwrap_or_default();
        Ok(match self {
            Self::None => Encoder::None(inner),
            Self::Zstd => Encoder::Zstd(zstd_encoder(inner, level)?),
            Self::Lz4 => {
                let info = FrameInfo::new().block_size(BlockSize::Max256KB).content_checksum(true);
                Encoder::Lz4(Box::new(FrameEncoder::with_frame_info(info, inner)))
            }
            Self::Gzip => {
                Encoder::Gzip(GzEncoder::new(inner, flate2::Compression::new(level.unsigned_abs())))
            }
        })
    }

    /// Decompresses `inner`. A file that ends too early is an error of kind `UnexpectedEof`, not an end.
    ///
    /// # Errors
    /// When the decompressor cannot be set up.
    pub fn decoder<R: Read>(self, inner: R) -> io::Result<Decoder<R>> {
        Ok(match self {
            Self::None => Decoder::None(inner),
            Self::Zstd => Decoder::Zstd(Box::new(zstd::Decoder::new(inner)?)),
            Self::Lz4 => Decoder::Lz4(Box::new(FrameDecoder::new(inner))),
            Self::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(inner))),
        })
    }
}

fn zstd_encoder<W: Write>(inner: W, level: i32) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(inner, level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// A compressed stream being written.
pub enum Encoder<W: Write> {
    /// Bytes as they are.
    None(W),
    /// [`Compression::Zstd`].
    Zstd(zstd::Encoder<'static, W>),
    /// [`Compression::Lz4`].
    Lz4(Box<FrameEncoder<W>>),
    /// [`Compression::Gzip`].
    Gzip(GzEncoder<W>),
}

impl<W: Write> Encoder<W> {
    /// Ends the stream and gives back what it was written to. A stream that is dropped has no end.
    ///
    /// # Errors
    /// Those of the inner writer.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(inner) => Ok(inner),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(inner) => inner.write(buffer),
            Self::Zstd(encoder) => encoder.write(buffer),
            Self::Lz4(encoder) => encoder.write(buffer),
            Self::Gzip(encoder) => encoder.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(inner) => inner.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Lz4(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }
}

/// A compressed stream being read.
pub enum Decoder<R: Read> {
    /// Bytes as they are.
    None(R),
    /// [`Compression::Zstd`].
    Zstd(Box<zstd::Decoder<'static, io::BufReader<R>>>),
    /// [`Compression::Lz4`].
    Lz4(Box<FrameDecoder<R>>),
    /// [`Compression::Gzip`].
    Gzip(Box<MultiGzDecoder<R>>),
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(inner) => inner.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Lz4(decoder) => decoder.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = compression.encoder(Vec::new(), None).expect("the compressor is there");
        for piece in bytes.chunks(10_007) {
            encoder.write_all(piece).expect("memory takes everything");
        }
        encoder.finish().expect("memory takes everything")
    }

    fn unpacked(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        compression.decoder(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_compression_gives_back_what_it_took() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for (word, compression) in Compression::WORDS {
            for bytes in [&bytes[..], &[]] {
                let there = packed(*compression, bytes);
                assert_eq!(unpacked(*compression, &there).expect(word), bytes, "{word}");
            }
        }
    }

    #[test]
    fn stream_that_is_cut_is_an_error() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for (word, compression) in Compression::WORDS {
            if *compression != Compression::None {
                let there = packed(*compression, &bytes);
                assert!(unpacked(*compression, &there[..there.len() - 1]).is_err(), "{word}");
            }
        }
    }
}
