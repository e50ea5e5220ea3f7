//! What happens at the end of a transaction that started, paused, resumed or dropped mirrors.
//!
//! ```text
//! PRE COMMIT   look at each touched mirror's row as it will be committed: enabled, disabled or gone;
//!              for one that is gone, stop the worker, settle its last loads and drop the slot (this may still
//!              fail and abort)
//! COMMIT       tell shared memory what is wanted now, and with it launcher and worker
//! ABORT        workers that were told to stop may go on
//! ```
//!
//! Rows are looked at, not the calls that were made: what a savepoint took back has never been. Functions call
//! [`touch`]; everything else runs by itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{PgXactCallbackEvent, register_xact_callback};

use super::failure::Failure;
use super::last_loads;
use super::release::{Claim, release};
use crate::postgres::catalog::mirror::MirrorRow;
use crate::postgres::catalog::{self, as_extension, incarnation, mirror, server, source};
use crate::postgres::shmem::{self, MirrorSlot, Wanted};
use crate::postgres::{failpoint, latch};

/// The worker is asked to end by itself first; then it is told to, since it may be waiting for a lock of ours.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a worker may take to be gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Pending {
    /// Touched mirrors, and whether they were enabled before.
    touched: BTreeMap<String, bool>,
    /// Mirrors whose tables have been changed.
    tables: BTreeSet<String>,
    /// Those of them that were dropped, if no savepoint has taken it back, and what they were.
    dropped: BTreeMap<String, MirrorRow>,
    /// What those had at the target.
    claims: BTreeMap<String, Claim>,
    /// What shared memory is told after the commit.
    wishes: Vec<(String, Wanted)>,
    /// Workers that were told to stop before it.
    stopped: Vec<String>,
}

impl Pending {
    fn is_untouched(&self) -> bool {
        self.touched.is_empty() && self.tables.is_empty()
    }
}

thread_local! {
    /// Of the transaction that is running.
    static PENDING: RefCell<Pending> = RefCell::default();
}

/// Remembers that the row of a mirror has been written. `was_enabled` is what it said before.
pub(super) fn touch(mirror: &str, was_enabled: bool) {
    let is_first = PENDING.with_borrow_mut(|pending| {
        let is_first = pending.is_untouched();
        pending.touched.entry(mirror.to_owned()).or_insert(was_enabled);
        is_first
    });
    register(is_first);
}

/// Remembers that the tables of a mirror have been written.
pub(super) fn touch_tables(mirror: &str) {
    let is_first = PENDING.with_borrow_mut(|pending| {
        let is_first = pending.is_untouched();
        pending.tables.insert(mirror.to_owned());
        is_first
    });
    register(is_first);
}

fn register(is_first: bool) {
    if is_first {
        register_xact_callback(PgXactCallbackEvent::PreCommit, before_commit);
        register_xact_callback(PgXactCallbackEvent::PrePrepare, refuse_prepare);
        register_xact_callback(PgXactCallbackEvent::Commit, after_commit);
        register_xact_callback(PgXactCallbackEvent::Abort, after_abort);
    }
}

/// Remembers that a mirror has been dropped. Its worker runs and its slot is there until the transaction ends.
pub(super) fn touch_dropped(mirror: &str, row: MirrorRow, claim: Option<Claim>) {
    touch(mirror, row.enabled);
    PENDING.with_borrow_mut(|pending| {
        pending.dropped.insert(mirror.to_owned(), row);
        pending.claims.extend(claim.map(|claim| (mirror.to_owned(), claim)));
    });
}

/// Whether the transaction has dropped a mirror of this name.
pub(super) fn was_dropped(mirror: &str) -> bool {
    PENDING.with_borrow(|pending| pending.dropped.contains_key(mirror))
}

/// `COMMIT PREPARED` may come from another session, which knows nothing of this.
fn refuse_prepare() {
    let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
    report(Failure::new(code, "cannot PREPARE a transaction that has started, changed or dropped a mirror"));
}

fn before_commit() {
    let touched: Vec<String> = PENDING.with_borrow(|pending| pending.touched.keys().cloned().collect());
    for name in touched {
        lock_name(&name);
        let wanted = match as_extension(|| present_row(&name)) {
            Some(row) if row.enabled => Wanted::Run,
            Some(_) => Wanted::Stop,
            None => {
                remove(&name).unwrap_or_else(report);
                Wanted::Gone
            }
        };
        if wanted == Wanted::Run && find(&name).is_some_and(|slot| !is_ours(&slot)) {
            let code = PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT;
            report(Failure::new(code, format!("mirror \"{name}\" already exists in another database")));
        }
        PENDING.with_borrow_mut(|pending| pending.wishes.push((name, wanted)));
    }
}

/// One transaction of the whole server at a time decides about a mirror's name, until it has told shared memory: two
/// databases must not both find it free. The name's hash is locked as if it were a shared object; two names of one hash
/// wait for each other, that is all.
fn lock_name(name: &str) {
    // The same in every process: the hasher has no keys of its own.
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let hash = hasher.finish() as u32;
    // SAFETY: called inside a transaction. No shared object is of the class of foreign servers, so nobody else locks
    // one; the lock goes with the transaction, after the callback that tells.
    unsafe {
        let class = pg_sys::ForeignServerRelationId;
        pg_sys::LockSharedObject(
            class,
            pg_sys::Oid::from(hash),
            0,
            pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
        );
    }
}

/// The row of a mirror. The extension itself may have been dropped after its mirrors, in the same transaction.
fn present_row(name: &str) -> Option<MirrorRow> {
    if catalog::is_installed() { mirror::read(name) } else { None }
}

/// Raises nothing: an error after the commit would take the whole server down.
fn after_commit() {
    let pending = PENDING.take();
    for (name, wanted) in pending.wishes {
        tell(&name, wanted);
    }
    for name in pending.tables {
        if find(&name).is_some_and(|slot| is_ours(&slot)) {
            shmem::tables_changed(&name);
        }
    }
}

fn after_abort() {
    let mut pending = PENDING.take();
    for name in mem::take(&mut pending.stopped) {
        if pending.touched.get(&name) == Some(&true) {
            tell(&name, Wanted::Run);
        }
    }
}

fn tell(name: &str, wanted: Wanted) {
    if !shmem::is_available() {
        return;
    }
    if find(name).is_some_and(|slot| !is_ours(&slot)) {
        return;
    }
    if shmem::want(name, current_database(), wanted).is_err() {
        warning!(
            "no slot of shared memory is free for mirror \"{name}\"; it starts when another one is dropped and the server is restarted"
        );
    }
}

/// Ends the worker of a mirror whose row is gone, and drops its slot.
fn remove(name: &str) -> Result<(), Failure> {
    if find(name).is_some_and(|slot| is_ours(&slot)) {
        PENDING.with_borrow_mut(|pending| pending.stopped.push(name.to_owned()));
        tell(name, Wanted::Stop);
    }
    let slot_name = source::slot_name(name);
    let started = Instant::now();
    let mut was_terminated = false;
    loop {
        let processes = processes_of(name, &slot_name);
        if processes.is_empty() {
            break;
        }
        if started.elapsed() > STOP_TIMEOUT {
            let code = PgSqlErrorCode::ERRCODE_OBJECT_IN_USE;
            let pids: Vec<String> = processes.iter().map(i32::to_string).collect();
            return Err(Failure::new(
                code,
                format!("could not drop mirror \"{name}\": its worker did not stop"),
            )
            .detail(format!("Still running: {}.", pids.join(", ")))
            .hint("Try again."));
        }
        if started.elapsed() > PATIENCE && !was_terminated {
            was_terminated = true;
            as_extension(|| processes.iter().for_each(|pid| source::terminate(*pid)));
        }
        latch::wait(None, Duration::from_millis(20));
    }
    failpoint::hit("drop_worker_stopped");
    settle_last_loads(name);
    drop_slot(name, &slot_name);
    failpoint::hit("drop_slot_dropped");
    if let Some(claim) = PENDING.with_borrow_mut(|pending| pending.claims.remove(name)) {
        release(name, claim);
    }
    Ok(())
}

/// Sees to it that no load of the mirror arrives after this. Where that cannot be found out, the numbers stay.
fn settle_last_loads(name: &str) {
    let row = PENDING.with_borrow(|pending| pending.dropped.get(name).cloned());
    let Some(row) = row.filter(|_| as_extension(catalog::is_installed)) else { return };
    let unsettled = as_extension(|| incarnation::unsettled(name));
    let settled = server::config(&row.server, row.owner)
        .map_err(|problem| problem.to_string())
        .and_then(|config| last_loads::settle(name, config, &unsettled));
    match settled {
        Ok(()) => as_extension(|| incarnation::remove_all(name)),
        Err(reason) if unsettled.is_empty() => {
            log!("mirror \"{name}\" is dropped without its target: {reason}")
        }
        Err(reason) => ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("loads of mirror \"{name}\" that are on their way may still arrive at the target"),
            format!(
                "The target could not be asked for them: {reason}.  A mirror of the same name asks again when it is started."
            )
        ),
    }
}

/// Worker and holder of a mirror, and whoever else has its slot.
fn processes_of(name: &str, slot_name: &str) -> Vec<i32> {
    let mut pids = vec![];
    if let Some(slot) = find(name).filter(is_ours) {
        pids.push(slot.pid);
        pids.extend(slot.helpers.pids());
    }
    let slot =
        as_extension(|| source::slot(slot_name)).filter(|slot| slot.database == Some(current_database()));
    pids.extend(slot.and_then(|slot| slot.active_pid));
    pids.retain(|pid| *pid != 0);
    pids.dedup();
    pids
}

fn drop_slot(name: &str, slot_name: &str) {
    let Some(slot) = as_extension(|| source::slot(slot_name)) else { return };
    if slot.database != Some(current_database()) {
        warning!(
            "replication slot \"{slot_name}\" is not of this database; mirror \"{name}\" is dropped without it"
        );
        return;
    }
    let Ok(slot_name) = std::ffi::CString::new(slot_name) else { return };
    // SAFETY: a session that runs functions holds no slot; the name outlives the call.
    unsafe { pg_sys::ReplicationSlotDrop(slot_name.as_ptr(), true) };
}

/// A mirror in shared memory, if there is shared memory.
pub(super) fn find(name: &str) -> Option<MirrorSlot> {
    if shmem::is_available() { shmem::find(name) } else { None }
}

/// Whether a mirror in shared memory is one of this database.
pub(super) fn is_ours(slot: &MirrorSlot) -> bool {
    slot.database == current_database().to_u32()
}

fn current_database() -> pg_sys::Oid {
    // SAFETY: set before a backend runs its first statement, and not changed afterwards.
    unsafe { pg_sys::MyDatabaseId }
}

fn report(failure: Failure) {
    ErrorReport::from(failure).report(PgLogLevel::ERROR);
}
