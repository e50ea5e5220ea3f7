//! The column types of StarRocks, and how each is spelled, shown and stored.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What `STRING` stands for.
pub(crate) const STRING_BYTES: u32 = 65533;
/// The longest VARCHAR and VARBINARY, in bytes.
pub(crate) const MAX_VARCHAR_BYTES: u32 = 1_048_576;

/// The type of a column.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum ColumnType {
    Boolean,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    LargeInt,
    Float,
    Double,
    Decimal {
        precision: u32,
        scale: u32,
    },
    Date,
    DateTime,
    /// Length in bytes.
    Char(u32),
    /// Length in bytes.
    Varchar(u32),
    /// Length in bytes.
    VarBinary(u32),
    Json,
    /// ARRAY, MAP or STRUCT with its parameters, as written.
    Nested(String),
}

impl ColumnType {
    /// Whether a Primary Key table may have it as key.
    pub(crate) fn can_be_key(&self) -> bool {
        matches!(
            self,
            Self::Boolean
                | Self::TinyInt
                | Self::SmallInt
                | Self::Int
                | Self::BigInt
                | Self::LargeInt
                | Self::Varchar(_)
                | Self::Date
                | Self::DateTime
        )
    }

    /// The limits of the integer types that 64 bits hold.
    pub(crate) fn integer_range(&self) -> Option<(i64, i64)> {
        match self {
            Self::TinyInt => Some((i8::MIN.into(), i8::MAX.into())),
            Self::SmallInt => Some((i16::MIN.into(), i16::MAX.into())),
            Self::Int => Some((i32::MIN.into(), i32::MAX.into())),
            Self::BigInt => Some((i64::MIN, i64::MAX)),
            _ => None,
        }
    }

    /// Bytes of an encoded key of this type, apart from the bytes of a VARCHAR.
    pub(crate) fn fixed_key_bytes(&self) -> usize {
        match self {
            Self::Boolean | Self::TinyInt => 1,
            Self::SmallInt => 2,
            Self::Int | Self::Date => 4,
            Self::BigInt | Self::DateTime => 8,
            Self::LargeInt => 16,
            _ => 0,
        }
    }

    /// The declaration of the SQLite column. It decides the affinity (`TEXT` keeps decimals exact) and is read back as the
    /// type of a result column.
    pub(crate) fn sqlite_declaration(&self) -> String {
        match self {
            Self::LargeInt => "LARGE TEXT COLLATE decimals".into(),
            Self::Decimal { precision, scale } => {
                format!("DECIMAL TEXT({precision},{scale}) COLLATE decimals")
            }
            Self::Date => "DATE TEXT".into(),
            Self::DateTime => "DATETIME TEXT".into(),
            Self::Char(_) | Self::Varchar(_) => "VARCHAR TEXT".into(),
            Self::VarBinary(_) => "VARBINARY BLOB".into(),
            Self::Json => "JSON TEXT".into(),
            Self::Nested(_) => "NESTED TEXT".into(),
            plain => plain.name().to_uppercase(),
        }
    }

    /// The bare name, in lower case.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Boolean => "boolean",
            Self::TinyInt => "tinyint",
            Self::SmallInt => "smallint",
            Self::Int => "int",
            Self::BigInt => "bigint",
            Self::LargeInt => "largeint",
            Self::Float => "float",
            Self::Double => "double",
            Self::Decimal { .. } => "decimal",
            Self::Date => "date",
            Self::DateTime => "datetime",
            Self::Char(_) => "char",
            Self::Varchar(_) => "varchar",
            Self::VarBinary(_) => "varbinary",
            Self::Json => "json",
            Self::Nested(text) => text,
        }
    }

    /// `data_type` of information_schema: MySQL's names.
    pub(crate) fn mysql_data_type(&self) -> &str {
        match self {
            Self::Boolean => "tinyint",
            Self::LargeInt => "bigint unsigned",
            other => other.name(),
        }
    }

    /// `column_type` of information_schema: MySQL's names with widths.
    pub(crate) fn mysql_column_type(&self) -> String {
        match self {
            Self::Boolean => "tinyint(1)".into(),
            Self::LargeInt => "bigint(20) unsigned".into(),
            other => other.to_string(),
        }
    }
}

/// As DESC shows it.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TinyInt => f.write_str("tinyint(4)"),
            Self::SmallInt => f.write_str("smallint(6)"),
            Self::Int => f.write_str("int(11)"),
            Self::BigInt => f.write_str("bigint(20)"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Char(length) | Self::Varchar(length) | Self::VarBinary(length) => {
                write!(f, "{}({length})", self.name())
            }
            plain => f.write_str(plain.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_types_are_those_of_primary_key_tables() {
        assert!(ColumnType::Varchar(10).can_be_key());
        assert!(ColumnType::LargeInt.can_be_key());
        for refused in
            [ColumnType::Decimal { precision: 10, scale: 0 }, ColumnType::Char(3), ColumnType::Double]
        {
            assert!(!refused.can_be_key(), "{refused}");
        }
    }

    #[test]
    fn types_are_shown_as_starrocks_shows_them() {
        assert_eq!(ColumnType::BigInt.to_string(), "bigint(20)");
        assert_eq!(ColumnType::Decimal { precision: 10, scale: 2 }.to_string(), "decimal(10,2)");
        assert_eq!(ColumnType::Varchar(7).to_string(), "varchar(7)");
    }
}
