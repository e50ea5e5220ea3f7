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

/// The row of `pg_publication_namespace` by which the publication `p` has the table `c`. They came with 15.
#[cfg(feature = "pg14")]
pub(super) const PUBLISHED_BY_SCHEMA: &str = "NULL::pg_catalog.oid";
#[cfg(not(feature = "pg14"))]
pub(super) const PUBLISHED_BY_SCHEMA: &str = "(SELECT s.oid FROM pg_catalog.pg_publication_namespace s
     WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)";

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

/// Where the columns of one table are in the tuples of another one, by their names.
///
/// # Safety
///
/// Both descriptors are of open relations, inside a transaction.
pub(super) unsafe fn columns_by_name(
    of: pg_sys::TupleDesc,
    within: pg_sys::TupleDesc,
) -> *mut pg_sys::AttrMap {
    // SAFETY: the caller vouches for the descriptors.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::build_attrmap_by_name(within, of);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::build_attrmap_by_name(within, of, false);
    }
}

/// Whether a transaction that is being decoded has created a relation.
///
/// # Safety
///
/// `txn` was given to the callback that is running.
pub(super) unsafe fn has_created(txn: *mut pg_sys::ReorderBufferTXN, relid: pg_sys::Oid) -> bool {
    // The row of a system column is written with the table, and never again.
    let Some(creator) = creator_of(relid, pg_sys::SelfItemPointerAttributeNumber as i16) else {
        return false;
    };
    // SAFETY: the caller vouches for the transaction; its list of subtransactions goes round to its head.
    unsafe {
        if (*txn).xid == creator {
            return true;
        }
        let head = &raw mut (*txn).subtxns.head;
        let mut node = (*head).next;
        while !node.is_null() && node != head {
            let offset = std::mem::offset_of!(pg_sys::ReorderBufferTXN, node);
            let child = node.byte_sub(offset).cast::<pg_sys::ReorderBufferTXN>();
            if (*child).xid == creator {
                return true;
            }
            node = (*node).next;
        }
    }
    false
}

/// The transaction that has written the catalog's row of a column.
fn creator_of(relid: pg_sys::Oid, attnum: i16) -> Option<pg_sys::TransactionId> {
    let cache = pg_sys::SysCacheIdentifier::ATTNUM as i32;
    // SAFETY: the cache has these two keys; the tuple is copied from before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache2(cache, relid.into(), attnum.into());
        if tuple.is_null() {
            return None;
        }
        let header = (*tuple).t_data;
        let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
        let is_frozen = (*header).t_infomask & frozen == frozen;
        let creator = (*header).t_choice.t_heap.t_xmin;
        pg_sys::ReleaseSysCache(tuple);
        (!is_frozen).then_some(creator)
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

/// Resource manager and kind of a record.
///
/// # Safety
///
/// `reader` stands on a record that it has read.
#[inline]
pub(super) unsafe fn kind_of_record(reader: *mut pg_sys::XLogReaderState) -> (u32, u8) {
    // SAFETY: the caller vouches for the reader.
    unsafe {
        #[cfg(feature = "pg14")]
        let record = &*(*reader).decoded_record;
        #[cfg(not(feature = "pg14"))]
        let record = &(*(*reader).record).header;
        (u32::from(record.xl_rmid), record.xl_info)
    }
}

/// A record of the log as far as it is looked at.
pub(super) struct DecodedRecord {
    /// Its resource manager.
    pub(super) manager: u8,
    /// Its kind, with flags of the reader.
    pub(super) info: u8,
    /// Its transaction.
    pub(super) xid: pg_sys::TransactionId,
    /// What the manager has written.
    pub(super) data: *mut std::ffi::c_char,
}

/// The record that a reader stands on.
///
/// # Safety
///
/// The reader has just read a record.
pub(super) unsafe fn decoded(reader: *mut pg_sys::XLogReaderState) -> DecodedRecord {
    // SAFETY: the caller vouches.
    unsafe {
        #[cfg(feature = "pg14")]
        let (header, data) = (&*(*reader).decoded_record, (*reader).main_data);
        #[cfg(not(feature = "pg14"))]
        let (header, data) = (&(*(*reader).record).header, (*(*reader).record).main_data);
        DecodedRecord { manager: header.xl_rmid, info: header.xl_info, xid: header.xl_xid, data }
    }
}

/// Waits, by calling `pause` again and again, until every transaction that has written its commit record by now is also
/// marked as committed.
pub(super) fn wait_for_commits_in_progress(pause: impl Fn()) {
    // SAFETY: the list is allocated in the current memory context and freed below.
    unsafe {
        let mut count = 0;
        #[cfg(feature = "pg14")]
        let list = pg_sys::GetVirtualXIDsDelayingChkpt(&raw mut count);
        #[cfg(not(feature = "pg14"))]
        let list = pg_sys::GetVirtualXIDsDelayingChkpt(&raw mut count, pg_sys::DELAY_CHKPT_START as i32);
        loop {
            #[cfg(feature = "pg14")]
            let is_there = pg_sys::HaveVirtualXIDsDelayingChkpt(list, count);
            #[cfg(not(feature = "pg14"))]
            let is_there =
                pg_sys::HaveVirtualXIDsDelayingChkpt(list, count, pg_sys::DELAY_CHKPT_START as i32);
            if count == 0 || !is_there {
                break;
            }
            pause();
        }
        pg_sys::pfree(list.cast());
    }
}

/// The characters of a node that is a string.
///
/// # Safety
///
/// The node's tag is `T_String`.
pub(super) unsafe fn string_of_node(node: *mut pg_sys::Node) -> *const std::ffi::c_char {
    // SAFETY: the caller vouches for the tag.
    unsafe {
        #[cfg(feature = "pg14")]
        return (*node.cast::<pg_sys::Value>()).val.str_;
        #[cfg(not(feature = "pg14"))]
        return (*node.cast::<pg_sys::String>()).sval;
    }
}
