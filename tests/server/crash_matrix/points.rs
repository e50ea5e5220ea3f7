//! The failpoints, by what a mirror is doing when it passes them.

/// Until the slot is there to stay.
pub(super) const BEFORE_SLOT: &[&str] = &[
    "labels_opened",
    "start_before_target_tables",
    "start_after_target_tables",
    "start_before_slot",
    "start_slot_ephemeral",
];
/// Until rows are under way.
pub(super) const AFTER_SLOT: &[&str] = &[
    "start_slot_alone",
    "start_slot_persistent",
    "holder_holding",
    "start_plan_committed",
    "copy_chunk_claimed",
    "copy_load_read",
];
/// Until the first checkpoint.
pub(super) const COPY: &[&str] = &[
    "copy_load_visible",
    "copy_chunk_all_visible",
    "copy_chunk_done",
    "copy_all_done",
    "copy_first_checkpoint",
];
/// While a copy that lost its snapshot takes another one.
pub(super) const RESUME: &[&str] = &["resume_snapshot_held", "resume_stock_taken", "resume_plan_committed"];
/// While a table is copied again beside the stream, until it has joined it.
pub(super) const SYNC: &[&str] = &[
    "copy_tables_written_down",
    "sync_plan_committed",
    "sync_copied",
    "sync_near",
    "sync_standing",
    "sync_caught_up",
    "sync_swapped",
    "sync_written_down",
    "sync_tables_read",
];
/// Where rows are read that the log does not have whole.
pub(super) const COMPLETE: &[&str] = &["rows_to_complete", "rows_completed"];
/// From a transaction in the log to the slot's new position.
pub(super) const STREAM: &[&str] = &[
    "stream_transaction_decoded",
    "stream_load_handed_out",
    "stream_outcome_received",
    "checkpoint_before_commit",
    "checkpoint_committed",
    "slot_confirmed",
];
/// While one transaction fills the memory.
pub(super) const LARGE_TRANSACTION: &[&str] = &["stream_waits_in_callback"];
/// While a load that was refused goes in parts.
pub(super) const BISECTION: &[&str] = &["stream_load_cut"];
/// The same during a copy, and when the bad rows of it are known.
pub(super) const COPY_BISECTION: &[&str] = &["copy_load_cut", "copy_rows_rejected"];
/// While rows that were rejected are tried again.
pub(super) const RETRY: &[&str] = &["rejected_noted"];
/// Around a TRUNCATE of the target.
pub(super) const TRUNCATE: &[&str] = &["truncate_before", "truncate_after"];
/// While a target is altered.
pub(super) const ALTER: &[&str] = &[
    "columns_about_to_be_looked_at",
    "alter_drained",
    "definition_written",
    "alter_written_ahead",
    "alter_done",
];
/// Where labels are reserved and settled.
pub(super) const LABELS: &[&str] =
    &["labels_reserved", "labels_reserved_by_helper", "labels_asked_for", "labels_settled"];
/// While a mirror that is being paused writes down what it has.
pub(super) const PAUSE: &[&str] = &["farewell", "farewell_checkpointed"];
/// In a drop, while the slot is there.
pub(super) const DROP_EARLY: &[&str] = &["drop_worker_stopped"];
/// In a drop, when the slot is gone.
pub(super) const DROP_LATE: &[&str] = &["drop_slot_dropped"];

/// While a mirror writes down which tables its publication has now.
pub(super) const PUBLICATION: &[&str] = &["publication_read", "publication_followed"];

/// Struck beside the tests of imports.
pub(super) const ELSEWHERE: &[&str] = &["import_step_done"];

/// All failpoints of a mirror that are struck here.
pub(crate) fn points() -> impl Iterator<Item = &'static str> {
    let ours = [BEFORE_SLOT, AFTER_SLOT, COPY, RESUME, SYNC, COMPLETE, STREAM, LARGE_TRANSACTION];
    let others = [BISECTION, COPY_BISECTION, RETRY, TRUNCATE, ALTER, LABELS, PAUSE, DROP_EARLY, DROP_LATE];
    ours.into_iter().chain(others).chain([PUBLICATION]).flatten().copied()
}
