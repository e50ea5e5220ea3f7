//! Changes become loads: compaction by key, batches, memory budget, checkpoint.
//!
//! A [`Pipeline`] is a plain value that one thread drives: the mirror worker's main thread, from inside the decoding
//! callbacks and between records. It knows no PostgreSQL, no thread and no clock; time comes in through
//! [`Pipeline::tick`].
//!
//! ```text
//!             upsert, delete, mark         seal                    next_load            finished
//!  change ───────────────────► open batch ───────► sealed batch ───────────► in flight ──────────► gone
//!                                   │                   │                        │
//!                                   └── remove_table ───┴──► dropped             ├── refused ──► gone, table removed
//!                                                                                └── rows_refused ──► cut in parts
//! ```
//!
//! A batch is sealed when it is full (at once), when it is due ([`Pipeline::seal_due`]), or when the caller wants it
//! ([`Pipeline::seal_table`], [`Pipeline::seal_all`]). It may be cut inside a transaction: what is decoded has committed.
//!
//! What is guaranteed:
//!
//! * A load has at most one row per key, the last one; loads of one table are in the order of its changes, and one is
//!   handed out only when the one before is finished. Loads of different tables go in parallel, the oldest first.
//! * [`Pipeline::durable_lsn`] never passes a commit of which a row is not at the target, for the tables that were not
//!   removed; see `checkpoint.rs`.
//! * A committed change waits for its load to start no longer than the flush interval after the last `tick` before the
//!   commit, as long as the caller calls `seal_due` at [`Pipeline::next_deadline`], and the target keeps up.
//! * A change that is refused ([`PushError`]) changes nothing.
//! * A load that was refused for its rows goes again in parts, before anything else of its table, until each of its rows is
//!   at the target or [rejected](Pipeline::take_bisected); see `bisection.rs`. Until then it holds the checkpoint back.
//!
//! The caller asks [`Pipeline::has_room`] after each change, or each few of them, and if there is none seals everything
//! and waits for loads to finish until there is [ample room](Pipeline::has_ample_room). A change of a table's columns and TRUNCATE: `seal_table`, wait until
//! [`Pipeline::is_drained`], then act at the target.
//!
//! Memory: what counts is [`Pipeline::queued_bytes`], the bytes of open, sealed and travelling buffers, replaced rows
//! included, and of their row entries. Beside it half of the limit may be kept as empty buffers.

mod batch;
mod bisection;
mod checkpoint;
mod copy;
mod counters;
mod error;
mod flush;
mod label;
mod later;
mod limits;
mod outcome;
mod parked;
mod spare;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::{DefaultHashBuilder, HashMap};

use self::checkpoint::CheckpointTracker;
use self::flush::FlushClock;
use self::outcome::InFlight;
use self::spare::Spare;
use self::table::{Pushed, Shared, Table, Writing};

pub use self::bisection::{Bisection, RejectedRow};
pub use self::copy::CopyBatch;
pub use self::counters::{Change, TableCounters};
pub use self::error::{PushError, TableError};
pub use self::flush::FlushInterval;
pub use self::label::{LabelSequence, under_way};
pub use self::later::Later;
pub use self::limits::{Limits, MAX_LOAD_BYTES};
pub use self::outcome::{Bisected, Finished};
pub use self::parked::{MOST_KEYS as MOST_PARKED, Parked, TooManyParked};
pub use self::spare::SpareBuffers;
pub use self::table::{ShapeError, ShapeOf, TableIndex};

use crate::encode::{Row, RowEncoder};
use crate::lsn::Lsn;

#[cfg(test)]
mod tests;

/// Batches of all tables of a mirror, from their first row until their loads are finished.
pub struct Pipeline {
    shared: Shared,
    tables: Vec<Table>,
    by_relid: HashMap<u32, TableIndex>,
    /// Tables that the open transaction has brought rows of.
    await_commit: Vec<TableIndex>,
    flush: FlushClock,
    /// Tables with a sealed batch and no load under way, by the age of that batch.
    ready: BTreeMap<u64, TableIndex>,
    in_flight: HashMap<u64, InFlight>,
    /// Loads whose bad rows have been found.
    bisected: Vec<Bisected>,
    now: Instant,
}

impl Pipeline {
    /// An empty pipeline. Its durable position is invalid until [`Self::decoded_to`] is told where decoding starts.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            shared: Shared {
                limits,
                hasher: DefaultHashBuilder::default(),
                checkpoint: CheckpointTracker::default(),
                spare: Spare::new(limits.memory_limit / 2),
                held_bytes: 0,
                next_sequence: 0,
                commit_end: Lsn::INVALID,
                sealed_early: false,
                key: Vec::new(),
                line: Vec::new(),
            },
            tables: Vec::new(),
            by_relid: HashMap::new(),
            await_commit: Vec::new(),
            flush: FlushClock::new(limits.flush_interval),
            ready: BTreeMap::new(),
            in_flight: HashMap::new(),
            bisected: Vec::new(),
            now,
        }
    }

    /// Other limits from now on. Batches that are over them are sealed by their next row.
    pub fn set_limits(&mut self, limits: Limits) {
        self.flush.set_interval(limits.flush_interval);
        self.shared.spare = Spare::new(limits.memory_limit / 2);
        self.shared.limits = limits;
    }

    /// Takes a table in. `shape_of` makes the `columns` header of its loads for a set of columns; it is asked for all
    /// columns at once, for others when rows come that lack some.
    ///
    /// # Errors
    ///
    /// [`TableError::InUse`] when a table of this relation is there or not yet drained; [`TableError::Shape`] when the
    /// table has no load with all its columns.
    pub fn add_table(
        &mut self,
        relid: u32,
        encoder: Arc<RowEncoder>,
        shape_of: ShapeOf,
    ) -> Result<TableIndex, TableError> {
        let in_use =
            self.tables.iter().any(|it| it.relid == relid && (it.writing.is_some() || !it.is_drained()));
        let index = u32::try_from(self.tables.len()).map_err(|_| TableError::InUse)?;
        if in_use {
            return Err(TableError::InUse);
        }
        let writing = Writing::new(encoder, shape_of).map_err(TableError::Shape)?;
        self.tables.push(Table::new(relid, writing));
        self.by_relid.insert(relid, TableIndex(index));
        Ok(TableIndex(index))
    }

    /// Later rows of the table are written in another way: its columns changed. What is open is sealed as it was.
    ///
    /// # Errors
    ///
    /// [`TableError::Removed`], or [`TableError::Shape`] as in [`Self::add_table`]; the table stays as it was.
    pub fn replace_table(
        &mut self,
        table: TableIndex,
        encoder: Arc<RowEncoder>,
        shape_of: ShapeOf,
    ) -> Result<(), TableError> {
        let writing = Writing::new(encoder, shape_of).map_err(TableError::Shape)?;
        if self.live(table).is_none() {
            return Err(TableError::Removed);
        }
        self.seal_table(table);
        if let Some(table) = self.live(table) {
            table.writing = Some(writing);
        }
        Ok(())
    }

    /// Lets a table go that cannot go on. Its rows are dropped and no longer hold back the checkpoint; a load that is
    /// under way counts until it is finished. Returns how many rows were dropped.
    pub fn remove_table(&mut self, table: TableIndex) -> u64 {
        let Some(found) = self.tables.get_mut(table.0 as usize) else { return 0 };
        if found.writing.take().is_some() {
            self.by_relid.remove(&found.relid);
        }
        if let Some(sequence) = found.next_sequence() {
            self.ready.remove(&sequence);
        }
        found.drop_rows(&mut self.shared)
    }

    /// The table of a relation.
    pub fn table_of(&self, relid: u32) -> Option<TableIndex> {
        self.by_relid.get(&relid).copied()
    }

    /// Takes in a row that was inserted or updated. A column may be [`crate::encode::Value::Unchanged`], but not one of
    /// the key: a key change is a `delete` of the old key and an `upsert` of the whole new row.
    ///
    /// # Errors
    ///
    /// The row is in no batch; nothing changed.
    pub fn upsert(&mut self, table: TableIndex, change: Change, row: &impl Row) -> Result<(), PushError> {
        let Some(found) = self.tables.get_mut(table.0 as usize) else { return Err(PushError::Removed) };
        let pushed = found.upsert(row, &mut self.shared);
        if pushed.is_ok() {
            found.counters.count(change);
        }
        self.taken_in(table, pushed)
    }

    /// Takes in the delete of a row; only the columns of the key are asked for.
    ///
    /// # Errors
    ///
    /// The delete is in no batch; nothing changed.
    pub fn delete(&mut self, table: TableIndex, row: &impl Row) -> Result<(), PushError> {
        let Some(found) = self.tables.get_mut(table.0 as usize) else { return Err(PushError::Removed) };
        let pushed = found.delete(row, &mut self.shared);
        if pushed.is_ok() {
            found.counters.deletes += 1;
        }
        self.taken_in(table, pushed)
    }

    /// Takes in the delete of a row that stays at the target, marked: `row` has the key and what marks it, and all else is
    /// [`crate::encode::Value::Unchanged`], always the same columns.
    ///
    /// # Errors
    ///
    /// The mark is in no batch; nothing changed.
    pub fn mark(&mut self, table: TableIndex, row: &impl Row) -> Result<(), PushError> {
        let Some(found) = self.tables.get_mut(table.0 as usize) else { return Err(PushError::Removed) };
        let pushed = found.mark(row, &mut self.shared);
        if pushed.is_ok() {
            found.counters.count(Change::Marked);
        }
        self.taken_in(table, pushed)
    }

    /// Counts a TRUNCATE of the table, which is the caller's to carry out.
    pub fn count_truncate(&mut self, table: TableIndex) {
        if let Some(found) = self.tables.get_mut(table.0 as usize) {
            found.counters.truncates += 1;
        }
    }

    /// The rows that come now are of a transaction whose commit ends at `end`.
    pub const fn begin(&mut self, end: Lsn) {
        self.shared.commit_end = end;
    }

    /// The transaction of the rows since the last commit has committed; its commit record ends at `end`.
    pub fn commit(&mut self, end: Lsn) {
        self.shared.commit_end = end;
        self.shared.checkpoint.commit(end);
        for index in self.await_commit.drain(..) {
            let Some(table) = self.tables.get_mut(index.0 as usize) else { continue };
            table.awaits_commit = false;
            for batch in &mut table.open {
                self.shared.held_bytes += batch.commit(end);
            }
            if table.clock.is_none() && !table.open.is_empty() {
                table.clock = Some(self.now);
                self.flush.start(index, self.now);
            }
        }
    }

    /// The log is decoded up to `lsn` and no transaction is open: when nothing is under way this position is durable.
    /// Ignored between the rows of a transaction and its commit.
    pub fn decoded_to(&mut self, lsn: Lsn) {
        self.shared.checkpoint.decoded_to(lsn);
    }

    /// The log does not have all values of a row of the open transaction; it will be read from the source and come as a
    /// [`Change::Completed`] after the commit. Until [`Self::release`] the transaction is not durable.
    pub fn hold(&mut self) {
        self.shared.checkpoint.hold();
    }

    /// Every row that was waited for has come, and lies in a batch, or is not at the source any more.
    pub fn release(&mut self) {
        let position = self.shared.checkpoint.position();
        self.commit(position);
        self.shared.checkpoint.release();
    }

    /// It is `now`. To be called as often as the flush interval is to be exact: once per turn of the worker's loop, not
    /// once per row.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Seals the tables that are due. One that has a load under way or waiting goes on collecting, because its next
    /// load could not start; it is due as soon as that one is finished. Returns how many batches were sealed.
    pub fn seal_due(&mut self) -> usize {
        let mut loads = 0;
        while let Some((started, index)) = self.flush.pop_due(self.now) {
            let Some(table) = self.tables.get_mut(index.0 as usize) else { continue };
            if table.clock != Some(started) {
                continue;
            }
            if table.is_loading() {
                table.overdue = true;
            } else {
                loads += self.seal_table(index);
            }
        }
        loads
    }

    /// Seals what is open of one table. Returns how many batches that were.
    pub fn seal_table(&mut self, table: TableIndex) -> usize {
        let Some(found) = self.tables.get_mut(table.0 as usize) else { return 0 };
        let loads = found.seal(&mut self.shared);
        (0..loads).for_each(|_| self.flush.load_made(self.now));
        self.make_ready(table);
        loads
    }

    /// Seals everything. Returns how many batches that were.
    pub fn seal_all(&mut self) -> usize {
        let tables = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        (0..tables).map(|index| self.seal_table(TableIndex(index))).sum()
    }

    /// Looks through what is queued of a table for rows of `keys`, which were refused. Those that lack values are taken out,
    /// and if there were any their place is [held](Self::hold): they must be read from the source. What comes after each
    /// key, in the order of `keys`.
    pub fn look_for_later<'a>(
        &mut self,
        table: TableIndex,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<Later> {
        let keys: Vec<&[u8]> = keys.collect();
        let mut found: later::Keys<'a> = keys.iter().map(|key| (*key, Later::Nothing)).collect();
        let Some(queue) = self.tables.get_mut(table.0 as usize) else { return Vec::new() };
        if let Some(sequence) = queue.next_sequence() {
            self.ready.remove(&sequence);
        }
        for sealed in &mut queue.sealed {
            later::look_through(sealed, &mut found);
        }
        for batch in &mut queue.open {
            later::look_through_open(batch, &mut found, &self.shared.hasher);
        }
        for later in found.values() {
            if let Later::Lacking(floor) = later {
                self.shared.checkpoint.hold_from(*floor);
            }
        }
        queue.drop_empty(&mut self.shared);
        self.make_ready(table);
        keys.iter().map(|key| found.get(key).copied().unwrap_or_default()).collect()
    }

    /// Takes in the delete of a row by its key, as it begins a line.
    ///
    /// # Errors
    ///
    /// As [`Self::delete`].
    pub fn delete_key(&mut self, table: TableIndex, key: &[u8]) -> Result<(), PushError> {
        let Some(found) = self.tables.get_mut(table.0 as usize) else { return Err(PushError::Removed) };
        let pushed = found.delete_key(key, &mut self.shared);
        self.taken_in(table, pushed)
    }

    /// Everything that committed at or before this position is at the target, for the tables that were not removed.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.checkpoint.durable()
    }

    /// Whether more changes may come. When not: seal all, hand out loads, wait until there is [ample
    /// room](Self::has_ample_room).
    pub const fn has_room(&self) -> bool {
        self.shared.held_bytes < self.shared.limits.memory_limit
    }

    /// Whether it is time to go on once there was no room. Not as soon as one load is finished: what it left would be
    /// filled, sealed and waited for again, so that each load became as small as the smallest one before it.
    pub const fn has_ample_room(&self) -> bool {
        self.shared.held_bytes <= self.shared.limits.memory_limit / 2
    }

    /// Bytes encoded or queued and not yet acknowledged.
    pub const fn queued_bytes(&self) -> usize {
        self.shared.held_bytes
    }

    /// Whether no row of the table is open, sealed or under way.
    pub fn is_drained(&self, table: TableIndex) -> bool {
        self.tables.get(table.0 as usize).is_none_or(Table::is_drained)
    }

    /// Whether nothing at all is open, sealed or under way.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.tables.iter().all(Table::is_drained)
    }

    /// When [`Self::seal_due`] is to be called next; `None` while nothing waits for its time.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.flush.next_due(|started, index| {
            let table = self.tables.get(index.0 as usize);
            table.is_some_and(|table| table.clock == Some(started) && !table.is_loading())
        })
    }

    /// What happened to a table since the last call.
    pub fn take_counters(&mut self, table: TableIndex) -> TableCounters {
        let found = self.tables.get_mut(table.0 as usize);
        found.map_or(TableCounters::NONE, |table| std::mem::take(&mut table.counters))
    }

    fn live(&mut self, table: TableIndex) -> Option<&mut Table> {
        self.tables.get_mut(table.0 as usize).filter(|table| table.writing.is_some())
    }

    #[inline]
    fn taken_in(&mut self, index: TableIndex, pushed: Result<Pushed, PushError>) -> Result<(), PushError> {
        if std::mem::take(&mut self.shared.sealed_early) {
            self.make_ready(index);
        }
        let pushed = pushed?;
        self.shared.checkpoint.row();
        let Some(table) = self.tables.get_mut(index.0 as usize) else { return Err(PushError::Removed) };
        if !table.awaits_commit {
            table.awaits_commit = true;
            self.await_commit.push(index);
        }
        if pushed == Pushed::Full {
            self.seal_table(index);
        }
        Ok(())
    }

    /// Puts a table that has a sealed batch and no load under way among those that can have one.
    fn make_ready(&mut self, index: TableIndex) {
        let Some(table) = self.tables.get_mut(index.0 as usize) else { return };
        if table.in_flight.is_some() {
            return;
        }
        if let Some(sequence) = table.next_sequence() {
            self.ready.insert(sequence, index);
        } else if let (true, Some(started)) = (table.overdue, table.clock) {
            table.overdue = false;
            self.flush.put_first(index, started);
        }
    }
}
