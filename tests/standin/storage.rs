//! The tables, in SQLite.
//!
//! A StarRocks table `shop.orders` with id 10001 is the SQLite table `t10001` (WITHOUT ROWID on its key, columns `c1`, `c2`, …) and a view
//! `v10001` that gives the columns their names and order. So renaming, moving and dropping columns touch the view only, and names
//! that SQLite would not take or not tell apart are no matter. Decimals and LARGEINTs are text in a normal form, compared
//! by the collation `decimals`, so that every digit stays.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Statement};

use crate::catalog::{Catalog, Column, DefaultValue, Table};
use crate::labels::Finished;
use crate::load_headers::UpdateScope;
use crate::ndjson::Shape;
use crate::plan::{Op, Plan, Target};
use crate::rows::{RowError, RowSink, RowView, check_key};
use crate::server::lock;
use crate::sqlite_functions;
use crate::typing::ColumnType;
use crate::values::{Cell, Raw, convert};

/// The release that the stand-in says it is.
pub(crate) const STARROCKS_VERSION: &str = "3.5.0 standin";

/// Catalog and rows, behind one lock: a load is applied while nobody looks.
pub(crate) struct Storage {
    store: Mutex<Store>,
}

/// What is behind the lock.
pub(crate) struct Store {
    pub(crate) connection: Connection,
    /// Whether a later process opens the same file: labels of finished loads are written down then.
    outlives_process: bool,
    pub(crate) catalog: Catalog,
}

impl Storage {
    /// Opens the file in `directory`, or memory.
    pub(crate) fn open(directory: Option<&Path>) -> rusqlite::Result<Self> {
        let connection = match directory {
            Some(directory) => Connection::open(directory.join("standin.sqlite"))?,
            None => Connection::open_in_memory()?,
        };
        // Otherwise SQLite takes the name of a column that does not exist for a text.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        // A killed process loses nothing with synchronous off, only a crashed machine would.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;
             PRAGMA case_sensitive_like = ON;
             CREATE TABLE IF NOT EXISTS standin_catalog (id INTEGER PRIMARY KEY CHECK (id = 1), document TEXT);
             CREATE TABLE IF NOT EXISTS standin_label (id INTEGER PRIMARY KEY, db TEXT, label TEXT, target TEXT)",
        )?;
        sqlite_functions::register(&connection, STARROCKS_VERSION)?;
        let document: Option<String> =
            connection.query_row("SELECT document FROM standin_catalog", [], |row| row.get(0)).optional()?;
        let mut catalog: Catalog =
            document.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        // The thread of an unfinished schema change ended with its process.
        catalog.jobs.retain(|job| job.finished_at.is_some());
        let outlives_process = directory.is_some();
        Ok(Self { store: Mutex::new(Store { connection, outlives_process, catalog }) })
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }
}

impl Store {
    /// Begins to apply a load.
    pub(crate) fn begin(&self) -> rusqlite::Result<()> {
        if !self.connection.is_autocommit() {
            // A load that panicked left its transaction open.
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    /// Keeps what was applied.
    pub(crate) fn commit(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")
    }

    /// Forgets what was applied.
    pub(crate) fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Runs statements that a killed process leaves done or undone as a whole.
    pub(crate) fn atomically(
        &mut self,
        body: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        self.begin()?;
        let result = body(self).and_then(|()| self.commit());
        self.roll_back();
        result
    }

    /// Writes down who has a label, in the transaction of the load's rows if one is open.
    pub(crate) fn keep_label(&self, finished: &Finished) -> rusqlite::Result<()> {
        if !self.outlives_process {
            return Ok(());
        }
        let Finished { id, database, label, table } = finished;
        let mut insert =
            self.connection.prepare_cached("INSERT INTO standin_label VALUES (?1, ?2, ?3, ?4)")?;
        insert.execute((id, database, label, table)).map(drop)
    }

    /// The loads that earlier processes finished, oldest first.
    pub(crate) fn kept_labels(&self) -> rusqlite::Result<Vec<Finished>> {
        let mut select =
            self.connection.prepare("SELECT id, db, label, target FROM standin_label ORDER BY id")?;
        let rows = select.query_map([], |row| {
            Ok(Finished { id: row.get(0)?, database: row.get(1)?, label: row.get(2)?, table: row.get(3)? })
        })?;
        rows.collect()
    }

    /// Writes the catalog down, so that a data directory can be opened again.
    pub(crate) fn save_catalog(&self) -> rusqlite::Result<()> {
        let document = serde_json::to_string(&self.catalog)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.connection.execute("INSERT OR REPLACE INTO standin_catalog VALUES (1, ?1)", [document])?;
        Ok(())
    }

    /// Makes the SQLite table and the view of a new table.
    pub(crate) fn create_storage(&self, table: &Table) -> rusqlite::Result<()> {
        let columns: Vec<String> = table.columns.iter().map(declaration).collect();
        let keys: Vec<String> = table.keys().iter().map(storage_column).collect();
        self.connection.execute_batch(&format!(
            "CREATE TABLE {} ({}, PRIMARY KEY ({})) WITHOUT ROWID",
            table.storage_name(),
            columns.join(", "),
            keys.join(", ")
        ))?;
        self.create_view(table)
    }

    /// Makes the view again, after columns were added, dropped, moved or renamed.
    pub(crate) fn create_view(&self, table: &Table) -> rusqlite::Result<()> {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|c| format!("{} AS {}", storage_column(c), quote_name(&c.name)))
            .collect();
        self.connection.execute_batch(&format!(
            "DROP VIEW IF EXISTS {view}; CREATE VIEW {view} AS SELECT {} FROM {}",
            columns.join(", "),
            table.storage_name(),
            view = table.view_name()
        ))
    }

    /// Adds the storage of a column; rows get its default.
    pub(crate) fn add_storage_column(&self, table: &Table, column: &Column) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!(
            "ALTER TABLE {} ADD COLUMN {}",
            table.storage_name(),
            declaration(column)
        ))
    }

    /// Drops the SQLite table and view.
    pub(crate) fn drop_storage(&self, table: &Table) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!(
            "DROP VIEW IF EXISTS {}; DROP TABLE IF EXISTS {}",
            table.view_name(),
            table.storage_name()
        ))
    }

    /// Deletes all rows.
    pub(crate) fn empty_storage(&self, table: &Table) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!("DELETE FROM {}", table.storage_name()))
    }
}

/// The SQLite column with the values of a column.
pub(crate) fn storage_column(column: &Column) -> String {
    format!("c{}", column.storage_id)
}

/// A name in double quotes, for SQLite.
pub(crate) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes, for SQLite.
pub(crate) fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn declaration(column: &Column) -> String {
    let mut text = format!("{} {}", storage_column(column), column.ty.sqlite_declaration());
    if let Some(default) = default_of(column) {
        text.push_str(" DEFAULT ");
        text.push_str(&default);
    }
    text
}

/// What SQLite puts into a column that a load does not carry: the default, NULL, or a zero where neither may be.
fn default_of(column: &Column) -> Option<String> {
    match &column.default {
        Some(DefaultValue::CurrentTimestamp) => Some("(strftime('%Y-%m-%d %H:%M:%S', 'now'))".into()),
        Some(DefaultValue::Literal(text)) => Some(literal(column, text)),
        None if column.is_nullable => None,
        None => Some(literal(column, zero(&column.ty))),
    }
}

fn zero(ty: &ColumnType) -> &'static str {
    match ty {
        ColumnType::Char(_) | ColumnType::Varchar(_) | ColumnType::VarBinary(_) => "",
        ColumnType::Date | ColumnType::DateTime => "0000-01-01",
        ColumnType::Json | ColumnType::Nested(_) => "null",
        _ => "0",
    }
}

/// A default's text as an SQL literal in the form in which loads store values. DDL has checked that it fits.
fn literal(column: &Column, text: &str) -> String {
    match convert(&column.ty, Raw { shape: Shape::Plain, text }) {
        Ok(Cell::Int(value)) => value.to_string(),
        Ok(Cell::Real(value)) => format!("{value:?}"),
        Ok(Cell::Text(text)) => quote_text(&text),
        Ok(Cell::Blob(bytes)) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{hex}'")
        }
        Ok(Cell::Null) | Err(_) => "NULL".into(),
    }
}

/// Applies the rows of one load.
pub(crate) struct Applier<'a> {
    upsert: Statement<'a>,
    delete: Statement<'a>,
    /// For each key column its index among the targets.
    keys: Vec<usize>,
    targets: Vec<Target>,
}

impl<'a> Applier<'a> {
    /// Prepares the statements of a plan.
    pub(crate) fn new(store: &'a Store, plan: &Plan) -> Result<Self, String> {
        let key_index = |key| plan.targets.iter().position(|target| target.column == key);
        let keys: Option<Vec<usize>> = (0..plan.table.key_columns).map(key_index).collect();
        let keys = keys.ok_or("the load does not carry the whole key")?;
        let prepare = |sql: &str| store.connection.prepare(sql).map_err(|error| error.to_string());
        Ok(Self {
            upsert: prepare(&upsert_statement(plan))?,
            delete: prepare(&delete_statement(plan))?,
            keys,
            targets: plan.targets.clone(),
        })
    }
}

impl RowSink for Applier<'_> {
    fn take(&mut self, op: Op, row: &RowView<'_>) -> Result<(), RowError> {
        let cells = self.targets.iter().map(|target| row.cell(target)).collect::<Result<Vec<_>, _>>()?;
        let keys: Vec<Cell<'_>> = self.keys.iter().filter_map(|index| cells.get(*index).cloned()).collect();
        check_key(row.plan, &keys)?;
        let (statement, values) = match op {
            Op::Upsert => (&mut self.upsert, &cells),
            Op::Delete => (&mut self.delete, &keys),
        };
        let mut run = || {
            for (index, value) in values.iter().enumerate() {
                statement.raw_bind_parameter(index + 1, value)?;
            }
            statement.raw_execute()
        };
        run().map(|_| ()).map_err(|error| RowError::Fatal(format!("could not apply a row: {error}")))
    }
}

fn upsert_statement(plan: &Plan) -> String {
    let column = |position: usize| plan.table.columns.get(position).map(storage_column).unwrap_or_default();
    let names: Vec<String> = plan.targets.iter().map(|target| column(target.column)).collect();
    let marks: Vec<String> = (1..=names.len()).map(|index| format!("?{index}")).collect();
    let table = plan.table.storage_name();
    let values = format!("INTO {table} ({}) VALUES ({})", names.join(", "), marks.join(", "));
    if plan.headers.update == UpdateScope::FullRows {
        return format!("INSERT OR REPLACE {values}");
    }
    let changes: Vec<String> = plan
        .targets
        .iter()
        .filter(|target| target.column >= plan.table.key_columns)
        .map(|target| format!("{0} = excluded.{0}", column(target.column)))
        .collect();
    if changes.is_empty() {
        return format!("INSERT {values} ON CONFLICT DO NOTHING");
    }
    let keys: Vec<String> = plan.table.keys().iter().map(storage_column).collect();
    format!("INSERT {values} ON CONFLICT ({}) DO UPDATE SET {}", keys.join(", "), changes.join(", "))
}

fn delete_statement(plan: &Plan) -> String {
    let keys: Vec<String> = plan
        .table
        .keys()
        .iter()
        .enumerate()
        .map(|(index, key)| format!("{} = ?{}", storage_column(key), index + 1))
        .collect();
    format!("DELETE FROM {} WHERE {}", plan.table.storage_name(), keys.join(" AND "))
}
