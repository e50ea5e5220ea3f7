//! Rows of a table go from the scans of its chunks into the batch of one load. Called by a snapshot worker, in a transaction of
//! its own for each load.

use std::sync::Arc;

use pgrx::pg_sys;

use super::super::catalog::chunk::Chunk;
use super::super::catalog::table::MirrorTableRow;
use super::super::scan::{self, Position, RangeScan, RowFilter};
use super::super::tuple::RowMemory;
use super::snapshot::Stop;
use super::source::{Opened, Source, Unreadable};
use super::start::Mirror;
use crate::encode::{Appended, EncodeError, Row, RowEncoder, Stamp};
use crate::options::OnReject;
use crate::pipeline::{CopyBatch, RejectedRow, SpareBuffers};

/// What the rows of a load are written by, and into.
type Into = Option<(Arc<RowEncoder>, CopyBatch)>;

/// A load that is being filled, from one chunk or several.
pub(super) struct Filling<'a> {
    mirror: &'a Mirror,
    table: &'a MirrorTableRow,
    memory: &'a mut RowMemory,
    buffers: &'a mut SpareBuffers,
    max_bytes: usize,
    /// What copied rows are as of.
    stamp: Stamp,
    into: Into,
    /// Rows that cannot be encoded …
    rejected: Vec<RejectedRow>,
    /// … of which no more than so many are passed over.
    most: usize,
}

impl<'a> Filling<'a> {
    /// A load without rows.
    pub(super) fn new(
        mirror: &'a Mirror,
        table: &'a MirrorTableRow,
        memory: &'a mut RowMemory,
        buffers: &'a mut SpareBuffers,
        max_bytes: usize,
        stamp: Stamp,
    ) -> Self {
        let most = match mirror.options.on_reject {
            OnReject::Stop => 0,
            OnReject::Continue => OnReject::Continue.most_rows(),
        };
        Self { mirror, table, memory, buffers, max_bytes, stamp, into: None, rejected: Vec::new(), most }
    }

    /// What has been read.
    pub(super) fn end(self) -> (Into, Vec<RejectedRow>) {
        (self.into, self.rejected)
    }

    /// Reads rows of a chunk until it ends or the load is full. Returns where to go on in it, or none at its end.
    pub(super) fn read(&mut self, chunk: &Chunk, from: Option<Position>) -> Result<Option<Position>, Stop> {
        if self.table.is_partitioned && chunk.leaf == chunk.relid {
            // A partitioned table without partitions has a chunk all the same.
            return Ok(None);
        }
        let opened = Opened::open(chunk.relid, chunk.leaf).ok_or_else(|| gone(self.table))?;
        // SAFETY: just opened and locked, and used no more once they are closed; a snapshot is active.
        unsafe {
            let next = self.read_opened(opened, chunk, from.unwrap_or(Position::start_of(chunk.first_block)));
            opened.close();
            next
        }
    }

    /// # Safety
    ///
    /// The relations are open and locked, and a snapshot is active.
    unsafe fn read_opened(
        &mut self,
        opened: Opened,
        chunk: &Chunk,
        from: Position,
    ) -> Result<Option<Position>, Stop> {
        let Self { mirror, table, memory, buffers, max_bytes, stamp, into, rejected, most } = self;
        // SAFETY: the caller vouches for the relations.
        let mut source = unsafe { look_again(opened, chunk, table, mirror) }?;
        source.reader.stamp(*stamp);
        let (_, batch) = match into {
            Some(filled) => filled,
            None => {
                let (encoder, shape) = source.writer(mirror)?;
                let max_rows = mirror.options.batch_max_rows;
                let batch = CopyBatch::new(encoder.clone(), shape, max_rows, *max_bytes, buffers.take());
                into.insert((encoder, batch))
            }
        };
        let mut rows_of = RowsOf { source: &source, batch, rejected, most: *most };
        // SAFETY: as above; scan and filter end before the transaction.
        unsafe {
            let mut filter = mirror.row_filter(opened);
            let mut rows = RangeScan::open(opened.rows, from, chunk.end_block);
            let next = rows_of.fill(&mut rows, filter.as_mut(), memory);
            rows.close();
            if let Some(filter) = filter {
                filter.free();
            }
            Ok(next?)
        }
    }
}

/// A partition that is gone makes its root another one; a table that is gone leaves the mirror.
fn gone(table: &MirrorTableRow) -> Stop {
    if table.is_partitioned { Stop::Outdated } else { Stop::Gone }
}

/// Looks at the table again, under its lock: the copy must still be of the same columns and blocks.
///
/// # Safety
///
/// The relations are open and locked.
unsafe fn look_again(
    opened: Opened,
    chunk: &Chunk,
    table: &MirrorTableRow,
    mirror: &Mirror,
) -> Result<Source, Stop> {
    // SAFETY: the caller vouches for the relations.
    let (source, relfilenode) =
        unsafe { (Source::of(opened, table, mirror), scan::relfilenode_of(opened.rows)) };
    if relfilenode != chunk.relfilenode {
        return Err(Stop::Outdated);
    }
    source.map_err(|problem| match problem {
        Unreadable::Changed => Stop::Outdated,
        Unreadable::Unfit(reason) => Stop::Failed(reason),
    })
}

/// Rows that are read between two looks at anything else.
const ROWS_AT_ONCE: usize = 1024;

/// Why no more rows are read.
enum Halt {
    Full,
    Failed(String),
}

/// What rows are read into.
struct RowsOf<'a> {
    source: &'a Source,
    batch: &'a mut CopyBatch,
    /// Rows that cannot be encoded …
    rejected: &'a mut Vec<RejectedRow>,
    /// … of which no more than so many are passed over.
    most: usize,
}

impl RowsOf<'_> {
    /// Reads rows into the batch until it is full. Returns where to go on, or none at the end.
    ///
    /// # Safety
    ///
    /// `rows` is an open scan of the relation that the source was made from.
    unsafe fn fill(
        &mut self,
        rows: &mut RangeScan,
        mut filter: Option<&mut RowFilter>,
        memory: &mut RowMemory,
    ) -> Result<Option<Position>, String> {
        if self.is_full() {
            return Ok(Some(rows.position()));
        }
        loop {
            // SAFETY: the caller vouches for the scan; each row is used before the next one is asked for.
            let more = unsafe {
                rows.next_rows(ROWS_AT_ONCE, |slot| self.take(slot, filter.as_deref_mut(), memory))
            };
            match more {
                Ok(true) => scan::breathe(),
                Ok(false) => return Ok(None),
                Err(Halt::Full) => return Ok(Some(rows.position())),
                Err(Halt::Failed(reason)) => return Err(reason),
            }
        }
    }

    /// # Safety
    ///
    /// The slot holds a row of the source.
    #[inline]
    unsafe fn take(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        filter: Option<&mut RowFilter>,
        memory: &mut RowMemory,
    ) -> Result<(), Halt> {
        // SAFETY: the caller vouches for the slot.
        unsafe {
            if filter.is_some_and(|filter| !filter.passes(slot)) {
                return Ok(());
            }
            memory.scoped(|| {
                let row = self.source.reader.slot_row(slot);
                match self.source.appended_key(slot) {
                    None => self.push(&row),
                    Some((lsn, seq)) => self.push(&Appended { row: &row, lsn, seq }),
                }
            })?;
        }
        if self.is_full() { Err(Halt::Full) } else { Ok(()) }
    }

    fn is_full(&self) -> bool {
        self.batch.is_full() || self.rejected.len() > self.most
    }

    #[inline]
    fn push(&mut self, row: &impl Row) -> Result<(), Halt> {
        match self.batch.push(row) {
            Ok(()) => Ok(()),
            Err(problem) => self.reject(row, &problem).map_err(Halt::Failed),
        }
    }

    #[cold]
    fn reject(&mut self, row: &impl Row, problem: &EncodeError) -> Result<(), String> {
        let rejected = self.batch.rejected(row, problem).ok_or_else(|| self.told(problem))?;
        self.rejected.push(RejectedRow { reason: self.told(problem), ..rejected });
        Ok(())
    }

    fn told(&self, problem: &EncodeError) -> String {
        format!("could not encode a row of \"{}\": {problem}", self.source.spec.source_name)
    }
}
