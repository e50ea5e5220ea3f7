//! snapshot
/// chunk
#[derive(Clone, Copy)]
pub struct Chunk { /// first
 pub first_block: u32, /// end
 pub end_block: Option<u32> }
/// plan
pub fn plan_chunks(blocks: u32, heap_bytes: u64, toast_bytes: u64, chunk_size: u64) -> Vec<Chunk> {
    let n = ((heap_bytes + toast_bytes) / chunk_size.max(1) + 1).min(u64::from(blocks.max(1))) as u32;
    (0..n).map(|i| Chunk { first_block: (u64::from(blocks) * u64::from(i) / u64::from(n)) as u32, end_block: (i + 1 < n).then(|| (u64::from(blocks) * u64::from(i + 1) / u64::from(n)) as u32) }).collect()
}
