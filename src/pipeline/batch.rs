//! The batch of one table that is still open: encoded rows in one buffer, and a table of their keys.
//!
//! ```text
//! buffer   {"id":1,…}\n{"id":2,…}\n{"id":1,…}\n      grows at its end only
//! entries     dead         live        live          one per row
//! keys     hash of {"id":1 ──► 2,  hash of {"id":2 ──► 1      the live row of each key
//! ```
//!
//! A newer row of a key marks the older one dead; its bytes stay where they are and are left out of the body. A batch in
//! which nothing was replaced is its whole buffer, one range.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::hash_table::Entry as KeyEntry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::bisection::Commits;
use super::spare::Spare;
use crate::encode::{ColumnSet, Fault, Reason, Row, RowBytes, RowEncoder};
use crate::lsn::Lsn;
use crate::sink::LoadShape;

/// What a row does at the target, if it is still part of the batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    Upsert,
    Delete,
    /// A later row of the same key has taken its place.
    Dead,
}

/// Where a row lies in the buffer. Buffers stay far below 4 GiB: [`super::MAX_LOAD_BYTES`] and one row.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    key_end: u32,
    end: u32,
    operation: Operation,
}

impl Entry {
    const fn key(self) -> Range<usize> {
        self.start as usize..self.key_end as usize
    }

    const fn line(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The rows of a batch and their keys, without their bytes. Used again for other batches.
#[derive(Debug, Default)]
pub(super) struct RowIndex {
    entries: Vec<Entry>,
    /// Numbers of live entries.
    keys: HashTable<u32>,
}

impl RowIndex {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.keys.clear();
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity().max(self.keys.capacity())
    }
}

/// Rows of one table with one set of columns.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) columns: ColumnSet,
    pub(super) shape: Arc<LoadShape>,
    /// See [`super::checkpoint`].
    pub(super) floor: Lsn,
    buffer: Vec<u8>,
    index: RowIndex,
    /// Of the transactions that have come to their end since the batch was opened.
    commits: Commits,
}

/// What is accounted for a row besides its bytes: its entry and its place in the key table.
pub(super) const ROW_OVERHEAD: usize = size_of::<Entry>() + 8;

impl Batch {
    pub(super) fn new(columns: ColumnSet, shape: Arc<LoadShape>, floor: Lsn, spare: &mut Spare) -> Self {
        Self {
            columns,
            shape,
            floor,
            buffer: spare.buffers.take(),
            index: spare.take_index(),
            commits: Commits::default(),
        }
    }

    /// Rows that are part of the load.
    pub(super) fn rows(&self) -> usize {
        self.index.keys.len()
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// What the batch counts for against the memory limit.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.len() + self.index.entries.len() * ROW_OVERHEAD + self.commits.held_bytes()
    }

    /// A commit ends at `end`, and has brought the last rows. How many bytes more the batch counts for.
    pub(super) fn commit(&mut self, end: Lsn) -> usize {
        let before = self.commits.held_bytes();
        self.commits.end_at(self.buffer.len(), end);
        self.commits.held_bytes() - before
    }

    /// Encodes `row` behind the others; it is no part of the batch before [`Self::record`].
    #[inline]
    pub(super) fn append_upsert(&mut self, encoder: &RowEncoder, row: &impl Row) -> Result<RowBytes, Fault> {
        encoder.upsert(row, &self.columns, &mut self.buffer)
    }

    /// Likewise, with unchanged values from the row of this key that is in the batch. `scratch` is overwritten.
    pub(super) fn append_over(
        &mut self,
        encoder: &RowEncoder,
        row: &impl Row,
        earlier: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<RowBytes, Fault> {
        scratch.clear();
        scratch.extend_from_slice(self.line(earlier));
        encoder.upsert_over(scratch, row, &self.columns, &mut self.buffer)
    }

    /// Likewise for a delete.
    pub(super) fn append_delete(&mut self, encoder: &RowEncoder, row: &impl Row) -> Result<RowBytes, Fault> {
        encoder.delete(row, &mut self.buffer)
    }

    /// The key of an appended row.
    pub(super) fn key(&self, row: RowBytes) -> &[u8] {
        &self.buffer[row.start..row.key_end]
    }

    /// Takes the bytes of an appended row out again.
    pub(super) fn take_back(&mut self, row: RowBytes) -> Vec<u8> {
        self.buffer.split_off(row.start)
    }

    /// Appends a line that was taken back from another batch.
    pub(super) fn append_line(&mut self, line: &[u8], key_bytes: usize) -> Result<RowBytes, Fault> {
        self.buffer.try_reserve(line.len()).map_err(|_| OUT_OF_MEMORY)?;
        let start = self.buffer.len();
        self.buffer.extend_from_slice(line);
        Ok(RowBytes { start, key_end: start + key_bytes, end: self.buffer.len() })
    }

    /// Makes an appended row the row of its key.
    #[inline]
    pub(super) fn record(
        &mut self,
        row: RowBytes,
        operation: Operation,
        hasher: &DefaultHashBuilder,
    ) -> Result<(), Fault> {
        if let Err(fault) = self.make_room(hasher) {
            self.buffer.truncate(row.start);
            return Err(fault);
        }
        let (buffer, RowIndex { entries, keys }) = (&self.buffer, &mut self.index);
        let key = &buffer[row.start..row.key_end];
        // The buffer is shorter than 4 GiB, see `Entry`.
        let number = entries.len() as u32;
        let is_key = |other: &u32| buffer[entries[*other as usize].key()] == *key;
        let hash_of = |other: &u32| hash(hasher, &buffer[entries[*other as usize].key()]);
        let replaced = match keys.entry(hash(hasher, key), is_key, hash_of) {
            KeyEntry::Occupied(mut older) => Some(std::mem::replace(older.get_mut(), number)),
            KeyEntry::Vacant(place) => {
                place.insert(number);
                None
            }
        };
        if let Some(older) = replaced {
            entries[older as usize].operation = Operation::Dead;
        }
        entries.push(Entry {
            start: row.start as u32,
            key_end: row.key_end as u32,
            end: row.end as u32,
            operation,
        });
        Ok(())
    }

    /// The live row of `key`: its number and what it does.
    pub(super) fn find(&self, key: &[u8], hasher: &DefaultHashBuilder) -> Option<(usize, Operation)> {
        let RowIndex { entries, keys } = &self.index;
        let number =
            *keys.find(hash(hasher, key), |other| self.buffer[entries[*other as usize].key()] == *key)?;
        Some((number as usize, entries[number as usize].operation))
    }

    /// Takes the live row of `key` out of the batch. Whether there was one.
    pub(super) fn kill(&mut self, key: &[u8], hasher: &DefaultHashBuilder) -> bool {
        let RowIndex { entries, keys } = &mut self.index;
        let buffer = &self.buffer;
        let is_key = |other: &u32| buffer[entries[*other as usize].key()] == *key;
        let Ok(found) = keys.find_entry(hash(hasher, key), is_key) else { return false };
        let (number, _) = found.remove();
        entries[number as usize].operation = Operation::Dead;
        true
    }

    /// Closes the batch: its buffer, the ranges of it that make the body, and the commits of its rows.
    pub(super) fn seal(self, spare: &mut Spare) -> (Bytes, Vec<Range<usize>>, Commits) {
        let Self { buffer, index, commits, .. } = self;
        let live = if index.keys.len() == index.entries.len() {
            std::iter::once(0..buffer.len()).collect()
        } else {
            live_ranges(&index.entries)
        };
        spare.keep_index(index);
        (Bytes::from(buffer), live, commits)
    }

    /// Drops the rows and keeps their memory for others.
    pub(super) fn discard(self, spare: &mut Spare) {
        spare.keep_index(self.index);
        spare.buffers.keep(self.buffer);
    }

    fn line(&self, number: usize) -> &[u8] {
        &self.buffer[self.index.entries[number].line()]
    }

    /// Room for one row more, without the allocator's abort.
    #[inline]
    fn make_room(&mut self, hasher: &DefaultHashBuilder) -> Result<(), Fault> {
        let (buffer, RowIndex { entries, keys }) = (&self.buffer, &mut self.index);
        entries.try_reserve(1).map_err(|_| OUT_OF_MEMORY)?;
        if keys.len() == keys.capacity() {
            let hash_of = |other: &u32| hash(hasher, &buffer[entries[*other as usize].key()]);
            keys.try_reserve(1, hash_of).map_err(|_| OUT_OF_MEMORY)?;
        }
        Ok(())
    }
}

const OUT_OF_MEMORY: Fault = Fault { reason: Reason::OutOfMemory, column: 0 };

#[inline]
pub(super) fn hash(hasher: &DefaultHashBuilder, key: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(key);
    state.finish()
}

/// The live rows, neighbours merged.
fn live_ranges(entries: &[Entry]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.operation != Operation::Dead) {
        let line = entry.line();
        match ranges.last_mut() {
            Some(last) if last.end == line.start => last.end = line.end,
            _ => ranges.push(line),
        }
    }
    ranges
}
