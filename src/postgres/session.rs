//! How a worker prepares its session: nothing that a database's or role's settings say may change what it writes.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{compat, encoding, guc, shmem};
use crate::lsn::Lsn;

/// The settings of every worker. The formats are those that the encoder reads; the time-outs would end a worker
/// that is busy; the rest would change what it sees or how its own rows are written.
const SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "ISO"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("search_path", "pg_catalog"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("synchronous_commit", "local"),
    ("row_security", "off"),
    ("session_replication_role", "origin"),
];

/// Overrides the session's settings. The first act of every worker that has a database.
pub(super) fn prepare() {
    for (name, value) in SETTINGS.iter().chain(compat::SESSION_SETTINGS) {
        let name = CString::new(*name).unwrap_or_default();
        let value = CString::new(*value).unwrap_or_default();
        set(&name, &value);
    }
    // pgoutput converts to it, that is, not at all.
    transaction(|| set(c"client_encoding", encoding::client_encoding()));
}

/// Overrides a setting, whatever the rights of the session's user.
pub(super) fn set(name: &CStr, value: &CStr) {
    // SAFETY: both strings outlive the call; the worker is connected as the bootstrap superuser.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Overrides a setting for as long as `action` says: until the end of the transaction, or of the nesting level that is open. As
/// a session's own SET: with `PGC_S_OVERRIDE` the server would take the value for the default, and give none back (guc.c).
pub(super) fn set_for(action: pg_sys::GucAction::Type, name: &CStr, value: &CStr) {
    let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_SESSION);
    // SAFETY: inside a transaction; both strings outlive the call.
    unsafe {
        pg_sys::set_config_option(name.as_ptr(), value.as_ptr(), context, source, action, true, 0, false)
    };
}

/// Runs `body` in a transaction of its own, under a snapshot. An error in it ends the worker, which aborts it.
pub(super) fn transaction<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: no transaction is open in a worker between its own calls of this function.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let result = body();
    // SAFETY: closes what was opened above; `body` left the snapshot stack as it found it.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
    result
}

/// Likewise, for what need not outlive a crash of the server: nobody waits until the commit is on disk.
pub(super) fn transaction_for_now<T>(body: impl FnOnce() -> T) -> T {
    let result = transaction(|| {
        set_for(pg_sys::GucAction::GUC_ACTION_LOCAL, c"synchronous_commit", c"off");
        body()
    });
    // Labels that are reserved in a later transaction must not be forgotten by a crash.
    // SAFETY: a plain variable of the process.
    if unsafe { pg_sys::synchronous_commit } == pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32 {
        error!("synchronous_commit is still off after the transaction that it was set for");
    }
    result
}

/// Writes the log to disk up to the end of a record that has been inserted.
pub(super) fn flush_log(end: Lsn) {
    // SAFETY: the caller has the position from the record's insertion.
    unsafe { pg_sys::XLogFlush(end.0) }
}

/// What `pg_stat_activity` shows of a worker that is waiting for work, or doing it.
pub(super) fn report_activity(what: &str) {
    let what = CString::new(what).unwrap_or_default();
    // SAFETY: the text is copied by the call.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, what.as_ptr()) };
}

/// Reads the configuration files again when SIGHUP came.
pub(super) fn reload_configuration_if_asked() {
    // SAFETY: the flag is set by the signal handler and only cleared here; the main thread calls this between its
    // units of work, where settings may change.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Whether a mirror is not meant to have a worker at the moment.
pub(super) fn is_unwanted(mirror: &str) -> bool {
    let is_wanted =
        |slot: &shmem::MirrorSlot| slot.wanted == shmem::Wanted::Run && slot.generation > slot.dismissed;
    !guc::enabled() || !shmem::find(mirror).as_ref().is_some_and(is_wanted)
}

/// Whether the mirror is still meant to run; a worker that finds it is not ends at once.
pub(super) fn leave_if_unwanted(mirror: &str) {
    if is_unwanted(mirror) {
        log!("dbmazz worker of mirror \"{mirror}\" will stop because the mirror was disabled");
        // SAFETY: ends the process in the server's own way; its callbacks give everything back.
        unsafe { pg_sys::proc_exit(0) }
    }
}

/// Ends a worker that cannot reach its target, so that another one reads server and user mapping again. Nothing is lost:
/// the checkpoint is where it was.
pub(super) fn leave_to_look_again(mirror: &str) {
    log!("dbmazz worker of mirror \"{mirror}\" will restart because its target cannot be reached");
    // SAFETY: ends the process in the server's own way; its callbacks give everything back.
    unsafe { pg_sys::proc_exit(0) }
}

/// How often [`with_present_catalogs`] invalidates everything.
pub(super) const INVALIDATIONS_OF_PRESENT_CATALOGS: u64 = 2;

/// Runs `body`, which reads catalogs as they are now, in a process that decodes: what it leaves in the caches must not be
/// taken for the past, nor the other way round (logicalfuncs.c does the same).
pub(super) fn with_present_catalogs<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: no cache entry is in use between records.
    unsafe { pg_sys::InvalidateSystemCaches() };
    let result = body();
    // SAFETY: as above.
    unsafe { pg_sys::InvalidateSystemCaches() };
    result
}
