//! Which blocks of a table make a chunk.
//!
//! A table is copied in physical ranges of blocks, each read in transactions of its own. Chunks are planned from the
//! number of blocks that the table has once its snapshot exists; the last chunk is open-ended, so blocks that come later
//! are read too (their rows are not visible in the snapshot, and a plan made a moment too early loses nothing).
//!
//! Called by `postgres::scan` when a copy begins, and by `dbmazz_ctid_chunks` for any other tool.
//!
//! [`CatchUp`] says what the stream has to do for a table whose copy is later than the slot.

mod catch_up;
#[cfg(test)]
mod model;
mod visible;

pub use catch_up::{CatchUp, Resumed, Treatment};
pub use visible::{NoSnapshot, VisibleIn};

/// A range of blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Its first block.
    pub first_block: u32,
    /// The block behind its last one; `None` for the last chunk, which goes on to the end of the table.
    pub end_block: Option<u32>,
}

/// No table is cut into more chunks than this, whatever the size asked for: each is a row in the catalog.
pub const MAX_CHUNKS: u32 = 1 << 20;

/// Cuts a table of `blocks` blocks into chunks of about `chunk_bytes` each.
///
/// The bytes of the TOAST table weigh in as if they were spread evenly over the rows: a table with large values gets
/// chunks of fewer blocks. Every block is in exactly one chunk; a table without blocks is one chunk. A chunk has at least
/// one block.
pub fn plan_chunks(blocks: u32, heap_bytes: u64, toast_bytes: u64, chunk_bytes: u64) -> Vec<Chunk> {
    let per_chunk = blocks_per_chunk(blocks, heap_bytes, toast_bytes, chunk_bytes);
    let mut chunks = Vec::with_capacity(blocks.div_ceil(per_chunk).max(1) as usize);
    let mut first_block = 0_u32;
    while let Some(end) = first_block.checked_add(per_chunk).filter(|&end| end < blocks) {
        chunks.push(Chunk { first_block, end_block: Some(end) });
        first_block = end;
    }
    chunks.push(Chunk { first_block, end_block: None });
    chunks
}

/// A table that several processes copy has so many chunks for each of them, so that none waits long for another's last one …
const CHUNKS_PER_WORKER: u64 = 4;
/// … unless they would be smaller than this.
const LEAST_SHARE: u64 = 16 << 20;

/// How large the chunks of a relation of `bytes` are that `workers` processes copy: what is asked for, or less.
pub fn shared_chunk_bytes(bytes: u64, workers: usize, asked: u64) -> u64 {
    if workers < 2 {
        return asked;
    }
    let shares = CHUNKS_PER_WORKER.saturating_mul(workers as u64);
    asked.min(bytes.div_ceil(shares).max(LEAST_SHARE))
}

fn blocks_per_chunk(blocks: u32, heap_bytes: u64, toast_bytes: u64, chunk_bytes: u64) -> u32 {
    let total = u128::from(heap_bytes) + u128::from(toast_bytes);
    if total == 0 {
        return blocks.max(1);
    }
    let wanted = u128::from(blocks) * u128::from(chunk_bytes) / total;
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    wanted.max(blocks.div_ceil(MAX_CHUNKS)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 8192;
    const CHUNK: u64 = 128 << 20;

    #[test]
    fn chunk_has_as_many_blocks_as_fit_into_its_size() {
        let chunks = plan_chunks(40_000, 40_000 * BLOCK, 0, CHUNK);
        let chunk = |first_block, end_block| Chunk { first_block, end_block };
        assert_eq!(chunks, [chunk(0, Some(16_384)), chunk(16_384, Some(32_768)), chunk(32_768, None)]);
    }

    #[test]
    fn tables_of_a_few_chunks_are_shared_out_evenly() {
        const MB: u64 = 1 << 20;
        assert_eq!(shared_chunk_bytes(340 * MB, 1, CHUNK), CHUNK);
        assert_eq!(shared_chunk_bytes(344 * MB, 2, CHUNK), 43 * MB);
        assert_eq!(shared_chunk_bytes(10 * MB, 4, CHUNK), 16 * MB);
        assert_eq!(shared_chunk_bytes(340 * MB, 2, MB), MB);
        assert_eq!(shared_chunk_bytes(1 << 40, 4, CHUNK), CHUNK);
    }

    #[test]
    fn toasted_bytes_make_chunks_smaller() {
        let without = plan_chunks(40_000, 40_000 * BLOCK, 0, CHUNK).len();
        let with = plan_chunks(40_000, 40_000 * BLOCK, 9 * 40_000 * BLOCK, CHUNK).len();
        assert_eq!((without, with), (3, 25));
    }

    #[test]
    fn empty_table_is_one_open_chunk() {
        assert_eq!(plan_chunks(0, 0, 0, CHUNK), [Chunk { first_block: 0, end_block: None }]);
    }

    #[test]
    fn largest_table_is_covered() {
        let blocks = u32::MAX - 1;
        for chunk_bytes in [0, 1, CHUNK, u64::MAX] {
            let chunks = plan_chunks(blocks, u64::from(blocks) * BLOCK, u64::MAX, chunk_bytes);
            assert!(chunks.len() <= MAX_CHUNKS as usize);
            check(&chunks, blocks);
        }
    }

    fn check(chunks: &[Chunk], blocks: u32) {
        let mut next = 0;
        for (number, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.first_block, next);
            match chunk.end_block {
                Some(end) => {
                    assert!(end > next && end < blocks.max(1));
                    next = end;
                }
                None => assert_eq!(number + 1, chunks.len(), "only the last chunk is open"),
            }
        }
        assert!(chunks.last().is_some_and(|chunk| chunk.end_block.is_none()));
    }

    proptest! {
        #[test]
        fn every_block_is_in_exactly_one_chunk(
            blocks in prop_oneof![Just(0), Just(1), 0..10_000_u32, Just(u32::MAX), any::<u32>()],
            toast_bytes in prop_oneof![Just(0), 0..1_u64 << 40], chunk_bytes in 1_u64..1 << 32,
        ) {
            check(&plan_chunks(blocks, u64::from(blocks) * BLOCK, toast_bytes, chunk_bytes), blocks);
        }
    }
}
