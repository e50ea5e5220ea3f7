//! Schema changes: at once where StarRocks does them at once, otherwise as a job that waits for open loads.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{AlterJob, Table, same_name};
use crate::ddl::{Alteration, Nullability, Place};
use crate::ddl_checks::checked_column;
use crate::faults::Kind;
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
    let mut altered = current.clone();
    for change in &changes {
        apply_to_table(&mut altered, change)?;
    }
    if changes.iter().all(|change| matches!(change, Alteration::RenameColumn { .. })) {
        return store.install(altered);
    }
    let has_fast_evolution = altered.has_fast_schema_evolution();
    let job = AlterJob {
        id: store.catalog.draw_id(),
        database: database.into(),
        table: table.into(),
        created_at: now_text(),
        finished_at: has_fast_evolution.then(now_text),
        transaction_id: shared.labels.next_id(),
    };
    store.catalog.jobs.push(job.clone());
    if has_fast_evolution {
        return store.install(altered);
    }
    let shared = Arc::clone(shared);
    std::thread::spawn(move || run_job(&shared, &job, &changes));
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
    if let Some(current) = store.catalog.table(&job.database, &job.table) {
        let mut altered = current.clone();
        let outcome = changes.iter().try_for_each(|change| apply_to_table(&mut altered, change));
        if let Err(error) = outcome.and_then(|()| store.install(altered)) {
            eprintln!("starrocks_standin: schema change {} failed: {}", job.id, error.message);
        }
    }
    if let Some(done) = store.catalog.jobs.iter_mut().find(|other| other.id == job.id) {
        done.finished_at = Some(now_text());
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

    /// Puts an altered table into the place of the old one.
    fn install(&mut self, altered: Table) -> Result<(), SqlError> {
        let (database, name) = (altered.database.clone(), altered.name.clone());
        let Some(current) = self.catalog.table(&database, &name) else {
            return Err(SqlError::unknown_table(&name));
        };
        let had = |id: u32| current.columns.iter().any(|column| column.storage_id == id);
        for column in altered.columns.iter().filter(|column| !had(column.storage_id)) {
            self.add_storage_column(&altered, column)?;
        }
        self.create_view(&altered)?;
        if let Some(place) = self.catalog.table_mut(&database, &name) {
            *place = altered;
        }
        self.save_catalog()?;
        Ok(())
    }
}

fn apply_to_table(table: &mut Table, change: &Alteration) -> Result<(), SqlError> {
    match change {
        Alteration::AddColumn { column, place } => {
            if table.position(&column.name).is_some() {
                return Err(SqlError::new(1060, format!("Duplicate column name '{}'", column.name)));
            }
            if table.retired_names.iter().any(|name| same_name(name, &column.name)) {
                return Err(SqlError::analyzing(format!(
                    "Column {} was renamed away and cannot be used again",
                    column.name
                )));
            }
            let nullability = column.nullability.unwrap_or(Nullability::Null);
            if nullability == Nullability::NotNull && column.default.is_none() {
                return Err(SqlError::analyzing(format!(
                    "NOT NULL column {} needs a default value",
                    column.name
                )));
            }
            if matches!(column.default, Some(crate::catalog::DefaultValue::CurrentTimestamp)) {
                return Err(SqlError::analyzing("unsupported default expr: current_timestamp"));
            }
            let made = checked_column(column, nullability, table.next_storage_id)?;
            let position = place_of(table, place)?;
            table.next_storage_id += 1;
            table.columns.insert(position, made);
        }
        Alteration::DropColumn(name) => {
            let position = position_of(table, name)?;
            if position < table.key_columns {
                return Err(SqlError::analyzing(format!(
                    "Can not drop key column {name} in primary key table"
                )));
            }
            table.columns.remove(position);
        }
        Alteration::RenameColumn { from, to } => {
            let position = position_of(table, from)?;
            if table.position(to).is_some() {
                return Err(SqlError::new(1060, format!("Duplicate column name '{to}'")));
            }
            if let Some(column) = table.columns.get_mut(position) {
                table.retired_names.push(std::mem::replace(&mut column.name, to.clone()));
            }
        }
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
        let mut table = orders();
        alterations(&mut Parser::new(&tokens))?
            .iter()
            .try_for_each(|change| apply_to_table(&mut table, change))?;
        Ok(table)
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
        assert!(altered("ADD COLUMN x INT NOT NULL").unwrap_err().message.contains("needs a default"));
        assert_eq!(altered("ADD COLUMN NOTE INT").unwrap_err().code, 1060);
        assert!(
            altered("RENAME COLUMN note TO n, ADD COLUMN note INT").unwrap_err().message.contains("again")
        );
    }
}
