//! A new replication slot, and the position from which its changes are decoded with the catalogs of their time.
//!
//! PostgreSQL finds the start of a slot in three steps (snapbuild.c, `SnapBuildFindSnapshot`): it begins to build a snapshot; when
//! all transactions that ran then have ended, it collects changes; when all that ran then have ended, the slot is consistent.
//! Changes of the catalogs that happen during the first step are not remembered. So a transaction that begins during the
//! second one, and whatever begins later and before the next change of the catalogs, can be decoded with a view that lacks
//! them: "could not map filenode", or, worse, rows without a column that has been added. No transaction is harmed that begins
//! when the view has been made anew, which any change of the catalogs does; by then what was missed is behind the horizon of
//! transactions that are followed one by one. Hence:
//!
//! ```text
//! slot consistent ─► a change of the catalogs ─► a second slot, from its beginning to its consistent point ─► start
//! ```
//!
//! Becoming consistent, the second slot has waited for everything that ran at the change, so whatever commits behind its
//! consistent point has begun behind the change. That is where the first one is decoded from, and whose snapshot a copy has:
//! the snapshot takes what it did not follow from the commit log. Then the second slot goes.
//!
//! Each step waits for every transaction that is running, prepared ones too. Where no second slot is free, the first one is
//! used as it is.
//!
//! Called by the holders of mirrors and of exports. A mirror knows its start by its first checkpoint; an export, from which anybody
//! may go on, has the slot itself say it ([`NewSlot::begin_there`]).

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::compat::SlotLasting;
use super::super::{catalog, compat, failpoint, ffi, session};
use crate::lsn::Lsn;

/// A slot that this process has just made, and that nobody has read.
pub(in crate::postgres) struct NewSlot {
    name: CString,
    /// The name of the exported snapshot; empty when none was wanted.
    pub(in crate::postgres) snapshot: String,
    /// The place that it is decoded from, which the snapshot is of.
    pub(in crate::postgres) start: Lsn,
}

impl NewSlot {
    /// Has whoever reads the slot begin where it is decoded from. No change that is wanted is passed over: what committed before
    /// is in the snapshot.
    pub(in crate::postgres) fn begin_there(&self) {
        // SAFETY: this process holds no slot. The log is kept from before the place on. A position that is confirmed without a
        // change of the restart position is not written down by itself.
        unsafe {
            compat::acquire_slot(&self.name);
            pg_sys::LogicalConfirmReceivedLocation(self.start.0);
            pg_sys::ReplicationSlotMarkDirty();
            pg_sys::ReplicationSlotSave();
            pg_sys::ReplicationSlotRelease();
        }
    }
}

/// Creates a slot, which this process does not hold afterwards, and finds the position to decode it from. Exports the snapshot
/// of that place, if one is wanted.
///
/// An exported snapshot leaves a transaction open in which nothing can be done.
pub(in crate::postgres) fn create(name: &CStr, lasting: SlotLasting, export: bool) -> NewSlot {
    let (snapshot, start) = find(name, lasting, export);
    NewSlot { name: name.to_owned(), snapshot, start }
}

fn find(name: &CStr, lasting: SlotLasting, export: bool) -> (String, Lsn) {
    let has_another = session::transaction(catalog::source::has_free_slots);
    // SAFETY: this process holds no slot.
    unsafe { compat::create_slot(name, lasting) };
    let found = find_start(export && !has_another);
    // SAFETY: the slot was created above and is this process' own; a temporary one stays so.
    unsafe {
        if lasting == SlotLasting::UntilMadePersistent {
            pg_sys::ReplicationSlotPersist();
        }
        pg_sys::ReplicationSlotRelease();
    }
    if !has_another {
        log!(
            "a replication slot is used as it was created: there is no other one to check its view of the catalogs with"
        );
        return found;
    }
    failpoint::hit("start_slot_alone");
    session::transaction(catalog::source::change_catalogs);
    let second = CString::new(format!("dbmazz_start_{}", std::process::id())).unwrap_or_default();
    // SAFETY: this process holds no slot; no other one has its number in the name.
    unsafe { compat::create_slot(&second, SlotLasting::AsLongAsTheProcess) };
    let found = find_start(export);
    // SAFETY: this process holds the slot, a temporary one, which stays its own. The snapshot is held by the transaction that the
    // export has left open.
    unsafe {
        pg_sys::ReplicationSlotRelease();
        pg_sys::ReplicationSlotDrop(second.as_ptr(), true);
    }
    found
}

/// Finds the place from which the slot of this process can be decoded; exports the snapshot of that place, if one is
/// wanted. Returns its name and the place.
fn find_start(export: bool) -> (String, Lsn) {
    // SAFETY: the sequence of walsender.c: the context is made inside a transaction without xid, so that this process'
    // xmin stays visible to vacuum (it will hold a snapshot); the start point and the export outside of one. The context's
    // memory is the process'.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let mut reader = ffi::xlog_reader_routine(ffi::READ_LOCAL_PAGE);
        let ctx = pg_sys::CreateInitDecodingContext(
            c"pgoutput".as_ptr(),
            std::ptr::null_mut(),
            export,
            pg_sys::InvalidXLogRecPtr.into(),
            &raw mut reader,
            None,
            None,
            None,
        );
        pg_sys::CommitTransactionCommand();
        failpoint::hit("start_slot_ephemeral");
        pg_sys::DecodingContextFindStartpoint(ctx);
        let snapshot = if export { ffi::export_snapshot(ctx) } else { String::new() };
        let consistent = Lsn((*(*ctx).slot).data.confirmed_flush);
        pg_sys::FreeDecodingContext(ctx);
        (snapshot, consistent)
    }
}
