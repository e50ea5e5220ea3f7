//! A session over the MySQL protocol, for statements: DDL, TRUNCATE, checks. Loads never go this way.
//!
//! Text protocol only: StarRocks prepares nothing but SELECT. Plain TCP: the client is built without TLS. Every wait is
//! bounded; a session is opened for one task and closed again, so that no idle connection is held against the server.

use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, Error, OptsBuilder, Row};

use super::config::StarRocksConfig;
use crate::sink::StatementError;

/// A connection that is logged in.
pub struct SqlSession {
    conn: Conn,
    endpoint: String,
}

impl SqlSession {
    /// Connects and logs in, to no database.
    ///
    /// # Errors
    /// [`StatementError::Unreachable`] or [`StatementError::Credentials`].
    pub fn connect(config: &StarRocksConfig) -> Result<Self, StatementError> {
        let endpoint = format!("{}:{}", config.sql_host, config.sql_port);
        let password = config.password.reveal().map_err(|message| StatementError::Credentials { message })?;
        let options = OptsBuilder::new()
            .ip_or_hostname(Some(config.sql_host.clone()))
            .tcp_port(config.sql_port)
            .user(Some(config.user.clone()))
            .pass(Some(password))
            // A socket of a MySQL that happens to run on this machine is another server.
            .prefer_socket(false)
            .tcp_connect_timeout(Some(config.connect_timeout))
            .read_timeout(Some(STATEMENT_TIMEOUT))
            .write_timeout(Some(STATEMENT_TIMEOUT))
            // Saves a question at login.
            .max_allowed_packet(Some(16 * 1024 * 1024))
            .stmt_cache_size(Some(0));
        match Conn::new(options) {
            Ok(conn) => Ok(Self { conn, endpoint }),
            Err(error) => Err(login_error(error, endpoint)),
        }
    }

    /// Executes a statement that returns no rows.
    ///
    /// # Errors
    /// [`StatementError::Refused`] with the server's words, or [`StatementError::Unreachable`].
    pub fn execute(&mut self, statement: &str) -> Result<(), StatementError> {
        let result = self.conn.query_drop(statement);
        result.map_err(|error| self.error(error, statement))
    }

    /// The rows of a query, as text; a value that is NULL is `None`. The names of the columns come first.
    ///
    /// # Errors
    /// As [`SqlSession::execute`].
    pub fn query(&mut self, statement: &str) -> Result<Vec<TextRow>, StatementError> {
        let rows: Result<Vec<Row>, Error> = self.conn.query(statement);
        let rows = rows.map_err(|error| self.error(error, statement))?;
        Ok(rows.into_iter().map(TextRow).collect())
    }

    /// The first value of the first row of a query.
    ///
    /// # Errors
    /// As [`SqlSession::execute`]; [`StatementError::Malformed`] when there is none.
    pub fn query_value(&mut self, statement: &str) -> Result<String, StatementError> {
        let rows = self.query(statement)?;
        rows.first().and_then(|row| row.at(0)).ok_or_else(|| StatementError::Malformed {
            statement: statement.to_owned(),
            reason: "no value".to_owned(),
        })
    }

    /// Where it is connected to, for messages.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn error(&self, error: Error, statement: &str) -> StatementError {
        match error {
            Error::MySqlError(error) => StatementError::Refused {
                statement: statement.to_owned(),
                code: error.code,
                message: error.message,
            },
            other => StatementError::Unreachable { endpoint: self.endpoint.clone(), reason: plain(other) },
        }
    }
}

/// A row of the text protocol.
pub struct TextRow(Row);

impl TextRow {
    /// The value at a position, from zero; `None` for NULL and beyond the last column.
    pub fn at(&self, index: usize) -> Option<String> {
        text(self.0.as_ref(index)?)
    }

    /// The value of a column by its name, in any case.
    pub fn named(&self, name: &str) -> Option<String> {
        let columns = self.0.columns_ref();
        let index = columns.iter().position(|column| column.name_str().eq_ignore_ascii_case(name))?;
        self.at(index)
    }
}

fn text(value: &mysql::Value) -> Option<String> {
    match value {
        mysql::Value::NULL => None,
        mysql::Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        mysql::Value::Int(number) => Some(number.to_string()),
        mysql::Value::UInt(number) => Some(number.to_string()),
        // The text protocol has bytes only; nothing here asks for numbers or dates otherwise.
        other => Some(other.as_sql(true)),
    }
}

/// A server that refuses a login for another reason than the login is one that is not ready.
fn login_error(error: Error, endpoint: String) -> StatementError {
    match error {
        Error::MySqlError(error) if error.message.to_ascii_lowercase().contains("access denied") => {
            StatementError::Credentials { message: error.message }
        }
        other => StatementError::Unreachable { endpoint, reason: plain(other) },
    }
}

/// What went wrong with a connection, without the names that the library has for it.
fn plain(error: Error) -> String {
    match error {
        Error::IoError(error) => error.to_string(),
        Error::DriverError(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Creating a table waits for every backend.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
