//! The processes of an export: how they are started, and how they end.
//!
//! An error ends a process; its text is kept in shared memory, where the leader finds it and writes it down. SIGTERM is
//! a FATAL and leaves nothing but what the callbacks of [`on_exit`] do.

use std::ffi::{CString, c_char};

use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::caught::text_of;
use super::super::{encoding, session, signal, store};
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
    const fn name(self) -> &'static str {
        match self {
            Self::Leader => "dbmazz export leader",
            Self::Holder => "dbmazz export holder",
            Self::Worker => "dbmazz export",
        }
    }

    const fn function(self) -> &'static str {
        match self {
            Self::Leader => "dbmazz_export_leader_main",
            Self::Holder => "dbmazz_export_holder_main",
            Self::Worker => "dbmazz_export_main",
        }
    }
}

/// All slots of `max_worker_processes` are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoWorkerSlot;

/// A process that this one has started and is told about when it ends.
pub(super) struct Child {
    handle: *mut pg_sys::BackgroundWorkerHandle,
    is_gone: bool,
}

impl Child {
    /// Whether it has ended.
    pub(super) fn is_gone(&mut self) -> bool {
        if !self.is_gone {
            let mut pid = 0;
            // SAFETY: the handle is of memory that lives as long as the process.
            let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.handle, &raw mut pid) };
            self.is_gone = matches!(
                status,
                pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
            );
        }
        self.is_gone
    }

    /// Asks it to end, also if it has not started yet.
    pub(super) fn terminate(&self) {
        // SAFETY: as above.
        unsafe { pg_sys::TerminateBackgroundWorker(self.handle) };
    }
}

/// Starts a process that this one looks after.
pub(super) fn start_child(kind: ProcessKind, id: i64, generation: u64) -> Result<Child, NoWorkerSlot> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the handle lives in a context that lives as long as the process.
    unsafe {
        let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let result = register(kind, id, generation, &raw mut handle);
        pg_sys::MemoryContextSwitchTo(previous);
        result?;
    }
    Ok(Child { handle, is_gone: false })
}

/// Starts a process of an export in this database. Raises no error, so that it may run after a commit.
pub(super) fn start(kind: ProcessKind, id: i64, generation: u64) -> Result<(), NoWorkerSlot> {
    // SAFETY: no handle is asked for.
    unsafe { register(kind, id, generation, std::ptr::null_mut()) }
}

/// # Safety
///
/// `handle` is null, or a place for a handle, which is allocated in the current memory context.
unsafe fn register(
    kind: ProcessKind,
    id: i64,
    generation: u64,
    handle: *mut *mut pg_sys::BackgroundWorkerHandle,
) -> Result<(), NoWorkerSlot> {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        bgw_main_arg: pg_sys::Datum::from(shared::my_database()),
        // SAFETY: set before a process runs anything of ours.
        bgw_notify_pid: if handle.is_null() { 0 } else { unsafe { pg_sys::MyProcPid } },
        ..pg_sys::BackgroundWorker::default()
    };
    fill(&mut worker.bgw_name, kind.name());
    fill(&mut worker.bgw_type, kind.name());
    fill(&mut worker.bgw_library_name, "dbmazz");
    fill(&mut worker.bgw_function_name, kind.function());
    fill(&mut worker.bgw_extra, &format!("{id} {generation}"));
    // SAFETY: all texts are terminated; the caller vouches for the handle, without which nothing is allocated.
    let taken = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, handle) };
    if taken { Ok(()) } else { Err(NoWorkerSlot) }
}

/// As much of an ASCII text as there is room for, and a zero.
fn fill(room: &mut [c_char], text: &str) {
    let last = room.len().saturating_sub(1);
    for (place, byte) in room.iter_mut().take(last).zip(text.bytes()) {
        *place = byte.cast_signed();
    }
}

/// What a process knows when it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) database: u32,
    pub(super) generation: u64,
    pub(super) pid: i32,
}

/// What every process of an export does first: signals, its database, its settings.
pub(super) fn enter(argument: pg_sys::Datum) -> Option<Identity> {
    signal::install_handlers();
    let database = pg_sys::Oid::from(argument.value() as u32);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    session::prepare();
    session::transaction(use_encoding_of_database);
    let (id, generation) = BackgroundWorker::get_extra().split_once(' ')?;
    // SAFETY: set before any worker runs.
    let pid = unsafe { pg_sys::MyProcPid };
    on_exit(leave);
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

/// Has `callback` called when the process ends, while shared memory is still there.
pub(super) fn on_exit(callback: unsafe extern "C-unwind" fn(i32, pg_sys::Datum)) {
    // SAFETY: `callback` is a function of this library, which is never unloaded.
    unsafe { pg_sys::before_shmem_exit(Some(callback), pg_sys::Datum::from(0)) };
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
