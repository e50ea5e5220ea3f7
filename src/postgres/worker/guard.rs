//! The guard of the replication slots: it acts when a slot keeps more log than `slot_guard_size`.
//!
//! ```text
//! launcher, once a second: kept log >= size? ──► a worker in the mirror's database does what slot_guard_action says
//!                          kept log < 4/5 of it? ──► the guard may act again; the copy is slowed no more
//! ```
//!
//! The launcher watches, because it is there when nobody else is: while a mirror is paused, in error, or sits in a callback
//! with its target away. It is connected to no database, so what has to be written down is written by a worker that lives
//! as long as that takes. What is guarded: every mirror with a place in shared memory, which one that is paused keeps for
//! this and gets again at the server's start.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::event::{Event, Severity};
use super::super::shmem::{self, Guard, MirrorSlot, MirrorState, Wanted};
use super::super::{catalog, compat, latch, session, slot};
use super::{Child, WorkerKind, start_process};
use crate::options::{Options, SlotGuardAction, show_size};

/// How often the launcher looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A snapshot worker that is slowed waits so long after each load.
const PAUSE_OF_COPY: Duration = Duration::from_secs(1);

/// Has the slot of a mirror guarded as its options say. Mirror worker, scout.
pub(super) fn arm(mirror: &str, database: pg_sys::Oid, options: &Options) {
    let (bytes, action) = (options.slot_guard_bytes, options.slot_guard_action);
    if shmem::set_guard(mirror, database, bytes, action).is_err() {
        warning!(
            "could not guard the slot of mirror \"{mirror}\": all {} places are taken",
            shmem::MAX_MIRRORS
        );
    }
}

/// Slows a copy down while its mirror's guard asks for it. Snapshot workers, between two loads.
pub(super) fn pause_if_asked(mirror: &str) {
    if shmem::find(mirror).is_some_and(|slot| slot.guard.slows_copy) {
        session::report_activity(&format!(
            "mirror {mirror}: copying slowly, because its slot keeps much log"
        ));
        latch::wait(None, PAUSE_OF_COPY);
    }
}

/// What the launcher remembers.
#[derive(Default)]
pub(super) struct Watch {
    looked_at: Option<Instant>,
    /// Guards at work, by mirror.
    workers: HashMap<String, Child>,
}

impl Watch {
    /// Looks at all slots when it is time.
    pub(super) fn turn(&mut self) {
        self.workers.retain(|_, worker| !worker.is_gone());
        // SAFETY: reads shared memory.
        let in_recovery = unsafe { pg_sys::RecoveryInProgress() };
        if in_recovery || self.looked_at.is_some_and(|looked| looked.elapsed() < INTERVAL) {
            return;
        }
        self.looked_at = Some(Instant::now());
        for slot in shmem::all().iter().filter(|slot| slot.guard.bytes > 0) {
            self.look_at(slot);
        }
    }

    fn look_at(&mut self, slot: &MirrorSlot) {
        let (name, guard) = (slot.mirror.as_str(), &slot.guard);
        let kept = kept_bytes(name);
        if guard.is_raised && kept < guard.bytes - guard.bytes / 5 {
            shmem::update(name, |slot| {
                slot.guard = Guard { is_raised: false, slows_copy: false, ..slot.guard };
            });
            log!("replication slot \"dbmazz_{name}\" keeps {} of log again", show_size(kept));
        }
        if guard.is_raised || kept < guard.bytes || self.workers.contains_key(name) {
            return;
        }
        // Without a free place among the workers the next turn tries again.
        if let Ok(worker) = start_process(WorkerKind::Guard, pg_sys::Oid::from(slot.database), name) {
            self.workers.insert(name.to_owned(), worker);
        }
    }
}

/// Log that is there only because of the slot of a mirror, and of others that are further behind.
fn kept_bytes(mirror: &str) -> u64 {
    let kept_from = slot::kept_from(&format!("dbmazz_{mirror}"));
    kept_from.map_or(0, |from| compat::flush_position().bytes_since(from))
}

/// Main function of `dbmazz slot guard`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_guard_main(argument: pg_sys::Datum) {
    let (_, mirror) = super::enter(argument);
    let Some(guard) = shmem::find(&mirror).map(|slot| slot.guard) else { return };
    let exists = session::transaction(|| catalog::is_installed() && catalog::mirror::read(&mirror).is_some());
    if !exists {
        shmem::update(&mirror, |slot| slot.wanted = Wanted::Gone);
        return;
    }
    let kept = kept_bytes(&mirror);
    if kept < guard.bytes {
        return;
    }
    let reason = format!(
        "replication slot \"dbmazz_{mirror}\" keeps {} of log, slot_guard_size is {}",
        show_size(kept),
        show_size(guard.bytes)
    );
    match guard.action {
        SlotGuardAction::Warn => write_down(&mirror, &reason, WARN_HINT),
        SlotGuardAction::Throttle => {
            write_down(&mirror, &format!("{reason}; its copy is slowed"), WARN_HINT);
            shmem::update(&mirror, |slot| slot.guard.slows_copy = true);
        }
        SlotGuardAction::Release => release(&mirror, &reason),
    }
    shmem::update(&mirror, |slot| slot.guard.is_raised = true);
}

const WARN_HINT: &str = "dbmazz_stat_mirror shows whether the mirror is paused, waits for its target or copies.  \
                         max_slot_wal_keep_size bounds what slots may keep.";

fn write_down(mirror: &str, message: &str, hint: &str) {
    warning!("{message}");
    shmem::note_error(mirror, message);
    session::transaction(|| {
        Event { hint: Some(hint), ..Event::of(mirror, Severity::Warning, message) }.record();
    });
}

/// Lets go of the slot, as the administrator chose: the one place beside `dbmazz_drop_mirror` that drops a slot which a
/// checkpoint belongs to.
fn release(mirror: &str, reason: &str) {
    // From now on the launcher starts no worker.
    shmem::update(mirror, |slot| slot.state = MirrorState::NeedsResync);
    let slot_name = format!("dbmazz_{mirror}");
    let mut turns = 0u32;
    while let Some(user) = user_of(mirror, &slot_name) {
        match user {
            User::Ours(pids) if turns.is_multiple_of(50) => end(&pids),
            User::Other(pid) if turns.is_multiple_of(500) => {
                shmem::note_error(mirror, &format!("{reason}; it cannot be dropped: process {pid} uses it"))
            }
            _ => {}
        }
        turns = turns.wrapping_add(1);
        latch::wait(None, Duration::from_millis(20));
    }
    slot::drop_unused(&slot_name);
    let message = format!("mirror \"{mirror}\" has let go of its log: {reason}");
    let hint = "Drop the mirror and start it again to copy the tables anew.";
    warning!("{message}");
    session::transaction(|| {
        catalog::mirror::write_state(mirror, MirrorState::NeedsResync, Some(reason));
        Event { hint: Some(hint), ..Event::of(mirror, Severity::Error, &message) }.record();
    });
    shmem::note_error(mirror, reason);
    shmem::update(mirror, |slot| slot.state = MirrorState::NeedsResync);
}

/// Who keeps a slot from being dropped.
enum User {
    Ours(Vec<i32>),
    Other(i32),
}

fn user_of(mirror: &str, slot_name: &str) -> Option<User> {
    let place = shmem::find(mirror)?;
    let ours: Vec<i32> = place.helpers.pids().chain([place.pid]).filter(|pid| *pid != 0).collect();
    if !ours.is_empty() {
        return Some(User::Ours(ours));
    }
    slot::find(slot_name)?.active_pid.map(User::Other)
}

fn end(pids: &[i32]) {
    for pid in pids {
        // SAFETY: worker and helpers take their numbers out of shared memory before their processes end.
        unsafe { libc::kill(*pid, libc::SIGTERM) };
    }
}
