//! What the database that is exported says of itself: its relations, columns, sequences and server.

use pgrx::pg_sys;

use super::super::query::{self, Row};
use super::table::{ExportTable, Kind};
use crate::export::manifest::{Column, Sequence};

/// Relations that a whole database consists of, as the active snapshot sees it: ordinary tables, partitions and filled
/// materialized views; none of the system's, none of an extension.
pub(in crate::postgres) fn whole_database() -> Vec<pg_sys::Oid> {
    query::select(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence <> 't'
             AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')",
        &[],
        |row| row.must(1),
    )
}

/// A relation that is named, and what is below it if it is partitioned, as the active snapshot sees it: the server's own
/// functions look at the catalogs as they are by now.
const TREE: &str = "WITH RECURSIVE tree (relid) AS (
         SELECT pg_catalog.unnest($1)
         UNION
         SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_class p ON p.oid = tree.relid AND p.relkind = 'p'
             JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid AND NOT i.inhdetachpending)";

/// These relations, and in the place of a partitioned one its leaves, as the active snapshot sees them.
pub(in crate::postgres) fn leaves(named: &[pg_sys::Oid]) -> Vec<pg_sys::Oid> {
    query::select(
        &format!(
            "{TREE} SELECT c.oid FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relid WHERE c.relkind <> 'p'"
        ),
        &[named.to_vec().into()],
        |row| row.must(1),
    )
}

/// Number, schema and name of these relations and of all that have to be defined with them: of a partitioned one what is
/// below it, of a partition what is above it. As the active snapshot sees them.
pub(in crate::postgres) fn families(named: &[pg_sys::Oid]) -> Vec<(pg_sys::Oid, (String, String))> {
    query::select(
        &format!(
            "{TREE}, up (relid) AS (
                 SELECT relid FROM tree
                 UNION
                 SELECT i.inhparent FROM up JOIN pg_catalog.pg_class p ON p.oid = up.relid AND p.relispartition
                     JOIN pg_catalog.pg_inherits i ON i.inhrelid = p.oid)
             SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
             FROM up JOIN pg_catalog.pg_class c ON c.oid = up.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             ORDER BY n.nspname, c.relname"
        ),
        &[named.to_vec().into()],
        |row| (row.must(1), (row.must(2), row.must(3))),
    )
}

/// What the active snapshot sees of these relations, in the order of their names; with `relkind` and `relpersistence`.
pub(in crate::postgres) fn relations(relids: &[pg_sys::Oid]) -> Vec<(ExportTable, i8, i8)> {
    query::select(
        "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind, c.relpersistence
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = ANY ($1) ORDER BY n.nspname, c.relname",
        &[relids.to_vec().into()],
        |row| (named(row), row.must(4), row.must(5)),
    )
}

fn named(row: &Row<'_>) -> ExportTable {
    let is_view = row.must::<i8>(4) == b'm'.cast_signed();
    ExportTable {
        relid: row.must(1),
        schema: row.must(2),
        name: row.must(3),
        kind: if is_view { Kind::MaterializedView } else { Kind::Table },
        columns: Vec::new(),
        attnums: Vec::new(),
        relfilenode: None,
    }
}

/// A column whose values have no binary form: its own type has no send function, or one has none that is part of it.
pub(in crate::postgres) struct Unsendable {
    pub(in crate::postgres) schema: String,
    pub(in crate::postgres) table: String,
    pub(in crate::postgres) column: String,
    /// The type without such a function.
    pub(in crate::postgres) type_name: String,
}

/// The first such column of these relations.
pub(in crate::postgres) fn unsendable(relids: &[pg_sys::Oid]) -> Option<Unsendable> {
    let found = query::select(
        "WITH RECURSIVE part (relid, attnum, type) AS (
             SELECT a.attrelid, a.attnum, a.atttypid FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
             UNION
             SELECT p.relid, p.attnum, x.type FROM part p JOIN pg_catalog.pg_type t ON t.oid = p.type, LATERAL (
                 SELECT t.typbasetype WHERE t.typtype = 'd'
                 UNION ALL
                 SELECT t.typelem WHERE t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc AND t.typelem <> 0
                 UNION ALL
                 SELECT a.atttypid FROM pg_catalog.pg_attribute a
                 WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                 UNION ALL
                 SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) x (type))
         SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, a.attname::pg_catalog.text,
             pg_catalog.format_type(t.oid, NULL)
         FROM part p JOIN pg_catalog.pg_type t ON t.oid = p.type AND t.typsend = 0
             JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_attribute a ON a.attrelid = p.relid AND a.attnum = p.attnum
         ORDER BY n.nspname, c.relname, a.attnum LIMIT 1",
        &[relids.to_vec().into()],
        |row| Unsendable {
            schema: row.must(1),
            table: row.must(2),
            column: row.must(3),
            type_name: row.must(4),
        },
    );
    found.into_iter().next()
}

/// The first name in UTF-8 that has other characters than ASCII, of what an export of these relations has names of; of
/// the sequences too if it is of the whole database.
pub(in crate::postgres) fn name_beyond_ascii(relids: &[pg_sys::Oid], whole: bool) -> Option<String> {
    let found = query::select(
        "SELECT pg_catalog.convert_to(x.name, 'UTF8')
         FROM (SELECT pg_catalog.current_database()::pg_catalog.text
             UNION ALL
             SELECT u.name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
                 LATERAL (VALUES (n.nspname::pg_catalog.text), (c.relname::pg_catalog.text)) u (name)
             WHERE c.oid = ANY ($1) OR $2 AND c.relkind = 'S'
             UNION ALL
             SELECT u.name FROM pg_catalog.pg_attribute a, LATERAL (VALUES
                 (a.attname::pg_catalog.text), (pg_catalog.format_type(a.atttypid, NULL))) u (name)
             WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped) x (name)
         WHERE pg_catalog.octet_length(pg_catalog.convert_to(x.name, 'UTF8')) <> pg_catalog.length(x.name) LIMIT 1",
        &[relids.to_vec().into(), whole.into()],
        |row| row.must::<Vec<u8>>(1),
    );
    found.into_iter().next().map(|name| String::from_utf8_lossy(&name).into_owned())
}

/// Whether the database has large objects.
pub(in crate::postgres) fn has_large_objects() -> bool {
    query::exists("SELECT FROM pg_catalog.pg_largeobject_metadata LIMIT 1", &[])
}

/// A relation as the active snapshot sees its definition: the file, and the columns that COPY reads and writes.
pub(in crate::postgres) fn describe(
    relid: pg_sys::Oid,
    is_external: impl Fn(pg_sys::Oid) -> bool,
) -> Option<(pg_sys::Oid, Vec<(i16, Column)>)> {
    let relfilenode =
        query::select("SELECT relfilenode FROM pg_catalog.pg_class WHERE oid = $1", &[relid.into()], |row| {
            row.get::<pg_sys::Oid>(1)
        });
    let columns = query::select(
        "SELECT a.attnum, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod),
             coalesce(nullif(t.typbasetype, 0), t.oid)
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         ORDER BY a.attnum",
        &[relid.into()],
        |row| {
            let external = is_external(row.must(4));
            (row.must(1), Column { name: row.must(2), type_name: row.must(3), external })
        },
    );
    Some((relfilenode.into_iter().next()??, columns))
}

/// What ANALYZE or VACUUM knows of the rows of a relation; negative for nothing.
pub(in crate::postgres) fn reltuples(relid: pg_sys::Oid) -> (f32, i32) {
    query::row("SELECT reltuples, relpages FROM pg_catalog.pg_class WHERE oid = $1", &[relid.into()], |row| {
        (row.must(1), row.must(2))
    })
    .unwrap_or((-1.0, 0))
}

/// A sequence as the active snapshot sees it.
pub(in crate::postgres) struct SequenceName {
    relid: pg_sys::Oid,
    schema: String,
    name: String,
}

/// The sequences of the whole database, or those that columns of these relations own.
pub(in crate::postgres) fn sequences(of: Option<&[pg_sys::Oid]>) -> Vec<SequenceName> {
    query::select(
        "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'S' AND c.relpersistence <> 't'
             AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
             AND ($1 IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
                     AND d.refobjid = ANY ($1)))
         ORDER BY n.nspname, c.relname",
        &[of.map(<[pg_sys::Oid]>::to_vec).into()],
        |row| SequenceName { relid: row.must(1), schema: row.must(2), name: row.must(3) },
    )
}

/// Where a sequence stands by now, whatever it is called by now; none when it has been dropped.
pub(in crate::postgres) fn standing(sequence: SequenceName) -> Option<Sequence> {
    let relid = sequence.relid;
    let from = query::row(
        "SELECT oid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_class WHERE oid = $1",
        &[relid.into()],
        |row| row.must::<String>(1),
    )?;
    let SequenceName { schema, name, .. } = sequence;
    let read = |row: &Row<'_>| (row.must(1), row.must(2));
    let (last_value, is_called) =
        query::row(&format!("SELECT last_value, is_called FROM {from}"), &[], read)?;
    Some(Sequence { schema, name, last_value, is_called })
}

/// For the manifest: `server_version`, `server_version_num`, and now.
pub(in crate::postgres) fn server_facts() -> (String, i32, String) {
    query::row(
        "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int4,
             pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        &[],
        |row| (row.must(1), row.must(2), row.must(3)),
    )
    .unwrap_or_default()
}
