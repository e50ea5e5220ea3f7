//! What a mirrored table looks like on both sides: source columns, target columns, and how each value is written.
//!
//! A [`TableSpec`] is made once from the source's catalog (by `postgres::catalog` or in the change callback) and
//! shared: the encoder, the loads and the DDL of the target all read the same one.

use std::fmt;

/// A column as the source's catalog has it. Domains are already replaced by their base type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceColumn {
    /// `pg_attribute.attnum`, from 1.
    pub attnum: i16,
    /// `pg_attribute.attname`.
    pub name: String,
    /// `pg_type.oid` of the base type.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`, or the domain's; -1 when there is none.
    pub typmod: i32,
}

/// How the values of one column are written into a load, whatever path brought them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// smallint, integer, bigint, oid: digits.
    Int,
    /// real: the shortest text that reads back as the same number.
    Float4,
    /// double precision, likewise.
    Float8,
    /// numeric: a JSON string of its exact digits, for DECIMAL and VARCHAR alike.
    Numeric,
    /// date: `YYYY-MM-DD`.
    Date,
    /// timestamp and timestamptz (in UTC): `YYYY-MM-DD HH:MM:SS[.ffffff]`.
    Timestamp,
    /// uuid: 36 characters in lower case.
    Uuid,
    /// bytea: hexadecimal digits, decoded by `to_binary(…, 'hex')` at the target.
    Bytes,
    /// bytea in a key, where StarRocks takes no VARBINARY: hexadecimal digits, as text.
    HexText,
    /// json and jsonb: embedded as it is.
    Json,
    /// Characters, or the output function of a type without a kind of its own. At most [`MAX_TEXT_BYTES`].
    Text,
}

/// The longest VARCHAR of StarRocks, in bytes.
pub const MAX_TEXT_BYTES: usize = 1_048_576;

/// A column of a mirrored table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// Where it comes from.
    pub source: SourceColumn,
    /// Its name at the target.
    pub name: String,
    /// How its values are written.
    pub kind: Kind,
    /// Its type at the target, as in `CREATE TABLE`: `DECIMAL(10,2)`.
    pub target_type: String,
}

/// A table of the target.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TargetTable {
    /// Its database.
    pub database: String,
    /// Its name there.
    pub table: String,
}

impl fmt::Display for TargetTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// A column that a mirror adds to the target table, behind those of the source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddedColumn {
    /// Whether the row has been deleted at the source (`on_delete` = `mark`).
    Deleted,
    /// End of the commit that the row is as of (`metadata_columns`).
    Lsn,
    /// When that was.
    CommittedAt,
}

impl AddedColumn {
    /// All of them, in their order at the target.
    pub const ALL: [Self; 3] = [Self::Deleted, Self::Lsn, Self::CommittedAt];

    /// Its name at the target.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "dbmazz_deleted",
            Self::Lsn => "dbmazz_lsn",
            Self::CommittedAt => "dbmazz_committed_at",
        }
    }

    /// Its `attnum`: none that a column of the source has.
    pub const fn attnum(self) -> i16 {
        match self {
            Self::Deleted => -2,
            Self::Lsn => -3,
            Self::CommittedAt => -4,
        }
    }

    /// The added column with this `attnum`.
    pub fn of(attnum: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|added| added.attnum() == attnum)
    }

    /// The column, with the type of the source that it is written like.
    pub fn column(self) -> Column {
        let (kind, type_oid, target_type) = match self {
            Self::Deleted => (Kind::Bool, 16, "BOOLEAN"),
            Self::Lsn => (Kind::Int, 20, "BIGINT"),
            Self::CommittedAt => (Kind::Timestamp, 1114, "DATETIME"),
        };
        let name = self.name().to_owned();
        Column {
            source: SourceColumn { attnum: self.attnum(), name: name.clone(), type_oid, typmod: -1 },
            name,
            kind,
            target_type: target_type.to_owned(),
        }
    }
}

/// `attnum` of the columns of [`APPENDED_KEY`]: none that a column of the source has.
pub const APPENDED_ATTRIBUTES: [i16; 2] = [0, -1];

/// A mirrored table: one relation of the source, one Primary Key table of the target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableSpec {
    /// `pg_class.oid` of the source.
    pub relid: u32,
    /// `schema.table` of the source, for messages.
    pub source_name: String,
    /// Where its rows go.
    pub target: TargetTable,
    /// The columns in the target's order: those of the key first (StarRocks demands it), in the key's order.
    pub columns: Vec<Column>,
    /// How many of `columns` make the key. At least one.
    pub key_len: usize,
}

/// The key of a table without one at the source, at the target: end of the commit, and the row's number in it. For rows
/// that were copied the relation's number, negated, and where the row lay.
pub const APPENDED_KEY: [&str; 2] = ["dbmazz_lsn", "dbmazz_seq"];

impl TableSpec {
    /// Whether the source has no key, so that rows can only be added: the key is [`APPENDED_KEY`].
    pub fn is_appended(&self) -> bool {
        self.columns.first().is_some_and(|column| column.source.attnum == APPENDED_ATTRIBUTES[0])
    }

    /// How many of the columns come before the added ones.
    pub fn source_columns(&self) -> usize {
        let is_added = |column: &Column| AddedColumn::of(column.source.attnum).is_some();
        self.columns.iter().position(is_added).unwrap_or(self.columns.len())
    }

    /// Whether a deleted row stays at the target, marked.
    pub fn marks_deletes(&self) -> bool {
        self.columns.iter().any(|column| column.source.attnum == AddedColumn::Deleted.attnum())
    }

    /// The columns of the key.
    pub fn key(&self) -> &[Column] {
        &self.columns[..self.key_len]
    }
}
