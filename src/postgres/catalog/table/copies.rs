//! The tables of the target that rows are copied into first, to take the places of others: named before they are made, known
//! until they are gone.
//!
//! As long as the table of the mirror is there, its row has the name. When that goes, the name goes to
//! `dbmazz.abandoned_copy`.

use pgrx::pg_sys;

use super::row::CopyTable;
use crate::postgres::catalog::query;
use crate::postgres::catalog::query::Row;
use crate::table::TargetTable;

/// Writes down which table is about to be made. Whether the table is still one of the mirror. Whoever leads the copy.
pub(in crate::postgres) fn write_copy(mirror: &str, relid: pg_sys::Oid, copy: &CopyTable) -> bool {
    query::run(
        "UPDATE dbmazz.mirror_table SET copy_table = $3, copy_mark = $4 WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into(), copy.table.as_str().into(), copy.mark.as_str().into()],
    ) == 1
}

/// A table is about to leave the mirror: what it was being copied into is to be dropped. Any process.
pub(super) fn abandon(mirror: &str, relid: pg_sys::Oid) {
    query::run(
        "INSERT INTO dbmazz.abandoned_copy (mirror, target_database, target_table)
         SELECT mirror, target_database, copy_table FROM dbmazz.mirror_table
         WHERE mirror = $1 AND relid = $2 AND copy_table IS NOT NULL",
        &[mirror.into(), relid.into()],
    );
}

/// The tables that are to be dropped. Whoever leads a copy.
pub(in crate::postgres) fn abandoned_copies(mirror: &str) -> Vec<TargetTable> {
    query::rows(
        "SELECT target_database, target_table FROM dbmazz.abandoned_copy WHERE mirror = $1",
        &[mirror.into()],
        target,
    )
}

/// Whether there are any. Workers.
pub(in crate::postgres) fn has_abandoned_copies(mirror: &str) -> bool {
    !abandoned_copies(mirror).is_empty()
}

/// Such a table is gone. Whoever leads a copy.
pub(in crate::postgres) fn forget_abandoned_copy(mirror: &str, copy: &TargetTable) {
    query::run(
        "DELETE FROM dbmazz.abandoned_copy WHERE mirror = $1 AND target_database = $2 AND target_table = $3",
        &[mirror.into(), copy.database.as_str().into(), copy.table.as_str().into()],
    );
}

/// All tables that were being filled for a mirror, whatever has become of their copies. Backends.
pub(in crate::postgres) fn copies(mirror: &str) -> Vec<TargetTable> {
    query::rows(
        "SELECT target_database, copy_table FROM dbmazz.mirror_table WHERE mirror = $1 AND copy_table IS NOT NULL
         UNION ALL SELECT target_database, target_table FROM dbmazz.abandoned_copy WHERE mirror = $1",
        &[mirror.into()],
        target,
    )
}

fn target(row: &Row<'_>) -> TargetTable {
    TargetTable { database: row.must(1), table: row.must(2) }
}
