//! A snapshot worker: copies chunks until none is left.
//!
//! One transaction per load, not per chunk: it imports the snapshot, locks the table, reads until the load is full, and
//! commits; only then is the load sent, so that nobody's DDL waits for the target. A chunk is done when all of its loads
//! are visible. Loads of one snapshot have distinct keys and may travel in parallel.

use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::chunk::Chunk;
use super::super::catalog::event::{Event, Severity};
use super::super::catalog::table::{Counters, MirrorTableRow};
use super::super::loader::Loader;
use super::super::scan::{self, Position, RangeScan, RowFilter};
use super::super::tuple::RowMemory;
use super::super::{catalog, decode, failpoint, labels, session, shmem};
use super::source::{Source, Unreadable};
use super::start::{DefinitionWatch, Mirror};
use super::{exit, guard};
use crate::encode::Appended;
use crate::pipeline::{CopyBatch, LabelSequence};
use crate::sink::{Job, JobId, Load, Outcome};

/// Load threads of one snapshot worker: one sends while the other compresses.
const THREADS: usize = 2;

/// Main function of `dbmazz snapshot`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_snapshot_main(argument: pg_sys::Datum) {
    let Some((database, name)) = super::enter_as_helper(argument) else { return };
    exit::run_helper(&name.clone(), move || {
        if let Some(mirror) = Mirror::read(&name, database) {
            Copier::new(mirror).run();
        }
    });
}

/// A chunk that this worker has claimed.
#[derive(Default)]
struct Progress {
    pending: usize,
    rows: u64,
    bytes: u64,
    is_read: bool,
}

type ChunkKey = (pg_sys::Oid, i32);

struct Copier {
    mirror: Mirror,
    definition: DefinitionWatch,
    snapshot: String,
    loader: Loader,
    labels: LabelSequence,
    max_bytes: usize,
    memory: RowMemory,
    chunks: HashMap<ChunkKey, Progress>,
    in_flight: HashMap<JobId, ChunkKey>,
    in_flight_bytes: usize,
    in_flight_limit: usize,
    /// What had to be replaced because the target cannot hold it.
    adjusted: Vec<(pg_sys::Oid, String)>,
}

/// Why a chunk is not copied to its end.
enum Stop {
    /// The table was rewritten or has other columns: its copy begins anew, under another snapshot.
    Outdated,
    /// The table goes into error.
    Failed(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Self::Failed(reason.to_owned())
    }
}

/// What came of reading one load.
struct Reading {
    /// Usually one; a row that did not fit makes another.
    loads: Vec<Load>,
    /// Where to go on; none at the end of the chunk.
    next: Option<Position>,
    adjusted: Vec<String>,
}

impl Copier {
    fn new(mirror: Mirror) -> Self {
        let snapshot = shmem::find(&mirror.name).map(|slot| slot.holder.snapshot.as_str().to_owned());
        let mut loader = Loader::start(&mirror.name, &mirror.config, THREADS);
        loader.enter_phase(mirror.phase_of_copy());
        let labels = labels::open(&mirror.name);
        let budget = usize::try_from(mirror.options.memory_limit).unwrap_or(usize::MAX)
            / mirror.options.snapshot_workers;
        let max_bytes = usize::try_from(mirror.options.batch_max_bytes).unwrap_or(usize::MAX).min(budget / 3);
        Self {
            snapshot: snapshot.unwrap_or_default(),
            loader,
            labels,
            max_bytes,
            memory: RowMemory::new(),
            chunks: HashMap::new(),
            in_flight: HashMap::new(),
            in_flight_bytes: 0,
            in_flight_limit: budget - budget / 3,
            adjusted: Vec::new(),
            definition: DefinitionWatch::new(),
            mirror,
        }
    }

    fn run(mut self) {
        while let Some(chunk) = session::transaction(|| catalog::chunk::claim(&self.mirror.name)) {
            failpoint::hit("copy_chunk_claimed");
            session::report_activity(&format!("mirror {}: copying chunk {}", self.mirror.name, chunk.chunk));
            self.chunks.insert((chunk.relid, chunk.chunk), Progress::default());
            match self.copy(&chunk) {
                Ok(()) => {}
                Err(Stop::Outdated) => self.begin_anew(chunk.relid),
                Err(Stop::Failed(reason)) => self.fail(chunk.relid, &reason),
            }
        }
        while !self.in_flight.is_empty() {
            self.collect_or_wait();
        }
        // Every load has been acknowledged: no label of this incarnation is in doubt.
        session::transaction(|| catalog::incarnation::remove(&self.mirror.name, self.labels.incarnation()));
        self.loader.shut_down();
    }

    fn copy(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        let table = self.mirror.tables.iter().find(|table| table.relid == chunk.relid).cloned();
        let table = table.ok_or("the table is not part of the mirror any more")?;
        let mut from = Some(Position::start_of(chunk.first_block));
        while let Some(position) = from {
            session::leave_if_unwanted(&self.mirror.name);
            guard::pause_if_asked(&self.mirror.name);
            labels::top_up(&self.mirror.name, &mut self.labels);
            let reading = self.read(chunk, &table, position)?;
            failpoint::hit("copy_load_read");
            from = reading.next;
            self.adjusted.extend(reading.adjusted.into_iter().map(|what| (chunk.relid, what)));
            for load in reading.loads {
                self.send(chunk, load);
            }
        }
        if let Some(progress) = self.chunks.get_mut(&(chunk.relid, chunk.chunk)) {
            progress.is_read = true;
        }
        self.complete_if_done((chunk.relid, chunk.chunk));
        Ok(())
    }

    /// Reads rows from `from` on until a load is full or the chunk ends, in a transaction of its own.
    fn read(&mut self, chunk: &Chunk, table: &MirrorTableRow, from: Position) -> Result<Reading, Stop> {
        let Self { mirror, labels, max_bytes, memory, snapshot, .. } = self;
        scan::under_snapshot(snapshot, || {
            let relation =
                scan::open_table(chunk.relid).ok_or("the table has been dropped during the copy")?;
            // SAFETY: just opened and locked, until the end of this closure.
            let source = unsafe { look_again(relation, chunk, table, mirror) };
            let filled = source.and_then(|source| {
                let (encoder, shape) = source.writer(mirror)?;
                // SAFETY: the text is the catalog's, and the transaction open until this closure is done.
                let mut filter =
                    mirror.row_filter_of(table.relid).map(|node| unsafe { RowFilter::new(node) });
                let mut batch =
                    CopyBatch::new(encoder.clone(), shape, mirror.options.batch_max_rows, *max_bytes);
                // SAFETY: the relation is open and locked, and the imported snapshot active, until this closure is
                // done.
                let next = unsafe {
                    let mut rows = RangeScan::open(relation, from, chunk.end_block);
                    let next = fill(&mut rows, filter.as_mut(), &source, &mut batch, memory);
                    rows.close();
                    if let Some(filter) = filter {
                        filter.free();
                    }
                    next?
                };
                let adjusted = encoder.take_adjusted().map(|adjusted| decode::said(&adjusted)).collect();
                Ok((batch, next, adjusted))
            });
            // SAFETY: opened above and used no more.
            unsafe { scan::close_table(relation) };
            let (mut batch, next, adjusted) = filled?;
            let loads = std::iter::from_fn(|| batch.seal(|| labels.take())).collect();
            Ok(Reading { loads, next, adjusted })
        })
    }

    /// Hands a load to the threads, waiting for room first.
    fn send(&mut self, chunk: &Chunk, load: Load) {
        let bytes = load.body_bytes();
        while self.in_flight_bytes > 0 && self.in_flight_bytes + bytes > self.in_flight_limit {
            self.collect_or_wait();
        }
        let id = load.label.number;
        let mut job = Job::Load(load);
        while let Err(given_back) = self.loader.submit(id, job) {
            job = given_back;
            self.collect_or_wait();
        }
        self.in_flight.insert(id, (chunk.relid, chunk.chunk));
        self.in_flight_bytes += bytes;
        if let Some(progress) = self.chunks.get_mut(&(chunk.relid, chunk.chunk)) {
            progress.pending += 1;
        }
    }

    fn collect_or_wait(&mut self) {
        let mut found = false;
        while let Some((id, outcome)) = self.loader.poll() {
            found = true;
            self.finish(id, outcome);
        }
        if !found {
            self.loader.wait(scan::GLANCE);
            self.definition.begin_anew_if_mended(&self.mirror, self.loader.trouble_lasts());
        }
    }

    fn finish(&mut self, id: JobId, outcome: Outcome) {
        let (Outcome::Load(load, result), Some(key)) = (outcome, self.in_flight.remove(&id)) else { return };
        self.in_flight_bytes -= load.body_bytes();
        match result {
            Ok(_) => {
                failpoint::hit("copy_load_visible");
                let (rows, bytes) = (load.rows, load.body_bytes() as u64);
                if let Some(progress) = self.chunks.get_mut(&key) {
                    progress.pending -= 1;
                    progress.rows += rows;
                    progress.bytes += bytes;
                }
                shmem::add_loaded(&self.mirror.name, rows, bytes);
                session::transaction(|| catalog::chunk::add_rows(&self.mirror.name, key.0, key.1, rows));
                self.complete_if_done(key);
            }
            Err(problem) => self.fail(key.0, &problem.to_string()),
        }
    }

    fn complete_if_done(&mut self, key: ChunkKey) {
        if self.chunks.get(&key).is_some_and(|progress| progress.is_read && progress.pending == 0)
            && let Some(progress) = self.chunks.remove(&key)
        {
            failpoint::hit("copy_chunk_all_visible");
            session::transaction(|| {
                catalog::chunk::complete(&self.mirror.name, key.0, key.1, progress.rows);
                let loaded = Counters {
                    rows_loaded: progress.rows,
                    bytes_loaded: progress.bytes,
                    ..Counters::default()
                };
                catalog::table::add_counters(&self.mirror.name, key.0, &loaded);
                for (relid, message) in self.adjusted.drain(..) {
                    let event = Event::of(&self.mirror.name, Severity::Warning, &message);
                    Event { relid: Some(relid), ..event }.record();
                }
            });
            failpoint::hit("copy_chunk_done");
        }
    }

    /// The table is copied from its beginning, under a snapshot that sees it as it is now; the others go on. What of it is
    /// on its way is taken away with everything else.
    fn begin_anew(&mut self, relid: pg_sys::Oid) {
        let name = self.mirror.tables.iter().find(|table| table.relid == relid);
        let name = name.map_or_else(String::new, |table| table.source_name.clone());
        session::transaction(|| {
            if catalog::table::begin_anew(&self.mirror.name, relid) {
                let message =
                    format!("table \"{name}\" was rewritten or altered during its copy, which begins anew");
                Event { relid: Some(relid), ..Event::of(&self.mirror.name, Severity::Info, &message) }
                    .record();
            }
        });
        self.chunks.retain(|(table, _), _| *table != relid);
    }

    /// The table goes into error; the others are copied.
    fn fail(&mut self, relid: pg_sys::Oid, reason: &str) {
        let name = self.mirror.tables.iter().find(|table| table.relid == relid);
        let name = name.map_or_else(String::new, |table| table.source_name.clone());
        session::transaction(|| catalog::table::fail(&self.mirror.name, relid, &name, reason));
        self.chunks.retain(|(table, _), _| *table != relid);
    }
}

/// Looks at the table again, under its lock: the copy must still be of the same columns and blocks.
///
/// # Safety
///
/// The relation is open and locked.
unsafe fn look_again(
    open: pg_sys::Relation,
    chunk: &Chunk,
    table: &MirrorTableRow,
    mirror: &Mirror,
) -> Result<Source, Stop> {
    // SAFETY: the caller vouches for the relation.
    let (source, relfilenode) = unsafe { (Source::of(open, table, mirror), scan::relfilenode_of(open)) };
    if relfilenode != chunk.relfilenode {
        return Err(Stop::Outdated);
    }
    source.map_err(|problem| match problem {
        Unreadable::Changed => Stop::Outdated,
        Unreadable::Unfit(reason) => Stop::Failed(reason),
    })
}

/// Reads rows into the batch until it is full. Returns where to go on, or none at the end.
///
/// # Safety
///
/// `rows` is an open scan of the relation that `source` was made from.
unsafe fn fill(
    rows: &mut RangeScan,
    mut filter: Option<&mut RowFilter>,
    source: &Source,
    batch: &mut CopyBatch,
    memory: &mut RowMemory,
) -> Result<Option<Position>, String> {
    let mut count = 0u32;
    while !batch.is_full() {
        // SAFETY: the caller vouches for the scan; the row is used before the next one is asked for.
        let pushed = unsafe {
            let slot = rows.next_row();
            if slot.is_null() {
                return Ok(None);
            }
            if filter.as_mut().is_some_and(|filter| !filter.passes(slot)) {
                continue;
            }
            memory.scoped(|| {
                let row = source.reader.slot_row(slot);
                match source.appended_key(slot) {
                    None => batch.push(&row),
                    Some((lsn, seq)) => batch.push(&Appended { row: &row, lsn, seq }),
                }
            })
        };
        pushed.map_err(|problem| {
            format!("could not encode a row of \"{}\": {problem}", source.spec.source_name)
        })?;
        count = count.wrapping_add(1);
        if count.is_multiple_of(1024) {
            scan::breathe();
        }
    }
    Ok(Some(rows.position()))
}
