//! `dbmazz export leader`: has one export done.
//!
//! ```text
//! old processes gone ─► holder has the snapshot ─► plan, or what is left of it ─► workers and pg_dump ─► manifest
//! ```
//!
//! It alone writes the state of the export. It ends when the export does, and then all others end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::export::{ChunkPlan, ExportRow, ExportTable, Section};
use super::super::{catalog, compat, failpoint, latch, session, slot};
use super::plan;
use super::process::{self, Child, Identity, ProcessKind, must};
use super::schema::{self, Definitions, Dump};
use super::worker::{open, writing};
use super::{assemble, shared};
use crate::export::destination::{Destination, Existing, StoreError};
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
    process::on_exit(schema::kill_children);
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
}

struct Leader {
    me: Identity,
    row: ExportRow,
    options: ExportOptions,
    destination: Arc<dyn Destination>,
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
        self.remove_unfinished();
        let id = self.me.id;
        match result {
            Ok(()) => {
                session::transaction(|| catalog::export::set_state(id, "done", None));
                log!("export {id} is done");
                // The holder sees that nobody leads any more.
            }
            Err(stop) => {
                let (state, reason) = match stop {
                    Stop::Cancelled => ("cancelled", None),
                    Stop::Failed(reason) => ("failed", Some(reason)),
                };
                session::transaction(|| {
                    catalog::export::release_claims(id);
                    catalog::export::set_state(id, state, reason.as_deref());
                });
                log!("export {id} {state}: {}", reason.unwrap_or_else(|| "by request".to_owned()));
            }
        }
    }

    /// What is unfinished takes room, and a full disk may be why it is. An export that is done can have some too: of a worker
    /// that was ended and replaced, or an upload whose beginning was not answered and that was begun once more.
    fn remove_unfinished(&self) {
        if let Err(problem) = self.destination.remove_unfinished() {
            warning!("could not remove unfinished files of export {}: {problem}", self.me.id);
        }
    }

    fn work(&mut self) -> Result<(), Stop> {
        self.wait_for_old_processes()?;
        session::transaction(|| {
            catalog::export::release_claims(self.me.id);
            catalog::export::set_state(self.me.id, "running", None);
        });
        self.prepare_destination();
        self.take_snapshot()?;
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

    /// An export that begins makes room for itself, if it may; one that goes on looks whether what is done is there.
    fn prepare_destination(&mut self) {
        must(self.destination.remove_unfinished());
        if self.row.planned {
            return self.check_finished_chunks();
        }
        must(self.destination.remove(MANIFEST));
        if self.options.overwrite {
            for prefix in ["data/", "schema/", "large_objects/", "blobs/"] {
                for object in must(self.destination.list(prefix)) {
                    must(self.destination.remove(&object.name));
                    latch::serve_interrupts();
                }
            }
        }
    }

    fn check_finished_chunks(&self) {
        for done in session::transaction(|| catalog::export::done_chunks(self.me.id)) {
            if must(self.destination.size(&done.file.file)) != Some(done.file.compressed_bytes) {
                let name = &done.file.file;
                log!("export {}: file \"{name}\" is not what it was and is written again", self.me.id);
                session::transaction(|| {
                    catalog::export::release_chunk(self.me.id, done.plan.relid, done.plan.chunk);
                });
            }
            latch::serve_interrupts();
        }
    }

    fn take_snapshot(&mut self) -> Result<(), Stop> {
        self.children.push(self.start_child(ProcessKind::Holder)?);
        session::report_activity(&format!("export {}: waiting for the snapshot", self.me.id));
        let held = loop {
            let held = shared::find(self.me.id, self.me.database).map(|place| place.held);
            if let Some(held) = held.filter(|held| held.is_there) {
                break held;
            }
            if self.children.iter_mut().any(Child::is_gone) {
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

    fn read_sequences(&self) {
        let row = &self.row;
        session::transaction(|| {
            let sequences = catalog::export::sequences(row.id, row.whole);
            catalog::export::set_sequences(row.id, &sequences);
        });
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

    /// None when they are there already.
    fn start_definitions(&self) -> Option<Definitions> {
        let sections = [
            self.row.pre_data.is_none().then_some(Section::PreData),
            self.row.post_data.is_none().then_some(Section::PostData),
        ];
        let sections: Vec<Section> = sections.into_iter().flatten().collect();
        if sections.is_empty() {
            return None;
        }
        let names = self.names_of_tables();
        let tables = (!self.row.whole).then_some(names.as_slice());
        let dump = Dump { snapshot: &self.snapshot, role: self.row.owner, tables };
        Some(session::transaction(|| {
            Definitions::start(&sections, &dump, &*self.destination, writing(&self.options))
        }))
    }

    /// Of all tables, and of those whose partitions or children they are.
    fn names_of_tables(&self) -> Vec<(String, String)> {
        session::transaction(|| {
            let mut names = Vec::new();
            for table in catalog::export::tables(self.me.id) {
                for name in catalog::export::ancestors(table.relid) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                names.push((table.schema, table.name));
            }
            names
        })
    }

    fn take_definitions(&self, definitions: &mut Option<Definitions>) {
        let Some(left) = definitions else { return };
        for (section, file) in left.poll() {
            session::transaction(|| catalog::export::set_section(self.me.id, section, &file));
        }
        if left.is_done() {
            *definitions = None;
        }
    }

    /// Workers that have found nothing more to do. True when there was one. The holder must not be among those that end.
    fn forget_ended_workers(&mut self) -> Result<bool, Stop> {
        let before = self.children.len();
        if self.children.first_mut().is_some_and(Child::is_gone) {
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
        while !self.children.iter_mut().all(Child::is_gone) {
            latch::wait(None, GLANCE);
        }
    }
}
