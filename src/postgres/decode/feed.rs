//! What the callbacks feed.
//!
//! Every change of a mirrored table goes through here: it finds its table, becomes a row in the pipeline, and when the
//! pipeline is full the change waits here until loads have been acknowledged. Called only from the worker's main
//! thread: by the callbacks while a record is being decoded, by the worker's loop between records.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use pgrx::pg_sys;

use super::super::catalog::relation::Columns;
use super::super::catalog::table::{MirrorTableRow, TableState};
use super::super::loader::Loader;
use super::super::shmem::Role;
use super::super::tuple::{RowMemory, Toast, TupleRow};
use super::super::{compat, failpoint, latch, session};
use super::filtered::Filtered;
use super::incomplete::{Incomplete, TooMany};
use super::mirrored::{self, Columnar, Halt, Mirrored, Numbering, Route};
use super::news::{FailedTable, News};
use super::outgoing::Outgoing;
use crate::encode::{Appended, Row, RowEncoder, Value};
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
    /// Rows that the source must complete.
    pub(super) incomplete: Incomplete,
    filtered_tables: usize,
    /// Tables that are not in step yet.
    pub(super) catching_up: Vec<u32>,
    /// Loads of tables that have left may still be under way.
    leaving: Vec<TableIndex>,
    /// The transaction at hand, and where its commit ends.
    pub(super) xid: u32,
    pub(super) end: Lsn,
    memory: RowMemory,
    changes: u32,
    records: u32,
    received: Lsn,
}

impl Feed {
    /// An empty feed for the tables of a mirror that are streamed.
    pub(in super::super) fn new(
        mirror: &str,
        role: Role,
        options: &Options,
        tables: &[MirrorTableRow],
        loader: Loader,
        labels: LabelSequence,
    ) -> Self {
        mirrored::watch_invalidations();
        let mut feed = Self {
            mirror: mirror.to_owned(),
            pipeline: Pipeline::new(limits(options), Instant::now()),
            outgoing: Outgoing::new(mirror, role, loader, labels),
            filtered_tables: 0,
            catching_up: Vec::new(),
            leaving: Vec::new(),
            xid: 0,
            end: Lsn::INVALID,
            filtered: Filtered::default(),
            incomplete: Incomplete::default(),
            tables: HashMap::new(),
            options: options.clone(),
            news: News::default(),
            memory: RowMemory::new(),
            changes: 0,
            records: 0,
            received: Lsn::INVALID,
        };
        feed.set_tables(tables);
        feed
    }

    /// Follows the mirror's list of tables: those that have left it, or wait for another copy, are let go; those that have
    /// joined are taken in. Between records.
    pub(in super::super) fn set_tables(&mut self, rows: &[MirrorTableRow]) {
        let streamed =
            |row: &&MirrorTableRow| matches!(row.state, TableState::Ready | TableState::CatchingUp);
        let wanted: HashMap<u32, &MirrorTableRow> =
            rows.iter().filter(streamed).map(|row| (row.relid.to_u32(), row)).collect();
        let gone: Vec<u32> =
            self.tables.keys().filter(|relid| !wanted.contains_key(*relid)).copied().collect();
        for relid in gone {
            if let Some(columnar) = self.tables.remove(&relid).and_then(|table| table.columnar) {
                self.pipeline.remove_table(columnar.index);
                self.leaving.push(columnar.index);
            }
        }
        for (relid, row) in wanted {
            self.tables.entry(relid).or_insert_with(|| Mirrored::new(row));
        }
        self.count_tables();
    }

    pub(super) fn count_tables(&mut self) {
        let tables = self.tables.values();
        self.filtered_tables = tables.clone().filter(|it| it.usual_route == Route::Pgoutput).count();
        self.catching_up = tables.filter(|it| it.catch_up.is_some()).map(|it| it.relid).collect();
    }

    /// Rows that are to be read from the source. Between records.
    pub(in super::super) const fn incomplete(&mut self) -> &mut Incomplete {
        &mut self.incomplete
    }

    /// Takes in a row that was read from the source.
    pub(in super::super) fn completed(&mut self, relid: u32, row: &impl Row) -> Result<(), String> {
        match self.pipeline.table_of(relid) {
            Some(index) => self.pipeline.upsert(index, Change::Completed, row).map_err(reason),
            None => Ok(()),
        }
    }

    /// Every row that was incomplete has been read.
    pub(in super::super) fn release_incomplete(&mut self) {
        self.pipeline.release();
    }

    /// Waits until more rows may come. Between records.
    pub(in super::super) fn make_room(&mut self) {
        self.pump();
        if !self.pipeline.has_room() {
            self.wait_for_room();
        }
    }

    /// Puts a table into error. Between records.
    pub(in super::super) fn fail_table(&mut self, relid: u32, reason: String) {
        self.fail(relid, reason);
    }

    /// Whether loads of tables that have left are still under way.
    pub(in super::super) fn is_letting_go(&mut self) -> bool {
        let pipeline = &self.pipeline;
        self.leaving.retain(|index| !pipeline.is_drained(*index));
        !self.leaving.is_empty()
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self, end: Lsn, xid: u32) {
        self.xid = xid;
        self.end = end;
        for relid in &self.catching_up {
            if let Some(table) = self.tables.get_mut(relid) {
                table.begin(end, xid);
            }
        }
    }

    /// Tables that are in step because a checkpoint promises everything up to there. Between records.
    pub(super) fn take_tables_in_step(&mut self, promised: Lsn) -> Vec<u32> {
        let is_reached =
            |table: &Mirrored| table.catch_up.as_ref().is_some_and(|(until, _)| *until <= promised);
        let reached: Vec<u32> =
            self.tables.values().filter(|table| is_reached(table)).map(|table| table.relid).collect();
        for relid in &reached {
            if let Some(table) = self.tables.get_mut(relid) {
                table.come_into_step();
            }
        }
        self.count_tables();
        reached
    }

    /// Whether a table comes into step by such a checkpoint.
    pub(super) fn has_table_in_step(&self, promised: Lsn) -> bool {
        self.catching_up.iter().any(|relid| {
            let table = self.tables.get(relid);
            table.is_some_and(|table| table.catch_up.as_ref().is_some_and(|(until, _)| *until <= promised))
        })
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
        let mut taken = unsafe { self.take_in(open, change) };
        if let Err(Halt::Stale) = taken {
            // SAFETY: as above.
            let goes_on = unsafe { self.follow(open, Columns::All, Lsn((*change).lsn)) };
            // SAFETY: as above.
            taken = if goes_on { unsafe { self.take_in(open, change) } } else { Ok(()) };
        }
        if let Err(Halt::Error(reason)) = taken {
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
    ) -> Result<(), Halt> {
        let Self { tables, pipeline, memory, incomplete, xid, end, .. } = self;
        // SAFETY: the caller vouches for the relation and its change; tuples conform to the relation's descriptor, and
        // the readers were made for it or the columns are looked at again.
        unsafe {
            let Some(table) = tables.get_mut(&(*open).rd_id.to_u32()) else { return Ok(()) };
            if table.is_stale() {
                return Err(Halt::Stale);
            }
            let Some(columnar) = &mut table.columnar else { return Ok(()) };
            let (old, new) = compat::change_tuples(change);
            let descriptor = (*open).rd_att;
            let completes = table.completes;
            let numbering = &mut table.numbering;
            let Columnar {
                index,
                new: new_reader,
                old: old_reader,
                identity_is_full,
                spec,
                encoder,
                is_appended,
                ..
            } = columnar;
            let appended = is_appended.then_some(numbering);
            let taken = memory.scoped(|| {
                let old = (!old.is_null()).then(|| old_reader.heap_row(old, descriptor, Toast::Unchanged));
                let new = (!new.is_null()).then(|| new_reader.heap_row(new, descriptor, Toast::Unchanged));
                match (*change).action {
                    pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_INSERT => {
                        new.map_or(Ok(()), |new| insert(pipeline, *index, appended, *end, &new))
                    }
                    _ if appended.is_some() => Err(NOT_ADDRESSED.to_owned()),
                    pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_UPDATE => match (old, new) {
                        (_, None) => Ok(()),
                        (old, Some(new)) => {
                            let whole_old = old.as_ref().filter(|_| *identity_is_full);
                            let new = Merged { new, old: whole_old };
                            let update = Update {
                                pipeline,
                                incomplete,
                                encoder,
                                relid: spec.relid,
                                xid: *xid,
                                index: *index,
                                key_len: spec.key_len,
                                columns: spec.columns.len(),
                                completes,
                            };
                            update.take_in(old.as_ref(), &new)
                        }
                    },
                    pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_DELETE => match old {
                        Some(old) => pipeline.delete(*index, &old).map_err(reason),
                        None => Err("the log does not say which row was deleted: it had no replica identity"
                            .to_owned()),
                    },
                    _ => Ok(()),
                }
            });
            taken.map_err(Halt::Error)
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
        failpoint::hit("stream_waits_in_callback");
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
            self.drain(index);
        }
        failpoint::hit("truncate_before");
        if let Err(reason) = self.empty_target(target) {
            self.fail(relid, reason);
        }
        failpoint::hit("truncate_after");
    }

    /// Waits until everything of a table is loaded.
    pub(super) fn drain(&mut self, index: TableIndex) {
        self.pipeline.seal_table(index);
        while !self.pipeline.is_drained(index) {
            self.pump();
            self.pause_inside_callback(Duration::from_millis(500));
            self.pump();
        }
    }

    /// A transaction of the source has come to its end.
    pub(super) fn commit(&mut self, end: Lsn, commit_time: i64) {
        self.pipeline.commit(end);
        self.outgoing.committed(end, commit_time);
        failpoint::hit("stream_transaction_decoded");
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
        let table = self.tables.get_mut(&relid).filter(|table| table.usual_route != Route::Skip)?;
        table.skip_for_good();
        self.news.failed.push(FailedTable { relid, source_name: table.source_name.clone(), reason });
        let index = table.columnar.as_ref().map(|columnar| columnar.index);
        self.count_tables();
        index
    }
}

/// Takes an inserted row in, under a key of its own if the table has none.
#[inline]
fn insert(
    pipeline: &mut Pipeline,
    index: TableIndex,
    appended: Option<&mut Numbering>,
    commit: Lsn,
    row: &TupleRow<'_>,
) -> Result<(), String> {
    let taken = match appended {
        None => pipeline.upsert(index, Change::Insert, row),
        Some(numbering) => {
            let (lsn, seq) = numbering.next(commit);
            pipeline.upsert(index, Change::Insert, &Appended { row, lsn, seq })
        }
    };
    taken.map_err(reason)
}

/// Why an UPDATE or DELETE of a table without a key cannot be done.
const NOT_ADDRESSED: &str = "a row was updated or deleted, and the table has no key by which the target could find it; \
                             give it a primary key and copy it again";

/// An UPDATE on its way into the pipeline.
pub(super) struct Update<'a> {
    pub(super) pipeline: &'a mut Pipeline,
    pub(super) incomplete: &'a mut Incomplete,
    pub(super) encoder: &'a RowEncoder,
    pub(super) relid: u32,
    pub(super) xid: u32,
    pub(super) index: TableIndex,
    pub(super) key_len: usize,
    pub(super) columns: usize,
    /// A row that lacks values is read from the source.
    pub(super) completes: bool,
}

impl Update<'_> {
    /// Takes the new row in. There is an old one when the key changed, or when the replica identity is FULL.
    #[inline]
    pub(super) fn take_in(mut self, old: Option<&impl Row>, new: &impl Row) -> Result<(), String> {
        let moves = old.is_some_and(|old| (0..self.key_len).any(|at| old.value(at) != new.value(at)));
        if let (true, Some(old)) = (moves, old) {
            self.pipeline.delete(self.index, old).map_err(reason)?;
        }
        if (moves || self.completes) && (0..self.columns).any(|at| new.value(at) == Value::Unchanged) {
            return self.leave_to_source(new);
        }
        match self.pipeline.upsert(self.index, Change::Update, new) {
            Err(PushError::UnchangedAfterDelete) => self.leave_to_source(new),
            pushed => pushed.map_err(reason),
        }
    }

    /// The target does not have the values that the log lacks.
    #[cold]
    fn leave_to_source(&mut self, row: &impl Row) -> Result<(), String> {
        let Self { encoder, incomplete, .. } = self;
        let noted = incomplete.note(self.relid, self.xid, |out| encoder.key(row, out));
        match noted.map_err(|fault| encoder.error(fault).to_string())? {
            Ok(()) => {
                self.pipeline.hold();
                Ok(())
            }
            Err(TooMany) => Err("too many rows at once have large values that are not in the log; \
                                 REPLICA IDENTITY FULL would put them there"
                .to_owned()),
        }
    }
}

/// A new row whose unchanged values are taken from the old one, where that is whole.
struct Merged<'a> {
    new: TupleRow<'a>,
    old: Option<&'a TupleRow<'a>>,
}

impl Row for Merged<'_> {
    #[inline]
    fn value(&self, column: usize) -> Value<'_> {
        match (self.new.value(column), self.old) {
            (Value::Unchanged, Some(old)) => old.value(column),
            (value, _) => value,
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
