//! What the callbacks feed.
//!
//! Every change of a mirrored table goes through here: it finds its table, becomes a row in the pipeline, and when the
//! pipeline is full the change waits here until loads have been acknowledged. Called only from the worker's main
//! thread: by the callbacks while a record is being decoded, by the worker's loop between records.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use pgrx::pg_sys;

use super::super::catalog::relation::Columns;
use super::super::catalog::table::MirrorTableRow;
use super::super::loader::Loader;
use super::super::tuple::{RowMemory, Toast, TupleRow};
use super::super::{compat, latch, session};
use super::filtered::Filtered;
use super::mirrored::{self, Columnar, Mirrored, Route};
use super::news::{FailedTable, News};
use super::outgoing::Outgoing;
use crate::encode::{Row, Value};
use crate::lsn::Lsn;
use crate::options::{OnStatement, Options};
use crate::pipeline::{Change, LabelSequence, Limits, Pipeline, PushError, TableIndex};

/// So many changes are taken in before the worker looks up: interrupts, outcomes, the clock.
const CHANGES_PER_BREATH: u32 = 256;
/// So many records are decoded before the clock is looked at.
const RECORDS_PER_GLANCE: u32 = 64;

/// The tables of the mirror and the pipeline that their rows go into.
pub(in super::super) struct Feed {
    pub(super) mirror: String,
    pub(super) options: Options,
    pub(super) pipeline: Pipeline,
    pub(super) outgoing: Outgoing,
    pub(super) tables: HashMap<u32, Mirrored>,
    pub(super) news: News,
    pub(super) filtered: Filtered,
    filtered_tables: usize,
    memory: RowMemory,
    changes: u32,
    records: u32,
    received: Lsn,
}

impl Feed {
    /// An empty feed for the tables of a mirror.
    pub(in super::super) fn new(
        mirror: &str,
        options: &Options,
        tables: &[MirrorTableRow],
        loader: Loader,
        labels: LabelSequence,
    ) -> Self {
        mirrored::watch_invalidations();
        let tables: HashMap<u32, Mirrored> =
            tables.iter().map(|row| (row.relid.to_u32(), Mirrored::new(row))).collect();
        Self {
            mirror: mirror.to_owned(),
            pipeline: Pipeline::new(limits(options), Instant::now()),
            outgoing: Outgoing::new(mirror, loader, labels),
            filtered_tables: tables.values().filter(|table| table.route == Route::Pgoutput).count(),
            filtered: Filtered::default(),
            tables,
            options: options.clone(),
            news: News::default(),
            memory: RowMemory::new(),
            changes: 0,
            records: 0,
            received: Lsn::INVALID,
        }
    }

    /// Whether pgoutput has anything to do.
    pub(super) const fn has_filtered_tables(&self) -> bool {
        self.filtered_tables > 0
    }

    /// Who turns changes of a relation into rows.
    #[inline]
    pub(super) fn route(&self, relid: u32) -> Route {
        self.tables.get(&relid).map_or(Route::Skip, |table| table.route)
    }

    /// Takes in a change of a table that is decoded from its tuples.
    ///
    /// # Safety
    ///
    /// The server has just called back with this open relation and its change.
    #[inline]
    pub(super) unsafe fn change(&mut self, open: pg_sys::Relation, change: *mut pg_sys::ReorderBufferChange) {
        // SAFETY: the caller vouches for relation and change.
        let taken = unsafe { self.take_in(open, change) };
        if let Err(reason) = taken {
            // SAFETY: the caller vouches for the relation.
            let relid = unsafe { (*open).rd_id.to_u32() };
            self.stop_at_change(relid, reason);
        }
        self.after_change();
    }

    /// # Safety
    ///
    /// As [`Self::change`].
    #[inline]
    unsafe fn take_in(
        &mut self,
        open: pg_sys::Relation,
        change: *mut pg_sys::ReorderBufferChange,
    ) -> Result<(), String> {
        let Self { tables, pipeline, memory, options, .. } = self;
        // SAFETY: the caller vouches for the relation and its change; tuples conform to the relation's descriptor, and
        // the readers were made for it or the columns are looked at again.
        unsafe {
            let Some(table) = tables.get_mut(&(*open).rd_id.to_u32()) else { return Ok(()) };
            if table.is_stale() {
                table.look_again(open, Columns::All, options, pipeline)?;
            }
            let Some(columnar) = &mut table.columnar else { return Ok(()) };
            let (old, new) = compat::change_tuples(change);
            let descriptor = (*open).rd_att;
            let Columnar { index, new: new_reader, old: old_reader, identity_is_full, spec, .. } = columnar;
            memory.scoped(|| {
                let old = (!old.is_null()).then(|| old_reader.heap_row(old, descriptor, Toast::Unchanged));
                let new = (!new.is_null()).then(|| new_reader.heap_row(new, descriptor, Toast::Unchanged));
                match (*change).action {
                    pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_INSERT => new
                        .map_or(Ok(()), |new| pipeline.upsert(*index, Change::Insert, &new).map_err(reason)),
                    pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_UPDATE => match (old, new) {
                        (_, None) => Ok(()),
                        (None, Some(new)) => pipeline.upsert(*index, Change::Update, &new).map_err(reason),
                        (Some(old), Some(new)) => {
                            let new = Merged { new, old: &old, old_is_whole: *identity_is_full };
                            update_with_old_row(
                                pipeline,
                                *index,
                                &new,
                                &old,
                                spec.key_len,
                                spec.columns.len(),
                            )
                        }
                    },
                    pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_DELETE => match old {
                        Some(old) => pipeline.delete(*index, &old).map_err(reason),
                        None => Err("the log does not say which row was deleted: it had no replica identity"
                            .to_owned()),
                    },
                    _ => Ok(()),
                }
            })
        }
    }

    /// A change of a table that is not mirrored.
    #[inline]
    pub(super) fn skipped(&mut self) {
        self.changes += 1;
        if self.changes >= CHANGES_PER_BREATH {
            self.breathe();
        }
    }

    /// What every change ends with. Costs a few comparisons, but for every 256th.
    #[inline]
    pub(super) fn after_change(&mut self) {
        self.changes += 1;
        if self.changes >= CHANGES_PER_BREATH {
            self.breathe();
        }
        if !self.pipeline.has_room() {
            self.wait_for_room();
        }
    }

    /// Looks up from decoding: interrupts, finished loads, the clock.
    pub(super) fn breathe(&mut self) {
        self.changes = 0;
        latch::serve_interrupts();
        self.pipeline.tick(Instant::now());
        self.pump();
    }

    /// Back-pressure: the change that did not fit waits here. Loads of everything that is encoded are on their way.
    #[cold]
    fn wait_for_room(&mut self) {
        self.pipeline.seal_all();
        self.pump();
        while !self.pipeline.has_ample_room() {
            self.pause_inside_callback(Duration::from_millis(500));
            self.pump();
        }
    }

    /// Waits inside a callback, where no transaction can be begun: figures go to shared memory, and this process holds
    /// back no vacuum meanwhile.
    pub(super) fn pause_inside_callback(&mut self, timeout: Duration) {
        self.publish();
        // SAFETY: lets a catalog snapshot go that nobody uses; the decoder's historic snapshot stays.
        unsafe { pg_sys::InvalidateCatalogSnapshotConditionally() };
        self.outgoing.wait(timeout);
        session::leave_if_unwanted(&self.mirror);
        self.outgoing.leave_if_in_trouble_for_long();
    }

    /// A TRUNCATE of a relation: everything before it is loaded, then the target is emptied, then decoding goes on.
    pub(super) fn truncate(&mut self, relid: u32) {
        let Some(table) = self.tables.get(&relid).filter(|table| table.route != Route::Skip) else { return };
        let (target, index) = (table.target.clone(), table.columnar.as_ref().map(|columnar| columnar.index));
        if let Some(index) = index {
            self.pipeline.count_truncate(index);
        }
        match self.options.on_truncate {
            OnStatement::Ignore => return,
            OnStatement::Error => return self.stop_at_change(relid, "the table was truncated".to_owned()),
            OnStatement::Apply => {}
        }
        if let Some(index) = index {
            self.pipeline.seal_table(index);
            while !self.pipeline.is_drained(index) {
                self.pump();
                self.pause_inside_callback(Duration::from_millis(500));
                self.pump();
            }
        }
        if let Err(reason) = self.empty_target(target) {
            self.fail(relid, reason);
        }
    }

    /// A transaction of the source has come to its end.
    pub(super) fn commit(&mut self, end: Lsn, commit_time: i64) {
        self.pipeline.commit(end);
        self.outgoing.committed(end, commit_time);
    }

    /// A record has been decoded, whatever was in it.
    #[inline]
    pub(super) fn record_done(&mut self, position: Lsn) {
        self.received = position;
        self.pipeline.decoded_to(position);
    }

    /// Whether the loop of the worker should have its say before more is decoded.
    #[inline]
    pub(in super::super) fn is_time_for_a_pause(&mut self, until: Instant) -> bool {
        self.records += 1;
        if self.records < RECORDS_PER_GLANCE {
            return false;
        }
        self.records = 0;
        Instant::now() >= until
    }

    /// Decoded up to here.
    pub(in super::super) const fn received_lsn(&self) -> Lsn {
        self.received
    }

    /// Puts a table into error: it keeps no changes, and the checkpoint goes on without it.
    #[cold]
    pub(super) fn fail(&mut self, relid: u32, reason: String) {
        if let Some(index) = self.put_into_error(relid, reason) {
            self.pipeline.remove_table(index);
        }
    }

    /// The same for a table that the change at hand cannot be taken in for: what came before it is still loaded.
    #[cold]
    pub(super) fn stop_at_change(&mut self, relid: u32, reason: String) {
        if let Some(index) = self.put_into_error(relid, reason) {
            self.pipeline.seal_table(index);
        }
    }

    /// From here on nobody takes in changes of the table. Returns its place in the pipeline, if it ever had a change.
    fn put_into_error(&mut self, relid: u32, reason: String) -> Option<TableIndex> {
        let table = self.tables.get_mut(&relid).filter(|table| table.route != Route::Skip)?;
        if table.route == Route::Pgoutput {
            self.filtered_tables -= 1;
        }
        table.route = Route::Skip;
        self.news.failed.push(FailedTable { relid, source_name: table.source_name.clone(), reason });
        table.columnar.as_ref().map(|columnar| columnar.index)
    }
}

/// An UPDATE that has an old row: the key changed, or the replica identity is FULL.
pub(super) fn update_with_old_row(
    pipeline: &mut Pipeline,
    index: TableIndex,
    row: &impl Row,
    old: &impl Row,
    key_len: usize,
    columns: usize,
) -> Result<(), String> {
    if (0..key_len).all(|column| old.value(column) == row.value(column)) {
        return pipeline.upsert(index, Change::Update, row).map_err(reason);
    }
    if (0..columns).any(|column| row.value(column) == Value::Unchanged) {
        return Err(
            "the key of a row was changed while a large value of it was not, and the log does not have that \
                    value; REPLICA IDENTITY FULL would put it there"
                .to_owned(),
        );
    }
    pipeline.delete(index, old).map_err(reason)?;
    pipeline.upsert(index, Change::Update, row).map_err(reason)
}

/// A new row whose unchanged values are taken from the old one, where that is whole.
struct Merged<'a> {
    new: TupleRow<'a>,
    old: &'a TupleRow<'a>,
    old_is_whole: bool,
}

impl Row for Merged<'_> {
    fn value(&self, column: usize) -> Value<'_> {
        match self.new.value(column) {
            Value::Unchanged if self.old_is_whole => self.old.value(column),
            value => value,
        }
    }
}

pub(super) fn reason(problem: PushError) -> String {
    problem.to_string()
}

/// A load takes no more than half of the memory, so that the next one can be encoded while it travels.
fn limits(options: &Options) -> Limits {
    let memory_limit = usize::try_from(options.memory_limit).unwrap_or(usize::MAX);
    let batch_max_bytes = usize::try_from(options.batch_max_bytes).unwrap_or(usize::MAX);
    Limits {
        batch_max_rows: usize::try_from(options.batch_max_rows).unwrap_or(usize::MAX),
        batch_max_bytes: batch_max_bytes.min(memory_limit / 2),
        memory_limit,
        flush_interval: options.flush_interval,
    }
}
