//! Reads, once after the server's start, which mirrors of one database are to run.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::shmem::{self, Wanted};
use super::super::{catalog, guc, session};
use super::guard;

/// Main function of `dbmazz scout`. Its argument is the database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_scout_main(argument: pg_sys::Datum) {
    let (database, _) = super::enter(argument);
    let mirrors = session::transaction(|| {
        if catalog::is_installed() { catalog::mirror::enabled_mirrors() } else { Vec::new() }
    });
    guard_slots(database);
    for mirror in mirrors {
        if is_of_another_database(&mirror, database) {
            log!("mirror \"{mirror}\" is not started: this database was made from the one that it runs in");
            continue;
        }
        if shmem::want(&mirror, database, Wanted::Run).is_err() {
            warning!("could not start mirror \"{mirror}\": all {} places are taken", shmem::MAX_MIRRORS);
        }
    }
}

/// Whether the rows of a mirror came here with a copy of its database. A mirror of that name may run there, and its place in
/// shared memory is not ours to touch. Whoever resumes it here says otherwise.
fn is_of_another_database(mirror: &str, database: pg_sys::Oid) -> bool {
    let last = session::transaction(|| catalog::identity::read(mirror));
    last.is_some_and(|last| {
        last.place.database_oid != database.to_u32() && last.standing == catalog::identity::Standing::Settled
    })
}

/// The slot of a mirror is guarded whether or not the mirror runs.
fn guard_slots(database: pg_sys::Oid) {
    let mirrors = session::transaction(|| {
        if catalog::is_installed() { catalog::mirror::all_options() } else { Vec::new() }
    });
    for (mirror, options) in mirrors {
        // The worker says what is wrong with options that cannot be read.
        let Ok(options) = guc::defaults().merged(&options) else { continue };
        if !is_of_another_database(&mirror, database) {
            guard::arm(&mirror, database, &options);
        }
    }
}
