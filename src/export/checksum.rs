//! Digests of files, taken while they are written or read.
//!
//! A digest is of the bytes of a file as they are stored, after compression: what is compared is what a disk or a network
//! may have changed. `xxh3` has 128 bits, finds accidents, and costs next to nothing; `sha256` also finds intent.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_128;

use crate::options::Choice;

/// The kind of a digest.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// XXH3 with 128 bits and no seed, as `xxhsum -H2` prints it: 32 hexadecimal digits.
    #[default]
    Xxh3,
    /// SHA-256, as `sha256sum` prints it: 64 hexadecimal digits.
    Sha256,
}

impl Choice for Checksum {
    const WORDS: &'static [(&'static str, Self)] = &[("xxh3", Self::Xxh3), ("sha256", Self::Sha256)];
}

impl Checksum {
    /// Begins a digest.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Xxh3 => Hasher::Xxh3(Box::new(XxHash3_128::new())),
            Self::Sha256 => Hasher::Sha256(Box::new(Sha256::new())),
        }
    }
}

/// A digest being taken.
#[derive(Clone)]
pub enum Hasher {
    /// Of kind [`Checksum::Xxh3`].
    Xxh3(Box<XxHash3_128>),
    /// Of kind [`Checksum::Sha256`].
    Sha256(Box<Sha256>),
}

impl Hasher {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Xxh3(hasher) => hasher.write(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The digest in hexadecimal digits.
    pub fn finish(self) -> String {
        match self {
            Self::Xxh3(hasher) => format!("{:032x}", hasher.finish_128()),
            Self::Sha256(hasher) => to_hex(&hasher.finalize()),
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Digests and counts what goes through it, to an inner writer or from an inner reader.
pub struct Digesting<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

impl<T> Digesting<T> {
    /// Around `inner`.
    pub fn new(inner: T, checksum: Checksum) -> Self {
        Self { inner, hasher: checksum.hasher(), bytes: 0 }
    }

    /// Bytes that went through so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest so far, in hexadecimal digits.
    pub fn digest(&self) -> String {
        self.hasher.clone().finish()
    }

    /// What was inside, the digest, and how many bytes it is of. A reader must have been read to its end.
    pub fn finish(self) -> (T, String, u64) {
        (self.inner, self.hasher.finish(), self.bytes)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.take(buffer.get(..written).unwrap_or(buffer));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.take(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_usual_tools() {
        let mut sha = Checksum::Sha256.hasher();
        sha.update(b"abc");
        assert_eq!(sha.finish(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut xxh = Checksum::Xxh3.hasher();
        xxh.update(b"");
        assert_eq!(xxh.finish(), "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn pieces_digest_like_the_whole() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let (_, whole, count) = {
            let mut all = Digesting::new(io::sink(), Checksum::Xxh3);
            all.write_all(&bytes).expect("a sink takes everything");
            all.finish()
        };
        let mut pieces = Digesting::new(bytes.as_slice(), Checksum::Xxh3);
        let mut buffer = [0; 777];
        while pieces.read(&mut buffer).expect("memory can be read") > 0 {}
        let (_, again, read) = pieces.finish();
        assert_eq!((whole, count), (again, read));
    }
}
