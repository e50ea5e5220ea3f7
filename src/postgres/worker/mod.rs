//! The processes of dbmazz, as `pg_stat_activity` names them.
//!
//! | process | started by | ends |
//! |---|---|---|
//! | `dbmazz launcher` | the postmaster, as long as the library is preloaded | with the server |
//! | `dbmazz scout` | the launcher, once per database and start of the server | when it has read the enabled mirrors |
//! | `dbmazz mirror` | the launcher, for each mirror that is wanted | when it is no longer wanted, or by an error |
//! | `dbmazz snapshot holder` | whoever leads a copy | when the copy is done |
//! | `dbmazz table sync` | a mirror that streams, for tables that join it or are copied again | when they have reached the stream |
//! | `dbmazz snapshot` | whoever leads a copy | when no chunk is left |
//! | `dbmazz slot guard` | the launcher, for a mirror whose slot keeps too much log | when it has done what its option says |
//! | `dbmazz definition` | a mirror that is about to alter a target | when it has written down why |
//! | `dbmazz labels` | the launcher, for a mirror in a very long transaction | when it has reserved more numbers |
//!
//! An error ends a worker, as it ends PostgreSQL's own; nobody tries to go on inside. The launcher starts it again,
//! later each time, and the reason stands in shared memory for the views.

mod catch_up;
mod complete;
mod copy;
mod exit;
mod filling;
mod guard;
mod holder;
mod identity;
mod joining;
mod labels;
mod launcher;
mod mirror;
pub(super) mod new_slot;
mod owner;
mod pace;
mod publication;
mod scout;
mod snapshot;
mod source;
mod standstill;
mod start;
mod sync;
mod write_ahead;

use pgrx::pg_sys;
use pgrx::prelude::*;

pub(super) use identity::place;
pub(super) use launcher::register as register_launcher;
pub(super) use write_ahead::{GLANCE, WriteAhead};

use super::process::{self, Child, NoWorkerSlot, Program};
use super::shmem;

/// The kinds of workers that are started by others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum WorkerKind {
    Scout,
    Mirror,
    Holder,
    Sync,
    Snapshot,
    Labels,
    Guard,
    Definition,
}

impl WorkerKind {
    const fn program(self) -> Program {
        let (name, main) = match self {
            Self::Scout => ("dbmazz scout", "dbmazz_scout_main"),
            Self::Mirror => ("dbmazz mirror", "dbmazz_mirror_main"),
            Self::Holder => ("dbmazz snapshot holder", "dbmazz_holder_main"),
            Self::Sync => ("dbmazz table sync", "dbmazz_sync_main"),
            Self::Snapshot => ("dbmazz snapshot", "dbmazz_snapshot_main"),
            Self::Labels => ("dbmazz labels", "dbmazz_labels_main"),
            Self::Guard => ("dbmazz slot guard", "dbmazz_guard_main"),
            Self::Definition => ("dbmazz definition", "dbmazz_definition_main"),
        };
        Program { name, main }
    }
}

/// What the views say of a mirror that needs another process.
const WAITS_FOR_SLOT: &str =
    "waiting for a free worker slot: you might need to increase max_worker_processes";

/// Starts a worker in `database`; `argument` is the mirror's name, or empty.
fn start_process(kind: WorkerKind, database: pg_sys::Oid, argument: &str) -> Result<Child, NoWorkerSlot> {
    Child::start(kind.program(), database, argument)
}

/// Starts a worker that helps the mirror worker of this process, and only that one.
fn start_helper(kind: WorkerKind, database: pg_sys::Oid, mirror: &str) -> Result<Child, NoWorkerSlot> {
    let generation = shmem::find(mirror).map_or(0, |slot| slot.generation);
    start_process(kind, database, &format!("{mirror} {generation}"))
}

/// What a helper of a mirror worker does first. None when that worker is gone already.
fn enter_as_helper(argument: pg_sys::Datum) -> Option<(pg_sys::Oid, String)> {
    let (database, extra) = enter(argument);
    let (mirror, generation) = extra.split_once(' ')?;
    let place = shmem::place_of(mirror)?;
    // SAFETY: set before any worker runs.
    let me = unsafe { pg_sys::MyProcPid };
    process::on_exit(forget_helper, pg_sys::Datum::from(place as i32));
    shmem::join_helpers(mirror, generation.parse().ok()?, me).then(|| (database, mirror.to_owned()))
}

#[pg_guard]
unsafe extern "C-unwind" fn forget_helper(_code: i32, place: pg_sys::Datum) {
    // SAFETY: set before any worker runs.
    shmem::leave_helpers(place.value() as i32 as usize, unsafe { pg_sys::MyProcPid });
}

/// What every worker does first. Returns its database, and what [`start_process`] was given.
fn enter(argument: pg_sys::Datum) -> (pg_sys::Oid, String) {
    let database = process::enter(argument, None);
    (database, process::extra().to_owned())
}
