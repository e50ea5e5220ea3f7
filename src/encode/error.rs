//! Why a row could not be encoded.
//!
//! [`Fault`] is what the encoder itself returns: small and without a name, because one of its reasons (an unchanged
//! value) is an ordinary event. [`EncodeError`] carries the column's name and is for people.

use std::fmt;

/// What is the matter with a value, or with the row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// The value is not there ([`crate::encode::Value::Unchanged`]) and the set of columns asks for it.
    Unchanged,
    /// A column of the key is NULL.
    NullKey,
    /// StarRocks has no such value: NaN, an infinity, a date outside 0000 to 9999, a text that is too long.
    OutOfRange,
    /// A text is not UTF-8.
    InvalidUtf8,
    /// The bytes are no value of the type.
    Malformed,
    /// The whole line is longer than [`crate::encode::MAX_ROW_BYTES`].
    RowTooLong,
    /// There is no memory for the row.
    OutOfMemory,
}

/// A [`Reason`] and where it lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault {
    /// What happened.
    pub reason: Reason,
    /// The column, counted as in the [`crate::table::TableSpec`]; meaningless for the reasons about the whole row.
    pub column: usize,
}

/// A row that cannot be sent to the target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EncodeError {
    /// What happened.
    pub reason: Reason,
    /// The name of the column at the target; `None` when the whole row is meant.
    pub column: Option<String>,
}

impl EncodeError {
    /// Whether the row is to blame, which could not be sent at another time either.
    pub const fn is_of_row(&self) -> bool {
        !matches!(self.reason, Reason::OutOfMemory | Reason::Unchanged)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.reason {
            Reason::Unchanged => "its value is not in the log",
            Reason::NullKey => "a key cannot be null",
            Reason::OutOfRange => "its value is out of range for StarRocks",
            Reason::InvalidUtf8 => "its value is not UTF-8",
            Reason::Malformed => "its value is malformed",
            Reason::RowTooLong => "it is longer than a load may be",
            Reason::OutOfMemory => "out of memory",
        };
        match &self.column {
            Some(column) => write!(f, "could not encode column \"{column}\": {why}"),
            None => write!(f, "could not encode row: {why}"),
        }
    }
}

impl std::error::Error for EncodeError {}
