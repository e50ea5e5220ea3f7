//! The launcher: sees to it that every mirror that is wanted has a worker, and that none has one that is not.
//!
//! It is connected to no database, so it blocks nobody's DROP DATABASE. At the server's start it sends a scout into
//! each database, one after the other; from then on it learns of mirrors by their slots in shared memory. A worker
//! that failed is started again after 1, 2, 4 … 60 seconds; one that failed three times in ten minutes without any
//! progress between is left in state `error` until somebody resumes it.

use std::collections::HashMap;
use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::shmem::{self, MirrorSlot, MirrorState, SHARED, Wanted};
use super::super::{clock, compat, guc, latch, process, session, signal};
use super::{Child, WorkerKind, guard, start_process};

/// Failures within this time count together, in microseconds.
const FAILURE_WINDOW: i64 = 600 * 1_000_000;
/// The longest pause before a worker is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Nothing else wakes the launcher when a worker could not be started for want of a slot.
const TICK: Duration = Duration::from_secs(5);

/// Registers the launcher; called by the postmaster while it loads the library.
pub(in super::super) fn register() {
    BackgroundWorkerBuilder::new("dbmazz launcher")
        .set_type("dbmazz launcher")
        .set_library("dbmazz")
        .set_function("dbmazz_launcher_main")
        .enable_spi_access()
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// Main function of `dbmazz launcher`.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_launcher_main(_argument: pg_sys::Datum) {
    signal::install_handlers();
    BackgroundWorker::connect_worker_to_spi(None, None);
    session::prepare();
    announce();
    log!("dbmazz launcher has started");
    let mut launcher =
        Launcher { children: HashMap::new(), label_workers: HashMap::new(), guard: guard::Watch::default() };
    launcher.send_scouts();
    loop {
        session::reload_configuration_if_asked();
        let deadline = launcher.turn();
        latch::wait(None, deadline);
    }
}

/// Writes down where the launcher can be woken.
fn announce() {
    process::on_exit(forget_launcher, pg_sys::Datum::null());
    let mut shared = SHARED.exclusive();
    // SAFETY: set before any worker runs.
    shared.launcher_pid = unsafe { pg_sys::MyProcPid };
    shared.launcher_proc_number = compat::my_proc_number();
}

#[pg_guard]
unsafe extern "C-unwind" fn forget_launcher(_code: i32, _argument: pg_sys::Datum) {
    SHARED.exclusive().launcher_pid = 0;
}

struct Launcher {
    /// Mirror workers that this launcher started, by mirror.
    children: HashMap<String, Child>,
    /// Workers that reserve label numbers for a mirror that cannot.
    label_workers: HashMap<String, Child>,
    /// Watches how much log the slots keep.
    guard: guard::Watch,
}

impl Launcher {
    /// Looks into each database for mirrors that were running when the server stopped.
    fn send_scouts(&mut self) {
        for database in databases() {
            let mut pause = Duration::from_millis(20);
            let scout = loop {
                match start_process(WorkerKind::Scout, database, "") {
                    Ok(scout) => break scout,
                    Err(_) => {
                        latch::wait(None, pause);
                        pause = (pause * 2).min(TICK);
                    }
                }
            };
            while !scout.is_gone() {
                latch::wait(None, Duration::from_millis(100));
                self.turn();
            }
        }
    }

    /// Brings workers in line with what is wanted; returns how long nothing needs to be done.
    fn turn(&mut self) -> Duration {
        self.label_workers.retain(|_, worker| !worker.is_gone());
        self.guard.turn();
        let now = clock::now();
        let mut pause = TICK;
        for slot in shmem::all() {
            let name = slot.mirror.as_str();
            if self.children.get(name).is_some_and(Child::is_gone) {
                self.children.remove(name);
                after_exit(&slot, now);
                pause = Duration::ZERO;
            } else if self.children.contains_key(name) {
                self.reserve_labels_if_asked(&slot);
            } else {
                pause = pause.min(self.without_worker(&slot, now));
            }
        }
        pause.max(Duration::from_millis(1))
    }

    /// A mirror that has no worker at the moment.
    fn without_worker(&mut self, slot: &MirrorSlot, now: i64) -> Duration {
        if slot.wanted != Wanted::Run {
            release(slot);
            return Duration::from_secs(1);
        }
        if slot.pid != 0 {
            // An earlier launcher started it, and nobody tells this one when it ends. It may want labels all the same.
            self.reserve_labels_if_asked(slot);
            return Duration::from_secs(1);
        }
        // These do not go on by themselves; whoever resumes the mirror sets another state.
        let stands =
            [MirrorState::Error, MirrorState::NeedsResync, MirrorState::Paused].contains(&slot.state);
        if stands || !guc::enabled() {
            return TICK;
        }
        if slot.not_before > now {
            return Duration::from_micros((slot.not_before - now).unsigned_abs());
        }
        let name = slot.mirror.as_str();
        if !database_exists(slot.database) {
            // It went by force while the mirror was being started in it; a worker would fail for ever.
            log!("mirror \"{name}\" is forgotten because its database does not exist any more");
            shmem::update(name, |slot| slot.wanted = Wanted::Stop);
            return Duration::ZERO;
        }
        match start_process(WorkerKind::Mirror, pg_sys::Oid::from(slot.database), name) {
            Ok(child) => {
                self.children.insert(name.to_owned(), child);
            }
            Err(_) => {
                ereport!(
                    PgLogLevel::WARNING,
                    PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    format!("could not start the worker of mirror \"{name}\": no free worker slot"),
                    "You might need to increase max_worker_processes."
                );
            }
        }
        TICK
    }

    /// A mirror that sits in a long transaction cannot commit a reservation itself.
    fn reserve_labels_if_asked(&mut self, slot: &MirrorSlot) {
        let name = slot.mirror.as_str();
        if slot.labels.wanted().is_none() || self.label_workers.contains_key(name) {
            return;
        }
        if let Ok(worker) = start_process(WorkerKind::Labels, pg_sys::Oid::from(slot.database), name) {
            self.label_workers.insert(name.to_owned(), worker);
        }
    }
}

/// Decides when a worker that has ended may start again.
fn after_exit(slot: &MirrorSlot, now: i64) {
    let failures = if slot.worker_failed && !slot.made_progress {
        slot.crashes_since(now - FAILURE_WINDOW) + 1
    } else {
        0
    };
    let pause = match failures {
        0 if slot.worker_failed => Duration::from_secs(1),
        0 => Duration::from_millis(200),
        _ => LONGEST_PAUSE.min(Duration::from_secs(1) * 2u32.saturating_pow(failures as u32 - 1)),
    };
    let gave_up = shmem::update(slot.mirror.as_str(), |slot| {
        if slot.worker_failed && !slot.made_progress {
            slot.crashes.rotate_right(1);
            slot.crashes[0] = now;
        }
        slot.worker_failed = false;
        slot.made_progress = false;
        slot.not_before = if slot.restart_at_once { 0 } else { now + pause.as_micros() as i64 };
        slot.restart_at_once = false;
        let gave_up = failures >= 3;
        if gave_up {
            slot.state = MirrorState::Error;
        }
        gave_up
    });
    if gave_up == Some(true) {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "mirror \"{}\" has been stopped because its worker failed three times in ten minutes",
                slot.mirror.as_str()
            ),
            "Mend the cause, which dbmazz_stat_mirror.last_error shows, and call dbmazz_resume_mirror."
        );
    }
}

/// Gives the place of a mirror back that nobody wants and nobody works for. One that is only paused keeps it while its
/// replication slot is guarded.
fn release(slot: &MirrorSlot) {
    shmem::update(slot.mirror.as_str(), |slot| {
        let is_done = slot.wanted == Wanted::Gone || (slot.wanted == Wanted::Stop && slot.guard.bytes == 0);
        if is_done && slot.pid == 0 && slot.helpers.pids().next().is_none() {
            *slot = MirrorSlot::default();
        }
    });
}

fn database_exists(database: u32) -> bool {
    // SAFETY: looks into a shared catalog, inside a transaction; null when there is no such database.
    session::transaction(|| unsafe { !pg_sys::get_database_name(pg_sys::Oid::from(database)).is_null() })
}

/// The databases that can be connected to (autovacuum.c, `get_database_list`).
fn databases() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    session::transaction(|| {
        // SAFETY: `pg_database` is a shared catalog, readable without a database; relation and scan are closed in
        // the transaction that opened them, and each tuple is read before the next one is asked for.
        unsafe {
            let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
            let (no_snapshot, no_keys) = (std::ptr::null_mut(), std::ptr::null_mut());
            let scan =
                pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, no_snapshot, 0, no_keys);
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
                if (*form).datallowconn {
                    found.push((*form).oid);
                }
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        }
    });
    found
}
