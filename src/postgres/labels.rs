//! Numbers for labels, reserved before they are used.
//!
//! Each worker that loads draws an incarnation of its own. A block of its numbers is committed before the first of them
//! is in a label, so after a crash every label is known that the target could have heard of.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{catalog, failpoint, session};
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

fn random_number() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: fills exactly the room it is given.
    let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    if !filled {
        error!("could not generate a random incarnation");
    }
    u64::from_ne_bytes(bytes)
}
