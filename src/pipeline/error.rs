//! Why a change was not taken in.

use std::fmt;

use super::table::ShapeError;
use crate::encode::EncodeError;

/// A change that is in no batch. The caller decides what that means for its table; nothing else is affected.
#[derive(Debug)]
#[non_exhaustive]
pub enum PushError {
    /// The table was removed from the pipeline.
    Removed,
    /// The row cannot be sent to the target.
    Encode(EncodeError),
    /// The row lacks unchanged values, and its key was deleted in the same batch: there is nothing to update. This
    /// happens when the caller makes a delete and an upsert of a key change and does not read such values itself.
    UnchangedAfterDelete,
    /// There is no load for the columns that the row carries.
    Shape(ShapeError),
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("could not queue change: its table was removed"),
            Self::Encode(error) => error.fmt(f),
            Self::UnchangedAfterDelete => f.write_str(
                "could not queue change: unchanged values of a row that was deleted are not in the log",
            ),
            Self::Shape(error) => write!(f, "could not queue change: {error}"),
        }
    }
}

impl std::error::Error for PushError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Encode(error) => Some(error),
            Self::Shape(error) => Some(&**error),
            Self::Removed | Self::UnchangedAfterDelete => None,
        }
    }
}

impl From<EncodeError> for PushError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// Why a table was not added or not replaced.
#[derive(Debug)]
#[non_exhaustive]
pub enum TableError {
    /// A table of this relation is there, or loads of an earlier one are still under way: two loads of one target
    /// table at a time have no order.
    InUse,
    /// The table was removed.
    Removed,
    /// There is no load for its columns.
    Shape(ShapeError),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("could not add table: loads of it are still under way"),
            Self::Removed => f.write_str("could not change table: it was removed"),
            Self::Shape(error) => write!(f, "could not add table: {error}"),
        }
    }
}

impl std::error::Error for TableError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Shape(error) => Some(&**error),
            Self::InUse | Self::Removed => None,
        }
    }
}
