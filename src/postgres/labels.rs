//! Numbers for labels, reserved before they are used.
//!
//! Each worker that loads draws an incarnation of its own. A block of its numbers is committed before the first of them
//! is in a label, so after a crash every label is known that the target could have heard of.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::catalog::incarnation::Unsettled;
use super::shmem::{self, Role};
use super::{catalog, failpoint, latch, session};
use crate::pipeline::{LabelSequence, under_way};
use crate::sink::{Job, Label, LoadError, Outcome};

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

/// Makes the fate of every label known and final that a worker which is gone may have used: a load that is still on its way must
/// not arrive after newer rows. `run` has jobs done, and gives back what became of those that were answered.
///
/// # Errors
///
/// What `run` says, or why the fate of some label is not known, as a sentence without its end.
pub(super) fn settle(
    mirror: &str,
    database: &str,
    earlier: &Unsettled,
    mut run: impl FnMut(Vec<Job>) -> Result<Vec<Outcome>, String>,
) -> Result<(), String> {
    let ask = |number| Job::Settle { database: database.to_owned(), label: earlier.label(mirror, number) };
    let use_up = |number| Job::Occupy { database: database.to_owned(), label: earlier.label(mirror, number) };
    // The lowest numbers are those that can be on their way. They are asked last, when they are known the most likely.
    let questions = (earlier.settled_until..earlier.reserved_until).rev().map(ask).collect();
    let mut fates = Vec::new();
    for outcome in run(questions)? {
        if let Outcome::Settle(label, result) = outcome {
            fates.push((label.number, result.map_err(|problem| unsettled(&label, &problem))?));
        }
    }
    failpoint::hit("labels_asked_for");
    for outcome in run(under_way(&fates).into_iter().map(use_up).collect())? {
        if let Outcome::Occupy(label, result) = outcome {
            result.map_err(|problem| unsettled(&label, &problem))?;
        }
    }
    Ok(())
}

fn unsettled(label: &Label, problem: &LoadError) -> String {
    format!("could not settle label \"{label}\": {problem}")
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

pub(super) fn random_number() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: fills exactly the room it is given.
    let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    if !filled {
        error!("could not generate a random incarnation");
    }
    u64::from_ne_bytes(bytes)
}
