//! The holder: creates the slot together with the snapshot that belongs to it, and then only holds the snapshot.
//!
//! Everything that committed before the slot's consistent point is in the snapshot, everything after it comes out of
//! the slot. `SnapBuildExportSnapshot` leaves a transaction open in which nothing can be done, which is why this is a
//! process of its own (walsender.c, `CreateReplicationSlot`). Creating the slot waits for every transaction that is
//! running, prepared ones too.

use std::ffi::CString;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::shmem::{self, Holder, HolderPhase, Text};
use super::super::{catalog, compat, failpoint, ffi, latch, session};
use super::exit;
use crate::lsn::Lsn;

/// Main function of `dbmazz snapshot holder`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_holder_main(argument: pg_sys::Datum) {
    let Some((_, mirror)) = super::enter_as_helper(argument) else { return };
    session::report_activity(&format!("mirror {mirror}: creating the replication slot"));
    // The slot of shared memory is found again by its name: the callback gets a place in the array.
    let Some(place) = shmem::place_of(&mirror) else { return };
    exit::on_exit(forget_holder, pg_sys::Datum::from(place as i32));
    // SAFETY: set before any worker runs.
    let pid = unsafe { pg_sys::MyProcPid };
    shmem::update(&mirror, |slot| slot.holder = Holder { pid, ..Holder::default() });
    exit::run(&mirror.clone(), move || hold(&mirror));
}

#[pg_guard]
unsafe extern "C-unwind" fn forget_holder(_code: i32, place: pg_sys::Datum) {
    // SAFETY: set before any worker runs.
    let me = unsafe { pg_sys::MyProcPid };
    let worker = shmem::update_at(place.value() as i32 as usize, |slot| {
        if slot.holder.pid == me {
            slot.holder = Holder::default();
        }
        (slot.pid, slot.proc_number)
    });
    if let Some((pid, proc_number)) = worker
        && pid != 0
    {
        latch::wake(proc_number);
    }
}

fn hold(mirror: &str) {
    let wants_copy = session::transaction(|| catalog::mirror::read(mirror)).is_some_and(|row| row.copy_rows);
    let (snapshot, consistent_lsn) = create_slot(mirror, wants_copy);
    let worker = shmem::update(mirror, |slot| {
        slot.holder.snapshot = Text::new(&snapshot);
        slot.holder.consistent_lsn = consistent_lsn;
        slot.holder.phase = HolderPhase::Holding;
        (slot.pid, slot.proc_number)
    });
    if let Some((pid, proc_number)) = worker
        && pid != 0
    {
        latch::wake(proc_number);
    }
    session::report_activity(&format!("mirror {mirror}: holding the snapshot of {consistent_lsn}"));
    failpoint::hit("holder_holding");
    while shmem::find(mirror).is_some_and(|slot| !slot.holder.leave && slot.pid != 0) {
        latch::wait(None, Duration::from_secs(1));
    }
}

/// Creates the slot of a mirror; returns the exported snapshot's name (empty when no copy is wanted) and the slot's
/// consistent point.
fn create_slot(mirror: &str, export: bool) -> (String, Lsn) {
    let name = CString::new(format!("dbmazz_{mirror}")).unwrap_or_default();
    failpoint::hit("start_before_slot");
    // SAFETY: the sequence of walsender.c: an ephemeral slot, which goes by itself on an error; the context inside a
    // transaction without xid, so that this process' xmin stays visible to vacuum (it will hold a snapshot); the
    // start point and the export outside of one. The context's memory is the process'.
    unsafe {
        compat::create_ephemeral_slot(&name);
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
        pg_sys::ReplicationSlotPersist();
        pg_sys::ReplicationSlotRelease();
        failpoint::hit("start_slot_persistent");
        (snapshot, consistent)
    }
}
