//! One database of StarRocks, with a session in it.

use mysql::Value;
use mysql::prelude::Queryable as _;

use super::database::TextRow;
use super::{Failure, Outcome, StarRocks};

/// The database that a mirror writes to.
pub(crate) struct Target {
    database: String,
    connection: mysql::Conn,
}

impl Target {
    /// A session for the database, which the mirror itself may have to make.
    pub(crate) fn of(starrocks: &StarRocks, database: &str) -> Outcome<Self> {
        Ok(Self { database: database.to_owned(), connection: starrocks.connect()? })
    }

    /// Its name.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// A table of the database as it is written in a statement.
    pub(crate) fn table(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.database), quoted(table))
    }

    /// Runs one statement.
    pub(crate) fn execute(&mut self, sql: &str) -> Outcome {
        self.connection.query_drop(sql).map_err(|error| told(error, sql))
    }

    /// The rows of a query. Bytes that are no UTF-8 are shown as hexadecimal digits.
    pub(crate) fn rows(&mut self, sql: &str) -> Outcome<Vec<TextRow>> {
        self.rows_as(sql, |bytes| {
            String::from_utf8(bytes).unwrap_or_else(|error| hexadecimal(error.as_bytes()))
        })
    }

    /// The rows of a query, all values as hexadecimal digits.
    pub(crate) fn rows_in_hexadecimal(&mut self, sql: &str) -> Outcome<Vec<TextRow>> {
        self.rows_as(sql, |bytes| hexadecimal(&bytes))
    }

    /// The first column of the first row.
    ///
    /// # Errors
    ///
    /// When there is none, or it is NULL.
    pub(crate) fn value(&mut self, sql: &str) -> Outcome<String> {
        let first = self.rows(sql)?.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        first.ok_or_else(|| Failure::new(format!("no value: {sql}")))
    }

    /// How many rows a table has.
    pub(crate) fn count(&mut self, table: &str) -> Outcome<u64> {
        let table = self.table(table);
        Ok(self.value(&format!("SELECT count(*) FROM {table}"))?.parse()?)
    }

    /// Whether the table is there.
    pub(crate) fn has(&mut self, table: &str) -> Outcome<bool> {
        let (database, table) = (self.database.replace('\'', "''"), table.replace('\'', "''"));
        let found = self.rows(&format!(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = '{database}' AND table_name = '{table}'"
        ))?;
        Ok(!found.is_empty())
    }

    /// The tables that are filled beside others, to take their places.
    pub(crate) fn tables_beside(&mut self) -> Outcome<Vec<String>> {
        let database = self.database.replace('\'', "''");
        let found = self.rows(&format!(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = '{database}'"
        ))?;
        let names = found.into_iter().flatten().flatten();
        Ok(names.filter(|name| name.starts_with("dbmazz_copy_of_")).collect())
    }

    fn rows_as(&mut self, sql: &str, text: impl Fn(Vec<u8>) -> String) -> Outcome<Vec<TextRow>> {
        let mut rows = Vec::new();
        for row in self.connection.query_iter(sql).map_err(|error| told(error, sql))? {
            let values = row.map_err(|error| told(error, sql))?.unwrap();
            rows.push(values.into_iter().map(|value| shown(value, &text)).collect());
        }
        Ok(rows)
    }
}

/// The text protocol sends bytes; other forms would mean that a prepared statement was used.
fn shown(value: Value, text: impl Fn(Vec<u8>) -> String) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(text(bytes)),
        other => Some(other.as_sql(true)),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name in back-ticks.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[track_caller]
fn told(error: mysql::Error, sql: &str) -> Failure {
    Failure::new(format!("StarRocks: {error}\n  STATEMENT: {sql}"))
}
