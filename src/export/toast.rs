//! Values that PostgreSQL has compressed, decompressed by the piece.
//!
//! The server's own functions want the whole value, compressed and not, in memory: up to two gigabytes for one value. Both of
//! its formats refer back by a bounded distance only, pglz by less than 4 kB and LZ4 by less than 64 kB, so that much of what
//! came last is all that has to be kept.
//!
//! The formats: `src/common/pg_lzcompress.c`, and the block format of LZ4.

use std::fmt;

/// The compressions of TOAST.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ToastCompression {
    /// PostgreSQL's own.
    Pglz,
    /// LZ4 blocks.
    Lz4,
}

/// Why a value cannot be decompressed.
#[derive(Debug)]
pub enum ToastError<E> {
    /// Its bytes make no sense.
    Corrupt,
    /// What the reader or the writer said.
    Other(E),
}

impl<E> From<E> for ToastError<E> {
    fn from(problem: E) -> Self {
        Self::Other(problem)
    }
}

impl<E: fmt::Display> fmt::Display for ToastError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt => f.write_str("compressed data of a value is corrupt"),
            Self::Other(problem) => problem.fmt(f),
        }
    }
}

/// How far a format may refer back, and more.
const HISTORY: usize = 64 << 10;

/// What is handed on at once.
const PIECE: usize = 256 << 10;

/// Decompresses a value of `raw_bytes` bytes. `read` replaces the buffer's contents by the next piece of compressed bytes, and
/// leaves it empty at the end; `write` takes decompressed bytes.
///
/// # Errors
/// When the value is corrupt, or one of the two fails.
pub fn decompress<E>(
    compression: ToastCompression,
    raw_bytes: u64,
    read: impl FnMut(&mut Vec<u8>) -> Result<(), E>,
    write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), ToastError<E>> {
    let mut source = Source { read, piece: Vec::new(), at: 0 };
    let mut sink =
        Sink { write, bytes: Vec::with_capacity(HISTORY + PIECE + 1024), done: 0, left: raw_bytes };
    match compression {
        ToastCompression::Pglz => pglz(&mut source, &mut sink)?,
        ToastCompression::Lz4 => lz4(&mut source, &mut sink)?,
    }
    if sink.left > 0 {
        return Err(ToastError::Corrupt);
    }
    sink.flush()
}

struct Source<R> {
    read: R,
    piece: Vec<u8>,
    at: usize,
}

impl<R> Source<R> {
    fn byte<E>(&mut self) -> Result<Option<u8>, ToastError<E>>
    where
        R: FnMut(&mut Vec<u8>) -> Result<(), E>,
    {
        if self.at == self.piece.len() {
            (self.read)(&mut self.piece)?;
            self.at = 0;
        }
        let byte = self.piece.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    fn must<E>(&mut self) -> Result<usize, ToastError<E>>
    where
        R: FnMut(&mut Vec<u8>) -> Result<(), E>,
    {
        self.byte()?.map(usize::from).ok_or(ToastError::Corrupt)
    }
}

struct Sink<W> {
    write: W,
    /// What came last, and then what has not been handed on.
    bytes: Vec<u8>,
    done: usize,
    left: u64,
}

impl<W> Sink<W> {
    fn push<E>(&mut self, byte: u8) -> Result<(), ToastError<E>>
    where
        W: FnMut(&[u8]) -> Result<(), E>,
    {
        self.left = self.left.checked_sub(1).ok_or(ToastError::Corrupt)?;
        self.bytes.push(byte);
        if self.bytes.len() >= HISTORY + PIECE {
            self.flush()?;
            self.bytes.drain(..self.bytes.len() - HISTORY);
            self.done = self.bytes.len();
        }
        Ok(())
    }

    fn copy<E>(&mut self, distance: usize, length: usize) -> Result<(), ToastError<E>>
    where
        W: FnMut(&[u8]) -> Result<(), E>,
    {
        for _ in 0..length {
            let from = self.bytes.len().checked_sub(distance).filter(|_| distance > 0);
            let byte = from.and_then(|from| self.bytes.get(from)).copied().ok_or(ToastError::Corrupt)?;
            self.push(byte)?;
        }
        Ok(())
    }

    fn flush<E>(&mut self) -> Result<(), ToastError<E>>
    where
        W: FnMut(&[u8]) -> Result<(), E>,
    {
        (self.write)(self.bytes.get(self.done..).unwrap_or_default())?;
        self.done = self.bytes.len();
        Ok(())
    }
}

fn pglz<E, R, W>(source: &mut Source<R>, sink: &mut Sink<W>) -> Result<(), ToastError<E>>
where
    R: FnMut(&mut Vec<u8>) -> Result<(), E>,
    W: FnMut(&[u8]) -> Result<(), E>,
{
    while sink.left > 0 {
        let Some(control) = source.byte()? else { return Ok(()) };
        for bit in 0..8 {
            if sink.left == 0 {
                return Ok(());
            }
            if control & 1 << bit == 0 {
                let byte = source.must()?;
                sink.push(byte as u8)?;
                continue;
            }
            let (first, second) = (source.must()?, source.must()?);
            let distance = (first & 0xf0) << 4 | second;
            let mut length = (first & 0x0f) + 3;
            if length == 18 {
                length += source.must()?;
            }
            sink.copy(distance, length.min(usize::try_from(sink.left).unwrap_or(length)))?;
        }
    }
    Ok(())
}

fn lz4<E, R, W>(source: &mut Source<R>, sink: &mut Sink<W>) -> Result<(), ToastError<E>>
where
    R: FnMut(&mut Vec<u8>) -> Result<(), E>,
    W: FnMut(&[u8]) -> Result<(), E>,
{
    while let Some(token) = source.byte()? {
        for _ in 0..lz4_length(source, usize::from(token >> 4))? {
            let byte = source.must()?;
            sink.push(byte as u8)?;
        }
        // The last sequence has literals only.
        let Some(low) = source.byte()? else { return Ok(()) };
        let distance = usize::from(low) | source.must()? << 8;
        let length = lz4_length(source, usize::from(token & 0x0f))? + 4;
        sink.copy(distance, length)?;
    }
    Ok(())
}

/// A length of 15 goes on in bytes of 255, up to and with the first that is less.
fn lz4_length<E, R>(source: &mut Source<R>, nibble: usize) -> Result<usize, ToastError<E>>
where
    R: FnMut(&mut Vec<u8>) -> Result<(), E>,
{
    let mut length = nibble;
    if nibble == 15 {
        loop {
            let more = source.must()?;
            length += more;
            if more < 255 {
                break;
            }
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn unpack(compression: ToastCompression, raw: usize, packed: &[u8], step: usize) -> Option<Vec<u8>> {
        let mut pieces = packed.chunks(step);
        let mut out = Vec::new();
        let read = |piece: &mut Vec<u8>| {
            piece.clear();
            piece.extend_from_slice(pieces.next().unwrap_or_default());
            Ok::<_, Infallible>(())
        };
        let write = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        decompress(compression, raw as u64, read, write).is_ok().then_some(out)
    }

    #[test]
    fn lz4_blocks_come_out_as_they_went_in() {
        let raw: Vec<u8> =
            (0..2_000_000_u32).map(|n| if n % 1000 < 500 { (n / 7) as u8 } else { (n % 13) as u8 }).collect();
        let packed = lz4_flex::block::compress(&raw);
        for step in [1, 777, 1 << 20] {
            assert_eq!(unpack(ToastCompression::Lz4, raw.len(), &packed, step).as_deref(), Some(&raw[..]));
        }
        assert_eq!(unpack(ToastCompression::Lz4, raw.len(), &packed[..packed.len() - 9], 777), None);
        assert_eq!(unpack(ToastCompression::Lz4, raw.len() - 1, &packed, 777), None);
    }

    #[test]
    fn pglz_tags_copy_what_came_before() {
        // "abc", then nine bytes from three back, then one literal; lengths from 18 on have a third byte.
        let packed = [0b0000_1000, b'a', b'b', b'c', 0x06, 0x03, b'x', 0x01, 0x0f, 0x01, 0x02];
        let mut raw = b"abcabcabcabcx".to_vec();
        assert_eq!(unpack(ToastCompression::Pglz, raw.len(), &packed, 1), Some(raw.clone()));
        raw.extend([b'x'; 20]);
        let long = [0b0010_1000, b'a', b'b', b'c', 0x06, 0x03, b'x', 0x0f, 0x01, 0x02];
        assert_eq!(unpack(ToastCompression::Pglz, raw.len(), &long, 3), Some(raw));
        assert_eq!(unpack(ToastCompression::Pglz, 9, &[1, 0x06, 0x03], 1), None, "nothing came before");
    }
}
