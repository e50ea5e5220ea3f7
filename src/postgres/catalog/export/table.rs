//! `dbmazz.export_table`: the relations of an export, and their plans.

use pgrx::pg_sys;

use super::super::query;
use super::chunk::ChunkPlan;
use super::{json, parsed};
use crate::export::manifest::Column;

/// A row of `dbmazz.export_table`.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct ExportTable {
    /// The relation.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// Its schema.
    pub(in crate::postgres) schema: String,
    /// Its name.
    pub(in crate::postgres) name: String,
    /// `r`, `m`, `o`, `p`.
    pub(in crate::postgres) kind: Kind,
    /// Columns of the chunks.
    pub(in crate::postgres) columns: Vec<Column>,
    /// Their numbers.
    pub(in crate::postgres) attnums: Vec<i16>,
    /// The file that its blocks are counted in; none before it is planned.
    pub(in crate::postgres) relfilenode: Option<pg_sys::Oid>,
}

/// What the rows of a relation are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Kind {
    /// A table.
    Table,
    /// A materialized view.
    MaterializedView,
    /// The list of large objects.
    LargeObjects,
    /// Their pages.
    LargeObjectPages,
}

impl Kind {
    const LETTERS: [(Self, i8); 4] = [
        (Self::Table, b'r'.cast_signed()),
        (Self::MaterializedView, b'm'.cast_signed()),
        (Self::LargeObjects, b'o'.cast_signed()),
        (Self::LargeObjectPages, b'p'.cast_signed()),
    ];

    /// The letter in the catalog.
    pub(in crate::postgres) fn letter(self) -> i8 {
        Self::LETTERS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, letter)| *letter)
    }

    fn of(letter: i8) -> Self {
        Self::LETTERS.iter().find(|(_, it)| *it == letter).map_or(Self::Table, |(kind, _)| *kind)
    }

    /// Whether it belongs to large objects, which know neither CSV nor blobs.
    pub(in crate::postgres) const fn is_of_large_objects(self) -> bool {
        matches!(self, Self::LargeObjects | Self::LargeObjectPages)
    }
}

/// Writes down which relations an export has, in the place of an older list.
pub(in crate::postgres) fn write_tables(id: i64, tables: &[ExportTable]) {
    query::run("DELETE FROM dbmazz.export_table WHERE export_id = $1", &[id.into()]);
    for table in tables {
        insert_table(id, table);
    }
}

fn insert_table(id: i64, table: &ExportTable) {
    query::run(
        "INSERT INTO dbmazz.export_table (export_id, relid, schema_name, table_name, kind)
         VALUES ($1, $2, $3, $4, $5)",
        &[
            id.into(),
            table.relid.into(),
            table.schema.as_str().into(),
            table.name.as_str().into(),
            table.kind.letter().into(),
        ],
    );
}

/// The relations of an export, in the order of their names.
pub(in crate::postgres) fn tables(id: i64) -> Vec<ExportTable> {
    query::rows(
        "SELECT relid, schema_name, table_name, kind, columns, attnums, relfilenode FROM dbmazz.export_table
         WHERE export_id = $1 ORDER BY schema_name COLLATE \"C\", table_name COLLATE \"C\"",
        &[id.into()],
        |row| ExportTable {
            relid: row.must(1),
            schema: row.must(2),
            name: row.must(3),
            kind: Kind::of(row.must(4)),
            columns: parsed(row, 5).unwrap_or_default(),
            attnums: row.get::<Vec<Option<i16>>>(6).unwrap_or_default().into_iter().flatten().collect(),
            relfilenode: row.get(7),
        },
    )
}

/// Writes the plan of a relation, in the place of an older one.
pub(in crate::postgres) fn write_plan(id: i64, table: &ExportTable, chunks: &[ChunkPlan]) {
    query::run(
        "UPDATE dbmazz.export_table SET columns = $3, attnums = $4, relfilenode = $5
         WHERE export_id = $1 AND relid = $2",
        &[
            id.into(),
            table.relid.into(),
            json(&table.columns).into(),
            table.attnums.clone().into(),
            table.relfilenode.into(),
        ],
    );
    query::run(
        "DELETE FROM dbmazz.export_chunk WHERE export_id = $1 AND relid = $2",
        &[id.into(), table.relid.into()],
    );
    for chunk in chunks {
        query::run(
            "INSERT INTO dbmazz.export_chunk (export_id, relid, chunk, first_block, end_block, plan_bytes)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                id.into(),
                chunk.relid.into(),
                chunk.chunk.into(),
                i64::from(chunk.first_block).into(),
                chunk.end_block.map(i64::from).into(),
                chunk.plan_bytes.cast_signed().into(),
            ],
        );
    }
}
