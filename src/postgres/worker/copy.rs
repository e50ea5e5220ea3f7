//! The first copy of a mirror's tables, as the mirror worker leads it.
//!
//! ```text
//! leftover slot dropped ─► target tables ready and empty ─► holder: slot + snapshot
//!   ─► chunks planned ─► snapshot workers ─► every chunk visible ─► first checkpoint ─► holder leaves
//! ```
//!
//! Until the first checkpoint nothing of it counts: a copy that is interrupted starts over, with a new slot and emptied
//! tables. After it the slot has everything that committed since the snapshot, and streaming goes on from there.

use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::checkpoint::{self, Checkpoint};
use super::super::catalog::chunk::Chunk;
use super::super::catalog::event::{Event, Severity};
use super::super::catalog::table::TableState;
use super::super::loader::Loader;
use super::super::shmem::{self, HolderPhase, MirrorState};
use super::super::{catalog, failpoint, latch, scan, session, slot};
use super::start::{self, DefinitionWatch, Described, Mirror};
use super::{Child, WorkerKind};
use crate::lsn::Lsn;
use crate::pipeline::LabelSequence;
use crate::sink::{Job, Outcome, TableMatch};
use crate::snapshot::plan_chunks;

/// How often a snapshot worker may fail before the copy gives up.
const MOST_FAILURES: u32 = 5;

/// Creates slot and target, copies the tables, and writes the first checkpoint. Returns the position from which the
/// slot must be streamed.
pub(super) fn first_copy(mirror: &mut Mirror, loader: &mut Loader, labels: &LabelSequence) -> Lsn {
    drop_leftover_slot(mirror);
    failpoint::hit("start_before_target_tables");
    prepare_target(mirror, loader);
    failpoint::hit("start_after_target_tables");
    let holder = start_holder(mirror);
    let held = wait_for_slot(mirror, &holder);
    if mirror.row.copy_rows {
        loader.enter_phase(MirrorState::Snapshot);
        plan(mirror, held.snapshot.as_str());
        failpoint::hit("start_plan_committed");
        copy_all(mirror, loader, &holder);
        failpoint::hit("copy_all_done");
        start::settle_earlier_labels(mirror, loader, Some(labels.incarnation()));
    }
    let tables = &mirror.tables;
    let first = Checkpoint {
        confirmed_lsn: held.consistent_lsn,
        ..checkpoint::here(mirror.database, labels.incarnation())
    };
    checkpoint::commit(&mirror.name, &first, || {
        for table in tables.iter().filter(|table| table.state != TableState::Error) {
            catalog::table::set_ready(&mirror.name, table.relid, held.consistent_lsn);
        }
        catalog::chunk::clear(&mirror.name);
        let message = format!("mirror \"{}\" streams from {}", mirror.name, held.consistent_lsn);
        Event::of(&mirror.name, Severity::Info, &message).record();
    });
    failpoint::hit("copy_first_checkpoint");
    shmem::update(&mirror.name, |slot| slot.holder.leave = true);
    mirror.tables = session::transaction(|| catalog::table::list(&mirror.name));
    held.consistent_lsn
}

/// A slot without a checkpoint is one of a start that never got as far.
fn drop_leftover_slot(mirror: &Mirror) {
    if slot::find(&mirror.slot_name()).is_some() {
        slot::drop_unused(&mirror.slot_name());
        log!("replication slot \"{}\" of an unfinished start has been dropped", mirror.slot_name());
    }
}

/// Makes every target table exist, fit and be empty; tables that cannot be mirrored go into error.
fn prepare_target(mirror: &mut Mirror, loader: &mut Loader) {
    let described: Vec<(pg_sys::Oid, Result<Described, String>)> = session::transaction(|| {
        mirror.tables.iter().map(|table| (table.relid, start::describe_for_copy(mirror, table))).collect()
    });
    let specs = described.iter().filter_map(|(_, described)| described.as_ref().ok()).map(|d| d.spec.clone());
    let mut definition = DefinitionWatch::new();
    let prepare = Job::Prepare(specs.collect());
    let outcome = loader.run(prepare, |trouble| definition.begin_anew_if_mended(mirror, trouble));
    let Outcome::Prepare(prepared) = outcome else { return };

    let mut problems = Vec::new();
    let mut emptied = Vec::new();
    for table in prepared {
        match table.result {
            Ok(TableMatch::Created) => {}
            // Rows of an earlier attempt of this very mirror.
            Ok(TableMatch::Occupied) if mirror.has_begun_to_copy(table.spec.relid) => {
                emptied.push(table.spec.target.clone());
            }
            Ok(TableMatch::Occupied) if mirror.row.copy_rows => {
                let reason = format!(
                    "target table \"{}\" has rows and was not made by a mirror; empty it, or drop it and have the mirror \
                     create it",
                    table.spec.target
                );
                problems.push((table.spec.relid, reason));
            }
            Ok(TableMatch::Occupied) => {}
            Ok(TableMatch::Fits) => emptied.push(table.spec.target.clone()),
            Ok(TableMatch::Differs(how)) => {
                problems.push((
                    table.spec.relid,
                    format!("target table \"{}\" does not fit: {how}", table.spec.target),
                ));
            }
            Err(problem) => problems.push((table.spec.relid, problem.to_string())),
        }
    }
    if mirror.row.copy_rows {
        let truncate = emptied.into_iter().map(Job::Truncate);
        let watch = |trouble| definition.begin_anew_if_mended(mirror, trouble);
        for outcome in loader.run_all(truncate, watch) {
            if let Outcome::Truncate(target, Err(problem)) = outcome {
                error!("could not empty target table \"{target}\" before the copy: {problem}");
            }
        }
    }
    write_down(mirror, described, problems);
}

fn write_down(
    mirror: &mut Mirror,
    described: Vec<(pg_sys::Oid, Result<Described, String>)>,
    mut problems: Vec<(u32, String)>,
) {
    session::transaction(|| {
        for (relid, described) in described {
            match described {
                Ok(described) => {
                    catalog::table::write_definition(&mirror.name, relid, &described.definition);
                    catalog::table::write_state(&mirror.name, relid, TableState::Copying, None);
                }
                Err(reason) => problems.push((relid.to_u32(), reason)),
            }
        }
        for (relid, reason) in &problems {
            let source = mirror.tables.iter().find(|table| table.relid.to_u32() == *relid);
            let source_name = source.map_or("", |table| table.source_name.as_str());
            catalog::table::fail(&mirror.name, pg_sys::Oid::from(*relid), source_name, reason);
        }
        catalog::chunk::clear(&mirror.name);
        mirror.tables = catalog::table::list(&mirror.name);
    });
}

fn start_holder(mirror: &Mirror) -> Child {
    shmem::update(&mirror.name, |slot| slot.holder = shmem::Holder::default());
    start_child(mirror, WorkerKind::Holder)
}

/// Starts a worker, waiting for a free place among the workers of the server if need be.
fn start_child(mirror: &Mirror, kind: WorkerKind) -> Child {
    loop {
        if let Ok(child) = Child::start_helper(kind, mirror.database, &mirror.name) {
            return child;
        }
        shmem::note_error(
            &mirror.name,
            "waiting for a free worker slot: you might need to increase max_worker_processes",
        );
        latch::wait(None, Duration::from_secs(1));
        session::leave_if_unwanted(&mirror.name);
    }
}

/// Waits until the holder has the slot. That takes as long as the oldest transaction that is running now.
fn wait_for_slot(mirror: &Mirror, holder: &Child) -> shmem::Holder {
    let mut turns = 0u32;
    loop {
        let slot = shmem::find(&mirror.name).unwrap_or_default();
        if slot.holder.phase == HolderPhase::Holding {
            return slot.holder;
        }
        if holder.is_gone() {
            error!(
                "could not create replication slot \"{}\": {}",
                mirror.slot_name(),
                slot.last_error.as_str()
            );
        }
        turns += 1;
        if turns.is_multiple_of(20) {
            say_who_is_waited_for(mirror);
        }
        latch::wait(None, Duration::from_millis(100));
        session::leave_if_unwanted(&mirror.name);
    }
}

fn say_who_is_waited_for(mirror: &Mirror) {
    if let Some(who) = session::transaction(catalog::oldest_transaction) {
        shmem::note_error(&mirror.name, &format!("the replication slot waits for {who} to end"));
    }
}

/// Divides every table that is to be copied into chunks, by its size under the snapshot.
fn plan(mirror: &Mirror, snapshot: &str) {
    let mut plans = Vec::new();
    scan::under_snapshot(snapshot, || {
        for table in mirror.tables.iter().filter(|table| table.state == TableState::Copying) {
            let Some(relation) = scan::open_table(table.relid) else { continue };
            // SAFETY: just opened, in this transaction, and closed at once.
            let size = unsafe {
                let size = scan::size_of(relation);
                scan::close_table(relation);
                size
            };
            let heap_bytes = u64::from(size.blocks) * u64::from(pg_sys::BLCKSZ);
            let chunks =
                plan_chunks(size.blocks, heap_bytes, size.toast_bytes, mirror.options.snapshot_chunk_bytes);
            let all = u64::try_from(chunks.len()).unwrap_or(1).max(1);
            plans.extend(chunks.iter().zip(1..).map(|(chunk, number)| Chunk {
                relid: table.relid,
                chunk: number,
                first_block: chunk.first_block,
                end_block: chunk.end_block,
                bytes: (heap_bytes + size.toast_bytes) / all,
                relfilenode: size.relfilenode,
            }));
        }
    });
    session::transaction(|| catalog::chunk::insert_plan(&mirror.name, &plans));
}

/// Has the chunks copied; workers that fail are replaced.
fn copy_all(mirror: &Mirror, loader: &mut Loader, holder: &Child) {
    let mut workers: Vec<Child> = Vec::new();
    let mut failures = 0;
    loop {
        let before = workers.len();
        workers.retain(|worker| !worker.is_gone());
        if workers.is_empty() {
            let given_back = session::transaction(|| catalog::chunk::release_claims(&mirror.name));
            let left = session::transaction(|| catalog::chunk::count_left(&mirror.name));
            if left == 0 {
                return;
            }
            if before > 0 && given_back > 0 {
                failures += 1;
                give_up_after(failures, mirror);
            }
            let count = mirror.options.snapshot_workers.min(left);
            workers.extend((0..count).map_while(|_| {
                Child::start_helper(WorkerKind::Snapshot, mirror.database, &mirror.name).ok()
            }));
            if workers.is_empty() {
                workers.push(start_child(mirror, WorkerKind::Snapshot));
            }
        }
        if holder.is_gone() {
            error!("could not go on copying: the process that holds the snapshot has ended");
        }
        loader.wait(Duration::from_millis(200));
        session::leave_if_unwanted(&mirror.name);
    }
}

fn give_up_after(failures: u32, mirror: &Mirror) {
    if failures >= MOST_FAILURES {
        let reason =
            shmem::find(&mirror.name).map(|slot| slot.last_error.as_str().to_owned()).unwrap_or_default();
        error!("could not copy the tables of mirror \"{}\": {reason}", mirror.name);
    }
    latch::wait(None, Duration::from_millis(200) * failures);
}
