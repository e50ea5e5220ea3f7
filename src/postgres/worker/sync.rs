//! Leads the copy of tables that join a mirror, or are copied again, while the others stream on.
//!
//! ```text
//!  mirror worker                 table sync                       holder                        snapshot workers
//!  streams, without them         target ready
//!      │                         starts ───────────────────────► temporary slot + snapshot
//!      │                         plan ──────────────────────────────────────────────────────► chunks
//!      │                         all visible ──────────────────► decodes its slot, loads
//!      ◄──────────────────────────────── asks ────────────────── is near
//!  stands at M ─────────────────────────────────────────────────► reaches X ≥ M, all visible: state s with X
//!  takes them over, ignores their commits up to X
//! ```
//!
//! The protocol is that of PostgreSQL's own subscriptions (tablesync.c). Whatever ends on the way, the tables stay in `i`
//! or `d`, and the mirror worker has it begun anew; the temporary slot goes with its process.

use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::loader::Loader;
use super::super::shmem::{self, HolderTask, Role};
use super::super::{catalog, failpoint, labels, latch, session};
use super::copy::{Copied, Rows, copy_chunks, hold, make_ready, plan};
use super::exit;
use super::start::{self, Mirror};

/// One sends statements, another one asks for labels.
const THREADS: usize = 2;

/// Main function of `dbmazz table sync`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_sync_main(argument: pg_sys::Datum) {
    let Some((database, name)) = super::enter_as_helper(argument) else { return };
    exit::run_helper(&name.clone(), move || {
        if let Some(mirror) = Mirror::read(&name, database) {
            bring_in(mirror);
        }
    });
}

fn bring_in(mut mirror: Mirror) {
    session::report_activity(&format!("mirror {}: copying tables beside the stream", mirror.name));
    let mut loader = Loader::start(&mirror.name, &mirror.config, THREADS);
    loader.enter_phase(mirror.phase_of_copy());
    // Only the mirror worker loads at the moment, and none of these tables.
    let living = [shmem::find(&mirror.name).map_or(0, |slot| slot.labels.incarnation)];
    start::settle_earlier_labels(&mirror, &mut loader, &living);
    let ready = begin(&mut mirror, &mut loader);
    if ready.is_empty() {
        return;
    }
    let held = hold(&mirror, HolderTask::Tables);
    plan(&mirror, &held, &ready, || ());
    failpoint::hit("sync_plan_committed");
    if copy_chunks(&mirror, &loader, &held, || ()) == Copied::SnapshotLost {
        error!("could not go on copying: the process that holds the snapshot has ended");
    }
    start::settle_earlier_labels(&mirror, &mut loader, &living);
    failpoint::hit("sync_copied");
    held.let_go();
    while !held.is_lost() {
        labels::reserve_wanted(&mirror.name, Role::Tables);
        latch::wait(None, Duration::from_millis(50));
        session::leave_if_unwanted(&mirror.name);
    }
}

/// Whatever was done for these tables before does not count: it belongs to a slot that is gone.
fn begin(mirror: &mut Mirror, loader: &mut Loader) -> Vec<pg_sys::Oid> {
    let wanted: Vec<pg_sys::Oid> =
        mirror.tables.iter().filter(|table| mirror.can_be_copied(table)).map(|table| table.relid).collect();
    catalog::mirror::transaction(&mirror.name, || {
        for relid in &wanted {
            catalog::table::begin_anew(&mirror.name, *relid);
        }
    });
    mirror.read_tables();
    make_ready(mirror, loader, &wanted, Rows::Beside)
}
