//! Processes that dbmazz starts while the server runs (dynamic background workers): how one is started, followed and ended, and
//! what each does first. Which there are, `worker`, `export` and `import` say.

use std::ffi::c_char;

use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys;

use super::{session, signal};

/// What a process is: its name in `pg_stat_activity`, and its main function in this library.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) main: &'static str,
}

/// All slots of `max_worker_processes` are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoWorkerSlot;

/// A process that this one has started, and whose latch is set when it ends.
pub(super) struct Child {
    handle: *mut pg_sys::BackgroundWorkerHandle,
}

impl Child {
    /// Starts one in `database`; `extra`, of less than 128 bytes, is what it reads by [`extra`].
    pub(super) fn start(program: Program, database: pg_sys::Oid, extra: &str) -> Result<Self, NoWorkerSlot> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the handle is allocated in a context that lives as long as the process.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let result = register(program, database, extra, &raw mut handle);
            pg_sys::MemoryContextSwitchTo(previous);
            result?;
        }
        Ok(Self { handle })
    }

    /// Whether it has ended.
    pub(super) fn is_gone(&self) -> bool {
        use pg_sys::BgwHandleStatus::{BGWH_POSTMASTER_DIED, BGWH_STOPPED};
        let mut pid = 0;
        // SAFETY: the handle is of memory that lives as long as the process, and says by itself that its slot is another's.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.handle, &raw mut pid) };
        matches!(status, BGWH_STOPPED | BGWH_POSTMASTER_DIED)
    }

    /// Asks it to end, also if it has not begun yet.
    pub(super) fn terminate(&self) {
        // SAFETY: as above.
        unsafe { pg_sys::TerminateBackgroundWorker(self.handle) };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the handle was allocated for this value alone.
        unsafe { pg_sys::pfree(self.handle.cast()) };
    }
}

/// Starts a process that nobody follows. Raises no error, so that it may be done after a commit.
pub(super) fn start(program: Program, database: pg_sys::Oid, extra: &str) -> Result<(), NoWorkerSlot> {
    // SAFETY: no handle is asked for.
    unsafe { register(program, database, extra, std::ptr::null_mut()) }
}

/// # Safety
///
/// `handle` is null, or a place for a handle, which is allocated in the current memory context.
unsafe fn register(
    program: Program,
    database: pg_sys::Oid,
    extra: &str,
    handle: *mut *mut pg_sys::BackgroundWorkerHandle,
) -> Result<(), NoWorkerSlot> {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        bgw_main_arg: pg_sys::Datum::from(database),
        // SAFETY: set before a process runs anything of ours.
        bgw_notify_pid: if handle.is_null() { 0 } else { unsafe { pg_sys::MyProcPid } },
        ..pg_sys::BackgroundWorker::default()
    };
    fill(&mut worker.bgw_name, program.name);
    fill(&mut worker.bgw_type, program.name);
    fill(&mut worker.bgw_library_name, "dbmazz");
    fill(&mut worker.bgw_function_name, program.main);
    fill(&mut worker.bgw_extra, extra);
    // SAFETY: all texts are terminated; the caller vouches for the handle, without which nothing is allocated.
    let taken = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, handle) };
    if taken { Ok(()) } else { Err(NoWorkerSlot) }
}

/// As much of a text as there is room for, and a zero.
fn fill(room: &mut [c_char], text: &str) {
    let last = room.len().saturating_sub(1);
    for (place, byte) in room.iter_mut().take(last).zip(text.bytes()) {
        *place = byte.cast_signed();
    }
}

/// What every process does first: signals, its database, its settings. As the superuser of the cluster, or as a user. Returns the
/// database.
pub(super) fn enter(argument: pg_sys::Datum, user: Option<pg_sys::Oid>) -> pg_sys::Oid {
    signal::install_handlers();
    let database = pg_sys::Oid::from(argument.value() as u32);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), user);
    session::prepare();
    database
}

/// What was given to this process when it was started.
pub(super) fn extra() -> &'static str {
    BackgroundWorker::get_extra()
}

/// Has `callback` called with `argument` when the process ends, while shared memory is still there.
pub(super) fn on_exit(callback: unsafe extern "C-unwind" fn(i32, pg_sys::Datum), argument: pg_sys::Datum) {
    // SAFETY: `callback` is a function of this library, which is never unloaded.
    unsafe { pg_sys::before_shmem_exit(Some(callback), argument) };
}
