//! The first copy of a mirror's tables, as the mirror worker leads it.
//!
//! ```text
//!                 slot + snapshot (holder) ─► target ready ─► plan committed, copy_lsn with it
//!                                                                        │
//!    a round for what has to be copied: ◄────────────────────────────────┤
//!      chunks ─► snapshot workers ─► every chunk visible                 │
//!    snapshot lost, tables rewritten or added: another snapshot ─────────┘
//!                                │
//!                                └─► nothing left ─► first checkpoint
//! ```
//!
//! Before the plan is committed nothing counts: an interrupted start leaves a slot that nobody has streamed from, which
//! is dropped. From then on the slot stays and finished chunks count, whatever ends: `dbmazz.mirror.copy_lsn` says so.
//! What a later snapshot means for each table is decided by `snapshot::catch_up`, and written down with the table for the
//! stream. After the first checkpoint the slot has everything that committed since its creation.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::super::catalog::checkpoint::{self, Checkpoint};
use super::super::super::catalog::event::{Event, Severity};
use super::super::super::catalog::source;
use super::super::super::catalog::table::{MirrorTableRow, TableState};
use super::super::super::loader::Loader;
use super::super::super::shmem::{HolderTask, MirrorState};
use super::super::super::{catalog, failpoint, labels, session, slot};
use super::super::start::{self, Mirror};
use super::plan::{seen_by, take_stock};
use super::{Copied, Held, Rows, copy_chunks, hold, make_ready, plan};
use crate::lsn::Lsn;
use crate::pipeline::LabelSequence;
use crate::snapshot::CatchUp;

/// Copies the tables, or what is left of them, and writes the first checkpoint. Returns the position from which the slot
/// must be streamed.
pub(in super::super) fn first_copy(
    mirror: &mut Mirror,
    loader: &mut Loader,
    labels: &mut LabelSequence,
) -> Lsn {
    let (start, mut held) = match begun_earlier(mirror) {
        Some(start) => (start, None),
        None => begin(mirror, loader),
    };
    while mirror.row.copy_rows {
        loader.enter_phase(MirrorState::Snapshot);
        let Some(now_held) = held.take().or_else(|| take_up(mirror, loader, labels)) else { break };
        let copied = copy_chunks(mirror, loader, &now_held, || labels::top_up(&mirror.name, labels));
        now_held.let_go();
        failpoint::hit("copy_all_done");
        if copied == Copied::SnapshotLost {
            log!("mirror \"{}\" goes on copying under another snapshot: the one before is gone", mirror.name);
        }
        // Labels of snapshot workers that failed.
        start::settle_earlier_labels(mirror, loader, &[labels.incarnation()]);
        mirror.read_tables();
    }
    finish(mirror, labels, start);
    if let Some(held) = held {
        held.let_go();
    }
    start
}

/// Where the slot of a copy begins that was interrupted and can go on.
fn begun_earlier(mirror: &Mirror) -> Option<Lsn> {
    let start = mirror.row.copy_lsn?;
    let reason = match slot::find(&mirror.slot_name()) {
        Some(slot) if slot.invalidation.is_none() && slot.confirmed_lsn <= start => return Some(start),
        Some(slot) if slot.invalidation.is_some() => "has been invalidated",
        Some(_) => "was moved by somebody else",
        None => "does not exist any more",
    };
    let message = format!("the copy begins anew: replication slot \"{}\" {reason}", mirror.slot_name());
    warning!("mirror \"{}\": {message}", mirror.name);
    session::transaction(|| Event::of(&mirror.name, Severity::Warning, &message).record());
    None
}

/// Creates the slot, and plans the copy of all tables under the snapshot that belongs to it.
fn begin(mirror: &mut Mirror, loader: &mut Loader) -> (Lsn, Option<Held>) {
    forget_unfinished(mirror);
    let tables: Vec<pg_sys::Oid> =
        mirror.tables.iter().filter(|it| it.state != TableState::Error).map(|it| it.relid).collect();
    let rows = if mirror.row.copy_rows { Rows::Replaced } else { Rows::Kept };
    failpoint::hit("start_before_target_tables");
    let ready = make_ready(mirror, loader, &tables, rows);
    failpoint::hit("start_after_target_tables");
    let held = hold(mirror, HolderTask::Slot);
    let start = held.consistent_lsn;
    if !mirror.row.copy_rows {
        catalog::mirror::transaction(&mirror.name, || {
            for relid in ready {
                catalog::table::write_state(&mirror.name, relid, TableState::Copying, None);
            }
        });
        mirror.read_tables();
        return (start, Some(held));
    }
    plan(mirror, &held, &ready, || catalog::mirror::write_copy_lsn(&mirror.name, Some(start)));
    failpoint::hit("start_plan_committed");
    mirror.read_tables();
    (start, Some(held))
}

/// A slot without a plan is one of a start that never got as far; a plan without its slot is of no use.
fn forget_unfinished(mirror: &mut Mirror) {
    catalog::mirror::transaction(&mirror.name, || {
        catalog::mirror::write_copy_lsn(&mirror.name, None);
        for table in &mirror.tables {
            catalog::table::begin_anew(&mirror.name, table.relid);
        }
    });
    mirror.read_tables();
    if slot::find(&mirror.slot_name()).is_some() {
        slot::drop_unused(&mirror.slot_name());
        log!("replication slot \"{}\" of an unfinished start has been dropped", mirror.slot_name());
    }
}

/// Takes another snapshot for what is left to copy. None when nothing is.
fn take_up(mirror: &mut Mirror, loader: &mut Loader, labels: &mut LabelSequence) -> Option<Held> {
    mirror.read_tables();
    let left = session::transaction(|| catalog::chunk::count_left(&mirror.name));
    if left == 0 && !mirror.tables.iter().any(|table| table.state == TableState::Known) {
        return None;
    }
    let held = hold(mirror, HolderTask::Snapshot);
    failpoint::hit("resume_snapshot_held");
    // Whatever the snapshot sees has committed before this position. The message is flushed, so the stream gets there.
    let until = session::transaction(source::emit_message);
    session::flush_log(until);
    take_stock(mirror, until);
    failpoint::hit("resume_stock_taken");
    mirror.read_tables();
    let anew: Vec<pg_sys::Oid> = of_state(mirror, TableState::Known);
    let ready = make_ready(mirror, loader, &anew, Rows::Replaced);
    let catch_up = CatchUp::not_seen_by(seen_by(&held));
    plan(mirror, &held, &ready, || {
        for relid in &ready {
            catalog::table::write_catch_up(&mirror.name, *relid, until, &catch_up);
        }
    });
    failpoint::hit("resume_plan_committed");
    labels::top_up(&mirror.name, labels);
    mirror.read_tables();
    Some(held)
}

fn of_state(mirror: &Mirror, state: TableState) -> Vec<pg_sys::Oid> {
    let is_of_state = |table: &&MirrorTableRow| table.state == state;
    mirror.tables.iter().filter(is_of_state).map(|table| table.relid).collect()
}

/// Writes the first checkpoint: from now on the slot is streamed.
fn finish(mirror: &mut Mirror, labels: &LabelSequence, start: Lsn) {
    let first =
        Checkpoint { confirmed_lsn: start, ..checkpoint::here(mirror.database, labels.incarnation()) };
    checkpoint::commit(&mirror.name, &first, || {
        catalog::mirror::write_copy_lsn(&mirror.name, None);
        for relid in of_state(mirror, TableState::Copying) {
            catalog::table::set_copied(&mirror.name, relid, start);
        }
        catalog::chunk::clear(&mirror.name);
        let message = format!("mirror \"{}\" streams from {start}", mirror.name);
        Event::of(&mirror.name, Severity::Info, &message).record();
    });
    failpoint::hit("copy_first_checkpoint");
    mirror.read_tables();
}
