//! The holder: takes a snapshot, and then only holds it. What for, and with which slot, is its task:
//!
//! * `Slot`: the mirror's own slot, together with the snapshot that belongs to it ([`new_slot`]). Everything that committed
//!   before the start of the slot is in the snapshot, everything after it comes out of the slot. A mirror that goes on from an
//!   export gets a copy of the export's slot, and no snapshot.
//! * `Snapshot`: a snapshot of now, for a copy that lost its own, or that tables have joined.
//! * `Tables`: like `Slot`, for tables that are copied while the others stream. The slot is temporary: it goes with this
//!   process. When they are copied the holder decodes it itself ([`super::catch_up`]).
//!
//! `SnapBuildExportSnapshot` leaves a transaction open in which nothing can be done, which is why this is a process of its
//! own (walsender.c, `CreateReplicationSlot`). Creating a slot waits for every transaction that is running, prepared ones
//! too.

use std::ffi::CString;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::compat::SlotLasting;
use super::super::shmem::{self, Handover, Holder, HolderPhase, HolderTask, Text};
use super::super::{catalog, compat, failpoint, ffi, guc, latch, process, session};
use super::{catch_up, exit, new_slot};
use crate::lsn::Lsn;

/// Main function of `dbmazz snapshot holder`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_holder_main(argument: pg_sys::Datum) {
    let Some((database, mirror)) = super::enter_as_helper(argument) else { return };
    // The slot of shared memory is found again by its name: the callback gets a place in the array.
    let Some(place) = shmem::place_of(&mirror) else { return };
    process::on_exit(forget_holder, pg_sys::Datum::from(place as i32));
    // SAFETY: set before any worker runs.
    let pid = unsafe { pg_sys::MyProcPid };
    let task = shmem::update(&mirror, |slot| {
        slot.holder.pid = pid;
        slot.holder.task
    });
    let Some(task) = task else { return };
    exit::run_helper(&mirror.clone(), move || match task {
        HolderTask::Slot => hold_slot(&mirror),
        HolderTask::Snapshot => hold_snapshot(&mirror),
        HolderTask::Tables => hold_for_tables(&mirror, database),
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn forget_holder(_code: i32, place: pg_sys::Datum) {
    // SAFETY: set before any worker runs.
    let me = unsafe { pg_sys::MyProcPid };
    let worker = shmem::update_at(place.value() as i32 as usize, |slot| {
        if slot.holder.pid == me {
            slot.holder = Holder::default();
            // What was not handed over never will be.
            if slot.sync.handover != Handover::Done {
                slot.sync.handover = Handover::None;
            }
        }
        (slot.pid, slot.proc_number)
    });
    if let Some((pid, proc_number)) = worker
        && pid != 0
    {
        latch::wake(proc_number);
    }
}

fn hold_slot(mirror: &str) {
    session::report_activity(&format!("mirror {mirror}: creating the replication slot"));
    let row = session::transaction(|| catalog::mirror::read(mirror));
    let wants_copy = row.as_ref().is_some_and(|row| row.copy_rows);
    let name = slot_name(mirror);
    failpoint::hit("start_before_slot");
    let options = row.and_then(|row| guc::defaults().merged(&row.options).ok());
    if let Some(export) = options.and_then(|options| options.from_export) {
        let begin = session::transaction(|| catalog::export::copy_slot(export, &name.to_string_lossy()));
        failpoint::hit("start_slot_persistent");
        announce(mirror, "", begin);
        return hold(mirror);
    }
    let slot = new_slot::create(&name, SlotLasting::UntilMadePersistent, wants_copy);
    failpoint::hit("start_slot_persistent");
    announce(mirror, &slot.snapshot, slot.start);
    hold(mirror);
}

fn hold_snapshot(mirror: &str) {
    session::report_activity(&format!("mirror {mirror}: taking a snapshot"));
    // What commits after this is in the stream, whether or not the snapshot sees it.
    let position = compat::flush_position();
    // SAFETY: no transaction is open. This one stays open until the process ends.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as i32;
        pg_sys::XactReadOnly = true;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let snapshot = catalog::export_snapshot();
    announce(mirror, &snapshot, position);
    hold(mirror);
}

fn hold_for_tables(mirror: &str, database: pg_sys::Oid) {
    session::report_activity(&format!("mirror {mirror}: creating a replication slot for tables"));
    let name = format!("dbmazz_tables_{}", std::process::id());
    let c_name = CString::new(name.as_str()).unwrap_or_default();
    let slot = new_slot::create(&c_name, SlotLasting::AsLongAsTheProcess, true);
    announce(mirror, &slot.snapshot, slot.start);
    hold(mirror);
    session::leave_if_unwanted(mirror);
    if shmem::find(mirror).is_none_or(|slot| slot.pid == 0) {
        return;
    }
    // SAFETY: the transaction that the export left is open, and this process has done nothing in it.
    unsafe { ffi::end_exported_snapshot() };
    catch_up::run(mirror, database, &name, slot.start);
}

/// The name of a mirror's slot.
fn slot_name(mirror: &str) -> CString {
    CString::new(format!("dbmazz_{mirror}")).unwrap_or_default()
}

/// Says that the snapshot can be imported from now on.
fn announce(mirror: &str, snapshot: &str, consistent_lsn: Lsn) {
    shmem::update(mirror, |slot| {
        slot.holder.snapshot = Text::new(snapshot);
        slot.holder.consistent_lsn = consistent_lsn;
        slot.holder.phase = HolderPhase::Holding;
    });
    shmem::wake_worker(mirror);
    session::report_activity(&format!("mirror {mirror}: holding a snapshot"));
    failpoint::hit("holder_holding");
}

/// Until nobody needs the snapshot any more.
fn hold(mirror: &str) {
    // SAFETY: set before any worker runs.
    let me = unsafe { pg_sys::MyProcPid };
    let is_needed = || {
        shmem::find(mirror).is_some_and(|slot| slot.holder.pid == me && !slot.holder.leave && slot.pid != 0)
    };
    while is_needed() {
        latch::wait(None, Duration::from_millis(100));
    }
}
