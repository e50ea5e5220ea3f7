//! One block range of a table, from pages to rows.
//!
//! The scan goes through the table's access method with a ring of buffers of its own, so that a large copy does not
//! throw the application out of shared buffers (`table_beginscan_tidrange` would). It checks neither rights nor row
//! security: that is done at every start of the mirror.

mod filter;
mod partitions;

use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::catalog::partition::Partitions;
use super::{compat, ffi, latch};

pub(super) use filter::RowFilter;
pub(super) use partitions::check_partitions;

/// `MaxBlockNumber`.
const LAST_BLOCK: u32 = pg_sys::InvalidBlockNumber - 1;

/// A place in a heap: the next row to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Position {
    pub(super) block: u32,
    pub(super) offset: u16,
}

impl Position {
    /// The first row of a block.
    pub(super) const fn start_of(block: u32) -> Self {
        Self { block, offset: 1 }
    }

    fn to_tid(self) -> pg_sys::ItemPointerData {
        let mut tid = pg_sys::ItemPointerData::default();
        pgrx::itemptr::item_pointer_set_all(&mut tid, self.block, self.offset);
        tid
    }

    const fn after(self) -> Self {
        match self.offset.checked_add(1) {
            Some(offset) => Self { block: self.block, offset },
            None => Self { block: self.block + 1, offset: 1 },
        }
    }
}

/// A scan of the rows from a position up to the end of a range, under the active snapshot.
pub(super) struct RangeScan {
    scan: pg_sys::TableScanDesc,
    /// The access method's function for the next row.
    advance: ffi::NextSlot,
    slot: *mut pg_sys::TupleTableSlot,
    natts: i32,
    next: Position,
}

impl RangeScan {
    /// Begins to scan `relation` from `from` up to, and without, `end_block`; to the end of the table without one. An access
    /// method that knows no ranges of blocks can only scan whole tables.
    ///
    /// # Safety
    ///
    /// `relation` is open and locked, and stays so until the scan is closed; a snapshot is active until then.
    pub(super) unsafe fn open(relation: pg_sys::Relation, from: Position, end_block: Option<u32>) -> Self {
        let is_whole = from == Position::start_of(0) && end_block.is_none();
        // SAFETY: the caller vouches for relation and snapshot. The access method's functions are called through the
        // guard; the closures own nothing that needs dropping.
        unsafe {
            let method = &*(*relation).rd_tableam;
            let (kind, advance) = match (method.scan_getnextslot_tidrange, method.scan_getnextslot) {
                (Some(advance), _) => (pg_sys::ScanOptions::SO_TYPE_TIDRANGESCAN, advance),
                (None, Some(advance)) if is_whole => (pg_sys::ScanOptions::SO_TYPE_SEQSCAN, advance),
                _ => no_ranges(),
            };
            let Some(begin) = method.scan_begin else { no_ranges() };
            let flags = kind | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE | pg_sys::ScanOptions::SO_ALLOW_STRAT;
            let snapshot = pg_sys::GetActiveSnapshot();
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            let scan = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                begin(relation, snapshot, 0, std::ptr::null_mut(), std::ptr::null_mut(), flags)
            });
            if let Some(set_range) = method.scan_set_tidrange {
                let last = end_block.map_or(LAST_BLOCK, |end| end.saturating_sub(1));
                let mut first_tid = from.to_tid();
                let mut last_tid = Position { block: last, offset: u16::MAX }.to_tid();
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    set_range(scan, &raw mut first_tid, &raw mut last_tid);
                });
            }
            Self { scan, advance, slot, natts: (*(*relation).rd_att).natts, next: from }
        }
    }

    /// Hands up to `most` rows, deformed, to `take`, until that says no; false when there are no more. What has to be done to be
    /// ready for errors is done once for all of them.
    ///
    /// # Errors
    ///
    /// Those of `take`; the row that it got is behind [`Self::position`].
    ///
    /// # Safety
    ///
    /// As of [`Self::open`]. The slot's row is gone when `take` returns.
    #[inline]
    pub(super) unsafe fn next_rows<E>(
        &mut self,
        most: usize,
        mut take: impl FnMut(*mut pg_sys::TupleTableSlot) -> Result<(), E>,
    ) -> Result<bool, E> {
        let (scan, advance, slot, natts) = (self.scan, self.advance, self.slot, self.natts);
        // SAFETY: the caller vouches for the scan; `open` made scan and slot for the same relation. But at the end the slot has
        // the row that was handed out last.
        unsafe {
            let more = ffi::next_slots(scan, advance, slot, natts, most, || take(slot));
            if !matches!(more, Ok(false)) {
                let (block, offset) = pgrx::itemptr::item_pointer_get_both((*slot).tts_tid);
                self.next = Position { block, offset }.after();
            }
            more
        }
    }

    /// Where to go on when this scan is closed before its end.
    pub(super) fn position(&self) -> Position {
        self.next
    }

    /// Ends the scan. Not in a destructor: after an error the transaction's abort does it.
    ///
    /// # Safety
    ///
    /// As of [`Self::open`].
    pub(super) unsafe fn close(self) {
        // SAFETY: the caller vouches; both belong to this scan and are used no more.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            let end = (*(*(*self.scan).rs_rd).rd_tableam).scan_end;
            if let Some(end) = end {
                let scan = self.scan;
                pg_sys::ffi::pg_guard_ffi_boundary(|| end(scan));
            }
        }
    }
}

fn no_ranges() -> ! {
    ereport!(
        PgLogLevel::ERROR,
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "cannot copy the table: its access method does not support scans of a block range"
    );
    unreachable!("an ERROR does not return")
}

/// Whether ranges of blocks of the table can be scanned; if not, only all of it can.
///
/// # Safety
///
/// `relation` is open.
pub(super) unsafe fn has_ranges(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller vouches for the relation, which is a table and has an access method.
    let method = unsafe { &*(*relation).rd_tableam };
    method.scan_set_tidrange.is_some() && method.scan_getnextslot_tidrange.is_some()
}

/// A read-only transaction that sees what an exported snapshot sees.
///
/// `BackgroundWorker::transaction` would take a snapshot of its own first, and then it is too late to import one.
pub(super) fn under_snapshot<T>(snapshot: &str, body: impl FnOnce() -> T) -> T {
    let name = std::ffi::CString::new(snapshot).unwrap_or_default();
    // SAFETY: no transaction is open; nothing takes a snapshot before the import.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as i32;
        pg_sys::XactReadOnly = true;
        pg_sys::ImportSnapshot(name.as_ptr());
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let result = body();
    // SAFETY: closes what was opened above.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
    result
}

/// Opens a table and locks it against changes of its definition. None when it does not exist.
pub(super) fn open_table(relid: pg_sys::Oid) -> Option<pg_sys::Relation> {
    // SAFETY: a transaction is open; a null answer is not taken for a relation.
    let relation = unsafe { pg_sys::try_relation_open(relid, pg_sys::AccessShareLock as i32) };
    (!relation.is_null()).then_some(relation)
}

/// Likewise, but does not wait for a lock. None when somebody has the table locked; of one that does not exist no row will
/// ever be wanted, so that is no case of its own.
pub(super) fn open_table_unless_locked(relid: pg_sys::Oid) -> Option<pg_sys::Relation> {
    let mode = pg_sys::AccessShareLock as i32;
    // SAFETY: a transaction is open. The lock is kept until it ends, so the relation is opened without another one.
    unsafe {
        if !pg_sys::ConditionalLockRelationOid(relid, mode) {
            return None;
        }
        let relation = pg_sys::try_relation_open(relid, pg_sys::NoLock as i32);
        (!relation.is_null()).then_some(relation)
    }
}

/// Hands the row at `tid` to `body`. The active snapshot sees it: it was found under the same one.
///
/// # Safety
///
/// `relation` is open and locked; a snapshot is active. `body` keeps nothing of the slot.
pub(super) unsafe fn with_row<E>(
    relation: pg_sys::Relation,
    mut tid: pg_sys::ItemPointerData,
    body: impl FnOnce(*mut pg_sys::TupleTableSlot) -> Result<(), E>,
) -> Result<(), E> {
    // SAFETY: the caller vouches for relation and snapshot. The method's function is called through the guard; the closure
    // owns nothing that needs dropping. The slot is dropped below, or with the transaction.
    unsafe {
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let snapshot = pg_sys::GetActiveSnapshot();
        let fetch = (*(*relation).rd_tableam).tuple_fetch_row_version;
        let found = fetch.is_some_and(|fetch| {
            pg_sys::ffi::pg_guard_ffi_boundary(|| fetch(relation, &raw mut tid, snapshot, slot))
        });
        if !found {
            error!("could not fetch a row that was found under the same snapshot");
        }
        ffi::deform_slot(slot, (*(*relation).rd_att).natts);
        let result = body(slot);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        result
    }
}

/// Closes a table; the lock stays until the transaction ends.
///
/// # Safety
///
/// `relation` was opened by [`open_table`] in this transaction and is used no more.
pub(super) unsafe fn close_table(relation: pg_sys::Relation) {
    // SAFETY: the caller vouches.
    unsafe { pg_sys::relation_close(relation, pg_sys::NoLock as i32) };
}

/// Closes a table and gives its lock back, as far as this was the only one that took it.
///
/// # Safety
///
/// As of [`close_table`].
pub(super) unsafe fn close_and_unlock(relation: pg_sys::Relation) {
    // SAFETY: the caller vouches.
    unsafe { pg_sys::relation_close(relation, pg_sys::AccessShareLock as i32) };
}

/// Locks the partitions of a table, unless somebody has one of them locked. Says whether it has.
pub(super) fn lock_partitions_unless_locked(root: pg_sys::Oid) -> bool {
    let mode = pg_sys::AccessShareLock as i32;
    // SAFETY: a transaction is open, which keeps the locks.
    let lock = |relid: &u32| unsafe { pg_sys::ConditionalLockRelationOid((*relid).into(), mode) };
    let Partitions { leaves, inner } = Partitions::of(root);
    inner.iter().chain(&leaves).all(lock)
}

/// Lets other processes have their say in a long scan.
pub(super) fn breathe() {
    latch::serve_interrupts();
}

/// How long a snapshot worker waits at most before it looks around again.
pub(super) const GLANCE: Duration = Duration::from_millis(500);

/// How large a table is.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableSize {
    pub(super) blocks: u32,
    pub(super) toast_bytes: u64,
    pub(super) relfilenode: pg_sys::Oid,
}

/// Measures a table.
///
/// # Safety
///
/// `relation` is open and locked.
pub(super) unsafe fn size_of(relation: pg_sys::Relation) -> TableSize {
    // SAFETY: the caller vouches for the relation; its TOAST table lives as long as it does.
    unsafe {
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, main);
        let toast_oid = (*(*relation).rd_rel).reltoastrelid;
        let toast = if toast_oid == pg_sys::InvalidOid { None } else { open_table(toast_oid) };
        let toast_bytes = toast.map_or(0, |toast| {
            let blocks = pg_sys::RelationGetNumberOfBlocksInFork(toast, main);
            close_and_unlock(toast);
            u64::from(blocks) * u64::from(pg_sys::BLCKSZ)
        });
        TableSize { blocks, toast_bytes, relfilenode: compat::relfilenode(relation) }
    }
}

/// The number of the file that holds the table's rows.
///
/// # Safety
///
/// `relation` is open.
pub(super) unsafe fn relfilenode_of(relation: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: the caller vouches for the relation.
    unsafe { compat::relfilenode(relation) }
}
