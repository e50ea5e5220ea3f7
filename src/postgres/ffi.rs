//! C functions that pgrx does not bind, or not in the form that is needed here. No other module declares an
//! `extern` block.

use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

/// The functions as C has them.
mod raw {
    use super::{c_char, c_int, pg_sys};

    unsafe extern "C-unwind" {
        // replication/decode.h
        pub(super) fn LogicalDecodingProcessRecord(
            ctx: *mut pg_sys::LogicalDecodingContext,
            record: *mut pg_sys::XLogReaderState,
        );

        // replication/snapbuild.h
        pub(super) fn SnapBuildExportSnapshot(builder: *mut pg_sys::SnapBuild) -> *const c_char;
        pub(super) fn SnapBuildClearExportedSnapshot();

        // access/timeline.h
        pub(super) fn readTimeLineHistory(target: pg_sys::TimeLineID) -> *mut pg_sys::List;

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

/// Brings the next row of a block range into `slot`, all of its `natts` attributes deformed; false at the end. One
/// guard for both steps, because this runs once per row.
///
/// # Safety
///
/// `scan` is open for a block range of the relation that `slot` and `natts` belong to.
#[inline]
pub(super) unsafe fn next_slot_of_range(
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    natts: c_int,
) -> bool {
    // SAFETY: the caller vouches for scan and slot; `open` of the scan checked that the method has the function. The
    // closure owns nothing that needs dropping and cannot panic.
    unsafe {
        let Some(next) = (*(*(*scan).rs_rd).rd_tableam).scan_getnextslot_tidrange else { return false };
        pg_guard_ffi_boundary(|| {
            let found = next(scan, pg_sys::ScanDirection::ForwardScanDirection, slot);
            if found && i32::from((*slot).tts_nvalid) < natts {
                raw::slot_getsomeattrs_int(slot, natts);
            }
            found
        })
    }
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
