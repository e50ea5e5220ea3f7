//! Memory of batches that are done, kept for the next ones.
//!
//! A large buffer is fresh memory of the operating system each time it is allocated, and touching it page by page costs
//! about as much as encoding into it. A few of them are kept; so are the key tables, which would otherwise grow from
//! nothing, hashing every key again at each doubling.

use bytes::Bytes;

use super::batch::RowIndex;

/// Buffers without an owner.
#[derive(Debug)]
pub struct SpareBuffers {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    max_bytes: usize,
}

/// How many are kept: as many as there are load threads by default.
const KEPT: usize = 4;

impl SpareBuffers {
    /// Of at most `max_bytes` together are kept, and of each no more than half of that.
    pub const fn new(max_bytes: usize) -> Self {
        Self { buffers: Vec::new(), bytes: 0, max_bytes }
    }

    /// An empty buffer, with memory if there is one that has some.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a buffer, if there is room.
    pub fn keep(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        // It has grown by doubling: what was never touched is no reason to let the rest go.
        buffer.shrink_to(self.max_bytes / 2);
        let bytes = buffer.capacity();
        if self.buffers.len() < KEPT && bytes <= self.max_bytes - self.bytes {
            self.bytes += bytes;
            self.buffers.push(buffer);
        }
    }

    /// Keeps the buffer of a load that is done, unless anybody else has it.
    pub fn keep_of_load(&mut self, mut buffer: Bytes) {
        if buffer.is_unique() {
            // Emptied first: only the memory is wanted back, and the way to a `Vec` moves what is in it.
            buffer.clear();
            self.keep(Vec::from(buffer));
        }
    }
}

/// Buffers and key tables without an owner.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) buffers: SpareBuffers,
    indexes: Vec<RowIndex>,
}

/// A key table for more rows than this is given back: it is memory that no limit counts.
const MAX_KEPT_ROWS: usize = 1 << 18;

impl Spare {
    /// Buffers of at most so many bytes together are kept.
    pub(super) const fn new(max_buffer_bytes: usize) -> Self {
        Self { buffers: SpareBuffers::new(max_buffer_bytes), indexes: Vec::new() }
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
        let mut spare = SpareBuffers::new(100);
        for capacity in [30, 60, 40] {
            spare.keep(Vec::with_capacity(capacity));
        }
        assert_eq!(spare.take().capacity(), 50);
        assert_eq!(spare.take().capacity(), 30);
        assert_eq!(spare.take().capacity(), 0);
        spare.keep(vec![1; 50]);
        let buffer = spare.take();
        assert_eq!((buffer.len(), buffer.capacity()), (0, 50));
    }
    #[test]
    fn buffer_of_a_load_is_kept_unless_somebody_has_it() {
        for has_it in [false, true] {
            let mut spare = SpareBuffers::new(100);
            let mut buffer = Vec::with_capacity(40);
            buffer.push(1);
            let buffer = Bytes::from(buffer);
            let kept = has_it.then(|| buffer.clone());
            spare.keep_of_load(buffer);
            assert_eq!(spare.take().capacity() > 0, kept.is_none());
        }
    }
}
