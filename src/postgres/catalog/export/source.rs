//! What the database that is exported says of itself: its relations, columns, sequences and server.

use pgrx::pg_sys;

use super::super::query::{self, Row};
use super::table::{ExportTable, Kind};
use crate::export::manifest::{Column, Sequence};

/// Relations that a whole database consists of: ordinary tables, partitions and filled materialized views; none of the
/// system's, none of an extension.
pub(in crate::postgres) fn whole_database() -> Vec<ExportTable> {
    query::rows(
        "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence <> 't'
             AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
         ORDER BY n.nspname, c.relname",
        &[],
        named,
    )
}

/// A relation by its number, and its leaves if it is partitioned; with `relkind` and `relpersistence` of each.
pub(in crate::postgres) fn leaves(relid: pg_sys::Oid) -> Vec<(ExportTable, i8, i8)> {
    query::rows(
        "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind, c.relpersistence
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1 AND c.relkind <> 'p'
             OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree($1) t WHERE t.isleaf) AND c.relkind <> 'p'
         ORDER BY n.nspname, c.relname",
        &[relid.into()],
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

/// The tables above a partition, which have to be dumped with it. Their names.
pub(in crate::postgres) fn ancestors(relid: pg_sys::Oid) -> Vec<(String, String)> {
    query::rows(
        "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
         FROM pg_catalog.pg_partition_ancestors($1) a JOIN pg_catalog.pg_class c ON c.oid = a.relid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid <> $1",
        &[relid.into()],
        |row| (row.must(1), row.must(2)),
    )
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

/// The sequences of the whole database, or those that columns of an export's tables own.
pub(in crate::postgres) fn sequences(id: i64, whole: bool) -> Vec<Sequence> {
    let names: Vec<(String, String)> = query::rows(
        "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'S' AND c.relpersistence <> 't'
             AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
             AND ($2 OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
                     AND (d.refobjid IN (SELECT t.relid FROM dbmazz.export_table t WHERE t.export_id = $1)
                         OR EXISTS (SELECT FROM dbmazz.export_table t,
                                LATERAL pg_catalog.pg_partition_ancestors(t.relid) a
                            WHERE t.export_id = $1 AND a.relid = d.refobjid))))
         ORDER BY n.nspname, c.relname",
        &[id.into(), whole.into()],
        |row| (row.must(1), row.must(2)),
    );
    let read = |(schema, name): (String, String)| {
        let from = pgrx::spi::quote_qualified_identifier(&schema, &name);
        query::row(&format!("SELECT last_value, is_called FROM {from}"), &[], |row| Sequence {
            schema: schema.clone(),
            name: name.clone(),
            last_value: row.must(1),
            is_called: row.must(2),
        })
    };
    names.into_iter().filter_map(read).collect()
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
