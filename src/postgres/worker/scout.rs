//! Reads, once after the server's start, which mirrors of one database are to run.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::shmem::{self, Wanted};
use super::super::{catalog, session};

/// Main function of `dbmazz scout`. Its argument is the database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_scout_main(argument: pg_sys::Datum) {
    let (database, _) = super::enter(argument);
    let mirrors = session::transaction(|| {
        if catalog::is_installed() { catalog::mirror::enabled_mirrors() } else { Vec::new() }
    });
    for mirror in mirrors {
        if shmem::want(&mirror, database, Wanted::Run).is_err() {
            warning!("could not start mirror \"{mirror}\": all {} places are taken", shmem::MAX_MIRRORS);
        }
    }
}
