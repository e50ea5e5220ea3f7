//! One table of the mirror: its open batches, its sealed ones, and where a row belongs.
//!
//! Nearly always there is one open batch, with all columns. Rows that lack a TOASTed value (the UPDATE did not touch it)
//! need a partial update, which is a load of its own with one set of columns. Sealing at each change of the set would
//! make a load of every few rows, so a table may have several open batches, one set of columns each, in the order in
//! which their loads will go. Where a row goes:
//!
//! * A whole row, or a delete, replaces whatever open batches have of its key, so it may go into any of them; older rows
//!   of the key die in all. A whole row goes into the batch with all columns, a delete into the first one there is.
//! * A partial row of a key whose newest row is open with at least its columns is completed from that row and replaces it.
//! * A partial row of a key that an open batch has with other columns goes into a batch *behind* that one.
//! * Any other partial row goes into the batch with its set of columns.
//! * A mark (of a deleted row that stays at the target) is a partial row whose columns every other row has too: it is
//!   completed from the newest open row of its key and replaces it.
//!
//! All open batches of a table are sealed together, in their order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hashbrown::DefaultHashBuilder;

use super::batch::{Batch, Operation, ROW_OVERHEAD};
use super::bisection::{Bisection, Commits};
use super::checkpoint::CheckpointTracker;
use super::counters::TableCounters;
use super::error::PushError;
use super::limits::{Limits, MAX_LOAD_BYTES};
use super::spare::Spare;
use crate::encode::{ColumnSet, Fault, Reason, Row, RowBytes, RowEncoder};
use crate::lsn::Lsn;
use crate::sink::LoadShape;

/// A table of the pipeline. Never used again for another one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableIndex(pub(super) u32);

/// Why a table has no shape for a set of columns.
pub type ShapeError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the shape of loads with a set of columns. Asked once per set and batch, for all columns at once.
pub type ShapeOf = Box<dyn Fn(&ColumnSet) -> Result<Arc<LoadShape>, ShapeError>>;

/// How the rows of a table are written.
pub(super) struct Writing {
    pub(super) encoder: Arc<RowEncoder>,
    pub(super) shape_of: ShapeOf,
    pub(super) whole: Arc<LoadShape>,
    /// The columns of a mark, once there was one.
    pub(super) mark: Option<ColumnSet>,
}

impl Writing {
    pub(super) fn new(encoder: Arc<RowEncoder>, shape_of: ShapeOf) -> Result<Self, ShapeError> {
        let whole = shape_of(&ColumnSet::ALL)?;
        Ok(Self { encoder, shape_of, whole, mark: None })
    }

    fn shape(&self, columns: &ColumnSet) -> Result<Arc<LoadShape>, ShapeError> {
        if columns.is_all() { Ok(Arc::clone(&self.whole)) } else { (self.shape_of)(columns) }
    }
}

/// A batch that waits for its load.
pub(super) struct Sealed {
    pub(super) sequence: u64,
    pub(super) encoder: Arc<RowEncoder>,
    pub(super) commits: Commits,
    pub(super) shape: Arc<LoadShape>,
    pub(super) floor: Lsn,
    pub(super) buffer: Bytes,
    pub(super) live: Vec<Range<usize>>,
    pub(super) rows: u64,
    /// What it counts for against the memory limit.
    pub(super) held_bytes: usize,
}

/// A load that was refused for its rows and goes in parts.
pub(super) struct Cut {
    pub(super) bisection: Bisection,
    /// What the load was, while it was whole.
    pub(super) sequence: u64,
    pub(super) floor: Lsn,
    pub(super) held_bytes: usize,
}

/// What the tables of a pipeline share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) hasher: DefaultHashBuilder,
    pub(super) checkpoint: CheckpointTracker,
    pub(super) spare: Spare,
    /// Bytes of open batches, sealed ones and loads in flight.
    pub(super) held_bytes: usize,
    pub(super) next_sequence: u64,
    /// Where the commit of the transaction ends that is open or was last.
    pub(super) commit_end: Lsn,
    /// A table has sealed batches to make way for the row at hand; the pipeline does not know yet.
    pub(super) sealed_early: bool,
    /// The key of the row at hand, where it is needed before the row is written.
    pub(super) key: Vec<u8>,
    /// The line that the row at hand is completed from.
    pub(super) line: Vec<u8>,
}

/// What a table has to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pushed {
    /// Nothing.
    Open,
    /// Its open batches are to be sealed.
    Full,
}

/// The state of one table.
pub(super) struct Table {
    pub(super) relid: u32,
    /// `None` once the table is removed.
    pub(super) writing: Option<Writing>,
    pub(super) open: Vec<Batch>,
    pub(super) sealed: VecDeque<Sealed>,
    /// The load before those, if it was refused for its rows.
    pub(super) cut: Option<Cut>,
    /// The label number of the load that is under way.
    pub(super) in_flight: Option<u64>,
    /// The first commit after the first row of the open batches.
    pub(super) clock: Option<Instant>,
    /// The open batches were due while an earlier load was under way.
    pub(super) overdue: bool,
    /// The open transaction has brought rows of it.
    pub(super) awaits_commit: bool,
    pub(super) counters: TableCounters,
}

/// More open batches than this are not kept.
const MAX_OPEN: usize = 8;

impl Table {
    pub(super) const fn new(relid: u32, writing: Writing) -> Self {
        Self {
            relid,
            writing: Some(writing),
            open: Vec::new(),
            sealed: VecDeque::new(),
            cut: None,
            in_flight: None,
            clock: None,
            overdue: false,
            awaits_commit: false,
            counters: TableCounters::NONE,
        }
    }

    /// Whether nothing of the table is on its way.
    pub(super) fn is_drained(&self) -> bool {
        self.open.is_empty() && !self.is_loading()
    }

    /// Whether sealed rows are on their way already.
    pub(super) fn is_loading(&self) -> bool {
        self.in_flight.is_some() || self.cut.is_some() || !self.sealed.is_empty()
    }

    /// The sequence of what is to be loaded next.
    pub(super) fn next_sequence(&self) -> Option<u64> {
        match &self.cut {
            Some(cut) => cut.bisection.has_next().then_some(cut.sequence),
            None => self.sealed.front().map(|sealed| sealed.sequence),
        }
    }

    pub(super) fn upsert(&mut self, row: &impl Row, shared: &mut Shared) -> Result<Pushed, PushError> {
        let Some(writing) = &self.writing else { return Err(PushError::Removed) };
        let whole = self.open.iter().position(|batch| batch.columns.is_all());
        if let Some((place, batch)) = whole.and_then(|place| Some((place, self.open.get_mut(place)?))) {
            match batch.append_upsert(&writing.encoder, row) {
                Ok(bytes) => return self.record_alone(place, bytes, Operation::Upsert, shared),
                Err(Fault { reason: Reason::Unchanged, .. }) => {}
                Err(fault) => return Err(writing.encoder.error(fault).into()),
            }
        }
        self.upsert_with_care(row, shared)
    }

    pub(super) fn delete(&mut self, row: &impl Row, shared: &mut Shared) -> Result<Pushed, PushError> {
        let Some(writing) = &self.writing else { return Err(PushError::Removed) };
        if let [batch] = self.open.as_mut_slice() {
            let bytes = batch.append_delete(&writing.encoder, row).map_err(|it| writing.encoder.error(it))?;
            return self.record(0, bytes, Operation::Delete, shared);
        }
        self.read_key(row, shared)?;
        let place = match self.newest_of(shared) {
            Some((place, ..)) => place,
            None if self.open.is_empty() => self.open_batch(ColumnSet::ALL, shared)?,
            None => 0,
        };
        let Some((writing, batch)) = self.at(place) else { return Err(PushError::Removed) };
        let encoder = Arc::clone(&writing.encoder);
        let bytes = batch.append_delete(&encoder, row).map_err(|fault| encoder.error(fault))?;
        self.kill_elsewhere(place, shared);
        self.record(place, bytes, Operation::Delete, shared)
    }

    /// A delete by the key alone.
    pub(super) fn delete_key(&mut self, key: &[u8], shared: &mut Shared) -> Result<Pushed, PushError> {
        shared.key.clear();
        shared.key.extend_from_slice(key);
        let place = match self.newest_of(shared) {
            Some((place, ..)) => place,
            None if self.open.is_empty() => self.open_batch(ColumnSet::ALL, shared)?,
            None => 0,
        };
        let Some((writing, batch)) = self.at(place) else { return Err(PushError::Removed) };
        let encoder = Arc::clone(&writing.encoder);
        let line = RowEncoder::deletion_of(key);
        let bytes = batch.append_line(&line, key.len()).map_err(|fault| encoder.error(fault))?;
        self.kill_elsewhere(place, shared);
        self.record(place, bytes, Operation::Delete, shared)
    }

    /// Lets sealed batches go that have no rows any more.
    pub(super) fn drop_empty(&mut self, shared: &mut Shared) {
        self.sealed.retain(|sealed| {
            if sealed.rows == 0 {
                shared.held_bytes -= sealed.held_bytes;
                shared.checkpoint.close(sealed.floor);
            }
            sealed.rows > 0
        });
    }

    /// The mark of a deleted row; no allocation but for a new batch.
    pub(super) fn mark(&mut self, row: &impl Row, shared: &mut Shared) -> Result<Pushed, PushError> {
        self.read_key(row, shared)?;
        let newest = self.newest_of(shared);
        let Some(writing) = &mut self.writing else { return Err(PushError::Removed) };
        let encoder = Arc::clone(&writing.encoder);
        let columns = writing.mark.get_or_insert_with(|| ColumnSet::carried_by(row, encoder.columns()));
        let (place, earlier) = match newest {
            Some((_, _, Operation::Delete)) => return Err(PushError::UnchangedAfterDelete),
            Some((place, number, _)) => (place, Some(number)),
            None => match self.open.iter().position(|batch| batch.columns == *columns) {
                Some(place) => (place, None),
                None => {
                    let columns = columns.clone();
                    (self.open_batch(columns, shared)?, None)
                }
            },
        };
        let Some((_, batch)) = self.at(place) else { return Err(PushError::Removed) };
        let bytes = match earlier {
            Some(earlier) => batch.append_over(&encoder, row, earlier, &mut shared.line),
            None => batch.append_upsert(&encoder, row),
        };
        let bytes = bytes.map_err(|fault| encoder.error(fault))?;
        self.record(place, bytes, Operation::Upsert, shared)
    }

    /// An upsert when not everything is as usual: see the head of this file.
    fn upsert_with_care(&mut self, row: &impl Row, shared: &mut Shared) -> Result<Pushed, PushError> {
        let Some(writing) = &self.writing else { return Err(PushError::Removed) };
        let encoder = Arc::clone(&writing.encoder);
        let columns = ColumnSet::carried_by(row, encoder.columns());
        self.read_key(row, shared)?;
        let is_whole = columns.is_all();
        let (place, earlier) = self.place(columns, shared)?;
        let Some((_, batch)) = self.at(place) else { return Err(PushError::Removed) };
        let bytes = match earlier {
            Some(earlier) => batch.append_over(&encoder, row, earlier, &mut shared.line),
            None => batch.append_upsert(&encoder, row),
        };
        let bytes = bytes.map_err(|fault| encoder.error(fault))?;
        if is_whole {
            self.kill_elsewhere(place, shared);
        }
        self.record(place, bytes, Operation::Upsert, shared)
    }

    /// The open batch for a row with these columns and the key in `shared.key`, and the row there that completes it.
    fn place(
        &mut self,
        columns: ColumnSet,
        shared: &mut Shared,
    ) -> Result<(usize, Option<usize>), PushError> {
        let first = if columns.is_all() {
            0
        } else {
            match self.newest_of(shared) {
                None => 0,
                Some((_, _, Operation::Delete)) => return Err(PushError::UnchangedAfterDelete),
                Some((place, number, _)) => {
                    if self.open.get(place).is_some_and(|batch| columns.is_subset_of(&batch.columns)) {
                        return Ok((place, Some(number)));
                    }
                    place + 1
                }
            }
        };
        let same = |batch: &Batch| batch.columns == columns;
        let place = match self.open.iter().skip(first).position(same) {
            Some(place) => first + place,
            None => self.open_batch(columns, shared)?,
        };
        Ok((place, None))
    }

    fn read_key(&self, row: &impl Row, shared: &mut Shared) -> Result<(), PushError> {
        let Some(writing) = &self.writing else { return Err(PushError::Removed) };
        shared.key.clear();
        writing.encoder.key(row, &mut shared.key).map_err(|fault| writing.encoder.error(fault).into())
    }

    /// The last open batch with a row of the key in `shared.key`, the row's number there and what it does.
    fn newest_of(&self, shared: &Shared) -> Option<(usize, usize, Operation)> {
        self.open.iter().enumerate().rev().find_map(|(place, batch)| {
            batch.find(&shared.key, &shared.hasher).map(|(number, operation)| (place, number, operation))
        })
    }

    /// Rows of the key in `shared.key` die in all open batches but the one at `place`, which answers for them now.
    fn kill_elsewhere(&mut self, place: usize, shared: &mut Shared) {
        if self.open.len() == 1 {
            return;
        }
        let mut oldest: Option<Lsn> = None;
        for (other, batch) in self.open.iter_mut().enumerate() {
            if other != place && batch.kill(&shared.key, &shared.hasher) {
                oldest = Some(oldest.map_or(batch.floor, |floor| floor.min(batch.floor)));
            }
        }
        if let (Some(floor), Some(batch)) = (oldest, self.open.get_mut(place)) {
            batch.floor = shared.checkpoint.lower(batch.floor, floor);
        }
    }

    /// Opens a batch behind the others and returns its place.
    fn open_batch(&mut self, columns: ColumnSet, shared: &mut Shared) -> Result<usize, PushError> {
        let Some(writing) = &self.writing else { return Err(PushError::Removed) };
        let shape = writing.shape(&columns).map_err(PushError::Shape)?;
        if self.open.len() >= MAX_OPEN {
            self.seal(shared);
            shared.sealed_early = true;
        }
        let floor = shared.checkpoint.open();
        self.open.push(Batch::new(columns, shape, floor, &mut shared.spare));
        Ok(self.open.len() - 1)
    }

    fn at(&mut self, place: usize) -> Option<(&Writing, &mut Batch)> {
        self.writing.as_ref().zip(self.open.get_mut(place))
    }

    /// Makes an appended row that has all columns part of the batch at `place`; other batches lose what they have of its key.
    #[inline]
    fn record_alone(
        &mut self,
        place: usize,
        bytes: RowBytes,
        operation: Operation,
        shared: &mut Shared,
    ) -> Result<Pushed, PushError> {
        if self.open.len() > 1
            && let Some(batch) = self.open.get(place)
        {
            shared.key.clear();
            shared.key.extend_from_slice(batch.key(bytes));
            self.kill_elsewhere(place, shared);
        }
        self.record(place, bytes, operation, shared)
    }

    /// Makes an appended row part of the batch at `place`.
    #[inline]
    fn record(
        &mut self,
        place: usize,
        bytes: RowBytes,
        operation: Operation,
        shared: &mut Shared,
    ) -> Result<Pushed, PushError> {
        let Some((writing, batch)) = self.writing.as_ref().zip(self.open.get_mut(place)) else {
            return Err(PushError::Removed);
        };
        if bytes.end > MAX_LOAD_BYTES && bytes.start > 0 {
            return self.record_in_new_batch(place, bytes, operation, shared);
        }
        batch.record(bytes, operation, &shared.hasher).map_err(|fault| writing.encoder.error(fault))?;
        shared.held_bytes += bytes.end - bytes.start + ROW_OVERHEAD;
        let (limits, rows, bytes) = (&shared.limits, batch.rows(), batch.buffer_bytes());
        let full = rows >= limits.batch_max_rows
            || bytes >= limits.batch_max_bytes
            || (bytes >= limits.batch_ample_bytes && !self.is_loading());
        Ok(if full { Pushed::Full } else { Pushed::Open })
    }

    /// The row does not fit into the load that the batch at `place` becomes: it begins the next one.
    #[cold]
    fn record_in_new_batch(
        &mut self,
        place: usize,
        bytes: RowBytes,
        operation: Operation,
        shared: &mut Shared,
    ) -> Result<Pushed, PushError> {
        let Some((_, batch)) = self.at(place) else { return Err(PushError::Removed) };
        let (columns, line) = (batch.columns.clone(), batch.take_back(bytes));
        self.seal(shared);
        shared.sealed_early = true;
        let place = self.open_batch(columns, shared)?;
        let Some((writing, batch)) = self.at(place) else { return Err(PushError::Removed) };
        let encoder = Arc::clone(&writing.encoder);
        let bytes =
            batch.append_line(&line, bytes.key_end - bytes.start).map_err(|fault| encoder.error(fault))?;
        self.record(place, bytes, operation, shared)
    }

    /// Seals the open batches in their order. How many of them became loads.
    pub(super) fn seal(&mut self, shared: &mut Shared) -> usize {
        self.clock = None;
        self.overdue = false;
        let mut loads = 0;
        let Some(encoder) = self.writing.as_ref().map(|writing| Arc::clone(&writing.encoder)) else {
            return 0;
        };
        for mut batch in self.open.drain(..) {
            shared.held_bytes += batch.commit(shared.commit_end);
            let (held, rows) = (batch.held_bytes(), batch.rows());
            shared.held_bytes -= held;
            if rows == 0 {
                shared.checkpoint.close(batch.floor);
                batch.discard(&mut shared.spare);
                continue;
            }
            let (shape, floor) = (Arc::clone(&batch.shape), batch.floor);
            let (buffer, live, commits) = batch.seal(&mut shared.spare);
            let held_bytes = buffer.len() + live.len() * size_of::<Range<usize>>() + commits.held_bytes();
            shared.held_bytes += held_bytes;
            shared.next_sequence += 1;
            self.sealed.push_back(Sealed {
                sequence: shared.next_sequence,
                encoder: Arc::clone(&encoder),
                commits,
                shape,
                floor,
                buffer,
                live,
                rows: rows as u64,
                held_bytes,
            });
            loads += 1;
        }
        loads
    }

    /// Drops all that is not in flight. How many rows that were.
    pub(super) fn drop_rows(&mut self, shared: &mut Shared) -> u64 {
        self.clock = None;
        self.overdue = false;
        let mut rows = 0;
        for batch in self.open.drain(..) {
            rows += batch.rows() as u64;
            shared.held_bytes -= batch.held_bytes();
            shared.checkpoint.close(batch.floor);
            batch.discard(&mut shared.spare);
        }
        if let Some(cut) = self.cut.take() {
            shared.held_bytes -= cut.held_bytes;
            shared.checkpoint.close(cut.floor);
        }
        for sealed in self.sealed.drain(..) {
            rows += sealed.rows;
            shared.held_bytes -= sealed.held_bytes;
            shared.checkpoint.close(sealed.floor);
        }
        rows
    }
}
