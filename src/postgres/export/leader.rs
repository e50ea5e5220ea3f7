//! `dbmazz export leader`: has one export done.
//!
//! ```text
//! old processes gone ─► destination is ours ─► holder has the snapshot ─► list of tables ─► plan ─► workers and pg_dump ─► manifest
//! ```
//!
//! An export that goes on keeps list and plan of the first snapshot, unless nothing was read under it.
//!
//! It alone writes the state of the export. It ends when the export does, and then all others end.

mod destination;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::export::{ChunkPlan, ExportRow, ExportTable, Section};
use super::super::encoding::own_text;
use super::super::process::{Child, on_exit};
use super::super::{catalog, compat, failpoint, latch, session, slot};
use super::plan::{self, NoPlan};
use super::process::{self, Identity, ProcessKind, must};
use super::schema::{self, Definitions, Dump};
use super::worker::{open, writing};
use super::{assemble, shared};
use crate::export::destination::{Claim, Destination, Existing, StoreError};
use crate::export::file::write_whole;
use crate::export::manifest::MANIFEST;
use crate::export::options::ExportOptions;
use crate::identity::Slot;
use crate::lsn::Lsn;
use crate::postgres::scan;

/// How often the leader looks around while it waits for others.
const GLANCE: Duration = Duration::from_millis(20);

/// How long it waits for a slot of `max_worker_processes` when it has no worker at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it asks the catalog how far things are, when nothing happens.
const ROUND: Duration = Duration::from_millis(200);

const NO_SLOT: &str = "no slot for a background worker is free: raise max_worker_processes";

/// Main function of `dbmazz export leader`.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_export_leader_main(argument: pg_sys::Datum) {
    let Some(mut me) = process::enter(argument) else { return };
    on_exit(schema::kill_children, pg_sys::Datum::null());
    let proc_number = compat::my_proc_number();
    let Some(generation) = shared::lead(me.id, me.database, me.pid, proc_number) else { return };
    me.generation = generation;
    process::run(
        me,
        move || {
            let found = session::transaction(|| {
                let row = catalog::export::read(me.id)?;
                let destination = open(&row);
                Some((row, destination))
            });
            if let Some((row, destination)) = found {
                Leader::new(me, row, destination).run();
            }
        },
        move |reason| {
            let reason = reason.to_owned();
            session::transaction(|| catalog::export::set_state(me.id, "failed", Some(&reason)));
        },
    );
}

/// Why an export is not done.
enum Stop {
    Cancelled,
    Failed(String),
    /// It would fail again.
    Hopeless(String),
}

/// Of a table that is gone some rows are in files, and the others nowhere.
fn incomplete(table: &ExportTable) -> Stop {
    let ExportTable { schema, name, .. } = table;
    Stop::Hopeless(format!("table \"{schema}.{name}\" has been dropped before all of it was written"))
}

struct Leader {
    me: Identity,
    row: ExportRow,
    options: ExportOptions,
    destination: Arc<dyn Destination>,
    /// While it is there nobody else writes to the destination.
    claim: Option<Claim>,
    began: Instant,
    children: Vec<Child>,
    snapshot: String,
    lsn: Lsn,
}

impl Leader {
    fn new(me: Identity, row: ExportRow, destination: Arc<dyn Destination>) -> Self {
        let options = ExportOptions::parse(&row.options).unwrap_or_else(|problem| error!("{problem}"));
        Self {
            me,
            row,
            options,
            destination,
            claim: None,
            began: Instant::now(),
            children: Vec::new(),
            snapshot: String::new(),
            lsn: Lsn::INVALID,
        }
    }

    fn run(mut self) {
        let result = self.work();
        if result.is_err() {
            self.end_children();
            self.drop_unfinished_slot();
        }
        if self.claim.is_some() {
            self.remove_unfinished();
            self.release_destination();
        }
        let id = self.me.id;
        match result {
            Ok(()) => {
                session::transaction(|| catalog::export::set_state(id, "done", None));
                log!("export {id} is done");
                // The holder sees that nobody leads any more.
            }
            Err(stop) => {
                let (state, reason, is_hopeless) = match stop {
                    Stop::Cancelled => ("cancelled", None, false),
                    Stop::Failed(reason) => ("failed", Some(reason), false),
                    Stop::Hopeless(reason) => ("failed", Some(reason), true),
                };
                let reason = reason.map(|reason| own_text(&reason).into_owned());
                session::transaction(|| {
                    catalog::export::release_claims(id);
                    catalog::export::set_state(id, state, reason.as_deref());
                    if is_hopeless {
                        catalog::export::set_hopeless(id);
                    }
                });
                log!("export {id} {state}: {}", reason.unwrap_or_else(|| "by request".to_owned()));
            }
        }
    }

    fn work(&mut self) -> Result<(), Stop> {
        self.wait_for_old_processes()?;
        session::transaction(|| {
            catalog::export::release_claims(self.me.id);
            catalog::export::set_state(self.me.id, "running", None);
        });
        self.claim_destination()?;
        self.prepare_destination()?;
        self.take_snapshot()?;
        if !self.row.planned {
            self.list_tables()?;
        }
        self.plan()?;
        failpoint::hit("export_planned");
        self.read_sequences();
        self.have_written()?;
        failpoint::hit("export_written");
        self.write_manifest()
    }

    fn wait_for_old_processes(&mut self) -> Result<(), Stop> {
        while shared::find(self.me.id, self.me.database)
            .is_some_and(|place| place.helper_pids().next().is_some())
        {
            self.look_around()?;
        }
        Ok(())
    }

    fn take_snapshot(&mut self) -> Result<(), Stop> {
        self.children.push(self.start_child(ProcessKind::Holder)?);
        session::report_activity(&format!("export {}: waiting for the snapshot", self.me.id));
        let held = loop {
            let held = shared::find(self.me.id, self.me.database).map(|place| place.held);
            if let Some(held) = held.filter(|held| held.is_there) {
                break held;
            }
            if self.children.iter().any(Child::is_gone) {
                return Err(Stop::Failed(
                    self.reason_of_others("the process that holds the snapshot has ended"),
                ));
            }
            self.look_around()?;
        };
        (self.snapshot, self.lsn) = (held.snapshot.as_str().to_owned(), held.lsn);
        let slot = (self.options.slot && self.row.slot_name.is_none())
            .then(|| catalog::export::slot_name(self.me.id));
        session::transaction(|| catalog::export::add_snapshot(self.me.id, self.lsn, slot.as_deref()));
        self.row.slot_name = slot.or(self.row.slot_name.take());
        Ok(())
    }

    /// A slot that is not written down yet is of use to nobody, and would keep the log for ever.
    fn drop_unfinished_slot(&self) {
        let name = catalog::export::slot_name(self.me.id);
        let is_unfinished = |slot: Slot| slot.database_oid == self.me.database && slot.active_pid.is_none();
        if self.options.slot && self.row.slot_name.is_none() && slot::find(&name).is_some_and(is_unfinished) {
            slot::drop_unused(&name);
        }
    }

    fn start_child(&self, kind: ProcessKind) -> Result<Child, Stop> {
        let began = Instant::now();
        loop {
            if let Ok(child) = process::start_child(kind, self.me.id, self.me.generation) {
                return Ok(child);
            }
            if began.elapsed() > PATIENCE {
                return Err(Stop::Failed(NO_SLOT.to_owned()));
            }
            self.look_around()?;
        }
    }

    /// Which tables there are is seen under the snapshot, as definitions and rows are.
    fn list_tables(&self) -> Result<(), Stop> {
        let (row, format) = (&self.row, self.options.format);
        let (listed, families) = scan::under_snapshot(&self.snapshot, || {
            let listed = plan::relations(row.named.as_deref(), row.owner, format);
            (listed, row.named.as_deref().map(catalog::export::families))
        });
        if let (Some(named), Some(families)) = (&row.named, families) {
            if families.is_empty() {
                return Err(Stop::Hopeless("none of its tables is there any more".to_owned()));
            }
            let is_gone = |relid: &&pg_sys::Oid| !families.iter().any(|(other, _)| other == *relid);
            for relid in named.iter().filter(is_gone) {
                log!(
                    "export {}: the table with OID {} has been dropped and is left out",
                    row.id,
                    relid.to_u32()
                );
            }
        }
        let tables = listed.map_err(|failure| Stop::Failed(failure.summary()))?;
        session::transaction(|| catalog::export::write_tables(row.id, &tables));
        Ok(())
    }

    /// Relations without a plan get one, and those whose plan is void: their files are others, or, of those that are written
    /// already, their columns. The definitions are of one moment with the rows.
    fn plan(&mut self) -> Result<(), Stop> {
        let id = self.me.id;
        for table in session::transaction(|| catalog::export::tables(id)) {
            latch::serve_interrupts();
            let is_written = self.row.planned
                && !session::transaction(|| catalog::export::has_chunks_left(id, table.relid));
            let planned = scan::under_snapshot(&self.snapshot, || plan::plan(&table, &self.options));
            let (planned, chunks) = match planned {
                Ok(found) => found,
                Err(_) if is_written => continue,
                Err(NoPlan::Dropped) if self.row.planned => return Err(incomplete(&table)),
                Err(problem) => return Err(Stop::Failed(problem.of(&table))),
            };
            let has_same_columns = table.attnums == planned.attnums && table.columns == planned.columns;
            let has_same_file = is_written || table.relfilenode == planned.relfilenode;
            if self.row.planned && has_same_columns && has_same_file {
                continue;
            }
            self.write_plan(&planned, &chunks);
        }
        session::transaction(|| catalog::export::set_planned(id));
        Ok(())
    }

    /// Writes a plan down. One that takes the place of another has everything of the table written anew, definitions too.
    fn write_plan(&mut self, table: &ExportTable, chunks: &[ChunkPlan]) {
        let (id, is_anew) = (self.me.id, self.row.planned);
        if is_anew {
            let name = format!("{}.{}", table.schema, table.name);
            log!("export {id}: table \"{name}\" has been rewritten or altered and is written anew");
            self.remove_files_of(table.relid);
            (self.row.pre_data, self.row.post_data) = (None, None);
        }
        session::transaction(|| {
            catalog::export::write_plan(id, table, chunks);
            if is_anew {
                catalog::export::forget_definitions(id);
            }
        });
    }

    fn remove_files_of(&self, relid: pg_sys::Oid) {
        for done in session::transaction(|| catalog::export::done_chunks(self.me.id)) {
            if done.plan.relid == relid {
                must(self.destination.remove(&done.file.file));
            }
        }
    }

    /// Those that the snapshot sees, where they stand by now.
    fn read_sequences(&self) {
        let (id, families) = (self.row.id, self.families());
        let relids: Option<Vec<_>> = families.map(|them| them.into_iter().map(|(relid, _)| relid).collect());
        let names = scan::under_snapshot(&self.snapshot, || catalog::export::sequences(relids.as_deref()));
        session::transaction(|| {
            let sequences: Vec<_> = names.into_iter().filter_map(catalog::export::standing).collect();
            catalog::export::set_sequences(id, &sequences);
        });
    }

    /// What is named and what has to be defined with it; none when that is all of the database.
    fn families(&self) -> Option<Vec<(pg_sys::Oid, (String, String))>> {
        let named = self.row.named.as_deref()?;
        Some(scan::under_snapshot(&self.snapshot, || catalog::export::families(named)))
    }

    /// Until all chunks and the schema are written.
    fn have_written(&mut self) -> Result<(), Stop> {
        let (_, waiting) = session::transaction(|| catalog::export::counts(self.me.id));
        self.start_workers(waiting);
        let mut definitions = self.start_definitions();
        let mut starving = Instant::now();
        loop {
            let (left, waiting) = session::transaction(|| catalog::export::counts(self.me.id));
            if left == 0 && definitions.is_none() && self.children.len() == 1 {
                return Ok(());
            }
            if self.children.len() > 1 {
                starving = Instant::now();
            } else if left > 0 && waiting == 0 {
                // Somebody has ended the workers without an error.
                session::transaction(|| catalog::export::release_claims(self.me.id));
                continue;
            }
            self.start_workers(waiting);
            if self.children.len() == 1 && left > 0 && starving.elapsed() > PATIENCE {
                return Err(Stop::Failed(NO_SLOT.to_owned()));
            }
            let round = Instant::now();
            while round.elapsed() < ROUND {
                self.take_definitions(&mut definitions);
                self.look_around()?;
                if let Some(reason) = self.error_of_others() {
                    return Err(Stop::Failed(reason));
                }
                if self.forget_ended_workers()? {
                    break;
                }
            }
        }
    }

    /// As many as may be, and have something to do.
    fn start_workers(&mut self, waiting: i64) {
        let busy = self.children.len() - 1;
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        for _ in 0..self.options.workers.saturating_sub(busy).min(waiting) {
            match process::start_child(ProcessKind::Worker, self.me.id, self.me.generation) {
                Ok(child) => self.children.push(child),
                Err(_) => return,
            }
        }
    }

    /// None when they are there already. Both sections are of one moment.
    fn start_definitions(&self) -> Option<Definitions> {
        if self.row.pre_data.is_some() && self.row.post_data.is_some() {
            return None;
        }
        let names: Option<Vec<_>> =
            self.families().map(|them| them.into_iter().map(|(_, name)| name).collect());
        let dump = Dump { snapshot: &self.snapshot, role: self.row.owner, tables: names.as_deref() };
        let sections = [Section::PreData, Section::PostData];
        Some(session::transaction(|| {
            Definitions::start(&sections, &dump, &*self.destination, writing(&self.options))
        }))
    }

    fn take_definitions(&self, definitions: &mut Option<Definitions>) {
        let Some(left) = definitions else { return };
        for (section, file) in left.poll() {
            session::transaction(|| catalog::export::set_section(self.me.id, section, &file, self.lsn));
        }
        if left.is_done() {
            *definitions = None;
        }
    }

    /// Workers that have found nothing more to do. True when there was one. The holder must not be among those that end.
    fn forget_ended_workers(&mut self) -> Result<bool, Stop> {
        let before = self.children.len();
        if self.children.first().is_some_and(Child::is_gone) {
            return Err(Stop::Failed(self.reason_of_others("the process that held the snapshot has ended")));
        }
        let mut is_first = true;
        self.children.retain_mut(|child| std::mem::take(&mut is_first) || !child.is_gone());
        Ok(self.children.len() < before)
    }

    fn error_of_others(&self) -> Option<String> {
        let place = shared::find(self.me.id, self.me.database)?;
        (!place.error.is_empty()).then(|| place.error.as_str().to_owned())
    }

    fn reason_of_others(&self, otherwise: &str) -> String {
        self.error_of_others().unwrap_or_else(|| otherwise.to_owned())
    }

    /// Waits a moment; says whether the export is to go on.
    fn look_around(&self) -> Result<(), Stop> {
        latch::wait(None, GLANCE);
        session::reload_configuration_if_asked();
        if shared::find(self.me.id, self.me.database).is_none_or(|place| place.cancel) {
            return Err(Stop::Cancelled);
        }
        match self.options.timeout {
            Some(timeout) if self.began.elapsed() > timeout => {
                Err(Stop::Failed("the time of option \"timeout\" is over".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn write_manifest(&self) -> Result<(), Stop> {
        session::report_activity(&format!("export {}: writing the manifest", self.me.id));
        let manifest = session::transaction(|| {
            let row = catalog::export::read(self.me.id)?;
            assemble::manifest(&row, &self.options)
        });
        let json = manifest.and_then(|manifest| manifest.to_json().ok());
        let json = json.ok_or_else(|| Stop::Failed("could not assemble the manifest".to_owned()))?;
        let written: Result<(), StoreError> =
            write_whole(&*self.destination, MANIFEST, Existing::Replace, &json);
        must(written);
        failpoint::hit("export_manifest_written");
        Ok(())
    }

    /// The holder leaves; workers that still run are told to end. Returns when all are gone.
    fn end_children(&mut self) {
        shared::update(self.me.id, self.me.database, |place| place.held.leave = true);
        for child in &self.children {
            child.terminate();
        }
        while !self.children.iter().all(Child::is_gone) {
            latch::wait(None, GLANCE);
        }
    }
}
