//! The worker's claim to the target: taken at its start, kept up while it streams. Why each step is where it is says
//! [`crate::owner`].

use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::super::catalog::checkpoint;
use super::super::catalog::identity::{self as record, Standing};
use super::super::loader::Loader;
use super::super::{catalog, compat};
use super::identity::Checked;
use super::standstill::Stop;
use super::start::{DefinitionWatch, Mirror};
use crate::lsn::Lsn;
use crate::owner::{Claimant, OwnerRow, OwnerStep, OwnerTrouble, is_own, judge, server_name};
use crate::sink::{Job, Outcome, StatementError};

/// The row is written no more often: it is a version of its table each time.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Claims the target for this worker.
///
/// # Errors
///
/// Why the mirror may not go on by itself.
pub(super) fn claim(
    mirror: &Mirror,
    loader: &mut Loader,
    checked: &Checked,
    incarnation: u64,
) -> Result<Owner, Stop> {
    let owner = Owner::new(mirror, checked, incarnation);
    let found = owner.run(mirror, loader, OwnerStep::Look { mirror: mirror.name.clone() });
    judge(found.as_ref(), &owner.claimant(checked))?;
    catalog::mirror::transaction(&mirror.name, || {
        if checked.last.is_none() {
            record::settle(&mirror.name, &checked.here);
        }
        // Again, so that it is not forgotten however many workers fail to claim after it.
        if let Some(found) = found.filter(|found| owner.known.contains(&found.incarnation)) {
            record::remember(&mirror.name, found.incarnation);
        }
        record::remember(&mirror.name, incarnation);
    });
    owner.run(mirror, loader, OwnerStep::Claim(owner.row(owner.written_lsn)));
    let is_settled = checked
        .last
        .as_ref()
        .is_none_or(|last| last.standing == Standing::Settled && last.place == checked.here);
    let timeline = compat::timeline();
    let is_promoted = checked.checkpoint.is_some_and(|last| last.timeline != timeline);
    if !is_settled || is_promoted {
        catalog::mirror::transaction(&mirror.name, || {
            record::settle(&mirror.name, &checked.here);
            checkpoint::write_timeline(&mirror.name, timeline);
        });
    }
    Ok(owner)
}

/// The row of the mirror in `dbmazz_owner`, as this worker last wrote it.
pub(super) struct Owner {
    mirror: String,
    /// Database of the target.
    database: String,
    server: String,
    incarnation: u64,
    known: Vec<u64>,
    /// What the row says: all that committed before was visible when it was written.
    written_lsn: Lsn,
    /// How often the target had been changed then.
    covered_changes: u64,
    /// The step that is on its way.
    in_flight: Option<(Lsn, u64)>,
    began_at: Option<Instant>,
}

impl Owner {
    fn new(mirror: &Mirror, checked: &Checked, incarnation: u64) -> Self {
        let mut known = checked.last.as_ref().map(|last| last.incarnations.clone()).unwrap_or_default();
        known.push(incarnation);
        Self {
            mirror: mirror.name.clone(),
            database: mirror.config.database.clone(),
            server: server_name(checked.here.system_identifier, checked.here.database_oid),
            incarnation,
            known,
            // The target has it: the checkpoint says so.
            written_lsn: checked.checkpoint.map_or(Lsn::INVALID, |last| last.confirmed_lsn),
            covered_changes: 0,
            in_flight: None,
            began_at: None,
        }
    }

    fn claimant(&self, checked: &Checked) -> Claimant {
        let last = checked.last.as_ref();
        let place = last.map_or(&checked.here, |last| &last.place);
        Claimant {
            server: self.server.clone(),
            last_server: server_name(place.system_identifier, place.database_oid),
            known: self.known.clone(),
            owner_lsn: checked.checkpoint.map(|checkpoint| checkpoint.owner_lsn),
            log_end: checked.log_end,
            is_confirmed: last.is_some_and(|last| last.standing == Standing::Confirmed),
        }
    }

    fn row(&self, commit_lsn: Lsn) -> OwnerRow {
        let (mirror, server) = (self.mirror.clone(), self.server.clone());
        OwnerRow { mirror, incarnation: self.incarnation, server, commit_lsn }
    }

    /// Does a step and waits for it. Not while streaming.
    fn run(&self, mirror: &Mirror, loader: &mut Loader, step: OwnerStep) -> Option<OwnerRow> {
        let mut definition = DefinitionWatch::new();
        let job = Job::Own { database: self.database.clone(), step };
        match loader.run(job, |trouble| definition.begin_anew_if_mended(mirror, trouble)) {
            Outcome::Own(_, result) => result.unwrap_or_else(|problem| fail(&problem)),
            _ => error!("could not claim the target: the answer is of another question"),
        }
    }

    /// The tables have been copied: the row says so, before the worker streams.
    ///
    /// # Errors
    ///
    /// When somebody else has claimed the target meanwhile.
    pub(super) fn advance_after_copy(
        &mut self,
        mirror: &Mirror,
        loader: &mut Loader,
        lsn: Lsn,
    ) -> Result<(), Stop> {
        let found = self.run(mirror, loader, self.advance(lsn));
        self.in_flight = Some((lsn, 0));
        self.take_answer(found)
    }

    fn advance(&self, lsn: Lsn) -> OwnerStep {
        OwnerStep::Advance { row: self.row(lsn), known: self.known.clone() }
    }

    /// The step that must be done before a checkpoint can promise `durable`; none when it has been, is being, or was so a
    /// moment ago. `changes` counts what was done to the target.
    pub(super) fn next_step(&mut self, durable: Lsn, changes: u64) -> Option<Job> {
        let is_time = self.began_at.is_none_or(|began| began.elapsed() >= SHORTEST_INTERVAL);
        (is_time && durable > self.written_lsn).then(|| self.step_now(durable, changes)).flatten()
    }

    /// The same, however short a time ago the last one was.
    pub(super) fn step_now(&mut self, durable: Lsn, changes: u64) -> Option<Job> {
        if self.in_flight.is_some() || changes == self.covered_changes || durable <= self.written_lsn {
            return None;
        }
        self.in_flight = Some((durable, changes));
        self.began_at = Some(Instant::now());
        Some(Job::Own { database: self.database.clone(), step: self.advance(durable) })
    }

    /// Takes in what became of the step.
    ///
    /// # Errors
    ///
    /// When somebody else has claimed the target.
    pub(super) fn take_outcome(
        &mut self,
        result: Result<Option<OwnerRow>, StatementError>,
    ) -> Result<(), Stop> {
        self.take_answer(result.unwrap_or_else(|problem| fail(&problem)))
    }

    fn take_answer(&mut self, found: Option<OwnerRow>) -> Result<(), Stop> {
        let Some((lsn, changes)) = self.in_flight.take() else { return Ok(()) };
        if !found.as_ref().is_some_and(|found| is_own(found, &self.server, &self.known)) {
            return Err(OwnerTrouble::Taken { found }.into());
        }
        (self.written_lsn, self.covered_changes) = (lsn, changes);
        Ok(())
    }

    /// What a checkpoint may promise, of `durable`: all of it as long as nothing was done to the target since the row was
    /// written, else what the row says.
    pub(super) fn promised(&self, durable: Lsn, changes: u64) -> Lsn {
        if changes == self.covered_changes { durable } else { durable.min(self.written_lsn) }
    }

    /// What the row says.
    pub(super) const fn written_lsn(&self) -> Lsn {
        self.written_lsn
    }
}

fn fail(problem: &StatementError) -> ! {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_FDW_ERROR,
        format!("could not claim the target: {problem}"),
        function_name!(),
    )
    .set_hint(
        "The user of the target needs the rights to create the table \"dbmazz_owner\" in its database, to read it and to write it.",
    )
    .report(PgLogLevel::ERROR);
    unreachable!("an error was raised")
}
