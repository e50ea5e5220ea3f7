//! Numbers for labels, reserved before they are used.
//!
//! Each worker that loads draws an incarnation of its own. A block of its numbers is committed before the first of them
//! is in a label, so after a crash every label is known that the target could have heard of.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::shmem::{self, Role};
use super::{catalog, failpoint, latch, session};
use crate::pipeline::LabelSequence;

/// Numbers of labels that are reserved at a time.
pub(super) const BLOCK: u64 = 1000;

/// Draws a new incarnation and reserves its first block of numbers.
pub(super) fn open(mirror: &str) -> LabelSequence {
    let incarnation = random_number();
    let mut labels = LabelSequence::new(mirror.into(), incarnation);
    session::transaction(|| catalog::incarnation::open(mirror, incarnation, BLOCK + 1));
    failpoint::hit("labels_opened");
    labels.extend(BLOCK);
    labels
}

/// Reserves another block when the present one is nearly used up. Not inside a transaction.
pub(super) fn top_up(mirror: &str, labels: &mut LabelSequence) {
    if labels.remaining() < BLOCK / 2 {
        let until = labels.reserved_until() + BLOCK;
        // The table holds the first number that is *not* reserved.
        session::transaction(|| catalog::incarnation::reserve(mirror, labels.incarnation(), until + 1));
        failpoint::hit("labels_reserved");
        labels.extend(until);
    }
}

/// Reserves the numbers that a decoder of the mirror wants and cannot reserve itself, and wakes it. For other processes.
pub(super) fn reserve_wanted(mirror: &str, role: Role) {
    let Some(room) = shmem::find(mirror).map(|mut slot| *slot.labels_of(role)) else { return };
    let Some(until) = room.wanted() else { return };
    // The table holds the first number that is *not* reserved.
    session::transaction(|| catalog::incarnation::reserve(mirror, room.incarnation, until + 1));
    failpoint::hit("labels_reserved_by_helper");
    let decoder = shmem::update(mirror, |slot| {
        let now = slot.labels_of(role);
        if now.incarnation == room.incarnation {
            now.reserved_until = now.reserved_until.max(until);
        }
        if role == Role::Mirror { (slot.pid, slot.proc_number) } else { (0, 0) }
    });
    if let Some((pid, proc_number)) = decoder
        && pid != 0
    {
        latch::wake(proc_number);
    }
}

/// Asks for more numbers, for a decoder that sits in a callback.
pub(super) fn ask_for_more(mirror: &str, role: Role, labels: &LabelSequence) {
    let until = labels.reserved_until() + BLOCK;
    let is_news = shmem::update(mirror, |slot| {
        std::mem::replace(&mut slot.labels_of(role).wanted_until, until) < until
    });
    if is_news == Some(true) && role == Role::Mirror {
        shmem::wake_launcher();
    }
}

fn random_number() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: fills exactly the room it is given.
    let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    if !filled {
        error!("could not generate a random incarnation");
    }
    u64::from_ne_bytes(bytes)
}
