//! What the callbacks feed.
//!
//! Every change of a mirrored table goes through here: it finds its table, becomes a row in the pipeline, and when the
//! pipeline is full the change waits here until loads have been acknowledged. Called only from the worker's main
//! thread: by the callbacks while a record is being decoded, by the worker's loop between records.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use pgrx::pg_sys;

use super::super::catalog::rejected::{self, Kept};
use super::super::catalog::relation::Columns;
use super::super::catalog::table::{MirrorTableRow, TableState};
use super::super::loader::Loader;
use super::super::shmem::Role;
use super::super::tuple::RowMemory;
use super::super::{failpoint, latch, session};
use super::filtered::Filtered;
use super::incomplete::Incomplete;
use super::intake::With;
use super::mirrored::{self, Halt, Mirrored, Route};
use super::news::{FailedTable, News};
use super::outgoing::Outgoing;
use super::partition::Partitions;
use super::rejected::Trouble;
use super::unmirrored::Unmirrored;
use crate::definition::Evidence;
use crate::encode::{Row, Stamp};
use crate::lsn::Lsn;
use crate::options::{OnStatement, Options};
use crate::pipeline::{Change, LabelSequence, Limits, Pipeline, TableIndex};

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
    pub(super) unmirrored: Unmirrored,
    /// Partitions that changes have come for, and where their rows go.
    pub(super) partitions: Partitions,
    /// Tables that are not in step yet.
    pub(super) catching_up: Vec<u32>,
    /// Transactions that have written to the list of tables. A commit is in the log before others see it.
    pub(super) awaited_lists: Vec<u32>,
    /// Loads of tables that have left may still be under way.
    leaving: Vec<TableIndex>,
    /// The transaction at hand, and its commit.
    pub(super) xid: u32,
    pub(super) stamp: Stamp,
    pub(super) memory: RowMemory,
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
            unmirrored: Unmirrored::default(),
            partitions: Partitions::default(),
            catching_up: Vec::new(),
            awaited_lists: Vec::new(),
            leaving: Vec::new(),
            xid: 0,
            stamp: Stamp::default(),
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
    /// joined are taken in. Returns whether any has joined for the
    /// first time. Between records.
    pub(in super::super) fn set_tables(&mut self, rows: &[MirrorTableRow]) -> bool {
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
        let has_joined = self.unmirrored.mirror(wanted.keys().copied());
        self.partitions.forget_leaves();
        let mut joined = Vec::new();
        for (relid, row) in wanted {
            if let Entry::Vacant(place) = self.tables.entry(relid) {
                place.insert(Mirrored::new(row));
                joined.push(relid);
            }
        }
        if !joined.is_empty() {
            self.read_parked(&joined);
        }
        self.count_tables();
        has_joined
    }

    /// Remembers what was refused of tables before.
    fn read_parked(&mut self, joined: &[u32]) {
        for Kept { relid, key, lsn } in session::transaction(|| rejected::kept(&self.mirror)) {
            let Some(table) = self.tables.get_mut(&relid).filter(|_| joined.contains(&relid)) else {
                continue;
            };
            match key {
                // As many as are there were not too many then.
                Some(key) => drop(table.parked.park(&key, lsn)),
                None => table.unkeyed += 1,
            }
        }
    }

    pub(super) fn count_tables(&mut self) {
        let tables = self.tables.values();
        self.filtered_tables = tables.clone().filter(|it| it.usual_route == Route::Pgoutput).count();
        self.catching_up = tables.clone().filter(|it| it.catch_up.is_some()).map(|it| it.relid).collect();
        let is_followed = |it: &&Mirrored| it.is_partitioned && it.usual_route != Route::Skip;
        self.partitions.restart(tables.filter(is_followed).map(|it| it.relid).collect());
    }

    /// Rows that are to be read from the source. Between records.
    pub(in super::super) const fn incomplete(&mut self) -> &mut Incomplete {
        &mut self.incomplete
    }

    /// Takes in a row that was read from the source.
    pub(in super::super) fn completed(&mut self, relid: u32, row: &impl Row) {
        let Some(columnar) = self.tables.get(&relid).and_then(|table| table.columnar.as_ref()) else {
            return;
        };
        if self.pipeline.table_of(relid).is_none() {
            return;
        }
        let encoder = std::sync::Arc::clone(&columnar.encoder);
        match self.pipeline.upsert(columnar.index, Change::Completed, row) {
            Ok(()) => {
                let mut key = Vec::new();
                if encoder.key(row, &mut key).is_ok() {
                    self.released(relid, &key);
                }
            }
            Err(problem) => {
                self.take_trouble(relid, Trouble::of(problem, &encoder, row, 0..encoder.columns()))
            }
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

    /// Whether the changes of a table are taken in.
    pub(in super::super) fn follows(&self, relid: u32) -> bool {
        self.tables.get(&relid).is_some_and(|table| table.usual_route != Route::Skip)
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
    pub(super) fn begin(&mut self, end: Lsn, xid: u32, committed_at: i64) {
        self.xid = xid;
        self.stamp = Stamp { lsn: end, committed_at: Some(committed_at) };
        self.pipeline.begin(end);
        for relid in &self.catching_up {
            if let Some(table) = self.tables.get_mut(relid) {
                table.begin(end, xid);
            }
        }
        self.begin_partitions();
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
        let taken = loop {
            // SAFETY: the caller vouches for relation and change.
            match unsafe { self.take_in(open, change) } {
                Ok(()) => break Ok(()),
                Err(Halt::Trouble(trouble)) => break Err(trouble),
                Err(Halt::Stale) => {}
            }
            // Not the last time: while the columns are looked at, others may invalidate them.
            // SAFETY: as above.
            if !unsafe { self.follow(open, open, Columns::All, Lsn((*change).lsn), Evidence::Row) } {
                break Ok(());
            }
        };
        if let Err(trouble) = taken {
            // SAFETY: the caller vouches for the relation.
            let relid = unsafe { (*open).rd_id.to_u32() };
            self.take_trouble(relid, trouble);
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
        let Self { tables, pipeline, memory, incomplete, news, options, xid, stamp, .. } = self;
        // SAFETY: the caller vouches for the relation.
        let Some(table) = tables.get_mut(&unsafe { (*open).rd_id }.to_u32()) else { return Ok(()) };
        if table.is_stale() {
            return Err(Halt::Stale);
        }
        let news = &mut news.rejected;
        let with =
            With { pipeline, incomplete, news, on_reject: options.on_reject, xid: *xid, stamp: *stamp };
        let Some(of_table) = with.table(table) else { return Ok(()) };
        // SAFETY: the caller vouches for relation and change; the readers were made for its columns, or they are looked at
        // again.
        let taken = unsafe { of_table.tuples.take(memory, of_table.readers, open, change) };
        taken.map_err(Halt::Trouble)
    }

    /// A change of a table that is not mirrored.
    #[inline]
    pub(super) fn skipped(&mut self, relid: u32) {
        self.partitions.note_other(relid);
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
        match self.empty_target(target) {
            Ok(()) => self.forget_rejected(relid),
            Err(reason) => self.fail(relid, reason),
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

/// A load that is worth its while. Smaller ones would be more work for the target, larger ones more memory that nobody has
/// touched yet.
const AMPLE_BYTES: usize = 16 << 20;

/// A load takes no more than a quarter of the memory: while one travels, the next ones of its table are encoded, and decoding
/// goes on at half of the limit.
fn limits(options: &Options) -> Limits {
    let memory_limit = usize::try_from(options.memory_limit).unwrap_or(usize::MAX);
    let batch_max_bytes =
        usize::try_from(options.batch_max_bytes).unwrap_or(usize::MAX).min(memory_limit / 4);
    Limits {
        batch_max_rows: usize::try_from(options.batch_max_rows).unwrap_or(usize::MAX),
        batch_max_bytes,
        batch_ample_bytes: batch_max_bytes.min(AMPLE_BYTES),
        memory_limit,
        flush_interval: options.flush_interval,
    }
}
