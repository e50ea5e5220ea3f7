//! C functions that pgrx does not bind, or not in the form that is needed here. No other module declares an
//! `extern` block.

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::compat;
use super::decode::File;

/// The functions as C has them.
mod raw {
    use super::{BlockFile, c_char, c_int, pg_sys};

    unsafe extern "C-unwind" {
        // replication/decode.h
        pub(super) fn LogicalDecodingProcessRecord(
            ctx: *mut pg_sys::LogicalDecodingContext,
            record: *mut pg_sys::XLogReaderState,
        );

        // replication/snapbuild.h
        pub(super) fn SnapBuildExportSnapshot(builder: *mut pg_sys::SnapBuild) -> *const c_char;
        pub(super) fn SnapBuildClearExportedSnapshot();

        #[cfg(any(feature = "pg14", feature = "pg15"))]
        pub(super) fn SnapBuildGetOrBuildSnapshot(
            builder: *mut pg_sys::SnapBuild,
            xid: pg_sys::TransactionId,
        ) -> pg_sys::Snapshot;
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        pub(super) fn SnapBuildGetOrBuildSnapshot(builder: *mut pg_sys::SnapBuild) -> pg_sys::Snapshot;
        pub(super) fn SnapBuildCurrentState(builder: *mut pg_sys::SnapBuild) -> c_int;

        // utils/relfilenodemap.h, utils/relfilenumbermap.h
        #[cfg_attr(any(feature = "pg14", feature = "pg15"), link_name = "RelidByRelfilenode")]
        #[cfg_attr(
            any(feature = "pg16", feature = "pg17", feature = "pg18"),
            link_name = "RelidByRelfilenumber"
        )]
        pub(super) fn RelidByRelfilenumber(tablespace: pg_sys::Oid, number: pg_sys::Oid) -> pg_sys::Oid;

        // access/xlogreader.h: raises an error only when the record has no such block. Once per record, so it goes without
        // the guard.
        pub(super) fn XLogRecGetBlockTag(
            reader: *mut pg_sys::XLogReaderState,
            block: u8,
            file: *mut BlockFile,
            fork: *mut c_int,
            number: *mut pg_sys::BlockNumber,
        );

        // access/timeline.h
        pub(super) fn readTimeLineHistory(target: pg_sys::TimeLineID) -> *mut pg_sys::List;

        // catalog/partition.h
        pub(super) fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;

        // catalog/pg_inherits.h
        pub(super) fn find_all_inheritors(
            parent: pg_sys::Oid,
            lock: pg_sys::LOCKMODE,
            parents: *mut *mut pg_sys::List,
        ) -> *mut pg_sys::List;

        // access/xlogutils.h: C wants these as callbacks, and pgrx's wrappers are Rust functions.
        pub(super) fn read_local_xlog_page(
            reader: *mut pg_sys::XLogReaderState,
            page: pg_sys::XLogRecPtr,
            wanted: c_int,
            target: pg_sys::XLogRecPtr,
            buffer: *mut c_char,
        ) -> c_int;
        pub(super) fn wal_segment_open(
            reader: *mut pg_sys::XLogReaderState,
            segment: pg_sys::XLogSegNo,
            timeline: *mut pg_sys::TimeLineID,
        );
        pub(super) fn wal_segment_close(reader: *mut pg_sys::XLogReaderState);

        // access/htup_details.h: cannot raise an error, so it goes without the guard, once per row.
        pub(super) fn heap_deform_tuple(
            tuple: pg_sys::HeapTuple,
            descriptor: pg_sys::TupleDesc,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
        );

        // executor/tuptable.h: once per row, inside the same guard as the scan.
        pub(super) fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, count: c_int);

        // tcop/tcopprot.h: the SIGTERM handler of ordinary backends.
        pub(super) fn die(signal: c_int);

        // postmaster/interrupt.h
        pub(super) fn SignalHandlerForConfigReload(signal: c_int);
    }
}

/// storage/relfilelocator.h, `RelFileLocator` (`RelFileNode` before 16): a file of a relation.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct BlockFile {
    tablespace: u32,
    database: u32,
    number: u32,
}

/// The file of this database whose row the record under the reader changes; none for any other kind of record.
///
/// # Safety
///
/// `reader` stands on a record that it has read.
#[inline]
pub(super) unsafe fn file_of_change(reader: *mut pg_sys::XLogReaderState) -> Option<File> {
    // SAFETY: the caller vouches for the reader.
    let (manager, info) = unsafe { compat::kind_of_record(reader) };
    let is_change = match manager {
        HEAP => matches!(info & OPERATION, INSERT | DELETE | UPDATE | HOT_UPDATE | CONFIRM),
        HEAP2 => info & OPERATION == MULTI_INSERT,
        _ => false,
    };
    if !is_change {
        return None;
    }
    let mut file = BlockFile::default();
    // SAFETY: records of these kinds have a block 0, that of the row; the other places are not asked for. Nothing is raised.
    unsafe {
        raw::XLogRecGetBlockTag(reader, 0, &raw mut file, std::ptr::null_mut(), std::ptr::null_mut());
        (file.database == pg_sys::MyDatabaseId.to_u32()).then_some((file.tablespace, file.number))
    }
}

const HEAP: u32 = pg_sys::RmgrIds::RM_HEAP_ID;
const HEAP2: u32 = pg_sys::RmgrIds::RM_HEAP2_ID;

// access/heapam_xlog.h, `XLOG_HEAP_…`.
const OPERATION: u8 = 0x70;
const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const HOT_UPDATE: u8 = 0x40;
const CONFIRM: u8 = 0x50;
/// `XLOG_HEAP2_MULTI_INSERT`.
const MULTI_INSERT: u8 = 0x50;

/// Runs `body` with the catalogs as the log has them committed up to the record that is being decoded. None when the log has not
/// been read far enough to know.
///
/// # Safety
///
/// The context stands at a record, outside of any transaction of this process. `body` only reads catalogs and keeps nothing of
/// them.
pub(super) unsafe fn with_committed_catalogs<T>(
    ctx: *mut pg_sys::LogicalDecodingContext,
    body: impl FnOnce() -> T,
) -> Option<T> {
    // SAFETY: the caller vouches for the context. The transaction is aborted like those of the reorder buffer: locks go, nothing
    // stays. An error ends the process. The guarded closures own nothing that needs dropping.
    unsafe {
        let builder = (*ctx).snapshot_builder;
        if pg_guard_ffi_boundary(|| raw::SnapBuildCurrentState(builder)) != CONSISTENT {
            return None;
        }
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::StartTransactionCommand();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let snapshot =
            pg_guard_ffi_boundary(|| raw::SnapBuildGetOrBuildSnapshot(builder, pg_sys::InvalidTransactionId));
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let snapshot = pg_guard_ffi_boundary(|| raw::SnapBuildGetOrBuildSnapshot(builder));
        pg_sys::SetupHistoricSnapshot(snapshot, std::ptr::null_mut());
        let result = body();
        pg_sys::TeardownHistoricSnapshot(false);
        pg_sys::AbortCurrentTransaction();
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        Some(result)
    }
}

/// replication/snapbuild.h, `SNAPBUILD_CONSISTENT`.
const CONSISTENT: c_int = 2;

/// The relation that has a file. Inside a transaction.
pub(super) fn relation_of_file((tablespace, number): File) -> Option<pg_sys::Oid> {
    // SAFETY: looks into the catalogs. The closure owns nothing that needs dropping.
    let relid =
        unsafe { pg_guard_ffi_boundary(|| raw::RelidByRelfilenumber(tablespace.into(), number.into())) };
    (relid != pg_sys::InvalidOid).then_some(relid)
}

/// The row of a relation in `pg_class`. Inside a transaction.
pub(super) fn class_of(relid: pg_sys::Oid) -> Option<pg_sys::FormData_pg_class> {
    if relid == pg_sys::InvalidOid {
        return None;
    }
    // SAFETY: looks into the system cache; the row is copied before the entry is given back.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(relid));
        if tuple.is_null() {
            return None;
        }
        let form = *pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple);
        pg_sys::ReleaseSysCache(tuple);
        Some(form)
    }
}

/// The table that a TOAST table belongs to, by its name (toasting.c, cluster.c).
pub(super) fn owner_of_toast_table(form: &pg_sys::FormData_pg_class) -> Option<pg_sys::Oid> {
    // SAFETY: a name ends with a zero.
    let name = unsafe { CStr::from_ptr(form.relname.data.as_ptr()) };
    let number = name.to_str().ok()?.strip_prefix("pg_toast_")?.parse::<u32>().ok()?;
    Some(number.into())
}

/// access/timeline.h, `TimeLineHistoryEntry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TimelineEntry {
    timeline: pg_sys::TimeLineID,
    begin: pg_sys::XLogRecPtr,
    end: pg_sys::XLogRecPtr,
}

/// The timelines that lead to a timeline of this server, and where each was left: from its history file, or nothing when
/// there is none. Not outside a transaction: the list is in its memory.
pub(super) fn timeline_history(timeline: u32) -> Vec<(u32, u64)> {
    // SAFETY: the list is made of entries of this form, which live until the memory context is reset; they are copied
    // before anything else runs. The closure owns nothing that needs dropping.
    unsafe {
        let list = pg_guard_ffi_boundary(|| raw::readTimeLineHistory(timeline));
        let length = if list.is_null() { 0 } else { usize::try_from((*list).length).unwrap_or(0) };
        let entry = |at| *(*(*list).elements.add(at)).ptr_value.cast::<TimelineEntry>();
        (0..length).map(entry).filter(|it| it.timeline != timeline).map(|it| (it.timeline, it.end)).collect()
    }
}

/// The partitioned tables that a table is a partition of, the nearest first. Takes no lock.
pub(super) fn partition_ancestors(relid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: called inside a transaction, or a decoding callback. The closure owns nothing that needs dropping; the list is
    // the function's own.
    unsafe { oids_of(pg_guard_ffi_boundary(|| raw::get_partition_ancestors(relid))) }
}

/// A table and everything that inherits from it, itself first. Takes no lock.
pub(super) fn inheritors(relid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let lock = pg_sys::NoLock as pg_sys::LOCKMODE;
    // SAFETY: as of `partition_ancestors`.
    unsafe { oids_of(pg_guard_ffi_boundary(|| raw::find_all_inheritors(relid, lock, std::ptr::null_mut()))) }
}

/// # Safety
///
/// `list` is a list of OIDs, or null, and used no more: it is freed.
unsafe fn oids_of(list: *mut pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: the caller vouches for the list, which has as many elements as it says.
    unsafe {
        if list.is_null() {
            return Vec::new();
        }
        let length = usize::try_from((*list).length).unwrap_or_default();
        let cells = std::slice::from_raw_parts((*list).elements, length);
        let oids = cells.iter().map(|cell| cell.oid_value).collect();
        pg_sys::list_free(list);
        oids
    }
}

/// Reads one page of the log for [`xlog_reader_routine`]; waits until it is there.
pub(super) type ReadPage = unsafe extern "C-unwind" fn(
    *mut pg_sys::XLogReaderState,
    pg_sys::XLogRecPtr,
    c_int,
    pg_sys::XLogRecPtr,
    *mut c_char,
) -> c_int;

/// The log of this server, read from its own files, page by page through `read_page`.
pub(super) fn xlog_reader_routine(read_page: ReadPage) -> pg_sys::XLogReaderRoutine {
    pg_sys::XLogReaderRoutine {
        page_read: Some(read_page),
        segment_open: Some(raw::wal_segment_open),
        segment_close: Some(raw::wal_segment_close),
    }
}

/// PostgreSQL's own page reader. It polls without a latch when the page is not there yet.
pub(super) const READ_LOCAL_PAGE: ReadPage = raw::read_local_xlog_page;

/// Reads a page that has been flushed.
///
/// # Safety
///
/// Called by the reader `reader`, with the arguments that it gave.
pub(super) unsafe fn read_local_page(
    reader: *mut pg_sys::XLogReaderState,
    page: pg_sys::XLogRecPtr,
    wanted: c_int,
    target: pg_sys::XLogRecPtr,
    buffer: *mut c_char,
) -> c_int {
    // SAFETY: the caller hands on what the reader gave it. The closure owns nothing that needs dropping.
    unsafe { pg_guard_ffi_boundary(|| raw::read_local_xlog_page(reader, page, wanted, target, buffer)) }
}

/// Hands the record under the reader to the reorder buffer, and what it completes to the callbacks.
///
/// # Safety
///
/// `ctx` is live, belongs to this process, and its reader stands on the record that the last `XLogReadRecord`
/// returned. No reference into what the callbacks change may be held across the call.
pub(super) unsafe fn process_record(ctx: *mut pg_sys::LogicalDecodingContext) {
    // SAFETY: the caller vouches for `ctx`. An ERROR may jump out of the closure, which owns nothing that needs
    // dropping.
    unsafe {
        let reader = (*ctx).reader;
        pg_guard_ffi_boundary(|| raw::LogicalDecodingProcessRecord(ctx, reader));
    }
}

/// Exports the snapshot of a slot that has just become consistent; leaves a read-only transaction open that keeps it.
///
/// # Safety
///
/// `ctx` was made by `CreateInitDecodingContext` and has found its start point; no transaction is open.
pub(super) unsafe fn export_snapshot(ctx: *mut pg_sys::LogicalDecodingContext) -> String {
    // SAFETY: the caller vouches for the builder of `ctx`; the name is a C string in the transaction's memory,
    // copied before anything else runs. The closure owns nothing that needs dropping.
    unsafe {
        let builder = (*ctx).snapshot_builder;
        let name = pg_guard_ffi_boundary(|| raw::SnapBuildExportSnapshot(builder));
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// Ends the transaction that [`export_snapshot`] has left open.
///
/// # Safety
///
/// It is still open, and nothing of it is in use.
pub(super) unsafe fn end_exported_snapshot() {
    // SAFETY: the caller vouches. The closure owns nothing that needs dropping.
    unsafe { pg_guard_ffi_boundary(|| raw::SnapBuildClearExportedSnapshot()) }
}

/// Takes a tuple apart into the first `natts` elements of `values` and `nulls`.
///
/// # Safety
///
/// `tuple` conforms to `descriptor`, and both slices have room for all of its attributes.
pub(super) unsafe fn deform_heap_tuple(
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    values: &mut [pg_sys::Datum],
    nulls: &mut [bool],
) {
    // SAFETY: the caller vouches for tuple, descriptor and room. The function reads the tuple's own memory and
    // never raises an error (heaptuple.c).
    unsafe { raw::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr()) }
}

/// `scan_getnextslot` or `scan_getnextslot_tidrange` of an access method.
pub(super) type NextSlot = unsafe extern "C-unwind" fn(
    pg_sys::TableScanDesc,
    pg_sys::ScanDirection::Type,
    *mut pg_sys::TupleTableSlot,
) -> bool;

/// Brings up to `most` rows of a scan into `slot`, one after another and deformed, and calls `take` for each. False at the end
/// of the scan. One guard for all of them.
///
/// # Safety
///
/// `scan` is open, of the relation that `slot` and `natts` belong to; `next` is its access method's, for a scan of this kind.
#[inline]
pub(super) unsafe fn next_slots<E>(
    scan: pg_sys::TableScanDesc,
    next: NextSlot,
    slot: *mut pg_sys::TupleTableSlot,
    natts: c_int,
    most: usize,
    mut take: impl FnMut() -> Result<(), E>,
) -> Result<bool, E> {
    let rows = || {
        for _ in 0..most {
            // SAFETY: the caller vouches for scan, function and slot.
            let found = unsafe { next(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) };
            if !found {
                return Ok(false);
            }
            // SAFETY: as above; the slot has a row.
            unsafe {
                if i32::from((*slot).tts_nvalid) < natts {
                    raw::slot_getsomeattrs_int(slot, natts);
                }
            }
            take()?;
        }
        Ok(true)
    };
    // SAFETY: an ERROR of the two functions jumps over frames that own nothing that needs dropping. Errors in `take` are panics,
    // by guards of their own; they must not pass this one, which would stay in place, and so are caught and raised again
    // behind it.
    let result = unsafe { pg_guard_ffi_boundary(|| catch_unwind(AssertUnwindSafe(rows))) };
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Deforms all `natts` attributes of the row in `slot`.
///
/// # Safety
///
/// The slot holds a row of that many attributes.
pub(super) unsafe fn deform_slot(slot: *mut pg_sys::TupleTableSlot, natts: c_int) {
    // SAFETY: the caller vouches for the slot. The closure owns nothing that needs dropping.
    unsafe {
        pg_guard_ffi_boundary(|| {
            if i32::from((*slot).tts_nvalid) < natts {
                raw::slot_getsomeattrs_int(slot, natts);
            }
        });
    }
}

/// `die`: what SIGTERM does to an ordinary backend, at the next `CHECK_FOR_INTERRUPTS`.
pub(super) const DIE: unsafe extern "C-unwind" fn(c_int) = raw::die;

/// What SIGHUP does: remember to read the configuration again, and set the latch.
pub(super) const RELOAD: unsafe extern "C-unwind" fn(c_int) = raw::SignalHandlerForConfigReload;
