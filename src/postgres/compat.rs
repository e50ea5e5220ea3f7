//! What differs between the versions of PostgreSQL, and nowhere else.

use std::ffi::CStr;

use pgrx::pg_sys;

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

/// Creates a logical slot that is dropped by itself when this process ends before it is made persistent.
///
/// # Safety
///
/// This process holds no slot.
pub(super) unsafe fn create_ephemeral_slot(name: &CStr) {
    // SAFETY: the caller vouches; the name outlives the call.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        pg_sys::ReplicationSlotCreate(
            name.as_ptr(),
            true,
            pg_sys::ReplicationSlotPersistency::RS_EPHEMERAL,
            false,
        );
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::ReplicationSlotCreate(
            name.as_ptr(),
            true,
            pg_sys::ReplicationSlotPersistency::RS_EPHEMERAL,
            false,
            true,
            false,
        );
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

/// Whether the log that a slot needs has been removed.
pub(super) fn is_invalidated(slot: &pg_sys::ReplicationSlotPersistentData) -> bool {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    return slot.restart_lsn == 0 && slot.invalidated_at != 0;
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    return slot.invalidated != pg_sys::ReplicationSlotInvalidationCause::RS_INVAL_NONE;
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
