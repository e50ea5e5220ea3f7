//! Statements over the tables of the extension.
//!
//! PostgreSQL's own errors leave through here as they are. A column that does not have the type that the code
//! expects is a mistake of ours and is raised as such (`XX000`).

use pgrx::datum::{DatumWithOid, FromDatum, IntoDatum};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{SpiError, SpiHeapTupleData};

/// One row of a result.
pub(in crate::postgres) struct Row<'a>(SpiHeapTupleData<'a>);

impl Row<'_> {
    /// The column at `position`, counted from 1, or nothing when it is NULL.
    pub(in crate::postgres) fn get<T: FromDatum + IntoDatum>(&self, position: usize) -> Option<T> {
        self.0.get(position).unwrap_or_else(|error| raise(&error))
    }

    /// A column that cannot be NULL.
    pub(in crate::postgres) fn must<T: FromDatum + IntoDatum>(&self, position: usize) -> T {
        self.get(position).unwrap_or_else(|| raise(&SpiError::NoTupleTable))
    }
}

/// All rows of a query, under a snapshot taken now.
pub(in crate::postgres) fn rows<T>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Row<'_>) -> T,
) -> Vec<T> {
    // SAFETY: called inside a transaction.
    under_snapshot(unsafe { pg_sys::GetTransactionSnapshot() }, || select(sql, arguments, read))
}

/// The first row of a query.
pub(in crate::postgres) fn row<T>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Row<'_>) -> T,
) -> Option<T> {
    rows(sql, arguments, read).into_iter().next()
}

/// The first row of a query, as of now even where the transaction sees the past (REPEATABLE READ). A transaction that
/// has written sees what its own snapshot shows.
pub(in crate::postgres) fn latest_row<T>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Row<'_>) -> T,
) -> Option<T> {
    // SAFETY: called inside a transaction.
    let snapshot = unsafe { pg_sys::GetLatestSnapshot() };
    under_snapshot(snapshot, || select(sql, arguments, read)).into_iter().next()
}

/// The first row of a query, under the snapshot that is active: what else is read under it belongs together.
pub(super) fn row_of_active_snapshot<T>(sql: &str, read: impl Fn(&Row<'_>) -> T) -> Option<T> {
    select(sql, &[], read).into_iter().next()
}

/// Whether a query has a row.
pub(in crate::postgres) fn exists(sql: &str, arguments: &[DatumWithOid<'_>]) -> bool {
    row(sql, arguments, |_| ()).is_some()
}

/// Runs a statement that writes; returns how many rows it wrote.
pub(in crate::postgres) fn run(sql: &str, arguments: &[DatumWithOid<'_>]) -> usize {
    Spi::connect_mut(|client| client.update(sql, None, arguments).unwrap_or_else(|error| raise(&error)).len())
}

/// Runs a statement that writes at the end of a transaction, where no snapshot is active any more.
pub(in crate::postgres) fn run_at_commit(sql: &str, arguments: &[DatumWithOid<'_>]) -> usize {
    // SAFETY: called inside a transaction.
    under_snapshot(unsafe { pg_sys::GetTransactionSnapshot() }, || run(sql, arguments))
}

/// Runs a statement that writes and returns its first row.
pub(in crate::postgres) fn run_returning<T>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Row<'_>) -> T,
) -> Option<T> {
    Spi::connect_mut(|client| {
        let mut table = client.update(sql, None, arguments).unwrap_or_else(|error| raise(&error));
        table.next().map(|tuple| read(&Row(tuple)))
    })
}

/// All rows of a query, under the snapshot that is active.
pub(super) fn select<T>(sql: &str, arguments: &[DatumWithOid<'_>], read: impl Fn(&Row<'_>) -> T) -> Vec<T> {
    Spi::connect(|client| {
        let table = client.select(sql, None, arguments).unwrap_or_else(|error| raise(&error));
        table.map(|tuple| read(&Row(tuple))).collect()
    })
}

/// A transaction that has not written yet reads under the snapshot that is active; in a long call that is an old
/// one, in a worker there may be none.
fn under_snapshot<T>(snapshot: pg_sys::Snapshot, body: impl FnOnce() -> T) -> T {
    // SAFETY: the caller has just taken the snapshot; it is popped below, or by the abort after an error.
    unsafe { pg_sys::PushActiveSnapshot(snapshot) };
    let result = body();
    // SAFETY: the snapshot on top is the one that was pushed: SPI leaves the stack as it found it.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

fn raise(error: &SpiError) -> ! {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("could not read a table of dbmazz: {error}"),
        function_name!(),
    )
    .report(PgLogLevel::ERROR);
    unreachable!("an error was raised")
}
