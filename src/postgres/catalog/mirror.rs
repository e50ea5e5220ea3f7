//! `dbmazz.mirror`: which mirrors this database has and what is wanted of them.

use std::num::NonZeroUsize;

use pgrx::datum::FromDatum as _;
use pgrx::pg_sys;
use serde_json::Value;

use super::query::{self, Row};
use crate::lsn::Lsn;
use crate::postgres::encoding::own_text;
use crate::postgres::lsn_datum::LsnDatum;
use crate::postgres::session;
use crate::postgres::shmem::MirrorState;

/// A row of the table.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct MirrorRow {
    /// Name of the foreign server that the rows go to.
    pub(in crate::postgres) server: String,
    /// Role whose user mapping is used.
    pub(in crate::postgres) owner: pg_sys::Oid,
    /// Publication that is followed; none for an own list of tables.
    pub(in crate::postgres) publication: Option<String>,
    /// Whether the rows that are there already are copied.
    pub(in crate::postgres) copy_rows: bool,
    /// What the mirror sets on top of the defaults, as [`crate::options::Options::merged`] takes it.
    pub(in crate::postgres) options: Value,
    /// Whether it is meant to have a worker.
    pub(in crate::postgres) enabled: bool,
    /// Where the slot begins, while the first copy is not done.
    pub(in crate::postgres) copy_lsn: Option<Lsn>,
}

/// What `dbmazz_start_mirror` writes down.
pub(in crate::postgres) struct NewMirror<'a> {
    /// Its name.
    pub(in crate::postgres) mirror: &'a str,
    /// Name of the foreign server.
    pub(in crate::postgres) server: &'a str,
    /// Role whose user mapping is used.
    pub(in crate::postgres) owner: pg_sys::Oid,
    /// Publication, if any.
    pub(in crate::postgres) publication: Option<&'a str>,
    /// Whether the rows that are there already are copied.
    pub(in crate::postgres) copy_rows: bool,
    /// Whether it is for all tables of the database.
    pub(in crate::postgres) all_tables: bool,
    /// Options of the mirror.
    pub(in crate::postgres) options: &'a Value,
}

const COLUMNS: &str = "server, owner, publication, copy_rows, options::text, enabled, copy_lsn";

/// A mirror by name. Any process.
pub(in crate::postgres) fn read(mirror: &str) -> Option<MirrorRow> {
    let sql = format!("SELECT {COLUMNS} FROM dbmazz.mirror WHERE mirror = $1");
    query::row(&sql, &[mirror.into()], from_row)
}

/// A mirror by name, locked until the end of the transaction against everyone else who wants to change it, but not
/// against the worker's rows that refer to it. Backends.
pub(in crate::postgres) fn lock(mirror: &str) -> Option<MirrorRow> {
    let sql = format!("SELECT {COLUMNS} FROM dbmazz.mirror WHERE mirror = $1 FOR NO KEY UPDATE");
    query::run_returning(&sql, &[mirror.into()], from_row)
}

/// A mirror by name, locked until the end of the transaction against everyone, workers that write several rows included: it is
/// about to be deleted. The weaker lock would let in a worker that wants to change the row later, and that the deletion waits for.
pub(in crate::postgres) fn lock_to_delete(mirror: &str) -> Option<MirrorRow> {
    let sql = format!("SELECT {COLUMNS} FROM dbmazz.mirror WHERE mirror = $1 FOR UPDATE");
    query::run_returning(&sql, &[mirror.into()], from_row)
}

/// The mirrors of all tables of the database. Backends.
pub(in crate::postgres) fn of_all_tables() -> Vec<(String, MirrorRow)> {
    let sql = format!("SELECT {COLUMNS}, mirror FROM dbmazz.mirror WHERE all_tables ORDER BY mirror");
    query::rows(&sql, &[], |row| (row.must(8), from_row(row)))
}

/// Names of the mirrors that are meant to have a worker. Any process.
pub(in crate::postgres) fn enabled_mirrors() -> Vec<String> {
    query::rows("SELECT mirror FROM dbmazz.mirror WHERE enabled ORDER BY mirror", &[], |row| row.must(1))
}

/// All mirrors with their options, whether or not they are meant to run. Any process.
pub(in crate::postgres) fn all_options() -> Vec<(String, Value)> {
    query::rows("SELECT mirror, options::pg_catalog.text FROM dbmazz.mirror ORDER BY mirror", &[], |row| {
        (row.must(1), serde_json::from_str(&row.must::<String>(2)).unwrap_or(Value::Null))
    })
}

/// Writes down a new mirror; says no when somebody else has just done so. Backends.
pub(in crate::postgres) fn insert(new: &NewMirror<'_>) -> bool {
    query::run(
        "INSERT INTO dbmazz.mirror (mirror, server, owner, publication, copy_rows, all_tables, options)
         VALUES ($1, $2, $3, $4, $5, $6, $7::pg_catalog.jsonb) ON CONFLICT DO NOTHING",
        &[
            new.mirror.into(),
            new.server.into(),
            new.owner.into(),
            new.publication.into(),
            new.copy_rows.into(),
            new.all_tables.into(),
            new.options.to_string().into(),
        ],
    ) == 1
}

/// Removes a mirror and all that is known of it, except its events. Backends.
pub(in crate::postgres) fn delete(mirror: &str) {
    query::run("DELETE FROM dbmazz.mirror WHERE mirror = $1", &[mirror.into()]);
}

/// Writes down that no worker is wanted any more. Backends.
pub(in crate::postgres) fn pause(mirror: &str) {
    query::run(
        "UPDATE dbmazz.mirror SET enabled = false, state = 'paused' WHERE mirror = $1",
        &[mirror.into()],
    );
}

/// Writes down that a worker is wanted and that what went wrong is mended. Backends.
pub(in crate::postgres) fn resume(mirror: &str) {
    query::run(
        "UPDATE dbmazz.mirror SET enabled = true, state = 'starting', last_error = NULL, last_error_at = NULL
         WHERE mirror = $1",
        &[mirror.into()],
    );
}

/// Writes down that the first copy has begun, and where its slot begins; or that there is none. Mirror worker.
pub(in crate::postgres) fn write_copy_lsn(mirror: &str, lsn: Option<Lsn>) {
    query::run(
        "UPDATE dbmazz.mirror SET copy_lsn = $2 WHERE mirror = $1",
        &[mirror.into(), lsn.map(LsnDatum).into()],
    );
}

/// Runs `body` in a transaction that writes more than one row about a mirror. Whoever drops the mirror locks its row first and
/// then those; this does the same, so that they never wait for each other. For the same reason `body` writes the mirror's own
/// row, if it does, before all others. Workers.
pub(in crate::postgres) fn transaction<T>(mirror: &str, body: impl FnOnce() -> T) -> T {
    session::transaction(|| {
        query::run("SELECT FROM dbmazz.mirror WHERE mirror = $1 FOR KEY SHARE", &[mirror.into()]);
        body()
    })
}

/// Likewise, with the mirror's row locked as by [`lock`]. None, and nothing was run, when somebody else has it locked, or when
/// the mirror is gone. Workers.
pub(in crate::postgres) fn transaction_alone<T>(mirror: &str, body: impl FnOnce() -> T) -> Option<T> {
    let sql = "SELECT FROM dbmazz.mirror WHERE mirror = $1 FOR NO KEY UPDATE SKIP LOCKED";
    session::transaction(|| (query::run(sql, &[mirror.into()]) == 1).then(body))
}

/// Writes down the state of a mirror. With an error the time is noted, too; without one the last error stays. Worker.
pub(in crate::postgres) fn write_state(mirror: &str, state: MirrorState, error: Option<&str>) {
    query::run(
        "UPDATE dbmazz.mirror SET state = $2, last_error = coalesce($3, last_error),
             last_error_at = CASE WHEN $3 IS NULL THEN last_error_at ELSE pg_catalog.clock_timestamp() END
         WHERE mirror = $1",
        &[mirror.into(), state.as_str().into(), error.map(own_text).as_deref().into()],
    );
}

/// Names of all mirrors, as of now, while the table of them is about to be dropped. Its index and its TOAST table may be
/// gone by then, so no statement is planned: the heap is read, and a name is never long enough to leave it.
pub(in crate::postgres) fn names_before_drop(table: pg_sys::Oid) -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: the caller is inside a transaction that has the table locked against everybody else. Relation and scan
    // are closed here, and each tuple is read before the next one is asked for.
    unsafe {
        let attribute =
            NonZeroUsize::new(usize::try_from(pg_sys::get_attnum(table, c"mirror".as_ptr())).unwrap_or(0));
        let Some(attribute) = attribute else { return names };
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let (no_snapshot, no_keys) = (std::ptr::null_mut(), std::ptr::null_mut());
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, no_snapshot, 0, no_keys);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            names.extend(
                pgrx::htup::heap_getattr_raw(tuple, attribute, (*relation).rd_att)
                    .and_then(|name| String::from_datum(name, false)),
            );
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    names.sort_unstable();
    names
}

fn from_row(row: &Row<'_>) -> MirrorRow {
    MirrorRow {
        server: row.must(1),
        owner: row.must(2),
        publication: row.get(3),
        copy_rows: row.must(4),
        // The column is jsonb, so its text is JSON.
        options: serde_json::from_str(&row.must::<String>(5)).unwrap_or(Value::Null),
        enabled: row.must(6),
        copy_lsn: row.get::<LsnDatum>(7).map(|lsn| lsn.0),
    }
}
