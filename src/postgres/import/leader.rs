//! `dbmazz import`: writes down what is to be done, and has it done, phase by phase.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::attempt::refuse_with;
use super::options::ImportOptions;
use super::plan::{self, LAST_PHASE, is_parallel};
use super::table::{self, Import};
use super::{begin, copy, place, presence};
use crate::postgres::caught::{report_of, text_of};
use crate::postgres::process::{self, Child, NoWorkerSlot, Program};
use crate::postgres::{latch, session};

const LEADER: Program = Program { name: "dbmazz import", main: "dbmazz_import_main" };
const WORKER: Program = Program { name: "dbmazz import worker", main: "dbmazz_import_worker_main" };

/// Starts the leader of an import.
pub(super) fn start(database: pg_sys::Oid, id: i64) -> Result<(), NoWorkerSlot> {
    process::start(LEADER, database, &id.to_string())
}

/// Main function of `dbmazz import`. Its arguments are the database and the import.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_import_main(argument: pg_sys::Datum) {
    let database = process::enter(argument, None);
    let Ok(id) = process::extra().parse() else { return };
    guarded(id, move || {
        if session::transaction(|| presence::become_leader(id)) {
            lead(database, id);
        }
    });
}

/// Runs the body of a process of an import; its error is why the import fails, and is written down as such.
pub(super) fn guarded(id: i64, body: impl FnOnce() + std::panic::UnwindSafe) {
    PgTryBuilder::new(body)
        .catch_others(move |error| {
            let reason = copy::with_file(&text_of(&error));
            let hint = report_of(&error).hint().map(str::to_owned);
            // SAFETY: the process does nothing more than to write down why it ends. Locks of the code that failed are given
            // back first.
            unsafe {
                pg_sys::LWLockReleaseAll();
                pg_sys::AbortOutOfAnyTransaction();
            }
            session::transaction(|| {
                crate::postgres::catalog::as_extension(|| table::fail(id, &reason, hint.as_deref()));
            });
            log!("import {id} has failed: {reason}");
        })
        .execute();
}

fn lead(database: pg_sys::Oid, id: i64) {
    let Some(import) = session::transaction(|| table::read(id)) else { return };
    if import.state != "starting" {
        return;
    }
    let options = ImportOptions::parse(&import.options).unwrap_or_else(|problem| error!("{problem}"));
    session::report_activity(&format!("import {id}: reading the manifest"));
    session::transaction(|| begin::begin(&import, &options));
    log!("import {id} from \"{}\" has started", import.source);
    let deadline = options.timeout().map(|time| Instant::now() + time);
    for phase in 0..=LAST_PHASE {
        if phase == plan::ROWS {
            session::transaction(|| place::note(id));
        }
        let workers = if is_parallel(phase) { options.workers } else { 1 };
        if !run_phase(database, &import, phase, workers, deadline) {
            return;
        }
    }
    session::transaction(|| end(id));
}

/// Everything has been tried. What has failed without keeping the rest from being done is why the import fails.
fn end(id: i64) {
    let failures = table::failures(id);
    if !failures.is_empty() {
        let hint = "Everything else is done. Mend it, and call dbmazz_import with the same arguments, without \"restart\": it tries this again.";
        table::fail(id, &failures.join("; "), Some(hint));
        log!("import {id} has failed: {}", failures.join("; "));
        return;
    }
    if table::advance(id, "running", "done") {
        place::finish(id);
        log!("import {id} is done");
    }
}

/// Has all steps of a phase done; false when the import does not go on.
fn run_phase(
    database: pg_sys::Oid,
    import: &Import,
    phase: i32,
    workers: usize,
    deadline: Option<Instant>,
) -> bool {
    let mut fruitless = 0;
    let mut alone_since = None;
    loop {
        let left = session::transaction(|| table::steps_left(import.id, phase));
        if left == 0 {
            return true;
        }
        session::report_activity(&format!("import {}: phase {phase}, {left} steps left", import.id));
        let started: Vec<_> =
            (0..workers.min(left)).map_while(|_| start_worker(database, import, phase).ok()).collect();
        if started.is_empty() {
            if alone_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                refuse_with(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, NO_SLOT, "", SLOT_HINT);
            }
            latch::wait(None, Duration::from_secs(1));
        } else {
            alone_since = None;
        }
        if !wait_for(&started, import, deadline) {
            return false;
        }
        let after = session::transaction(|| table::steps_left(import.id, phase));
        fruitless = if after < left || started.is_empty() { 0 } else { fruitless + 1 };
        if fruitless == MOST_FRUITLESS {
            error!("the processes of the import have ended unexpectedly; see the server's log");
        }
    }
}

/// How long it waits for a slot of `max_worker_processes` when it has no worker at all.
const PATIENCE: Duration = Duration::from_secs(60);
const NO_SLOT: &str = "no slot for a background worker is free";
const SLOT_HINT: &str =
    "Raise max_worker_processes and restart the server, then call dbmazz_import with the same arguments.";

/// Processes that end without an error and without a step done, before the import fails.
const MOST_FRUITLESS: u32 = 3;

/// Waits until the workers are gone; ends them when the import does not go on, and says so.
fn wait_for(workers: &[Child], import: &Import, deadline: Option<Instant>) -> bool {
    let mut goes_on = true;
    while !workers.iter().all(Child::is_gone) {
        latch::wait(None, Duration::from_millis(200));
        goes_on &= is_in_time(import.id, deadline) && is_running(import.id);
        if !goes_on {
            workers.iter().for_each(Child::terminate);
        }
    }
    goes_on && is_in_time(import.id, deadline) && is_running(import.id)
}

/// The import fails at its deadline.
fn is_in_time(id: i64, deadline: Option<Instant>) -> bool {
    let is_late = deadline.is_some_and(|deadline| Instant::now() > deadline);
    if is_late {
        let reason = "the import has taken longer than its timeout";
        session::transaction(|| table::fail(id, reason, None));
    }
    !is_late
}

fn is_running(id: i64) -> bool {
    session::transaction(|| table::read(id)).is_some_and(|import| import.state == "running")
}

fn start_worker(database: pg_sys::Oid, import: &Import, phase: i32) -> Result<Child, NoWorkerSlot> {
    Child::start(WORKER, database, &format!("{} {phase} {}", import.id, import.owner.to_u32()))
}
