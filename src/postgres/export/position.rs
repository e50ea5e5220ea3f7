//! A snapshot, and the position in the log that it is the state of: all that committed before is in it, nothing else.
//!
//! A commit becomes visible a moment after its record is in the log, and not always in the order of the records. So for
//! a given snapshot there may be no such position; then another one is taken. What is looked at:
//!
//! ```text
//!   log   ──R────────A─────────────B────────L──►
//!                    │             └ first commit that the snapshot does not see
//!                    └ end of the last commit that it sees
//! ```
//!
//! R is read before the snapshot is taken, L after it. If A ≤ B the position is B, or L when there is no B. A transaction
//! that the snapshot does not see may have written its record even before R: it is committed (pg_xact says so) but its record
//! is not found after R. Such a snapshot is of no use either. Who is between his record and pg_xact is waited for, as a
//! checkpoint does (xlog.c, `CreateCheckPoint`).

use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::{catalog, compat, ffi, latch, session};
use crate::lsn::Lsn;

/// So many snapshots are taken at most. Under a load of thousands of commits per second one in two or three will do.
const ATTEMPTS: usize = 1_000;

/// Takes a snapshot and exports it; leaves the transaction open that keeps it. `before` runs in the transaction, before
/// the snapshot is taken.
pub(super) fn take_snapshot(before: impl Fn()) -> (String, Lsn) {
    for _ in 0..ATTEMPTS {
        // SAFETY: no transaction is open. This one stays open until the process ends, if its snapshot is good.
        unsafe {
            pg_sys::StartTransactionCommand();
            pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as i32;
            pg_sys::XactReadOnly = true;
        }
        before();
        let from = insert_position();
        // SAFETY: as above; the snapshot stays active with the transaction.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        if let Some(lsn) = position_of_active_snapshot(from) {
            return (catalog::export_snapshot(), lsn);
        }
        // SAFETY: closes what was opened above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        latch::wait(None, Duration::from_millis(1));
    }
    ereport!(
        PgLogLevel::ERROR,
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not find the position in the log that a snapshot belongs to",
        "Transactions became visible in another order than they were committed, again and again."
    );
    unreachable!("an ERROR does not return")
}

fn insert_position() -> Lsn {
    // SAFETY: reads shared memory.
    Lsn(unsafe { pg_sys::GetXLogInsertRecPtr() })
}

/// A commit in the log.
struct Commit {
    xid: pg_sys::TransactionId,
    /// Of its subtransactions, which are committed with it.
    subtransactions: Vec<pg_sys::TransactionId>,
    begin: Lsn,
    end: Lsn,
}

impl Commit {
    fn is_of(&self, xid: pg_sys::TransactionId) -> bool {
        self.xid == xid || self.subtransactions.contains(&xid)
    }
}

fn position_of_active_snapshot(from: Lsn) -> Option<Lsn> {
    let after = insert_position();
    session::flush_log(last_record_end(after));
    compat::wait_for_commits_in_progress(|| latch::wait(None, Duration::from_millis(1)));
    // SAFETY: the caller has pushed it.
    let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
    let late = committed_but_not_seen(snapshot);
    let until = insert_position();
    session::flush_log(last_record_end(until));
    let commits = commits_between(from, until);
    if late.iter().any(|xid| !commits.iter().any(|commit| commit.is_of(*xid))) {
        return None;
    }
    // SAFETY: the snapshot is active.
    let is_seen = |commit: &&Commit| unsafe { !pg_sys::XidInMVCCSnapshot(commit.xid, snapshot) };
    let last_seen = commits.iter().filter(is_seen).map(|commit| commit.end).max();
    let first_unseen = commits.iter().filter(|commit| !is_seen(commit)).map(|commit| commit.begin).min();
    match (last_seen, first_unseen) {
        (Some(seen), Some(unseen)) if seen > unseen => None,
        (_, unseen) => {
            Some(unseen.map_or(after, |unseen| unseen.min(after).max(last_seen.unwrap_or(unseen))))
        }
    }
}

/// The insert position may lie behind the header of a page that is not there yet, up to which nothing can be flushed.
fn last_record_end(position: Lsn) -> Lsn {
    const SHORT_HEADER: u64 = 24;
    const LONG_HEADER: u64 = 40;
    // SAFETY: set before a process runs anything of ours, and never changed.
    let segment = u64::try_from(unsafe { pg_sys::wal_segment_size }).unwrap_or(1 << 24);
    let in_page = position.0 % u64::from(pg_sys::XLOG_BLCKSZ);
    let is_first_page = position.0 % segment == in_page;
    let header = if is_first_page { LONG_HEADER } else { SHORT_HEADER };
    if in_page == header { Lsn(position.0 - header) } else { position }
}

/// Transactions that the snapshot does not see, and that are committed by now: those that it lists, and those that are not
/// older than its xmax, which it does not list.
fn committed_but_not_seen(snapshot: pg_sys::Snapshot) -> Vec<pg_sys::TransactionId> {
    // SAFETY: the array has that many elements, all of them of transactions that are not older than what pg_xact keeps.
    unsafe {
        let (xids, count) = ((*snapshot).xip, (*snapshot).xcnt as usize);
        let listed = if count == 0 { &[][..] } else { std::slice::from_raw_parts(xids, count) };
        let next = pg_sys::ReadNextFullTransactionId().value as u32;
        let xmax = u32::from((*snapshot).xmax);
        let later = (0..next.wrapping_sub(xmax)).map(|offset| xmax.wrapping_add(offset));
        // Zero, one and two are no transactions: after a wraparound they are skipped.
        let later = later.filter(|xid| *xid >= 3).map(pg_sys::TransactionId::from);
        let is_committed = |xid: &pg_sys::TransactionId| pg_sys::TransactionIdDidCommit(*xid);
        listed.iter().copied().chain(later).filter(is_committed).collect()
    }
}

/// The commits whose records begin at `from` or later, and before `until`, which has been flushed.
fn commits_between(from: Lsn, until: Lsn) -> Vec<Commit> {
    let mut commits = Vec::new();
    let end = last_record_end(until);
    // Where nothing has been written there is nothing to wait for.
    if from >= until || end <= from {
        return commits;
    }
    // SAFETY: the log is there from `from` on, since it was the insert position a moment ago; it is not read past `until`.
    // The reader is freed below, or with the transaction.
    unsafe {
        let mut routine = ffi::xlog_reader_routine(ffi::READ_LOCAL_PAGE);
        let reader = pg_sys::XLogReaderAllocate(
            pg_sys::wal_segment_size,
            std::ptr::null(),
            &raw mut routine,
            std::ptr::null_mut(),
        );
        if reader.is_null() {
            error!("out of memory");
        }
        let mut next = pg_sys::XLogFindNextRecord(reader, from.0);
        if next != 0 {
            pg_sys::XLogBeginRead(reader, next);
        }
        let mut problem = std::ptr::null_mut();
        while next != 0 && next < end.0 && !pg_sys::XLogReadRecord(reader, &raw mut problem).is_null() {
            commits.extend(commit_of(reader));
            next = (*reader).EndRecPtr;
        }
        pg_sys::XLogReaderFree(reader);
    }
    commits
}

/// The commit that the reader stands on, if it is one.
///
/// # Safety
///
/// The reader has just read a record.
unsafe fn commit_of(reader: *mut pg_sys::XLogReaderState) -> Option<Commit> {
    // SAFETY: the caller vouches. The record's data are those of a commit when its manager and kind say so.
    unsafe {
        let record = compat::decoded(reader);
        if record.manager != pg_sys::RmgrIds::RM_XACT_ID as u8 {
            return None;
        }
        let (begin, end) = (Lsn((*reader).ReadRecPtr), Lsn((*reader).EndRecPtr));
        let kind = u32::from(record.info) & pg_sys::XLOG_XACT_OPMASK;
        if kind != pg_sys::XLOG_XACT_COMMIT && kind != pg_sys::XLOG_XACT_COMMIT_PREPARED {
            return None;
        }
        let mut parsed = pg_sys::xl_xact_parsed_commit::default();
        pg_sys::ParseCommitRecord(record.info, record.data.cast(), &raw mut parsed);
        let xid = if kind == pg_sys::XLOG_XACT_COMMIT { record.xid } else { parsed.twophase_xid };
        let count = usize::try_from(parsed.nsubxacts).unwrap_or_default();
        let subtransactions = if count == 0 {
            Vec::new()
        } else {
            // The array is within the record, of no particular alignment.
            (0..count).map(|at| parsed.subxacts.add(at).read_unaligned()).collect()
        };
        Some(Commit { xid, subtransactions, begin, end })
    }
}
