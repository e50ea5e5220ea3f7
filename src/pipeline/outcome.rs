//! Loads out of the pipeline, and what becomes of them.
//!
//! ```text
//! sealed ─► next_load ─► in flight ─┬─ finished ─────► gone
//!                                   ├─ rows_refused ─► parts, one after another ─► take_bisected
//!                                   └─ refused ──────► gone, and its table with it
//! ```
//!
//! Called by whoever drives the pipeline, with the answers of the load threads.

use std::sync::Arc;

use bytes::Bytes;

use super::Pipeline;
use super::bisection::{Bisection, Commits, RejectedRow};
use super::label::LabelSequence;
use super::table::{Cut, Sealed, TableIndex};
use crate::encode::RowEncoder;
use crate::lsn::Lsn;
use crate::sink::Load;

/// A load under way.
pub(super) struct InFlight {
    pub(super) table: TableIndex,
    rows: u64,
    body_bytes: u64,
    /// What a whole load is, beside its rows; nothing for a part of one that was cut.
    whole: Option<Whole>,
}

struct Whole {
    sequence: u64,
    encoder: Arc<RowEncoder>,
    commits: Commits,
    floor: Lsn,
    buffer: Bytes,
    held_bytes: usize,
}

/// A load whose bad rows have been found.
#[derive(Debug)]
pub struct Bisected {
    /// Its table.
    pub table: TableIndex,
    /// The table's `pg_class.oid` at the source.
    pub relid: u32,
    /// The bad rows.
    pub rejected: Vec<RejectedRow>,
    /// There were so many of them that the others were not looked for: rows are missing at the target.
    pub gave_up: bool,
}

/// A load that came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finished {
    /// Its table.
    pub table: TableIndex,
    /// The table's `pg_class.oid` at the source.
    pub relid: u32,
    /// Its rows.
    pub rows: u64,
    /// The bytes of its body before compression.
    pub bytes: u64,
}

impl Pipeline {
    /// The oldest sealed batch of a table that has no load under way, with the next label. `None` when there is none,
    /// and when no label is left ([`LabelSequence::remaining`]).
    pub fn next_load(&mut self, labels: &mut LabelSequence) -> Option<Load> {
        let oldest = self.ready.first_entry()?;
        let label = labels.take()?;
        let index = oldest.remove();
        let table = self.tables.get_mut(index.0 as usize)?;
        let number = label.number;
        let (load, whole) = match &mut table.cut {
            Some(cut) => (cut.bisection.next(label)?, None),
            None => {
                let Sealed { sequence, encoder, commits, shape, floor, buffer, live, rows, held_bytes } =
                    table.sealed.pop_front()?;
                let whole = Whole { sequence, encoder, commits, floor, buffer: buffer.clone(), held_bytes };
                (Load { label, shape, buffer, live, rows }, Some(whole))
            }
        };
        table.in_flight = Some(number);
        let (rows, body_bytes) = (load.rows, load.body_bytes() as u64);
        self.in_flight.insert(number, InFlight { table: index, rows, body_bytes, whole });
        Some(load)
    }

    /// The load with this label number is visible at the target. `None` when no such load is under way. Its buffer is
    /// used again when the [`Load`] was dropped before.
    pub fn finished(&mut self, number: u64) -> Option<Finished> {
        let finished = self.end_load(number)?;
        if let Some(table) = self.tables.get_mut(finished.table.0 as usize) {
            table.counters.loads += 1;
            table.counters.rows_loaded += finished.rows;
            table.counters.bytes_loaded += finished.bytes;
            if let Some(cut) = &mut table.cut {
                cut.bisection.accepted();
            }
        }
        self.go_on_after_part(finished.table);
        Some(finished)
    }

    /// The load was refused because of some of its rows: it goes in parts until they are found. `reason` is what the
    /// target said; after more than `most` bad rows nobody looks for others. `None` when no such load is under way.
    pub fn rows_refused(&mut self, load: &Load, reason: &str, most: usize) -> Option<()> {
        let InFlight { table: index, whole, .. } = self.in_flight.remove(&load.label.number)?;
        let table = self.tables.get_mut(index.0 as usize)?;
        table.in_flight = None;
        if let Some(Whole { sequence, encoder, commits, floor, held_bytes, .. }) = whole {
            if table.writing.is_none() {
                self.shared.checkpoint.close(floor);
                self.shared.held_bytes -= held_bytes;
                return Some(());
            }
            let bisection = Bisection::with_commits(load, encoder, commits, most);
            table.cut = Some(Cut { bisection, sequence, floor, held_bytes });
        }
        if let Some(cut) = &mut table.cut {
            cut.bisection.refused(reason);
        }
        self.go_on_after_part(index);
        Some(())
    }

    /// Loads whose bad rows were found since the last call. Whatever becomes of those rows, it must be written down before
    /// a checkpoint: nothing holds it back for them any more.
    pub fn take_bisected(&mut self) -> Vec<Bisected> {
        std::mem::take(&mut self.bisected)
    }

    /// The load with this label number is not at the target and never will be: its table is removed, as by
    /// [`Self::remove_table`]. `None` when no such load is under way.
    pub fn refused(&mut self, number: u64) -> Option<Finished> {
        let refused = self.end_load(number)?;
        if let Some(cut) = self.tables.get_mut(refused.table.0 as usize).and_then(|table| table.cut.as_mut())
        {
            let rejected = cut.bisection.take_rejected();
            if !rejected.is_empty() {
                let Finished { table, relid, .. } = refused;
                self.bisected.push(Bisected { table, relid, rejected, gave_up: true });
            }
        }
        self.remove_table(refused.table);
        Some(refused)
    }

    /// How many loads are under way.
    pub fn loads_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A part of a load that was cut has come to its end, or a load that was whole.
    fn go_on_after_part(&mut self, index: TableIndex) {
        if let Some(table) = self.tables.get_mut(index.0 as usize)
            && let Some(mut cut) = table.cut.take_if(|cut| cut.bisection.is_over())
        {
            self.shared.held_bytes -= cut.held_bytes;
            self.shared.checkpoint.close(cut.floor);
            let gave_up = cut.bisection.gave_up();
            let rejected = cut.bisection.take_rejected();
            if !rejected.is_empty() {
                self.bisected.push(Bisected { table: index, relid: table.relid, rejected, gave_up });
            }
        }
        self.make_ready(index);
    }

    fn end_load(&mut self, number: u64) -> Option<Finished> {
        let InFlight { table: index, rows, body_bytes, whole } = self.in_flight.remove(&number)?;
        if let Some(Whole { floor, buffer, held_bytes, .. }) = whole {
            self.shared.checkpoint.close(floor);
            self.shared.held_bytes -= held_bytes;
            self.shared.spare.buffers.keep_of_load(buffer);
        }
        let table = self.tables.get_mut(index.0 as usize)?;
        table.in_flight = None;
        Some(Finished { table: index, relid: table.relid, rows, bytes: body_bytes })
    }
}
