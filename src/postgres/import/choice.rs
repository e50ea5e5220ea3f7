//! Which tables of an export are to be imported, by the names that they were asked for.
//!
//! The manifest has tables with rows only: a partitioned table is known by the script, and stands for all of its partitions.

use std::collections::HashSet;

use pgrx::prelude::*;

use super::attempt::{refuse, refuse_with};
use super::plan::{name_of, quoted};
use super::script::{Name, Statement, What};
use crate::export::manifest::{Manifest, Table};

/// The tables that were asked for.
pub(super) struct Choice<'a> {
    /// Each once.
    pub(super) tables: Vec<&'a Table>,
    /// Partitioned tables that were asked for, and those below them.
    pub(super) partitioned: HashSet<Name>,
}

impl<'a> Choice<'a> {
    /// All tables of the export.
    pub(super) fn all(manifest: &'a Manifest) -> Self {
        Self { tables: manifest.tables.iter().collect(), partitioned: HashSet::new() }
    }

    /// Tables by `schema.name`, or by a name that only one has. Raises an error about one that is not there.
    pub(super) fn of(manifest: &'a Manifest, names: &[String], before: &[Statement]) -> Self {
        let mut choice = Self { tables: vec![], partitioned: HashSet::new() };
        for name in names {
            let found: Vec<Name> = known(manifest, before).collect();
            let found: Vec<&Name> = found.iter().filter(|it| is_called(it, name)).collect();
            match found.as_slice() {
                [found] => choice.take(manifest, before, found),
                [] => {
                    let hint = "The file manifest.json has all tables of the export.";
                    let message = format!("table \"{name}\" is not part of the export");
                    refuse_with(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, message, "", hint)
                }
                _ => refuse(
                    PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
                    format!("table name \"{name}\" is ambiguous in the export; it must be qualified"),
                ),
            }
        }
        let mut known = HashSet::new();
        choice.tables.retain(|table| known.insert(table.oid));
        choice
    }

    fn take(&mut self, manifest: &'a Manifest, before: &[Statement], name: &Name) {
        if let Some(table) = manifest.tables.iter().find(|table| name_of(table) == *name) {
            self.tables.push(table);
            return;
        }
        if !self.partitioned.insert(name.clone()) {
            return;
        }
        for statement in before {
            if let What::Attach(part) = &statement.what
                && statement.about.as_ref() == Some(name)
            {
                self.take(manifest, before, part);
            }
        }
    }
}

/// Tables of the manifest, and those of the script that have no rows of their own.
fn known(manifest: &Manifest, before: &[Statement]) -> impl Iterator<Item = Name> {
    let with_rows = manifest.tables.iter().map(name_of);
    let created = before.iter().filter(|statement| statement.what == What::Table);
    let all: HashSet<Name> =
        with_rows.chain(created.filter_map(|statement| statement.about.clone())).collect();
    all.into_iter()
}

/// Whether a table is meant by `name`, with its schema or without.
pub(super) fn is_called(table: &Name, name: &str) -> bool {
    *name == table.1 || *name == format!("{}.{}", table.0, table.1) || *name == quoted(table)
}
