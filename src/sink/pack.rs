//! The body of a load as it goes over the wire: one buffer of known length, compressed or as it is.
//!
//! Each load thread has one [`Packer`] and uses its buffers again for every load.

use std::io::Write;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::{Load, LoadError};

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compression {
    /// As they are.
    None,
    /// One LZ4 frame.
    Lz4Frame,
}

/// A body, and how it is compressed.
#[derive(Debug)]
pub(crate) struct Packed<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) compression: Compression,
}

/// Turns loads into bodies.
pub(crate) struct Packer {
    encoder: FrameEncoder<Vec<u8>>,
}

/// So much of a body is compressed before it is decided whether the rest is.
const PROBE_BYTES: usize = 1 << 20;
/// A body goes as it is when its beginning shrinks to more than this.
const WORTHWHILE_BYTES: usize = PROBE_BYTES / 4 * 3;

impl Packer {
    pub(crate) fn new() -> Self {
        // Measured on rows of four columns: 64 kB blocks are 16 % slower than 1 MB ones, 4 MB ones 1 % faster and take
        // four times the memory; the ratio is the same, also with linked blocks, which are slower. Without the feature
        // `safe-encode` it is not faster.
        let info = FrameInfo::new().block_size(BlockSize::Max1MB).block_mode(BlockMode::Independent);
        Self { encoder: FrameEncoder::with_frame_info(info, Vec::new()) }
    }

    /// The body of a load, compressed as `wanted` unless that would hardly make it shorter: digests, random identifiers and
    /// what is compressed already take LZ4 the longest and StarRocks the time to undo it. It stays valid until the next
    /// call, and is the same each time for the same load.
    ///
    /// # Errors
    /// [`LoadError::OutOfMemory`] when there is no room for the largest outcome: an allocation that fails further
    /// down would abort the whole server.
    pub(crate) fn pack<'a>(
        &'a mut self,
        load: &'a Load,
        wanted: Compression,
    ) -> Result<Packed<'a>, LoadError> {
        if wanted == Compression::Lz4Frame {
            self.reserve(load.body_bytes())?;
            if self.compress(load) {
                return Ok(Packed { body: self.encoder.get_ref(), compression: wanted });
            }
        }
        Ok(Packed { body: self.plain(load)?, compression: Compression::None })
    }

    /// Room for a body that does not shrink: LZ4 adds at most 1 byte in 255, and a few per block.
    fn reserve(&mut self, body_bytes: usize) -> Result<(), LoadError> {
        let bytes = body_bytes + body_bytes / 128 + 1024;
        let buffer = self.encoder.get_mut();
        buffer.clear();
        buffer.try_reserve(bytes).map_err(|_| LoadError::OutOfMemory { bytes })
    }

    /// The body as it is; a load of which no row was replaced is one already.
    fn plain<'a>(&'a mut self, load: &'a Load) -> Result<&'a [u8], LoadError> {
        if let [range] = load.live.as_slice() {
            return Ok(&load.buffer[range.clone()]);
        }
        self.reserve(load.body_bytes())?;
        load.body().for_each(|piece| self.encoder.get_mut().extend_from_slice(piece));
        Ok(self.encoder.get_ref())
    }

    /// Compresses a load. Not to its end, and returns false, when its beginning says that this is not worth the time.
    fn compress(&mut self, load: &Load) -> bool {
        let mut probed = 0;
        for piece in load.body() {
            let (head, tail) = piece.split_at(piece.len().min(PROBE_BYTES - probed));
            self.write(head);
            probed += head.len();
            if probed == PROBE_BYTES && !head.is_empty() && !self.has_shrunk() {
                self.finish();
                return false;
            }
            self.write(tail);
        }
        self.finish();
        true
    }

    fn has_shrunk(&mut self) -> bool {
        self.encoder.flush().expect("a vector takes all bytes");
        self.encoder.get_ref().len() <= WORTHWHILE_BYTES
    }

    fn write(&mut self, bytes: &[u8]) {
        self.encoder.write_all(bytes).expect("a vector takes all bytes");
    }

    fn finish(&mut self) {
        self.encoder.try_finish().expect("a frame without a promised size can always be closed");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::ops::Range;
    use std::sync::Arc;

    use bytes::Bytes;
    use lz4_flex::frame::FrameDecoder;

    use super::*;
    use crate::sink::{Label, LoadShape};
    use crate::table::TargetTable;

    fn load(buffer: Vec<u8>, live: Vec<Range<usize>>) -> Load {
        let target = TargetTable { database: "d".to_owned(), table: "t".to_owned() };
        let shape = Arc::new(LoadShape { target, columns: String::new(), partial: false });
        let label = Label { mirror: "m".into(), incarnation: 1, number: 1 };
        Load { label, shape, buffer: Bytes::from(buffer), live, rows: 1 }
    }

    fn unpack(frame: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        FrameDecoder::new(frame).read_to_end(&mut body).unwrap();
        body
    }

    #[test]
    fn only_live_rows_are_in_the_body() {
        let load = load(b"old1old2new1new2".to_vec(), vec![4..8, 12..16]);
        let mut packer = Packer::new();
        assert_eq!(packer.pack(&load, Compression::None).unwrap().body, b"old2new2");
        assert_eq!(unpack(packer.pack(&load, Compression::Lz4Frame).unwrap().body), b"old2new2");
    }

    #[test]
    fn each_load_is_a_frame_of_its_own() {
        let mut packer = Packer::new();
        for size in [3_000_000, 10, 700_000, 1] {
            let body: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8).collect();
            let load = load(body.clone(), std::iter::once(0..size).collect());
            let packed = packer.pack(&load, Compression::Lz4Frame).unwrap();
            assert_eq!(packed.compression, Compression::Lz4Frame);
            assert!(unpack(packed.body) == body, "{size} bytes differ");
        }
    }

    /// Bytes that no compression makes shorter.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let noise = (0..bytes).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        noise.collect()
    }

    #[test]
    fn body_is_compressed_if_it_shrinks_by_a_quarter() {
        for (percent, expected) in [(15, Compression::None), (35, Compression::Lz4Frame)] {
            let mut buffer = noise(3_000_000);
            for block in buffer.chunks_mut(10_000) {
                let (same, _) = block.split_at_mut(percent * 100);
                same.fill(b'x');
            }
            let load = load(buffer, std::iter::once(0..3_000_000).collect());
            let packed = Packer::new().pack(&load, Compression::Lz4Frame).unwrap().compression;
            assert_eq!(packed, expected, "{percent} of 100 bytes are the same");
        }
    }

    #[test]
    fn body_that_does_not_shrink_goes_as_it_is() {
        let buffer = noise(3_000_000);
        let mut packer = Packer::new();
        let whole = std::iter::once(0..3_000_000).collect();
        for live in [whole, vec![5..600_000, 700_000..3_000_000]] {
            let load = load(buffer.clone(), live);
            let body: Vec<u8> = load.body().collect::<Vec<_>>().concat();
            let packed = packer.pack(&load, Compression::Lz4Frame).unwrap();
            assert_eq!(packed.compression, Compression::None);
            assert!(packed.body == body);
        }
        let text = load(vec![b'x'; 3_000_000], std::iter::once(0..3_000_000).collect());
        let packed = packer.pack(&text, Compression::Lz4Frame).unwrap();
        assert_eq!(packed.compression, Compression::Lz4Frame);
        assert!(unpack(packed.body) == vec![b'x'; 3_000_000], "the frame before was left open");
    }

    #[test]
    fn frame_has_room_from_the_start() {
        // Shorter than what is looked at, so that it is compressed although it does not shrink.
        let bytes = PROBE_BYTES - 1;
        let load = load(noise(bytes), std::iter::once(0..bytes).collect());
        let mut packer = Packer::new();
        packer.reserve(load.body_bytes()).unwrap();
        let capacity = packer.encoder.get_ref().capacity();
        let frame = packer.pack(&load, Compression::Lz4Frame).unwrap();
        assert_eq!(frame.compression, Compression::Lz4Frame);
        assert!(frame.body.len() > load.body_bytes(), "the noise shrank");
        assert_eq!(packer.encoder.get_ref().capacity(), capacity, "the buffer grew while it was filled");
    }
}
