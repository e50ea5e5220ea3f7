//! Errors of the MySQL port: a code and a text, as StarRocks gives them.

use std::fmt;

/// An error for the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SqlError {
    pub(crate) code: u16,
    pub(crate) message: String,
}

impl SqlError {
    /// An error with a code of its own.
    pub(crate) fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A statement that is understood and wrong.
    pub(crate) fn analyzing(detail: impl fmt::Display) -> Self {
        Self::new(1064, format!("Getting analyzing error. Detail message: {detail}."))
    }

    /// A statement that is not understood.
    pub(crate) fn syntax(detail: impl fmt::Display) -> Self {
        Self::new(1064, format!("Getting syntax error. Detail message: {detail}."))
    }

    /// A statement that StarRocks knows and this stand-in does not.
    pub(crate) fn unsupported(what: impl fmt::Display) -> Self {
        Self::analyzing(format!("{what} is not supported by this stand-in"))
    }

    /// There is no such database.
    pub(crate) fn unknown_database(name: &str) -> Self {
        Self::new(5501, format!("Unknown database '{name}'"))
    }

    /// There is no such table.
    pub(crate) fn unknown_table(name: &str) -> Self {
        Self::new(5502, format!("Unknown table '{name}'"))
    }

    /// A table was named without a database, and none is in use.
    pub(crate) fn no_database() -> Self {
        Self::new(1046, "No database selected")
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        Self::analyzing(format!("SQLite: {error}"))
    }
}
