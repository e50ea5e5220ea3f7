//! `dbmazz.rejected_row`: rows that the target does not have because somebody refused them.
//!
//! Of a key there is one row, the last that was refused; rows whose key cannot be told are kept beside each other. What is
//! there of a table that is copied anew goes. A row that an administrator has skipped is no longer shown, but stays: the
//! target still has no row of its key that a partial update could go on top of.

use pgrx::pg_sys;

use super::event::{Event, Severity};
use super::query;
use crate::encode::ShownRow;
use crate::lsn::Lsn;
use crate::pipeline::RejectedRow;
use crate::postgres::encoding::{self, own_text};
use crate::postgres::lsn_datum::LsnDatum;

/// Writes a row down, in the place of an earlier one with its key. Workers.
pub(in crate::postgres) fn record(mirror: &str, relid: pg_sys::Oid, row: &RejectedRow) {
    let RejectedRow { lsn, shown: ShownRow { key, values }, reason, .. } = row;
    let key = key.as_deref().map(encoding::text_of_key);
    if let Some(key) = &key {
        forget_text(mirror, relid, key);
    }
    query::run(
        "INSERT INTO dbmazz.rejected_row (mirror, relid, lsn, key, reason, \"row\")
         SELECT $1, $2, $3, $4, $5, $6::pg_catalog.jsonb
         WHERE EXISTS (SELECT FROM dbmazz.mirror_table WHERE mirror = $1 AND relid = $2)",
        &[
            mirror.into(),
            relid.into(),
            lsn.map(LsnDatum).into(),
            key.as_deref().into(),
            own_text(reason).as_ref().into(),
            encoding::own_json(values).as_ref().into(),
        ],
    );
}

/// Tells that a table goes on without so many rows. Workers.
pub(in crate::postgres) fn tell(mirror: &str, relid: pg_sys::Oid, source_name: &str, rows: usize) {
    let message = if rows == 1 {
        format!("a row of table \"{source_name}\" has been refused, the table goes on")
    } else {
        format!("{rows} rows of table \"{source_name}\" have been refused, the table goes on")
    };
    let hint = Some("The rows refused are in dbmazz_rejected_row.");
    Event { relid: Some(relid), hint, ..Event::of(mirror, Severity::Warning, &message) }.record();
}

/// Forgets the row of a key. Workers.
pub(in crate::postgres) fn forget(mirror: &str, relid: pg_sys::Oid, key: &[u8]) {
    forget_text(mirror, relid, &encoding::text_of_key(key));
}

fn forget_text(mirror: &str, relid: pg_sys::Oid, key: &str) {
    query::run(
        "DELETE FROM dbmazz.rejected_row
         WHERE mirror = $1 AND relid = $2 AND pg_catalog.hashtext(key) = pg_catalog.hashtext($3) AND key = $3",
        &[mirror.into(), relid.into(), key.into()],
    );
}

/// Forgets all rows of a table; returns how many there were. Any process.
pub(in crate::postgres) fn clear(mirror: &str, relid: pg_sys::Oid) -> usize {
    query::run(
        "UPDATE dbmazz.mirror_table SET unrecorded = 0 WHERE mirror = $1 AND relid = $2 AND unrecorded > 0",
        &[mirror.into(), relid.into()],
    );
    query::run(
        "DELETE FROM dbmazz.rejected_row WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into()],
    )
}

/// Whether there are rows of a table. Any process.
pub(in crate::postgres) fn exist(mirror: &str, relid: pg_sys::Oid) -> bool {
    query::exists(
        "SELECT FROM dbmazz.rejected_row WHERE mirror = $1 AND relid = $2 AND NOT skipped LIMIT 1",
        &[mirror.into(), relid.into()],
    )
}

/// Forgets what was refused of a table before a position, or by its copy. Workers.
pub(in crate::postgres) fn clear_before(mirror: &str, relid: pg_sys::Oid, end: Lsn) {
    query::run(
        "UPDATE dbmazz.mirror_table SET unrecorded = 0 WHERE mirror = $1 AND relid = $2 AND unrecorded > 0",
        &[mirror.into(), relid.into()],
    );
    query::run(
        "DELETE FROM dbmazz.rejected_row WHERE mirror = $1 AND relid = $2 AND (lsn IS NULL OR lsn < $3)",
        &[mirror.into(), relid.into(), LsnDatum(end).into()],
    );
}

/// Counts rows that were refused and are not written down. Workers.
pub(in crate::postgres) fn count_unrecorded(mirror: &str, relid: pg_sys::Oid, rows: u64) {
    query::run(
        "UPDATE dbmazz.mirror_table SET unrecorded = unrecorded + $3 WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into(), rows.cast_signed().into()],
    );
}

/// A row that is written down.
pub(in crate::postgres) struct Kept {
    /// Its table.
    pub(in crate::postgres) relid: u32,
    /// Its key, as it begins a line.
    pub(in crate::postgres) key: Option<Box<[u8]>>,
    /// The commit that brought it.
    pub(in crate::postgres) lsn: Lsn,
}

/// The keys of all rows that are written down. Workers.
pub(in crate::postgres) fn kept(mirror: &str) -> Vec<Kept> {
    query::rows(
        "SELECT relid, key, lsn FROM dbmazz.rejected_row WHERE mirror = $1",
        &[mirror.into()],
        |row| Kept {
            relid: row.must::<pg_sys::Oid>(1).to_u32(),
            key: row.get::<String>(2).and_then(|text| encoding::key_of_text(&text)),
            lsn: row.get::<LsnDatum>(3).map_or(Lsn::INVALID, |lsn| lsn.0),
        },
    )
}

/// How many rows of a table are written down, as of now, whatever the transaction's snapshot (unless it has written).
pub(in crate::postgres) fn count(mirror: &str, relid: pg_sys::Oid) -> i64 {
    query::latest_row(
        "SELECT count(*) FROM dbmazz.rejected_row WHERE mirror = $1 AND relid = $2 AND NOT skipped",
        &[mirror.into(), relid.into()],
        |row| row.must(1),
    )
    .unwrap_or_default()
}

/// Shows the rows of a table no more; returns how many there were. Backends.
pub(in crate::postgres) fn skip(mirror: &str, relid: pg_sys::Oid) -> i64 {
    let unrecorded = query::run_returning(
        "UPDATE dbmazz.mirror_table t SET unrecorded = 0
         FROM (SELECT unrecorded FROM dbmazz.mirror_table WHERE mirror = $1 AND relid = $2 FOR UPDATE) earlier
         WHERE mirror = $1 AND relid = $2 RETURNING earlier.unrecorded",
        &[mirror.into(), relid.into()],
        |row| row.must::<i64>(1),
    );
    let without_key = query::run(
        "DELETE FROM dbmazz.rejected_row WHERE mirror = $1 AND relid = $2 AND key IS NULL AND NOT skipped",
        &[mirror.into(), relid.into()],
    );
    let with_key = query::run(
        "UPDATE dbmazz.rejected_row SET skipped = true, reason = '', \"row\" = NULL
         WHERE mirror = $1 AND relid = $2 AND NOT skipped",
        &[mirror.into(), relid.into()],
    );
    let rows = i64::try_from(without_key + with_key).unwrap_or(i64::MAX);
    rows.saturating_add(unrecorded.unwrap_or_default())
}
