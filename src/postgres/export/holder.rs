//! `dbmazz export holder`: takes the snapshot of an export, and then only holds it.
//!
//! It locks the tables first, as pg_dump does, so that none is rewritten, truncated or dropped while it is exported, and none
//! can have been between the locks and the snapshot. With a slot it is the other way round, because creating one wants no
//! transaction; what has been rewritten in between is found when the plan is made. Tables that have come before the snapshot
//! was taken are locked then, too.

use std::ffi::CString;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::export::ExportRow;
use super::super::compat::SlotLasting;
use super::super::shmem::Text;
use super::super::worker::new_slot;
use super::super::{catalog, latch, session, slot};
use super::process::{self, Identity};
use super::{plan, position, shared};
use crate::export::options::ExportOptions;
use crate::lsn::Lsn;

/// Main function of `dbmazz export holder`.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_export_holder_main(argument: pg_sys::Datum) {
    let Some(me) = process::enter(argument) else { return };
    if shared::join(me.id, me.database, me.generation, me.pid).is_none() {
        return;
    }
    shared::update(me.id, me.database, |place| place.held.pid = me.pid);
    process::run(me, move || hold(me), |_| ());
}

fn hold(me: Identity) {
    let found = session::transaction(|| {
        let row = catalog::export::read(me.id)?;
        let tables = plan::to_be_locked(row.named.as_deref());
        Some((row, tables))
    });
    let Some((row, tables)) = found else { return };
    let wants_slot = ExportOptions::parse(&row.options).is_ok_and(|options| options.slot);
    session::report_activity(&format!("export {}: taking a snapshot", me.id));
    let (snapshot, lsn) = if wants_slot && row.slot_name.is_none() {
        with_slot(&catalog::export::slot_name(me.id))
    } else {
        position::take_snapshot(|| lock(&tables))
    };
    lock(&by_now(&row));
    let leader = shared::update(me.id, me.database, |place| {
        place.held.snapshot = Text::new(&snapshot);
        place.held.lsn = lsn;
        place.held.is_there = true;
        (place.leader_pid, place.leader_proc_number)
    });
    if let Some((pid, proc_number)) = leader
        && pid != 0
    {
        latch::wake(proc_number);
    }
    session::report_activity(&format!("export {}: holding a snapshot", me.id));
    let is_needed = || {
        shared::find(me.id, me.database).is_some_and(|place| {
            place.generation == me.generation && place.leader_pid != 0 && !place.held.leave
        })
    };
    while is_needed() {
        latch::wait(None, Duration::from_millis(100));
    }
}

/// Locks tables for as long as the transaction lasts.
fn lock(tables: &[pg_sys::Oid]) {
    for relid in tables {
        // SAFETY: a transaction is open. A table that is gone can be locked all the same.
        unsafe { pg_sys::LockRelationOid(*relid, pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
    }
}

/// The tables that are there by now, in the transaction that holds the snapshot.
fn by_now(row: &ExportRow) -> Vec<pg_sys::Oid> {
    // SAFETY: a transaction is open. That of a slot has no snapshot of its own and must not take one; the server's own look at the
    // catalogs is always there. It is copied by the push, and popped when the tables have been read.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetCatalogSnapshot(pg_sys::InvalidOid));
        let tables = plan::to_be_locked(row.named.as_deref());
        pg_sys::PopActiveSnapshot();
        tables
    }
}

/// A slot that keeps the log, from the place on that the snapshot belongs to.
fn with_slot(name: &str) -> (String, Lsn) {
    if slot::find(name).is_some() {
        slot::drop_unused(name);
        log!("replication slot \"{name}\" of an unfinished start has been dropped");
    }
    let name = CString::new(name).unwrap_or_default();
    let slot = new_slot::create(&name, SlotLasting::UntilMadePersistent, true);
    slot.begin_there();
    (slot.snapshot, slot.start)
}
