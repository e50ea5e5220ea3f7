//! Databases, tables and columns: what DDL made and loads are planned against.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::typing::ColumnType;

/// Where a column's value comes from when a load does not bring one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum DefaultValue {
    Literal(String),
    CurrentTimestamp,
}

/// A column of a table.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) ty: ColumnType,
    pub(crate) is_nullable: bool,
    pub(crate) default: Option<DefaultValue>,
    pub(crate) comment: String,
    /// Its number in the SQLite table, which renaming and moving do not change.
    pub(crate) storage_id: u32,
}

/// A Primary Key table. The first `key_columns` columns are its key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Table {
    /// Unique in the cluster, never used again.
    pub(crate) id: u64,
    pub(crate) database: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) key_columns: usize,
    pub(crate) distribution: Vec<String>,
    pub(crate) comment: String,
    pub(crate) properties: BTreeMap<String, String>,
    /// Changed by TRUNCATE: loads that began before it write into tablets that are gone.
    pub(crate) generation: u64,
    /// Names that RENAME COLUMN gave up; no new column may take them.
    pub(crate) retired_names: Vec<String>,
    pub(crate) next_storage_id: u32,
}

impl Table {
    /// `database.table`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }

    /// A column's position by its name, which has no case.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| same_name(&column.name, name))
    }

    /// The key.
    pub(crate) fn keys(&self) -> &[Column] {
        self.columns.get(..self.key_columns).unwrap_or_default()
    }

    /// Whether ADD and DROP COLUMN are done when they return.
    pub(crate) fn has_fast_schema_evolution(&self) -> bool {
        self.properties.get("fast_schema_evolution").is_none_or(|value| value != "false")
    }

    /// The SQLite table with the rows.
    pub(crate) fn storage_name(&self) -> String {
        format!("t{}", self.id)
    }

    /// The SQLite view that gives the columns their names and their order.
    pub(crate) fn view_name(&self) -> String {
        format!("v{}", self.id)
    }
}

/// Column names are compared without case.
pub(crate) fn same_name(left: &str, right: &str) -> bool {
    left.to_lowercase() == right.to_lowercase()
}

/// A schema change that was asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct AlterJob {
    pub(crate) id: u64,
    pub(crate) database: String,
    pub(crate) table: String,
    pub(crate) created_at: String,
    pub(crate) finished_at: Option<String>,
    /// Why it came to nothing.
    pub(crate) failure: Option<String>,
    /// Loads with smaller ids must end first.
    pub(crate) transaction_id: i64,
}

/// All databases.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Catalog {
    pub(crate) databases: BTreeMap<String, BTreeMap<String, Table>>,
    pub(crate) jobs: Vec<AlterJob>,
    next_id: u64,
}

impl Catalog {
    /// A number that no table and no job has had.
    pub(crate) fn draw_id(&mut self) -> u64 {
        self.next_id += 1;
        10_000 + self.next_id
    }

    /// A table by its exact name.
    pub(crate) fn table(&self, database: &str, table: &str) -> Option<&Table> {
        self.databases.get(database)?.get(table)
    }

    /// The same, to change it.
    pub(crate) fn table_mut(&mut self, database: &str, table: &str) -> Option<&mut Table> {
        self.databases.get_mut(database)?.get_mut(table)
    }
}
