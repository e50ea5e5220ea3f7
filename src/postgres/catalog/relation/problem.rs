//! Why a table cannot be mirrored as it is, and what its owner can do about that.

use std::fmt;

use crate::sink::starrocks::UnsupportedKey;

/// What `ALTER TABLE … REPLICA IDENTITY` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Identity {
    /// The primary key.
    Default,
    /// An index.
    Index,
    /// The whole row.
    Full,
    /// Nothing.
    Nothing,
}

/// Why a table cannot be mirrored as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum RelationProblem {
    /// The log does not say which row an UPDATE or DELETE is about, or the target would have no key.
    NoKey(Identity),
    /// The target cannot have such a key.
    UnsupportedKey(UnsupportedKey),
    /// A column of the key is computed.
    GeneratedKey {
        /// The column.
        column: String,
    },
    /// The publication leaves out a column of the key.
    KeyNotPublished {
        /// The column.
        column: String,
    },
    /// The target does not tell these two columns apart.
    NamesDifferByCase {
        /// The one that comes first.
        first: String,
        /// The other one.
        second: String,
    },
    /// The target keeps this name, or a character in it, for itself.
    ReservedName {
        /// The column.
        column: String,
    },
    /// The mirror adds a column of this name.
    NameOfAdded {
        /// The column.
        column: String,
    },
    /// A name is not valid in UTF-8.
    NameNotUtf8,
    /// A name is not ASCII, in a database that is not UTF8.
    NameNotAscii,
    /// The table is on its way out.
    Gone,
    /// A partition names its rows by other columns than its root.
    OtherIdentity {
        /// The partition.
        partition: String,
        /// The columns of its replica identity; none when it has none.
        columns: Vec<String>,
    },
    /// A partition lacks a column of its root. For a moment, while either is altered.
    NoSuchColumn {
        /// The partition.
        partition: String,
        /// The column.
        column: String,
    },
    /// Changes of a partition are not in the log.
    NotLogged {
        /// The partition.
        partition: String,
        /// What it is.
        what: &'static str,
    },
}

impl RelationProblem {
    /// What the table's owner can do about it: a full sentence. `table` is its name, quoted where it must be.
    pub(in crate::postgres) fn hint(&self, table: &str) -> String {
        match self {
            Self::NoKey(Identity::Nothing) => {
                format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT, and give it a primary key.")
            }
            Self::NoKey(_) => format!(
                "ALTER TABLE {table} ADD PRIMARY KEY (…), or ALTER TABLE {table} REPLICA IDENTITY USING INDEX …."
            ),
            Self::UnsupportedKey(_) | Self::GeneratedKey { .. } => {
                format!("Choose another unique index: ALTER TABLE {table} REPLICA IDENTITY USING INDEX ….")
            }
            Self::KeyNotPublished { .. } => {
                format!("ALTER PUBLICATION … SET TABLE {table} with a column list that has the key.")
            }
            Self::NamesDifferByCase { .. } | Self::ReservedName { .. } => {
                format!("ALTER TABLE {table} RENAME COLUMN …, or leave the table out of the mirror.")
            }
            Self::OtherIdentity { partition, .. } => format!(
                "ALTER TABLE {partition} REPLICA IDENTITY DEFAULT, or FULL; or mirror the partitions one by one."
            ),
            Self::NotLogged { .. } => {
                "Name the other partitions, each of which gets a table of its own.".to_owned()
            }
            Self::NameOfAdded { column } => format!(
                "ALTER TABLE {table} RENAME COLUMN \"{column}\" TO …, or leave out the option that adds it (on_delete, metadata_columns)."
            ),
            Self::NameNotUtf8 | Self::NameNotAscii | Self::Gone | Self::NoSuchColumn { .. } => {
                "Leave the table out of the mirror.".to_owned()
            }
        }
    }
}

impl fmt::Display for RelationProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(Identity::Nothing) => f.write_str("its replica identity is NOTHING"),
            Self::NoKey(Identity::Full) => {
                f.write_str("its replica identity is FULL and it has no primary key")
            }
            Self::NoKey(_) => f.write_str("it has no primary key and no replica identity index"),
            Self::UnsupportedKey(problem) => problem.fmt(f),
            Self::GeneratedKey { column } => write!(f, "column \"{column}\" of its key is generated"),
            Self::KeyNotPublished { column } => {
                write!(f, "column \"{column}\" of its key is not in the column list of the publication")
            }
            Self::NamesDifferByCase { first, second } => {
                write!(f, "columns \"{first}\" and \"{second}\" differ only by case, which StarRocks ignores")
            }
            Self::ReservedName { column } => {
                write!(f, "StarRocks does not allow \"{column}\" as the name of a column")
            }
            Self::NameOfAdded { column } => {
                write!(f, "its column \"{column}\" has the name of one that the mirror adds")
            }
            Self::NameNotUtf8 => f.write_str("a name in it is not valid UTF-8"),
            Self::NameNotAscii => f.write_str(
                "a name in it has characters beyond ASCII, and the encoding of the database is not UTF8",
            ),
            Self::Gone => f.write_str("its schema does not exist any more"),
            Self::OtherIdentity { partition, columns } if columns.is_empty() => {
                write!(
                    f,
                    "partition \"{partition}\" has no replica identity, while the partitioned table has a key"
                )
            }
            Self::OtherIdentity { partition, columns } => write!(
                f,
                "the replica identity of partition \"{partition}\" is ({}), which is not the key of the partitioned table",
                columns.join(", ")
            ),
            Self::NoSuchColumn { partition, column } => {
                write!(f, "partition \"{partition}\" has no column \"{column}\"")
            }
            Self::NotLogged { partition, what } => {
                write!(f, "partition \"{partition}\" {what}: its changes are not in the log")
            }
        }
    }
}

impl std::error::Error for RelationProblem {}
