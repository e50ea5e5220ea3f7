//! A snapshot worker: copies chunks until none is left.
//!
//! One transaction per load, not per chunk: it imports the snapshot, locks the table, reads until the load is full, and
//! commits; only then is the load sent, so that nobody's DDL waits for the target. A chunk is done when all of its loads
//! are visible. Loads of one snapshot have distinct keys and may travel in parallel. Chunks of small partitions of one table
//! are read in one transaction and go into one load, so that a thousand partitions are not a thousand loads. A load that is
//! refused for its rows goes again in parts ([`Bisection`]); rows that are bad are written down before their chunk counts as
//! done.

use std::collections::HashMap;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::chunk::Chunk;
use super::super::catalog::event::{Event, Severity};
use super::super::catalog::table::{Counters, MirrorTableRow};
use super::super::loader::Loader;
use super::super::scan::{self, Position};
use super::super::tuple::RowMemory;
use super::super::{catalog, decode, failpoint, labels, session, shmem};
use super::filling::Filling;
use super::pace::Pace;
use super::start::{self, DefinitionWatch, Mirror};
use super::{exit, guard};
use crate::encode::{RowEncoder, Stamp};
use crate::options::OnReject;
use crate::pipeline::{Bisection, LabelSequence, MOST_PARKED, RejectedRow, SpareBuffers};
use crate::sink::{Job, JobId, Load, LoadError, Outcome, Refusal};

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

/// Chunks that this worker has claimed, usually one: those of small partitions go into loads together.
#[derive(Default)]
struct Progress {
    chunks: Vec<i32>,
    pending: usize,
    rows: u64,
    bytes: u64,
    is_read: bool,
}

/// The table, and the first of the chunks.
type ChunkKey = (pg_sys::Oid, i32);

/// No more chunks than these are copied together.
const MOST_TOGETHER: usize = 100;

/// Chunks that are copied together, in their order. Never empty.
struct Group(Vec<Chunk>);

impl Group {
    fn key(&self) -> ChunkKey {
        self.0.first().map_or((pg_sys::InvalidOid, 0), |chunk| (chunk.relid, chunk.chunk))
    }
}

/// A place in a group: a row of one of its chunks.
#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    position: Option<Position>,
}

/// A load under way, or a part of one.
struct Sent {
    chunk: ChunkKey,
    encoder: Arc<RowEncoder>,
    /// What the whole load counts for.
    bytes: usize,
    bisection: Option<Bisection>,
}

struct Copier {
    mirror: Mirror,
    definition: DefinitionWatch,
    pace: Pace,
    snapshot: String,
    /// What copied rows are as of: the position of the snapshot. When each was committed nobody knows.
    stamp: Stamp,
    loader: Loader,
    labels: LabelSequence,
    max_bytes: usize,
    memory: RowMemory,
    buffers: SpareBuffers,
    chunks: HashMap<ChunkKey, Progress>,
    in_flight: HashMap<JobId, Sent>,
    /// Parts of loads that no thread had room for.
    waiting: Vec<(JobId, Job)>,
    in_flight_bytes: usize,
    in_flight_limit: usize,
    /// What had to be replaced because the target cannot hold it.
    adjusted: Vec<(pg_sys::Oid, String)>,
}

/// Why a chunk is not copied to its end.
pub(super) enum Stop {
    /// The table was rewritten or has other columns: its copy begins anew, under another snapshot.
    Outdated,
    /// The table has been dropped.
    Gone,
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
    /// What the rows are written by; none when there are none.
    encoder: Option<Arc<RowEncoder>>,
    /// Where to go on; none at the end of the chunks.
    next: Option<Place>,
    /// Rows that could not be encoded.
    rejected: Vec<RejectedRow>,
    adjusted: Vec<String>,
}

impl Copier {
    fn new(mirror: Mirror) -> Self {
        let holder = shmem::find(&mirror.name).map(|slot| slot.holder).unwrap_or_default();
        let mut loader = Loader::start(&mirror.name, &mirror.config, THREADS);
        loader.enter_phase(mirror.phase_of_copy());
        let labels = labels::open(&mirror.name);
        let budget = usize::try_from(mirror.options.memory_limit).unwrap_or(usize::MAX)
            / mirror.options.snapshot_workers;
        let max_bytes = usize::try_from(mirror.options.batch_max_bytes).unwrap_or(usize::MAX).min(budget / 3);
        Self {
            snapshot: holder.snapshot.as_str().to_owned(),
            stamp: Stamp { lsn: holder.consistent_lsn, committed_at: None },
            loader,
            labels,
            max_bytes,
            memory: RowMemory::new(),
            // A load travels, one waits, and one is filled.
            buffers: SpareBuffers::new(max_bytes * 2),
            chunks: HashMap::new(),
            in_flight: HashMap::new(),
            waiting: Vec::new(),
            in_flight_bytes: 0,
            in_flight_limit: budget - budget / 3,
            adjusted: Vec::new(),
            definition: DefinitionWatch::new(),
            pace: Pace::new(&mirror.name, mirror.options.snapshot_max_rate),
            mirror,
        }
    }

    fn run(mut self) {
        while let Some(group) = self.claim() {
            failpoint::hit("copy_chunk_claimed");
            let (relid, first) = group.key();
            session::report_activity(&format!("mirror {}: copying chunk {first}", self.mirror.name));
            let chunks = group.0.iter().map(|chunk| chunk.chunk).collect();
            self.chunks.insert(group.key(), Progress { chunks, ..Progress::default() });
            match self.copy(&group) {
                Ok(()) => {}
                Err(Stop::Outdated) => self.begin_anew(relid),
                Err(Stop::Gone) => self.let_go(relid),
                Err(Stop::Failed(reason)) => self.fail(relid, &reason),
            }
        }
        while !self.in_flight.is_empty() {
            self.collect_or_wait();
        }
        // Every load has been acknowledged: no label of this incarnation is in doubt.
        session::transaction(|| catalog::incarnation::remove(&self.mirror.name, self.labels.incarnation()));
        self.loader.shut_down();
    }

    /// Takes a chunk that nobody has; one of a small partition with as many others of its table as make a chunk of usual size.
    fn claim(&self) -> Option<Group> {
        let Self { mirror, .. } = self;
        let limit = mirror.options.snapshot_chunk_bytes;
        session::transaction_for_now(|| {
            let first = catalog::chunk::claim(&mirror.name)?;
            let (relid, is_partition) = (first.relid, first.leaf != first.relid);
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while is_partition && group.len() < MOST_TOGETHER {
                let room = limit.saturating_sub(bytes);
                let Some(next) = catalog::chunk::claim_another(&mirror.name, relid, room) else { break };
                bytes = bytes.saturating_add(next.bytes);
                group.push(next);
            }
            Some(Group(group))
        })
    }

    fn copy(&mut self, group: &Group) -> Result<(), Stop> {
        let (relid, _) = group.key();
        let table = self.mirror.tables.iter().find(|table| table.relid == relid).cloned();
        let table = table.ok_or("the table is not part of the mirror any more")?;
        let mut from = Some(Place { chunk: 0, position: None });
        while let Some(place) = from {
            session::leave_if_unwanted(&self.mirror.name);
            guard::pause_if_asked(&self.mirror.name);
            self.keep_to_rate();
            labels::top_up(&self.mirror.name, &mut self.labels);
            // Their buffers are used again.
            self.collect();
            let reading = self.read(group, &table, place)?;
            failpoint::hit("copy_load_read");
            from = reading.next;
            self.adjusted.extend(reading.adjusted.into_iter().map(|what| (relid, what)));
            if let Some(encoder) = &reading.encoder {
                for load in reading.loads {
                    self.send(group.key(), load, encoder);
                }
            }
            if let Some(first) = reading.rejected.first() {
                let (reason, rows) = (first.reason.clone(), reading.rejected.len());
                self.write_down(relid, &reading.rejected);
                if self.stops_at_rows() || rows > self.mirror.options.on_reject.most_rows() {
                    return Err(Stop::Failed(reason));
                }
                self.go_on_without(relid, rows)?;
            }
        }
        if let Some(progress) = self.chunks.get_mut(&group.key()) {
            progress.is_read = true;
        }
        self.complete_if_done(group.key());
        Ok(())
    }

    /// Reads rows from `from` on until a load is full or the chunks end, in a transaction of its own.
    fn read(&mut self, group: &Group, table: &MirrorTableRow, from: Place) -> Result<Reading, Stop> {
        let Self { mirror, labels, max_bytes, memory, buffers, snapshot, stamp, pace, .. } = self;
        let mut filling = Filling::new(mirror, table, memory, buffers, *max_bytes, *stamp);
        let next = scan::under_snapshot(snapshot, || {
            let mut place = from;
            while let Some(chunk) = group.0.get(place.chunk) {
                let position = filling.read(chunk, place.position)?;
                pace.have_read(chunk, place.position, position);
                if position.is_some() {
                    return Ok(Some(Place { position, ..place }));
                }
                place = Place { chunk: place.chunk + 1, position: None };
            }
            Ok::<_, Stop>(None)
        })?;
        let (into, rejected) = filling.end();
        let Some((encoder, mut batch)) = into else {
            return Ok(Reading { loads: Vec::new(), encoder: None, next, rejected, adjusted: Vec::new() });
        };
        let adjusted = encoder.take_adjusted().map(|adjusted| decode::said(&adjusted)).collect();
        let loads = std::iter::from_fn(|| batch.seal(|| labels.take())).collect();
        Ok(Reading { loads, encoder: Some(encoder), next, rejected, adjusted })
    }

    /// Hands a load to the threads, waiting for room first.
    fn send(&mut self, chunk: ChunkKey, load: Load, encoder: &Arc<RowEncoder>) {
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
        self.in_flight.insert(id, Sent { chunk, encoder: Arc::clone(encoder), bytes, bisection: None });
        self.in_flight_bytes += bytes;
        if let Some(progress) = self.chunks.get_mut(&chunk) {
            progress.pending += 1;
        }
    }

    /// Waits until what was read is paid for.
    fn keep_to_rate(&mut self) {
        while let Some(left) = self.pace.left() {
            session::leave_if_unwanted(&self.mirror.name);
            if !self.collect() {
                self.loader.wait(left.min(scan::GLANCE));
            }
        }
    }

    fn collect_or_wait(&mut self) {
        if !self.collect() {
            self.loader.wait(scan::GLANCE);
            self.definition.begin_anew_if_mended(&self.mirror, self.loader.trouble_lasts());
        }
    }

    /// Takes what has come back, and hands out what waits for room. Returns whether anything has come.
    fn collect(&mut self) -> bool {
        let mut found = false;
        while let Some((id, outcome)) = self.loader.poll() {
            found = true;
            self.finish(id, outcome);
        }
        while let Some((id, job)) = self.waiting.pop() {
            if let Err(job) = self.loader.submit(id, job) {
                self.waiting.push((id, job));
                break;
            }
        }
        found
    }

    fn finish(&mut self, id: JobId, outcome: Outcome) {
        let (Outcome::Load(load, result), Some(mut sent)) = (outcome, self.in_flight.remove(&id)) else {
            return;
        };
        match result {
            Ok(_) => {
                failpoint::hit("copy_load_visible");
                self.count(sent.chunk, &load);
                if let Some(bisection) = &mut sent.bisection {
                    bisection.accepted();
                }
                self.buffers.keep_of_load(load.buffer);
            }
            Err(LoadError::Refused { refusal: Refusal::Rows, message, error_log, .. }) => {
                let most = self.mirror.options.on_reject.most_rows();
                let bisection = sent
                    .bisection
                    .get_or_insert_with(|| Bisection::of(&load, Arc::clone(&sent.encoder), most));
                bisection.refused(&decode::reason_of(&message, error_log.as_deref()));
                failpoint::hit("copy_load_cut");
            }
            Err(problem) => {
                let rejected = sent.bisection.as_mut().map(Bisection::take_rejected).unwrap_or_default();
                self.write_down(sent.chunk.0, &rejected);
                self.fail(sent.chunk.0, &problem.to_string());
            }
        }
        self.go_on(sent);
    }

    /// Rows of a chunk are visible.
    fn count(&mut self, (relid, chunk): ChunkKey, load: &Load) {
        let (rows, bytes) = (load.rows, load.body_bytes() as u64);
        if let Some(progress) = self.chunks.get_mut(&(relid, chunk)) {
            progress.rows += rows;
            progress.bytes += bytes;
        }
        shmem::add_loaded(&self.mirror.name, rows, bytes);
        session::transaction_for_now(|| catalog::chunk::add_rows(&self.mirror.name, relid, chunk, rows));
    }

    /// The next part of a load that goes in parts, or the end of a load.
    fn go_on(&mut self, mut sent: Sent) {
        let is_wanted = self.chunks.contains_key(&sent.chunk);
        if let Some(bisection) = sent.bisection.as_mut().filter(|bisection| is_wanted && bisection.has_next())
        {
            labels::top_up(&self.mirror.name, &mut self.labels);
            if let Some(part) = self.labels.take().and_then(|label| bisection.next(label)) {
                let id = part.label.number;
                self.waiting.push((id, Job::Load(part)));
                self.in_flight.insert(id, sent);
                return;
            }
        }
        self.in_flight_bytes -= sent.bytes;
        if let Some(bisection) = sent.bisection.as_mut().filter(|_| is_wanted) {
            self.take_rejected(sent.chunk.0, bisection);
        }
        if let Some(progress) = self.chunks.get_mut(&sent.chunk) {
            progress.pending -= 1;
        }
        self.complete_if_done(sent.chunk);
    }

    /// The bad rows of a load are known.
    fn take_rejected(&mut self, relid: pg_sys::Oid, bisection: &mut Bisection) {
        let gave_up = bisection.gave_up();
        let rejected = bisection.take_rejected();
        if rejected.is_empty() {
            return;
        }
        self.write_down(relid, &rejected);
        if self.stops_at_rows() || gave_up {
            let target = self.mirror.table(relid).map(|table| table.target.clone());
            let reason = target.map(|target| decode::told(&target, rejected.len(), gave_up));
            self.fail(relid, &reason.unwrap_or_default());
        } else if self.go_on_without(relid, rejected.len()).is_err() {
            self.fail(relid, decode::TOO_MANY);
        }
    }

    /// The table goes on without so many more rows, unless that makes too many.
    fn go_on_without(&self, relid: pg_sys::Oid, rows: usize) -> Result<(), Stop> {
        let name = self.mirror.table(relid).map_or("", |table| &table.source_name);
        let all = catalog::mirror::transaction(&self.mirror.name, || {
            catalog::rejected::tell(&self.mirror.name, relid, name, rows);
            catalog::rejected::count(&self.mirror.name, relid)
        });
        let is_too_many = usize::try_from(all).is_ok_and(|all| all > MOST_PARKED);
        if is_too_many { Err(Stop::Failed(decode::TOO_MANY.to_owned())) } else { Ok(()) }
    }

    fn stops_at_rows(&self) -> bool {
        self.mirror.options.on_reject == OnReject::Stop
    }

    /// Writes down rows that are not at the target.
    fn write_down(&self, relid: pg_sys::Oid, rejected: &[RejectedRow]) {
        if rejected.is_empty() {
            return;
        }
        catalog::mirror::transaction(&self.mirror.name, || {
            rejected.iter().for_each(|row| catalog::rejected::record(&self.mirror.name, relid, row));
        });
        failpoint::hit("copy_rows_rejected");
    }

    fn complete_if_done(&mut self, key: ChunkKey) {
        if self.chunks.get(&key).is_some_and(|progress| progress.is_read && progress.pending == 0)
            && let Some(progress) = self.chunks.remove(&key)
        {
            failpoint::hit("copy_chunk_all_visible");
            catalog::mirror::transaction(&self.mirror.name, || {
                catalog::chunk::complete(&self.mirror.name, key.0, &progress.chunks, progress.rows);
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
        catalog::mirror::transaction(&self.mirror.name, || {
            if catalog::table::begin_anew(&self.mirror.name, relid) {
                let message =
                    format!("table \"{name}\" was rewritten or altered during its copy, which begins anew");
                Event { relid: Some(relid), ..Event::of(&self.mirror.name, Severity::Info, &message) }
                    .record();
            }
        });
        self.chunks.retain(|(table, _), _| *table != relid);
    }

    /// The table has left the mirror; the others are copied.
    fn let_go(&mut self, relid: pg_sys::Oid) {
        catalog::mirror::transaction(&self.mirror.name, || {
            start::let_go_of_dropped(&self.mirror, relid);
        });
        self.chunks.retain(|(table, _), _| *table != relid);
    }

    /// The table goes into error; the others are copied.
    fn fail(&mut self, relid: pg_sys::Oid, reason: &str) {
        let name = self.mirror.tables.iter().find(|table| table.relid == relid);
        let name = name.map_or_else(String::new, |table| table.source_name.clone());
        catalog::mirror::transaction(&self.mirror.name, || {
            catalog::table::fail(&self.mirror.name, relid, &name, reason);
        });
        self.chunks.retain(|(table, _), _| *table != relid);
    }
}
