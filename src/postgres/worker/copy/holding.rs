//! Starting the process that holds a snapshot, and waiting for it.

use std::time::Duration;

use pgrx::prelude::*;

use super::super::super::shmem::{self, Holder, HolderPhase, HolderTask, WaitNote};
use super::super::super::{catalog, latch, session};
use super::super::start::Mirror;
use super::super::{Child, WAITS_FOR_SLOT, WorkerKind, start_helper};
use crate::lsn::Lsn;

/// A process that holds a snapshot.
pub(in super::super) struct Held {
    child: Child,
    mirror: String,
    /// What `SET TRANSACTION SNAPSHOT` would take; empty when none was wanted.
    pub(in super::super) snapshot: String,
    /// Where the slot that was created with it begins.
    pub(in super::super) consistent_lsn: Lsn,
}

impl Held {
    /// Whether the process, and the snapshot with it, is gone.
    pub(in super::super) fn is_lost(&self) -> bool {
        self.child.is_gone()
    }

    /// Tells the process that the snapshot is no longer needed. A holder of a slot for tables decodes it from now on, the
    /// others end.
    pub(in super::super) fn let_go(&self) {
        shmem::update(&self.mirror, |slot| slot.holder.leave = true);
    }
}

/// Starts a holder and waits until it holds. Creating a slot takes as long as the oldest transaction that is running now.
pub(in super::super) fn hold(mirror: &Mirror, task: HolderTask) -> Held {
    shmem::update(&mirror.name, |slot| slot.holder = Holder { task, ..Holder::default() });
    let child = start_child(mirror, WorkerKind::Holder);
    let mut waiting = WaitNote::of(&mirror.name);
    let mut turns = 0u32;
    loop {
        let slot = shmem::find(&mirror.name).unwrap_or_default();
        if slot.holder.phase == HolderPhase::Holding {
            return Held {
                child,
                mirror: mirror.name.clone(),
                snapshot: slot.holder.snapshot.as_str().to_owned(),
                consistent_lsn: slot.holder.consistent_lsn,
            };
        }
        if child.is_gone() {
            error!("could not take a snapshot for the copy: {}", slot.last_error.as_str());
        }
        turns += 1;
        if turns.is_multiple_of(20) {
            say_who_is_waited_for(&mut waiting);
        }
        latch::wait(None, Duration::from_millis(50));
        session::leave_if_unwanted(&mirror.name);
    }
}

/// Starts a worker, waiting for a free place among the workers of the server if need be.
pub(super) fn start_child(mirror: &Mirror, kind: WorkerKind) -> Child {
    let mut waiting = WaitNote::of(&mirror.name);
    loop {
        if let Ok(child) = start_helper(kind, mirror.database, &mirror.name) {
            return child;
        }
        waiting.say(WAITS_FOR_SLOT);
        latch::wait(None, Duration::from_secs(1));
        session::leave_if_unwanted(&mirror.name);
    }
}

fn say_who_is_waited_for(waiting: &mut WaitNote) {
    if let Some(who) = session::transaction(catalog::oldest_transaction) {
        waiting.say(&format!("the replication slot waits for {who} to end"));
    }
}
