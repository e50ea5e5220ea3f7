//! Loads out to the threads, outcomes in.
//!
//! Numbers for labels are reserved between records. A transaction so long that they run out inside it asks the launcher
//! for more, through shared memory, and waits.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use super::super::catalog::table::Counters;
use super::super::loader::Loader;
use super::super::shmem::{LabelRoom, Role};
use super::super::{failpoint, labels, latch, session, shmem};
use super::feed::Feed;
use super::news::News;
use crate::encode::Adjusted;
use crate::lsn::Lsn;
use crate::owner::OwnerRow;
use crate::pipeline::LabelSequence;
use crate::sink::{Job, JobId, Load, LoadError, Loaded, Outcome, StatementError};
use crate::table::TargetTable;

/// The job that empties a table; loads have the number of their label.
const TRUNCATE_JOB: JobId = JobId::MAX;
/// The step with the row of the owner.
const OWNER_JOB: JobId = JobId::MAX - 1;
/// A worker that has waited so long inside a callback ends, to look whether the server's definition was mended.
const PATIENCE_IN_CALLBACK: Duration = Duration::from_secs(30);
/// Commit times are kept at this distance, to tell the lag.
const SAMPLE_DISTANCE_MICROS: i64 = 50_000;

/// The way out, and what is known of what went it.
pub(super) struct Outgoing {
    mirror: String,
    /// Whose figures these are.
    pub(super) role: Role,
    pub(super) loader: Loader,
    pub(super) labels: LabelSequence,
    /// A job that no thread had room for.
    held: Option<(JobId, Job)>,
    in_flight: BTreeSet<u64>,
    truncated: Option<Result<(), StatementError>>,
    /// A step with the row of the owner that no thread had room for, and what became of the last one.
    owner_step: Option<Job>,
    owner_outcome: Option<Result<Option<OwnerRow>, StatementError>>,
    /// How often the target was changed: loads, and tables emptied.
    changes: u64,
    rows_total: u64,
    bytes_total: u64,
    loads_total: u64,
    rate: Rate,
    commit_times: VecDeque<(Lsn, i64)>,
    durable_commit_time: i64,
    received_commit_time: i64,
    confirmed: Lsn,
    /// Everything up to here was sealed because somebody waits for it. Once is enough for each position.
    flushed_for: Lsn,
}

/// Rows per second, measured over at least one.
struct Rate {
    since: Instant,
    rows: u64,
    per_second: f64,
}

impl Outgoing {
    pub(super) fn new(mirror: &str, role: Role, loader: Loader, labels: LabelSequence) -> Self {
        shmem::update(mirror, |slot| {
            *slot.labels_of(role) = LabelRoom {
                incarnation: labels.incarnation(),
                reserved_until: labels.reserved_until(),
                wanted_until: 0,
            };
        });
        let (rows_total, bytes_total, loads_total) = shmem::find(mirror).map_or((0, 0, 0), |slot| {
            (slot.progress.rows_total, slot.progress.bytes_total, slot.progress.loads_total)
        });
        Self {
            mirror: mirror.to_owned(),
            role,
            loader,
            labels,
            held: None,
            in_flight: BTreeSet::new(),
            truncated: None,
            owner_step: None,
            owner_outcome: None,
            changes: 0,
            rows_total,
            bytes_total,
            loads_total,
            rate: Rate { since: Instant::now(), rows: rows_total, per_second: 0.0 },
            commit_times: VecDeque::new(),
            durable_commit_time: 0,
            received_commit_time: 0,
            confirmed: Lsn::INVALID,
            flushed_for: Lsn::INVALID,
        }
    }

    /// Waits for an outcome, the latch or the time-out.
    pub(super) fn wait(&self, timeout: Duration) {
        self.loader.wait(timeout);
    }

    /// Remembers when a transaction committed at the source.
    pub(super) fn committed(&mut self, end: Lsn, time: i64) {
        self.received_commit_time = time;
        if self.commit_times.back().is_none_or(|(_, last)| time - last >= SAMPLE_DISTANCE_MICROS) {
            self.commit_times.push_back((end, time));
        }
    }

    /// Inside a callback the definition cannot be read again, so a worker that waits there for long ends and is started
    /// anew. Nothing is lost: the checkpoint is where it was.
    pub(super) fn leave_if_in_trouble_for_long(&self) {
        if self.loader.trouble_lasts() > PATIENCE_IN_CALLBACK {
            session::leave_to_look_again(&self.mirror);
        }
    }

    fn take_reserved_labels(&mut self) {
        if let Some(mut slot) = shmem::find(&self.mirror) {
            self.labels.extend(slot.labels_of(self.role).reserved_until);
        }
    }

    fn measure_rate(&mut self) {
        let elapsed = self.rate.since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let rows = self.rows_total - self.rate.rows;
            let per_second = rows as f64 / elapsed.as_secs_f64();
            self.rate = Rate { since: Instant::now(), rows: self.rows_total, per_second };
        }
    }
}

/// What an event says of values that were out of range.
pub(in crate::postgres) fn said(adjusted: &Adjusted<'_>) -> String {
    let Adjusted { column, nulled, clamped } = adjusted;
    format!(
        "values of column \"{column}\" that the target cannot hold were replaced: {nulled} by NULL, {clamped} by the nearest"
    )
}

impl Feed {
    /// Collects outcomes and hands out loads, as far as both go without waiting.
    pub(super) fn pump(&mut self) {
        while let Some((id, outcome)) = self.outgoing.loader.poll() {
            self.take_outcome(id, outcome);
        }
        // Before the loads, which could have every free thread for themselves.
        if let Some(step) = self.outgoing.owner_step.take()
            && let Err(step) = self.outgoing.loader.submit(OWNER_JOB, step)
        {
            self.outgoing.owner_step = Some(step);
            return;
        }
        loop {
            let Some((id, job)) = self.outgoing.held.take().or_else(|| self.next_job()) else { return };
            if let Err(job) = self.outgoing.loader.submit(id, job) {
                self.outgoing.held = Some((id, job));
                return;
            }
            failpoint::hit("stream_load_handed_out");
        }
    }

    fn next_job(&mut self) -> Option<(JobId, Job)> {
        if self.outgoing.labels.remaining() == 0 {
            self.outgoing.take_reserved_labels();
            if self.outgoing.labels.remaining() == 0 {
                labels::ask_for_more(&self.mirror, self.outgoing.role, &self.outgoing.labels);
                return None;
            }
        }
        let load = self.pipeline.next_load(&mut self.outgoing.labels)?;
        let number = load.label.number;
        self.outgoing.in_flight.insert(number);
        Some((number, Job::Load(load)))
    }

    fn take_outcome(&mut self, id: JobId, outcome: Outcome) {
        match outcome {
            Outcome::Load(load, result) => {
                self.outgoing.in_flight.remove(&id);
                self.load_ended(id, load, result);
            }
            Outcome::Truncate(_, result) | Outcome::Alter(_, result) => {
                self.outgoing.changes += 1;
                self.outgoing.truncated = Some(result);
            }
            Outcome::Own(_, result) => self.outgoing.owner_outcome = Some(result),
            Outcome::Settle(..) | Outcome::Occupy(..) | Outcome::Prepare(_) => {}
        }
    }

    fn load_ended(&mut self, id: JobId, load: Load, result: Result<Loaded, LoadError>) {
        match result {
            Ok(_) => {
                // Its buffer is used again when nobody else has it.
                drop(load);
                failpoint::hit("stream_outcome_received");
                self.outgoing.changes += 1;
                if let Some(finished) = self.pipeline.finished(id) {
                    self.outgoing.rows_total += finished.rows;
                    self.outgoing.bytes_total += finished.bytes;
                    self.outgoing.loads_total += 1;
                }
                self.take_bisected();
            }
            Err(LoadError::Stopped) => {
                error!("could not load rows into \"{}\": the load threads were stopped", load.shape.target)
            }
            Err(problem) => self.load_refused(&load, &problem),
        }
    }

    /// Empties a target table of which no load is under way.
    pub(super) fn empty_target(&mut self, target: TargetTable) -> Result<(), String> {
        self.change_target(Job::Truncate(target)).map_err(|problem| problem.to_string())
    }

    /// Has a statement executed about a target table of which no load is under way.
    pub(in super::super) fn change_target(&mut self, job: Job) -> Result<(), StatementError> {
        let mut job = Some(job);
        loop {
            if let Some(waiting) = job.take() {
                job = self.outgoing.loader.submit(TRUNCATE_JOB, waiting).err();
            }
            self.pump();
            match self.outgoing.truncated.take() {
                Some(result) => return result,
                None => self.pause_inside_callback(Duration::from_millis(500)),
            }
        }
    }

    /// One turn of the worker's loop: outcomes, batches that are due, loads.
    pub(in super::super) fn turn(&mut self, now: Instant) {
        self.pipeline.tick(now);
        self.pump();
        let waits_for = shmem::find(&self.mirror).map_or(Lsn::INVALID, |slot| slot.flush_requested);
        if waits_for > self.outgoing.flushed_for && waits_for <= self.received_lsn() {
            self.outgoing.flushed_for = waits_for;
            self.pipeline.seal_all();
        }
        self.pipeline.seal_due();
        self.pump();
    }

    /// Waits for an outcome, the latch or the time-out.
    pub(in super::super) fn wait(&self, timeout: Duration) {
        self.outgoing.wait(timeout);
    }

    /// How long the target has not been reached.
    pub(in super::super) fn trouble_lasts(&self) -> Duration {
        self.outgoing.loader.trouble_lasts()
    }

    /// How long until a batch is due.
    pub(in super::super) fn time_to_next_seal(&self) -> Option<Duration> {
        self.pipeline.next_deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Everything that is open is to be loaded now.
    pub(in super::super) fn seal_everything(&mut self) {
        self.pipeline.seal_all();
        self.pump();
    }

    /// Whether nothing is open, queued or on its way.
    pub(in super::super) fn is_idle(&self) -> bool {
        self.pipeline.is_idle() && self.outgoing.held.is_none()
    }

    /// Everything that committed before is visible at the target.
    pub(in super::super) fn durable_lsn(&self) -> Lsn {
        self.pipeline.durable_lsn()
    }

    /// How often the target was changed since the worker's start. Counted after the change is visible, and before what it
    /// brought is durable.
    pub(in super::super) const fn changes_of_target(&self) -> u64 {
        self.outgoing.changes
    }

    /// Somebody else has changed the target.
    pub(in super::super) const fn target_was_changed(&mut self) {
        self.outgoing.changes += 1;
    }

    /// Has a step with the row of the owner done, by the next thread that is free.
    pub(in super::super) fn hand_out_owner_step(&mut self, step: Job) {
        self.outgoing.owner_step = Some(step);
        self.pump();
    }

    /// What became of it; once.
    pub(in super::super) fn take_owner_outcome(
        &mut self,
    ) -> Option<Result<Option<OwnerRow>, StatementError>> {
        self.outgoing.owner_outcome.take()
    }

    /// Whether something happened that should be written down soon, by a checkpoint that promises so much.
    pub(in super::super) fn has_news(&mut self, promised: Lsn) -> bool {
        self.news.trouble.extend(self.outgoing.loader.take_reasons());
        self.news.is_urgent() || self.news.rejected.is_due(promised) || self.has_table_in_step(promised)
    }

    /// Takes what is to be written down with a checkpoint that promises so much.
    pub(in super::super) fn take_news(&mut self, promised: Lsn) -> News {
        let rejected = self.news.rejected.take_due(promised);
        let later = std::mem::take(&mut self.news.rejected);
        let mut news = std::mem::take(&mut self.news);
        news.rejected = rejected;
        self.news.rejected = later;
        news.in_step = self.take_tables_in_step(promised);
        for table in self.tables.values() {
            let Some(columnar) = &table.columnar else { continue };
            let counted = self.pipeline.take_counters(columnar.index);
            let counters = Counters {
                inserts: counted.inserts,
                updates: counted.updates,
                deletes: counted.deletes,
                truncates: counted.truncates,
                rows_loaded: counted.rows_loaded,
                bytes_loaded: counted.bytes_loaded,
            };
            for adjusted in columnar.encoder.take_adjusted() {
                news.adjusted.push((table.relid, said(&adjusted)));
            }
            if counters != Counters::default() {
                news.counters.push((table.relid, counters));
            }
        }
        news.settled = Some((self.incarnation(), self.settled_label() + 1));
        news
    }

    /// The fate of every label up to this number is known.
    pub(in super::super) fn settled_label(&self) -> u64 {
        let taken = self.outgoing.labels.taken();
        self.outgoing.in_flight.first().map_or(taken, |first| first - 1)
    }

    /// Whose labels these are.
    pub(in super::super) const fn incarnation(&self) -> u64 {
        self.outgoing.labels.incarnation()
    }

    /// Reserves more numbers when few are left. Between records only: it commits.
    pub(in super::super) fn reserve_labels(&mut self) {
        self.outgoing.take_reserved_labels();
        labels::top_up(&self.mirror, &mut self.outgoing.labels);
        let until = self.outgoing.labels.reserved_until();
        let role = self.outgoing.role;
        shmem::update(&self.mirror, |slot| slot.labels_of(role).reserved_until = until);
    }

    /// A checkpoint has been committed.
    pub(in super::super) fn checkpoint_written(&mut self, confirmed: Lsn) {
        self.outgoing.confirmed = confirmed;
        shmem::update(&self.mirror, |slot| slot.made_progress = true);
    }

    /// Shows the figures to the views, and to whoever waits for a position.
    pub(in super::super) fn publish(&mut self) {
        let durable = self.pipeline.durable_lsn();
        let out = &mut self.outgoing;
        while out.commit_times.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            out.durable_commit_time = out.commit_times.pop_front().map_or(0, |(_, time)| time);
        }
        out.measure_rate();
        if out.role != Role::Mirror {
            return;
        }
        let progress = shmem::Progress {
            received_lsn: self.received_lsn(),
            durable_lsn: durable,
            confirmed_lsn: self.outgoing.confirmed,
            durable_commit_time: self.outgoing.durable_commit_time,
            received_commit_time: self.outgoing.received_commit_time,
            rows_total: self.outgoing.rows_total,
            bytes_total: self.outgoing.bytes_total,
            loads_total: self.outgoing.loads_total,
            rows_per_second: self.outgoing.rate.per_second,
            queued_bytes: self.pipeline.queued_bytes() as u64,
        };
        // A row that is not rejected any more must not be found among those that are.
        let has_lost_table = self.news.has_lost_table() || self.news.rejected.is_due(durable);
        shmem::update(&self.mirror, |slot| {
            let shown = slot.progress.durable_lsn;
            slot.progress = progress;
            if has_lost_table {
                // Whoever waits for a position must find the table in error, or to be copied, when it is reached.
                slot.progress.durable_lsn = shown;
            }
        });
    }

    /// Ends the threads.
    pub(in super::super) fn shut_down(&mut self) {
        self.outgoing.loader.shut_down();
        latch::serve_interrupts();
    }
}
