//! Keeps the snapshot workers of a mirror, together, to `snapshot_max_rate`.
//!
//! What a worker has read is booked in shared memory, behind what the others have; before it reads on it waits until that is
//! paid for. Bytes are those of the plan: heap and TOAST of a chunk, in proportion to its blocks.

use std::time::Duration;

use pgrx::pg_sys;

use super::super::catalog::chunk::Chunk;
use super::super::scan::Position;
use super::super::{clock, shmem};
use crate::pace;

/// The rate, and how far this worker has booked.
pub(super) struct Pace {
    mirror: String,
    /// Bytes per second; zero for no limit.
    rate: u64,
    /// When what this worker has read is paid for, in microseconds since 2000.
    until: i64,
}

impl Pace {
    pub(super) fn new(mirror: &str, rate: u64) -> Self {
        Self { mirror: mirror.to_owned(), rate, until: 0 }
    }

    /// A chunk was read from a place to another one; none for its beginning, or its end.
    pub(super) fn have_read(&mut self, chunk: &Chunk, from: Option<Position>, to: Option<Position>) {
        if self.rate == 0 {
            return;
        }
        let before = from.map_or(0, |from| bytes_before(chunk, from));
        let bytes = to.map_or(chunk.bytes, |to| bytes_before(chunk, to)).saturating_sub(before);
        let now = clock::now();
        let until = shmem::update(&self.mirror, |slot| {
            slot.copy_booked_until = pace::book(slot.copy_booked_until, now, bytes, self.rate);
            slot.copy_booked_until
        });
        self.until = until.unwrap_or(0);
    }

    /// How long to wait before more is read.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = self.until.saturating_sub(clock::now());
        (self.until != 0 && left > 0).then(|| Duration::from_micros(left.cast_unsigned()))
    }
}

/// Bytes of a chunk in front of a place. One without an end has them booked as those of its heap, and the rest at its end.
fn bytes_before(chunk: &Chunk, place: Position) -> u64 {
    let blocks = u64::from(place.block.saturating_sub(chunk.first_block));
    let per_block = match chunk.end_block {
        Some(end) => chunk.bytes / u64::from(end.saturating_sub(chunk.first_block).max(1)),
        None => u64::from(pg_sys::BLCKSZ),
    };
    chunk.bytes.min(blocks.saturating_mul(per_block))
}
