//! The tables that an import fills, as they are: what it goes on with must be what it has begun with.
//!
//! A table that was created, and every table that rows go into, is written down by its OID; the latter with its file too, which is
//! another one after TRUNCATE. Rows go into no other table of the name.

use std::collections::HashSet;

use pgrx::pg_sys;

use super::table::Place;
use crate::postgres::catalog::query;

/// What to do when the import cannot go on.
pub(super) const START_OVER: &str = "To start over, call dbmazz_import with the option {\"restart\": true}, and {\"truncate\": true} when the tables have rows.";

/// Tables with rows to come are written down, once. As the extension.
pub(super) fn note(id: i64) {
    query::run(
        "UPDATE dbmazz.import_step s SET relid = c.oid,
             filenode = coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)
         FROM pg_catalog.pg_class c
         WHERE s.import_id = $1 AND s.kind = 'c' AND s.relid IS NULL
           AND c.oid = pg_catalog.to_regclass(s.relation)",
        &[id.into()],
    );
}

/// A table that is no longer the one that was written down, and what has become of it. As the extension.
pub(super) fn changed(id: i64) -> Option<String> {
    query::row(
        "SELECT s.relation || CASE
             WHEN pg_catalog.to_regclass(s.relation) IS NULL THEN ' does not exist any more'
             WHEN pg_catalog.to_regclass(s.relation) <> s.relid THEN ' is another table by now'
             ELSE ' was truncated or rewritten' END
         FROM (SELECT DISTINCT relation, relid, filenode FROM dbmazz.import_step
               WHERE import_id = $1 AND relid IS NOT NULL) s
         WHERE NOT EXISTS (
             SELECT FROM pg_catalog.pg_class c
             WHERE c.oid = s.relid AND c.oid = pg_catalog.to_regclass(s.relation)
               AND coalesce(pg_catalog.pg_relation_filenode(c.oid), 0) = coalesce(
                   s.filenode, pg_catalog.pg_relation_filenode(c.oid), 0))
         ORDER BY 1 LIMIT 1",
        &[id.into()],
        |row| row.must(1),
    )
}

/// Tables, qualified and quoted, that imports have created which are not done: they are not as the export has them yet. As
/// the extension.
pub(super) fn unfinished() -> HashSet<String> {
    let names = query::rows(
        "SELECT s.relation FROM dbmazz.import_step s JOIN dbmazz.import i USING (import_id)
         WHERE s.kind = 't' AND s.relid = pg_catalog.to_regclass(s.relation) AND i.state <> 'done'",
        &[],
        |row| row.must(1),
    );
    names.into_iter().collect()
}

/// The tables of an import are as they are to be: no unfinished one has anything to add to them. As the extension.
pub(super) fn finish(id: i64) {
    query::run(
        "UPDATE dbmazz.import_step SET relid = NULL
         WHERE kind = 't' AND import_id <> $1
           AND relid IN (SELECT relid FROM dbmazz.import_step WHERE import_id = $1 AND kind = 'c')",
        &[id.into()],
    );
}

/// A relation as it is now.
pub(super) fn of(relid: pg_sys::Oid) -> Option<Place> {
    query::row(
        "SELECT c.oid, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0) FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[relid.into()],
        |row| Place { relid: row.must(1), filenode: row.must(2) },
    )
}
