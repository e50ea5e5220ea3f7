//! Reserves label numbers for a mirror worker that sits in a transaction of the source so long that its own block
//! runs out: inside a decoding callback nothing can be committed.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::shmem;
use super::super::{catalog, failpoint, latch, session};

/// Main function of `dbmazz labels`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_labels_main(argument: pg_sys::Datum) {
    let (_, mirror) = super::enter(argument);
    let Some(slot) = shmem::find(&mirror) else { return };
    let until = slot.labels_wanted_until;
    if until <= slot.labels_reserved_until {
        return;
    }
    // The table holds the first number that is *not* reserved.
    session::transaction(|| catalog::incarnation::reserve(&mirror, slot.incarnation, until + 1));
    failpoint::hit("labels_reserved_by_helper");
    let worker = shmem::update(&mirror, |now| {
        if now.incarnation == slot.incarnation {
            now.labels_reserved_until = now.labels_reserved_until.max(until);
        }
        (now.pid, now.proc_number)
    });
    if let Some((pid, proc_number)) = worker
        && pid != 0
    {
        latch::wake(proc_number);
    }
}
