//! What the views see of shared memory.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::name;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::lsn::Lsn;
use crate::postgres::lsn_datum::LsnDatum;
use crate::postgres::shmem::{self, MirrorSlot};

/// The mirrors of all databases as shared memory knows them; none when the library was not preloaded. Figures count
/// since the start of the worker.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // The columns of a view.
fn live_mirrors() -> TableIterator<
    'static,
    (
        name!(mirror, String),
        name!(database, pg_sys::Oid),
        name!(pid, Option<i32>),
        name!(state, String),
        name!(confirmed_lsn, Option<LsnDatum>),
        name!(received_lsn, Option<LsnDatum>),
        name!(durable_lsn, Option<LsnDatum>),
        name!(durable_commit_time, Option<TimestampWithTimeZone>),
        name!(received_commit_time, Option<TimestampWithTimeZone>),
        name!(rows_per_second, f64),
        name!(rows_total, i64),
        name!(bytes_total, i64),
        name!(loads_total, i64),
        name!(queued_bytes, i64),
        name!(last_error, Option<String>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
        name!(started_at, Option<TimestampWithTimeZone>),
        name!(snapshot_xmin_age, Option<i32>),
    ),
> {
    let slots = if shmem::is_available() { shmem::all() } else { vec![] };
    let row = |slot: &MirrorSlot| {
        let progress = &slot.progress;
        (
            slot.mirror.as_str().to_owned(),
            pg_sys::Oid::from(slot.database),
            (slot.pid != 0).then_some(slot.pid),
            slot.state.as_str().to_owned(),
            position(progress.confirmed_lsn),
            position(progress.received_lsn),
            position(progress.durable_lsn),
            time(progress.durable_commit_time),
            time(progress.received_commit_time),
            progress.rows_per_second,
            progress.rows_total.cast_signed(),
            progress.bytes_total.cast_signed(),
            progress.loads_total.cast_signed(),
            progress.queued_bytes.cast_signed(),
            (!slot.last_error.is_empty()).then(|| slot.last_error.as_str().to_owned()),
            time(slot.last_error_at),
            time(slot.started_at),
            age_of_snapshot(slot.holder.pid),
        )
    };
    TableIterator::new(slots.iter().map(row).collect::<Vec<_>>())
}

/// How many transactions have begun since the snapshot that a holder keeps; none without one.
fn age_of_snapshot(holder: i32) -> Option<i32> {
    if holder == 0 {
        return None;
    }
    // SAFETY: processes stay where they are in shared memory; a single value is read. The number of one that has ended
    // finds nothing, or a process that has nothing to do with this and shows its own age for a moment.
    let (xmin, next) = unsafe {
        let process = pg_sys::BackendPidGetProc(holder);
        if process.is_null() {
            return None;
        }
        ((*process).xmin, pg_sys::ReadNextFullTransactionId().value as u32)
    };
    let xmin = u32::from(xmin);
    (xmin != 0).then(|| next.wrapping_sub(xmin).cast_signed())
}

/// Zero is "not yet".
fn position(lsn: Lsn) -> Option<LsnDatum> {
    lsn.is_valid().then_some(LsnDatum(lsn))
}

/// Microseconds since 2000; zero is "not yet".
fn time(micros: i64) -> Option<TimestampWithTimeZone> {
    if micros == 0 { None } else { TimestampWithTimeZone::try_from(micros).ok() }
}
