//! Schema changes: at once where StarRocks does them at once, otherwise as a job that waits for open loads.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{AlterJob, Column, DefaultValue, Table, same_name};
use crate::ddl::{Alteration, ColumnSpec, Nullability, Place};
use crate::ddl_checks::checked_column;
use crate::faults::Kind;
use crate::modify::{convert_rows, is_allowed};
use crate::server::{Shared, now_text};
use crate::sql_error::SqlError;
use crate::storage::Store;

/// Runs the clauses of one ALTER TABLE.
pub(crate) fn alter(
    shared: &Arc<Shared>,
    database: &str,
    table: &str,
    changes: Vec<Alteration>,
) -> Result<(), SqlError> {
    let mut store = shared.storage.lock();
    if store.has_running_job(database, table) {
        return Err(SqlError::analyzing(format!(
            "A schema change operation is in progress on the table {table}"
        )));
    }
    let current = store.catalog.table(database, table).ok_or_else(|| SqlError::unknown_table(table))?;
    // The whole statement is tried on a copy: it happens completely or not at all.
    let draft = Draft::of(current, &changes)?;
    if changes.iter().all(|change| matches!(change, Alteration::Rename { .. })) {
        return store.install(&draft);
    }
    // Changing a type rewrites the rows, which is always a job.
    let is_at_once = draft.table.has_fast_schema_evolution() && draft.conversions.is_empty();
    let job = AlterJob {
        id: store.catalog.draw_id(),
        database: database.into(),
        table: table.into(),
        created_at: now_text(),
        finished_at: is_at_once.then(now_text),
        failure: None,
        transaction_id: shared.labels.next_id(),
    };
    store.catalog.jobs.push(job.clone());
    if is_at_once {
        return store.install(&draft);
    }
    let shared = Arc::clone(shared);
    std::thread::spawn(move || run_job(&shared, &job, &changes));
    Ok(())
}

/// Two tables take each other's names, at once. Loads that have begun keep their table.
pub(crate) fn swap(shared: &Shared, database: &str, one: &str, other: &str) -> Result<(), SqlError> {
    let mut store = shared.storage.lock();
    for name in [one, other] {
        store.catalog.table(database, name).ok_or_else(|| SqlError::unknown_table(name))?;
        if store.has_running_job(database, name) {
            let message =
                format!("Table[{name}]'s state(SCHEMA_CHANGE) is not NORMAL. Do not allow doing ALTER ops");
            return Err(SqlError::new(5014, message));
        }
    }
    store.atomically(|store| {
        let Some(tables) = store.catalog.databases.get_mut(database) else { return Ok(()) };
        if let (Some(mut first), Some(mut second)) = (tables.remove(one), tables.remove(other)) {
            first.name = other.to_owned();
            second.name = one.to_owned();
            tables.insert(first.name.clone(), first);
            tables.insert(second.name.clone(), second);
        }
        store.save_catalog()
    })?;
    Ok(())
}

/// Waits for the loads that began before the job, then changes the table.
fn run_job(shared: &Shared, job: &AlterJob, changes: &[Alteration]) {
    while shared.labels.open_loads(&job.database, &job.table, job.transaction_id) > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Some(fault) = shared.faults.strike(Kind::SlowAlter, &job.table) {
        std::thread::sleep(fault.delay(1000));
    }
    let mut store = shared.storage.lock();
    let current = store.catalog.table(&job.database, &job.table).cloned();
    let outcome = match current {
        Some(current) => Draft::of(&current, changes).and_then(|draft| store.install(&draft)),
        None => Err(SqlError::unknown_table(&job.table)),
    };
    if let Some(done) = store.catalog.jobs.iter_mut().find(|other| other.id == job.id) {
        done.finished_at = Some(now_text());
        done.failure = outcome.err().map(|error| error.message);
    }
}

/// A table as it will be.
struct Draft {
    table: Table,
    /// Columns that change their type, before and after.
    conversions: Vec<(Column, Column)>,
}

impl Draft {
    fn of(current: &Table, changes: &[Alteration]) -> Result<Self, SqlError> {
        let mut draft = Self { table: current.clone(), conversions: Vec::new() };
        for change in changes {
            match change {
                Alteration::Add { column, place } => add_column(&mut draft.table, column, place)?,
                Alteration::Drop(name) => drop_column(&mut draft.table, name)?,
                Alteration::Rename { from, to } => rename_column(&mut draft.table, from, to)?,
                Alteration::Modify(column) => draft.modify_column(column)?,
            }
        }
        Ok(draft)
    }

    fn modify_column(&mut self, spec: &ColumnSpec) -> Result<(), SqlError> {
        let position = position_of(&self.table, &spec.name)?;
        if position < self.table.key_columns {
            return Err(SqlError::analyzing(format!("Can not modify key column {}", spec.name)));
        }
        let storage_id = self.table.next_storage_id;
        let Some(place) = self.table.columns.get_mut(position) else { return Ok(()) };
        let nullability = spec.nullability.unwrap_or(Nullability::Null);
        if place.is_nullable && nullability == Nullability::NotNull {
            return Err(SqlError::analyzing(format!(
                "Can not change nullable column {} to NOT NULL",
                spec.name
            )));
        }
        if spec.default != place.default {
            return Err(SqlError::analyzing(format!("Can not change default value of column {}", spec.name)));
        }
        if !is_allowed(&place.ty, &spec.ty) {
            return Err(SqlError::analyzing(format!("Can not change {} to {}", place.ty, spec.ty)));
        }
        let mut made = checked_column(spec, nullability, storage_id)?;
        made.default = place.default.clone();
        made.name.clone_from(&place.name);
        let before = std::mem::replace(place, made.clone());
        self.table.next_storage_id += 1;
        self.conversions.push((before, made));
        Ok(())
    }
}

impl Store {
    /// Whether a schema change of the table is under way.
    pub(crate) fn has_running_job(&self, database: &str, table: &str) -> bool {
        self.catalog
            .jobs
            .iter()
            .any(|job| job.database == database && job.table == table && job.finished_at.is_none())
    }

    /// Puts an altered table into the place of the old one, with its rows.
    fn install(&mut self, draft: &Draft) -> Result<(), SqlError> {
        self.begin()?;
        if let Err(error) = self.alter_storage(draft) {
            self.roll_back();
            return Err(error);
        }
        self.commit()?;
        let altered = &draft.table;
        if let Some(place) = self.catalog.table_mut(&altered.database, &altered.name) {
            place.clone_from(altered);
        }
        self.save_catalog()?;
        Ok(())
    }

    fn alter_storage(&self, draft: &Draft) -> Result<(), SqlError> {
        let altered = &draft.table;
        let current = self.catalog.table(&altered.database, &altered.name);
        let current = current.ok_or_else(|| SqlError::unknown_table(&altered.name))?;
        let had = |id: u32| current.columns.iter().any(|column| column.storage_id == id);
        for column in altered.columns.iter().filter(|column| !had(column.storage_id)) {
            self.add_storage_column(altered, column)?;
        }
        for (before, after) in &draft.conversions {
            convert_rows(self, altered, before, after)?;
        }
        self.create_view(altered)?;
        Ok(())
    }
}

fn add_column(table: &mut Table, column: &ColumnSpec, place: &Place) -> Result<(), SqlError> {
    let name = &column.name;
    if table.position(name).is_some() {
        return Err(SqlError::new(1060, format!("Duplicate column name '{name}'")));
    }
    if table.retired_names.iter().any(|retired| same_name(retired, name)) {
        return Err(SqlError::analyzing(format!("Column {name} was renamed away and cannot be used again")));
    }
    let nullability = column.nullability.unwrap_or(Nullability::Null);
    if nullability == Nullability::NotNull && column.default.is_none() {
        return Err(SqlError::analyzing(format!("NOT NULL column {name} needs a default value")));
    }
    if column.default == Some(DefaultValue::CurrentTimestamp) {
        return Err(SqlError::analyzing("unsupported default expr: current_timestamp"));
    }
    let made = checked_column(column, nullability, table.next_storage_id)?;
    let position = place_of(table, place)?;
    table.next_storage_id += 1;
    table.columns.insert(position, made);
    Ok(())
}

fn drop_column(table: &mut Table, name: &str) -> Result<(), SqlError> {
    let position = position_of(table, name)?;
    if position < table.key_columns {
        return Err(SqlError::analyzing(format!("Can not drop key column {name} in primary key table")));
    }
    table.columns.remove(position);
    Ok(())
}

fn rename_column(table: &mut Table, from: &str, to: &str) -> Result<(), SqlError> {
    let position = position_of(table, from)?;
    if table.position(to).is_some() {
        return Err(SqlError::new(1060, format!("Duplicate column name '{to}'")));
    }
    if let Some(column) = table.columns.get_mut(position) {
        table.retired_names.push(std::mem::replace(&mut column.name, to.to_owned()));
    }
    Ok(())
}

fn position_of(table: &Table, name: &str) -> Result<usize, SqlError> {
    table.position(name).ok_or_else(|| SqlError::analyzing(format!("Column does not exists: {name}")))
}

fn place_of(table: &Table, place: &Place) -> Result<usize, SqlError> {
    let position = match place {
        Place::Last => table.columns.len(),
        Place::First => 0,
        Place::After(name) => position_of(table, name)? + 1,
    };
    if position < table.key_columns {
        return Err(SqlError::analyzing(
            "Key columns must be the first few columns: a value column cannot stand before them",
        ));
    }
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddl::alterations;
    use crate::plan::tests::orders;
    use crate::sql_parser::Parser;
    use crate::sql_tokens::tokenize;

    fn altered(clauses: &str) -> Result<Table, SqlError> {
        let tokens = tokenize(clauses).unwrap();
        let changes = alterations(&mut Parser::new(&tokens))?;
        Draft::of(&orders(), &changes).map(|draft| draft.table)
    }

    fn names(clauses: &str) -> Vec<String> {
        altered(clauses).unwrap().columns.into_iter().map(|column| column.name).collect()
    }

    #[test]
    fn columns_come_and_go() {
        assert_eq!(names("ADD COLUMN x INT AFTER id"), ["id", "x", "Note", "photo"]);
        assert_eq!(names("DROP COLUMN note, ADD COLUMN note INT"), ["id", "photo", "note"]);
        assert_eq!(names("RENAME COLUMN NOTE TO remark"), ["id", "remark", "photo"]);
    }

    #[test]
    fn impossible_changes_are_refused() {
        assert!(altered("DROP COLUMN id").unwrap_err().message.contains("key column"));
        assert!(altered("ADD COLUMN x INT FIRST").is_err());
        assert!(altered("MODIFY COLUMN id INT").unwrap_err().message.contains("key column"));
        assert!(altered("MODIFY COLUMN note VARCHAR(5)").unwrap_err().message.contains("Can not change"));
        assert!(altered("MODIFY COLUMN note VARCHAR(50) NOT NULL").unwrap_err().message.contains("nullable"));
        assert!(altered("ADD COLUMN x INT NOT NULL").unwrap_err().message.contains("needs a default"));
        assert_eq!(altered("ADD COLUMN NOTE INT").unwrap_err().code, 1060);
        assert!(
            altered("RENAME COLUMN note TO n, ADD COLUMN note INT").unwrap_err().message.contains("again")
        );
    }
}
