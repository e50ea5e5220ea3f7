//! Memory of batches that are done, kept for the next ones.
//!
//! A large buffer is fresh memory of the operating system each time it is allocated, and touching it page by page costs
//! about as much as encoding into it. A few of them are kept; so are the key tables, which would otherwise grow from
//! nothing, hashing every key again at each doubling.

use super::batch::RowIndex;

/// Buffers and key tables without an owner.
#[derive(Debug)]
pub(super) struct Spare {
    buffers: Vec<Vec<u8>>,
    buffer_bytes: usize,
    max_buffer_bytes: usize,
    indexes: Vec<RowIndex>,
}

/// How many of each are kept: as many as there are load threads by default.
const KEPT: usize = 4;
/// A key table for more rows than this is given back: it is memory that no limit counts.
const MAX_KEPT_ROWS: usize = 1 << 18;

impl Spare {
    /// Buffers of at most `max_buffer_bytes` together are kept.
    pub(super) const fn new(max_buffer_bytes: usize) -> Self {
        Self { buffers: Vec::new(), buffer_bytes: 0, max_buffer_bytes, indexes: Vec::new() }
    }

    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.buffer_bytes -= buffer.capacity();
        buffer
    }

    pub(super) fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if self.buffers.len() < KEPT && bytes <= self.max_buffer_bytes - self.buffer_bytes {
            buffer.clear();
            self.buffer_bytes += bytes;
            self.buffers.push(buffer);
        }
    }

    pub(super) fn take_index(&mut self) -> RowIndex {
        self.indexes.pop().unwrap_or_default()
    }

    pub(super) fn keep_index(&mut self, mut index: RowIndex) {
        if self.indexes.len() < KEPT && index.capacity() <= MAX_KEPT_ROWS {
            index.clear();
            self.indexes.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_memory_is_kept_than_allowed() {
        let mut spare = Spare::new(100);
        spare.keep_buffer(Vec::with_capacity(60));
        spare.keep_buffer(Vec::with_capacity(60));
        assert_eq!(spare.take_buffer().capacity(), 60);
        assert_eq!(spare.take_buffer().capacity(), 0);
        spare.keep_buffer(vec![1; 100]);
        let buffer = spare.take_buffer();
        assert_eq!((buffer.len(), buffer.capacity()), (0, 100));
    }
}
