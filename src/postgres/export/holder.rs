//! `dbmazz export holder`: takes the snapshot of an export, and then only holds it.
//!
//! It locks the tables first, as pg_dump does, so that none is rewritten, truncated or dropped while it is exported, and none
//! can have been between the locks and the snapshot. With a slot it is the other way round, because creating one wants no
//! transaction; what has been rewritten in between is found when the plan is made.

use std::ffi::CString;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::compat::SlotLasting;
use super::super::shmem::Text;
use super::super::worker::new_slot;
use super::super::{catalog, latch, session, slot};
use super::process::{self, Identity};
use super::{position, shared};
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
        let tables: Vec<_> = catalog::export::tables(me.id).into_iter().map(|table| table.relid).collect();
        Some((row, tables))
    });
    let Some((row, tables)) = found else { return };
    let wants_slot = ExportOptions::parse(&row.options).is_ok_and(|options| options.slot);
    session::report_activity(&format!("export {}: taking a snapshot", me.id));
    let (snapshot, lsn) = if wants_slot && row.slot_name.is_none() {
        with_slot(&catalog::export::slot_name(me.id), &tables)
    } else {
        position::take_snapshot(|| lock(&tables))
    };
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

/// A slot that keeps the log, from the place on that the snapshot belongs to.
fn with_slot(name: &str, tables: &[pg_sys::Oid]) -> (String, Lsn) {
    if slot::find(name).is_some() {
        slot::drop_unused(name);
        log!("replication slot \"{name}\" of an unfinished start has been dropped");
    }
    let name = CString::new(name).unwrap_or_default();
    let slot = new_slot::create(&name, SlotLasting::UntilMadePersistent, true);
    slot.begin_there();
    lock(tables);
    (slot.snapshot, slot.start)
}
