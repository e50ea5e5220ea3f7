//! The processes of an export: how they are started, and how they end.
//!
//! An error ends a process; its text is kept in shared memory, where the leader finds it and writes it down. SIGTERM is
//! a FATAL and leaves nothing but what the callbacks of [`process::on_exit`] do.

use std::ffi::CString;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::caught::text_of;
use super::super::process::{self, Child, NoWorkerSlot, Program};
use super::super::{encoding, session, store};
use super::shared;
use crate::export::destination::StoreError;

/// The kinds of processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ProcessKind {
    Leader,
    Holder,
    Worker,
}

impl ProcessKind {
    const fn program(self) -> Program {
        let (name, main) = match self {
            Self::Leader => ("dbmazz export leader", "dbmazz_export_leader_main"),
            Self::Holder => ("dbmazz export holder", "dbmazz_export_holder_main"),
            Self::Worker => ("dbmazz export", "dbmazz_export_main"),
        };
        Program { name, main }
    }
}

/// Starts a process that this one looks after.
pub(super) fn start_child(kind: ProcessKind, id: i64, generation: u64) -> Result<Child, NoWorkerSlot> {
    Child::start(kind.program(), shared::my_database().into(), &format!("{id} {generation}"))
}

/// Starts a process of an export in this database. Raises no error, so that it may run after a commit.
pub(super) fn start(kind: ProcessKind, id: i64, generation: u64) -> Result<(), NoWorkerSlot> {
    process::start(kind.program(), shared::my_database().into(), &format!("{id} {generation}"))
}

/// What a process knows when it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) database: u32,
    pub(super) generation: u64,
    pub(super) pid: i32,
}

/// What every process of an export does first.
pub(super) fn enter(argument: pg_sys::Datum) -> Option<Identity> {
    let database = process::enter(argument, None);
    session::transaction(use_encoding_of_database);
    let (id, generation) = process::extra().split_once(' ')?;
    // SAFETY: set before any worker runs.
    let pid = unsafe { pg_sys::MyProcPid };
    process::on_exit(leave, pg_sys::Datum::null());
    Some(Identity {
        id: id.parse().ok()?,
        database: database.to_u32(),
        generation: generation.parse().ok()?,
        pid,
    })
}

/// Texts go into files as the database has them.
fn use_encoding_of_database() {
    let name = CString::new(encoding::name()).unwrap_or_default();
    // SAFETY: both strings outlive the call.
    unsafe {
        pg_sys::SetConfigOption(
            c"client_encoding".as_ptr(),
            name.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    // SAFETY: set before any worker runs.
    shared::leave(unsafe { pg_sys::MyProcPid });
}

/// Runs the body of a process; an error is kept before it ends the process. `at_error` runs then, outside of any transaction.
pub(super) fn run(
    me: Identity,
    body: impl FnOnce() + std::panic::UnwindSafe,
    at_error: impl Fn(&str) + std::panic::UnwindSafe + std::panic::RefUnwindSafe,
) {
    PgTryBuilder::new(body)
        .catch_others(move |error| {
            let reason = text_of(&error);
            // SAFETY: the process is about to end by this error. Whatever lock the failing code held must not stop what
            // follows, and its transaction is of no use any more.
            unsafe {
                pg_sys::LWLockReleaseAll();
                pg_sys::AbortCurrentTransaction();
            }
            shared::note_error(me.id, me.database, &reason);
            at_error(&reason);
            error.rethrow()
        })
        .execute();
}

/// Raises a problem of the destination.
pub(super) fn raise(problem: &StoreError) -> ! {
    let text = encoding::own_text(&problem.to_string()).into_owned();
    ereport!(PgLogLevel::ERROR, store::sqlstate(problem), text);
    unreachable!("an ERROR does not return")
}

/// A result of the destination, or an error.
pub(super) fn must<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|problem| raise(&problem))
}
