//! What differs between the versions of PostgreSQL, and nowhere else.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::decode;

/// Settings of every worker's session that not all versions have.
#[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
pub(super) const SESSION_SETTINGS: &[(&str, &str)] = &[];
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub(super) const SESSION_SETTINGS: &[(&str, &str)] = &[("transaction_timeout", "0")];

/// Row filter and column list of the row `r` of `pg_publication_rel`. They came with 15.
#[cfg(feature = "pg14")]
pub(super) const PUBLICATION_FILTERS: &str = "NULL::pg_catalog.text, NULL::pg_catalog.text";
#[cfg(not(feature = "pg14"))]
pub(super) const PUBLICATION_FILTERS: &str = "r.prqual::pg_catalog.text, r.prattrs::pg_catalog.text";

/// This process' number in the array of processes, by which others find its latch.
pub(super) fn my_proc_number() -> i32 {
    // SAFETY: `MyProc` and its kin are set before any worker's or backend's own code runs.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        return (*pg_sys::MyProc).pgprocno;
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::MyProcNumber;
    }
}

/// Sets the latch of another process.
pub(super) fn set_latch_of(proc_number: i32) {
    // SAFETY: the number came from `my_proc_number` of a process of this server. When that process is gone, the
    // latch is another's or nobody's, who then wakes once for nothing.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
        pg_sys::ProcSendSignal(proc_number);
        #[cfg(feature = "pg14")]
        pg_sys::SetLatch(&raw mut (*(*pg_sys::ProcGlobal).allProcs.add(proc_number as usize)).procLatch);
    }
}

/// How long a slot is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SlotLasting {
    /// It goes when its process fails before it is finished.
    UntilMadePersistent,
    /// It goes with its process.
    AsLongAsTheProcess,
}

/// Creates a logical slot that is dropped by itself when this process ends, or for good once it is made persistent.
///
/// From 17 on the latter is one that standbys may keep a copy of, for the mirror to go on after a failover. That takes no
/// setting here, only a server that is not in recovery; whether standbys do it is theirs to say
/// (`sync_replication_slots`).
///
/// # Safety
///
/// This process holds no slot.
pub(super) unsafe fn create_slot(name: &CStr, lasting: SlotLasting) {
    use pg_sys::ReplicationSlotPersistency::{RS_EPHEMERAL, RS_TEMPORARY};
    let persistency = match lasting {
        SlotLasting::UntilMadePersistent => RS_EPHEMERAL,
        SlotLasting::AsLongAsTheProcess => RS_TEMPORARY,
    };
    // SAFETY: the caller vouches; the name outlives the call.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        pg_sys::ReplicationSlotCreate(name.as_ptr(), true, persistency, false);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        {
            let failover = matches!(lasting, SlotLasting::UntilMadePersistent);
            pg_sys::ReplicationSlotCreate(name.as_ptr(), true, persistency, false, failover, false);
        }
    }
}

/// Takes a slot, or raises an error when another process has it.
///
/// # Safety
///
/// This process holds no slot.
pub(super) unsafe fn acquire_slot(name: &CStr) {
    // SAFETY: the caller vouches; the name outlives the call.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true);
        #[cfg(feature = "pg18")]
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true, true);
    }
}

/// The position up to which the log is on disk.
pub(super) fn flush_position() -> crate::lsn::Lsn {
    // SAFETY: reads shared memory; the timeline is not asked for.
    unsafe {
        #[cfg(feature = "pg14")]
        return crate::lsn::Lsn(pg_sys::GetFlushRecPtr());
        #[cfg(not(feature = "pg14"))]
        return crate::lsn::Lsn(pg_sys::GetFlushRecPtr(std::ptr::null_mut()));
    }
}

/// Whether all standbys that `synchronized_standby_slots` names have the log up to `lsn`, so that nothing up to there
/// is lost with this server. Before 17 there is no such setting.
///
/// What keeps a standby from having it, if that is more than a moment, is reported at `level`.
#[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
pub(super) fn standbys_have(_lsn: crate::lsn::Lsn, _level: PgLogLevel) -> bool {
    true
}
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub(super) fn standbys_have(lsn: crate::lsn::Lsn, level: PgLogLevel) -> bool {
    // SAFETY: reads shared memory and a setting.
    unsafe { pg_sys::StandbySlotsHaveCaughtup(lsn.0, level as i32) }
}

/// Called by the server now and then in long stretches that give the output plugin nothing to write.
#[cfg(feature = "pg14")]
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn update_progress(
    ctx: *mut pg_sys::LogicalDecodingContext,
    _lsn: pg_sys::XLogRecPtr,
    _xid: pg_sys::TransactionId,
) {
    // SAFETY: called by the server with its own context.
    unsafe { decode::breathe(ctx) }
}
#[cfg(not(feature = "pg14"))]
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn update_progress(
    ctx: *mut pg_sys::LogicalDecodingContext,
    _lsn: pg_sys::XLogRecPtr,
    _xid: pg_sys::TransactionId,
    _skipped: bool,
) {
    // SAFETY: called by the server with its own context.
    unsafe { decode::breathe(ctx) }
}

/// The tuples of an UPDATE, INSERT or DELETE in the reorder buffer; null where there is none.
///
/// # Safety
///
/// `change` is one of those three, given to the change callback that is running.
pub(super) unsafe fn change_tuples(
    change: *mut pg_sys::ReorderBufferChange,
) -> (pg_sys::HeapTuple, pg_sys::HeapTuple) {
    // SAFETY: the caller vouches that `tp` is the part of the union that is set.
    unsafe {
        let tp = &(*change).data.tp;
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        {
            let tuple_of = |buffer: *mut pg_sys::ReorderBufferTupleBuf| {
                if buffer.is_null() { std::ptr::null_mut() } else { &raw mut (*buffer).tuple }
            };
            (tuple_of(tp.oldtuple), tuple_of(tp.newtuple))
        }
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        {
            (tp.oldtuple, tp.newtuple)
        }
    }
}

/// The installation of a signal handler.
pub(super) fn set_signal_handler(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: `handler` is one of the server's own handlers.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// The time of commit of a decoded transaction, microseconds since 2000.
///
/// # Safety
///
/// `txn` was given to the begin or commit callback that is running.
pub(super) unsafe fn commit_time(txn: *mut pg_sys::ReorderBufferTXN) -> i64 {
    // SAFETY: the caller vouches; the time is the part of the union that is set for a committed transaction.
    unsafe {
        #[cfg(feature = "pg14")]
        return (*txn).commit_time;
        #[cfg(not(feature = "pg14"))]
        return (*txn).xact_time.commit_time;
    }
}

/// A parse node that holds a string.
///
/// # Safety
///
/// `text` was allocated in the memory that the node is to live in.
pub(super) unsafe fn string_node(text: *mut std::ffi::c_char) -> *mut pg_sys::Node {
    // SAFETY: the caller vouches for the text.
    unsafe { pg_sys::makeString(text).cast() }
}

/// Why a slot can no longer be used; none as long as it can.
pub(super) fn invalidation(slot: &pg_sys::ReplicationSlotPersistentData) -> Option<&'static str> {
    const REMOVED: &str = "the log that it needs has been removed";
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    return (slot.restart_lsn == 0 && slot.invalidated_at != 0).then_some(REMOVED);
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    {
        use pg_sys::ReplicationSlotInvalidationCause as Cause;
        match slot.invalidated {
            Cause::RS_INVAL_NONE => None,
            Cause::RS_INVAL_WAL_REMOVED => Some(REMOVED),
            Cause::RS_INVAL_HORIZON => Some("catalog rows that it needs have been removed"),
            Cause::RS_INVAL_WAL_LEVEL => Some("wal_level was not logical"),
            #[cfg(feature = "pg18")]
            Cause::RS_INVAL_IDLE_TIMEOUT => Some("it was idle for longer than idle_replication_slot_timeout"),
            _ => Some("the server gives a reason that this version of dbmazz does not know"),
        }
    }
}

/// The timeline that this server writes.
pub(super) fn timeline() -> u32 {
    // SAFETY: reads shared memory of a server that is not in recovery.
    unsafe {
        #[cfg(feature = "pg14")]
        return pg_sys::ThisTimeLineID;
        #[cfg(not(feature = "pg14"))]
        return pg_sys::GetWALInsertionTimeLine();
    }
}

/// The number of the file that holds a relation's rows; another one after every rewrite.
///
/// # Safety
///
/// `relation` is open.
pub(super) unsafe fn relfilenode(relation: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: the caller vouches for the relation.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return (*relation).rd_node.relNode;
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        return (*relation).rd_locator.relNumber;
    }
}

/// The index of the primary key, if it is not deferrable.
///
/// # Safety
///
/// `relation` is open.
pub(super) unsafe fn primary_key(relation: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: the caller vouches for the relation.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return pg_sys::RelationGetPrimaryKeyIndex(relation);
        #[cfg(feature = "pg18")]
        return pg_sys::RelationGetPrimaryKeyIndex(relation, false);
    }
}

/// Whether a role has rights on a foreign server.
pub(super) fn foreign_server_aclcheck(
    server: pg_sys::Oid,
    role: pg_sys::Oid,
    rights: pg_sys::AclMode,
) -> pg_sys::AclResult::Type {
    // SAFETY: looks into the system cache.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::pg_foreign_server_aclcheck(server, role, rights);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::object_aclcheck(pg_sys::ForeignServerRelationId, server, role, rights);
    }
}

/// Tells the server that all settings of this prefix have been defined: others are mistakes.
pub(super) fn reserve_settings_prefix(prefix: &CStr) {
    // SAFETY: called while the library is loaded, as `guc.h` asks; the name is copied.
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr());
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}
