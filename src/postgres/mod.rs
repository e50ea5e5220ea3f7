//! Everything that calls PostgreSQL.
//!
//! * `api`: the SQL functions; they check, write down what is wanted, and look at shared memory.
//! * `catalog`: the extension's own tables, and what the source's catalogs say about a relation.
//! * `worker`: the processes: launcher, mirror, snapshot holder, snapshot workers.
//! * `decode`: the log, from records to rows in the pipeline.
//! * `import`: files of an export become tables again.
//! * `scan`: block ranges of a table, from pages to rows in a load.
//! * `export`: tables to files: processes and SQL functions.
//! * `tuple`: a tuple becomes values; decode and scan meet here.
//! * `encoding`: databases whose encoding is not UTF8.
//! * `store`: destinations of exports: who may use them, and how a process of PostgreSQL waits for them.
//! * `process`: how processes are started and followed. `shmem`: what they tell each other.
//! * `labels`: numbers for loads, reserved before they are used.
//! * `caught`: what an error says that ends a process. `clock`: the time. `heap`: memory that was freed.
//! * `failpoint`: where tests make a process fail; nothing in any other build. `rangeless`: an access method for tests.
//! * `ffi`, `compat`: C functions that pgrx does not bind, and what differs between versions of PostgreSQL.
//!
//! Only the main thread of a process comes here; load threads live in `sink` and know none of this.
#![allow(unsafe_code)]

use pgrx::prelude::*;
use pgrx::{pg_shmem_init, pg_sys};

mod api;
mod catalog;
mod caught;
mod clock;
mod compat;
mod decode;
mod encoding;
mod export;
mod failpoint;
mod ffi;
mod guc;
mod heap;
mod import;
mod labels;
mod latch;
mod loader;
mod lsn_datum;
mod process;
#[cfg(feature = "failpoints")]
mod rangeless;
mod scan;
mod session;
pub(crate) mod shmem;
mod signal;
mod slot;
mod store;
mod tuple;
mod wal;
mod worker;

use export::shared::EXPORTS;
use shmem::SHARED;

pgrx::pg_module_magic!();

/// Called when a process loads the library. Shared memory and the launcher exist only when that process is the
/// postmaster; functions that need them say so to the user otherwise.
#[pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: plain variables of the server, read in its main thread while the library is being loaded.
    let (preloading, upgrading) =
        unsafe { (pg_sys::process_shared_preload_libraries_in_progress, pg_sys::IsBinaryUpgrade) };
    guc::define();
    if !upgrading {
        api::install_drop_guard();
    }
    if !preloading || upgrading {
        return;
    }
    #[cfg(feature = "failpoints")]
    failpoint::announce();
    pg_shmem_init!(SHARED);
    pg_shmem_init!(EXPORTS);
    worker::register_launcher();
    PRELOADED.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Set in the postmaster and inherited by every process that it forks.
static PRELOADED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Whether `shared_preload_libraries` has the library.
fn preloaded() -> bool {
    PRELOADED.load(std::sync::atomic::Ordering::Relaxed)
}
