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

/// Turns loads into bodies.
pub(crate) struct Packer {
    encoder: FrameEncoder<Vec<u8>>,
}

impl Packer {
    pub(crate) fn new() -> Self {
        let info = FrameInfo::new().block_size(BlockSize::Max256KB).block_mode(BlockMode::Independent);
        Self { encoder: FrameEncoder::with_frame_info(info, Vec::new()) }
    }

    /// The body of a load. It stays valid until the next call.
    ///
    /// # Errors
    /// [`LoadError::OutOfMemory`] when there is no room for the largest outcome: an allocation that fails further
    /// down would abort the whole server.
    pub(crate) fn pack<'a>(
        &'a mut self,
        load: &'a Load,
        compression: Compression,
    ) -> Result<&'a [u8], LoadError> {
        let whole = match load.live.as_slice() {
            [range] if compression == Compression::None => Some(range.clone()),
            _ => None,
        };
        if let Some(range) = whole {
            return Ok(&load.buffer[range]);
        }
        self.reserve(load.body_bytes())?;
        match compression {
            Compression::None => {
                load.body().for_each(|piece| self.encoder.get_mut().extend_from_slice(piece))
            }
            Compression::Lz4Frame => self.compress(load),
        }
        Ok(self.encoder.get_ref())
    }

    /// Room for a body that does not shrink: LZ4 adds at most 1 byte in 255, and a few per block.
    fn reserve(&mut self, body_bytes: usize) -> Result<(), LoadError> {
        let bytes = body_bytes + body_bytes / 128 + 1024;
        let buffer = self.encoder.get_mut();
        buffer.clear();
        buffer.try_reserve(bytes).map_err(|_| LoadError::OutOfMemory { bytes })
    }

    fn compress(&mut self, load: &Load) {
        for piece in load.body() {
            self.encoder.write_all(piece).expect("a vector takes all bytes");
        }
        self.encoder.try_finish().expect("a frame without a promised size can always be closed");
    }
}
