//! Reserves label numbers for a mirror worker that sits in a transaction of the source so long that its own block
//! runs out: inside a decoding callback nothing can be committed.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::labels;
use super::super::shmem::Role;

/// Main function of `dbmazz labels`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_labels_main(argument: pg_sys::Datum) {
    let (_, mirror) = super::enter(argument);
    labels::reserve_wanted(&mirror, Role::Mirror);
}
