//! Which StarRocks type a PostgreSQL column gets, and how its values are written.
//!
//! The widths of VARCHAR are bytes at the target and characters at the source. What has no counterpart travels as the
//! text of its output function, never as something nearly right.

use std::fmt;

use crate::table::{Kind, MAX_TEXT_BYTES, SourceColumn};

/// What a column is for: the Primary Key takes fewer types.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ColumnUse {
    /// Part of the Primary Key.
    Key,
    /// Any other column.
    Value,
}

/// A type that cannot be part of a Primary Key at the target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnsupportedKey {
    /// The source column.
    pub column: String,
    /// The source type.
    pub type_name: &'static str,
}

impl fmt::Display for UnsupportedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column, type_name } = self;
        write!(
            f,
            "cannot use column \"{column}\" in a key: StarRocks has no Primary Key type for {type_name}"
        )
    }
}

impl std::error::Error for UnsupportedKey {}

/// How to write the values of a column, and its type at the target as in `CREATE TABLE`.
///
/// # Errors
/// [`UnsupportedKey`] for key columns of the types real, double precision, json and jsonb.
pub fn map_type(source: &SourceColumn, column_use: ColumnUse) -> Result<(Kind, String), UnsupportedKey> {
    if let (ColumnUse::Key, Some(type_name)) = (column_use, unfit_for_keys(source.type_oid)) {
        return Err(UnsupportedKey { column: source.name.clone(), type_name });
    }
    Ok(match source.type_oid {
        oid::BOOL => (Kind::Bool, "BOOLEAN".to_owned()),
        oid::INT2 => (Kind::Int, "SMALLINT".to_owned()),
        oid::INT4 => (Kind::Int, "INT".to_owned()),
        oid::INT8 | oid::OID => (Kind::Int, "BIGINT".to_owned()),
        oid::FLOAT4 => (Kind::Float4, "FLOAT".to_owned()),
        oid::FLOAT8 => (Kind::Float8, "DOUBLE".to_owned()),
        oid::NUMERIC => (Kind::Numeric, numeric_type(source.typmod, column_use)),
        oid::DATE => (Kind::Date, "DATE".to_owned()),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => (Kind::Timestamp, "DATETIME".to_owned()),
        oid::UUID => (Kind::Uuid, varchar(36)),
        oid::BYTEA if column_use == ColumnUse::Key => (Kind::HexText, varchar(MAX_TEXT_BYTES)),
        oid::BYTEA => (Kind::Bytes, format!("VARBINARY({MAX_TEXT_BYTES})")),
        oid::JSON | oid::JSONB => (Kind::Json, "JSON".to_owned()),
        other => (Kind::Text, text_type(other, source.typmod)),
    })
}

/// How to write the values of a column whose type at the target was chosen by hand.
///
/// A text type takes every value as PostgreSQL prints it, so nothing is out of range and nothing is rounded: NaN,
/// infinity, a JSON `null`, numbers of any length in a document. Keys stay as they are, because equal keys must be equal
/// texts.
pub fn kind_for_chosen_type(kind: Kind, target_type: &str, column_use: ColumnUse) -> Kind {
    let name = target_type.trim_start();
    let is_text = ["VARCHAR", "STRING", "CHAR", "TEXT"]
        .iter()
        .any(|text| name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text)));
    if is_text && column_use == ColumnUse::Value { Kind::Text } else { kind }
}

const fn unfit_for_keys(type_oid: u32) -> Option<&'static str> {
    match type_oid {
        oid::FLOAT4 => Some("real"),
        oid::FLOAT8 => Some("double precision"),
        oid::JSON => Some("json"),
        oid::JSONB => Some("jsonb"),
        _ => None,
    }
}

/// DECIMAL where it holds every value of the column exactly, else text.
fn numeric_type(typmod: i32, column_use: ColumnUse) -> String {
    let Some(Digits { precision, scale }) = Digits::from_typmod(typmod) else {
        return varchar(BARE_NUMERIC_BYTES);
    };
    // Digits before the point, digits after it, sign, point, and the zero before the point.
    let fraction = scale.max(0);
    let text_bytes = (precision - scale).max(0) + fraction + 3;
    let total = (precision - scale).max(0) + fraction;
    if column_use == ColumnUse::Key || total > MAX_DECIMAL_DIGITS {
        return varchar(usize::try_from(text_bytes).unwrap_or(MAX_TEXT_BYTES));
    }
    format!("DECIMAL({total},{fraction})")
}

/// Precision and scale of a numeric column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Digits {
    precision: i32,
    scale: i32,
}

impl Digits {
    /// `numeric.c, numeric_typmod_precision` and `numeric_typmod_scale`: the scale has eleven bits and a sign since 15,
    /// and was never above 1000 before. `None` for a numeric without limits.
    const fn from_typmod(typmod: i32) -> Option<Self> {
        if typmod < VARHDRSZ {
            return None;
        }
        let packed = typmod - VARHDRSZ;
        let precision = (packed >> 16) & 0xFFFF;
        let scale = ((packed & 0x7FF) ^ 1024) - 1024;
        Some(Self { precision, scale })
    }
}

fn text_type(type_oid: u32, typmod: i32) -> String {
    let length = usize::try_from(typmod).ok();
    match type_oid {
        oid::CHAR => varchar(4),
        oid::BPCHAR | oid::VARCHAR => {
            let characters = length.and_then(|length| length.checked_sub(VARHDRSZ as usize));
            varchar(characters.map_or(MAX_TEXT_BYTES, |characters| characters.saturating_mul(4)))
        }
        oid::BIT | oid::VARBIT => varchar(length.unwrap_or(MAX_TEXT_BYTES)),
        oid::TIME => varchar(15),
        oid::INTERVAL => varchar(INTERVAL_BYTES),
        oid::TIMETZ | oid::INET | oid::CIDR | oid::MACADDR | oid::MACADDR8 | oid::MONEY => varchar(64),
        _ => varchar(MAX_TEXT_BYTES),
    }
}

fn varchar(bytes: usize) -> String {
    format!("VARCHAR({})", bytes.clamp(1, MAX_TEXT_BYTES))
}

const VARHDRSZ: i32 = 4;
const MAX_DECIMAL_DIGITS: i32 = 38;
/// The most that a numeric without limits prints: 131072 digits, the point, 16383 decimals, the sign.
const BARE_NUMERIC_BYTES: usize = 147_457;
/// The most that an interval prints has 67 characters.
const INTERVAL_BYTES: usize = 80;

/// `pg_type.oid` of the types that are not simply text; they never change.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const CHAR: u32 = 18;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const OID: u32 = 26;
    pub(super) const JSON: u32 = 114;
    pub(super) const CIDR: u32 = 650;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const MACADDR8: u32 = 774;
    pub(super) const MONEY: u32 = 790;
    pub(super) const MACADDR: u32 = 829;
    pub(super) const INET: u32 = 869;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIME: u32 = 1083;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const INTERVAL: u32 = 1186;
    pub(super) const TIMETZ: u32 = 1266;
    pub(super) const BIT: u32 = 1560;
    pub(super) const VARBIT: u32 = 1562;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const UUID: u32 = 2950;
    pub(super) const JSONB: u32 = 3802;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(type_oid: u32, typmod: i32, column_use: ColumnUse) -> String {
        let source = SourceColumn { attnum: 1, name: "c".to_owned(), type_oid, typmod };
        map_type(&source, column_use).unwrap().1
    }

    fn numeric(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | (scale & 0x7FF)) + VARHDRSZ
    }

    #[test]
    fn numeric_becomes_a_decimal_that_holds_every_value() {
        let cases = [
            (10, 2, "DECIMAL(10,2)"),
            (38, 0, "DECIMAL(38,0)"),
            (38, 38, "DECIMAL(38,38)"),
            (39, 0, "VARCHAR(42)"),
            (5, -3, "DECIMAL(8,0)"),
            (2, 5, "DECIMAL(5,5)"),
            (1000, -1000, "VARCHAR(2003)"),
            (1, 1000, "VARCHAR(1003)"),
        ];
        for (precision, scale, expected) in cases {
            let typmod = numeric(precision, scale);
            assert_eq!(mapped(oid::NUMERIC, typmod, ColumnUse::Value), expected, "({precision},{scale})");
        }
        assert_eq!(mapped(oid::NUMERIC, -1, ColumnUse::Value), "VARCHAR(147457)");
    }

    #[test]
    fn numeric_keys_are_text() {
        assert_eq!(mapped(oid::NUMERIC, numeric(10, 2), ColumnUse::Key), "VARCHAR(13)");
        assert_eq!(mapped(oid::NUMERIC, -1, ColumnUse::Key), "VARCHAR(147457)");
    }

    #[test]
    fn bytea_keys_are_text() {
        assert_eq!(mapped(oid::BYTEA, -1, ColumnUse::Key), "VARCHAR(1048576)");
        assert_eq!(mapped(oid::BYTEA, -1, ColumnUse::Value), "VARBINARY(1048576)");
    }

    #[test]
    fn varchar_has_room_for_four_bytes_per_character() {
        assert_eq!(mapped(oid::VARCHAR, 10 + VARHDRSZ, ColumnUse::Value), "VARCHAR(40)");
        assert_eq!(mapped(oid::BPCHAR, 1 + VARHDRSZ, ColumnUse::Key), "VARCHAR(4)");
        assert_eq!(mapped(oid::VARCHAR, 10_485_760 + VARHDRSZ, ColumnUse::Value), "VARCHAR(1048576)");
        assert_eq!(mapped(oid::VARCHAR, -1, ColumnUse::Value), "VARCHAR(1048576)");
    }

    #[test]
    fn types_without_a_primary_key_type_are_refused_as_keys() {
        for type_oid in [oid::FLOAT4, oid::FLOAT8, oid::JSON, oid::JSONB] {
            let source = SourceColumn { attnum: 1, name: "c".to_owned(), type_oid, typmod: -1 };
            assert!(map_type(&source, ColumnUse::Key).is_err(), "type {type_oid} is taken as a key");
            assert!(map_type(&source, ColumnUse::Value).is_ok());
        }
    }

    #[test]
    fn column_that_is_text_at_the_target_travels_as_text() {
        let value = |target_type| kind_for_chosen_type(Kind::Json, target_type, ColumnUse::Value);
        for target_type in ["VARCHAR(100)", " varchar(1048576)", "STRING", "Char(9)"] {
            assert_eq!(value(target_type), Kind::Text, "{target_type}");
        }
        for target_type in ["JSON", "DECIMAL(20,4)", "VARBINARY", "ARRAY<VARCHAR(10)>", ""] {
            assert_eq!(value(target_type), Kind::Json, "{target_type}");
        }
        assert_eq!(kind_for_chosen_type(Kind::Numeric, "VARCHAR(9)", ColumnUse::Key), Kind::Numeric);
    }

    #[test]
    fn types_without_a_kind_travel_as_text() {
        let enum_oid = 16_500;
        let source = SourceColumn { attnum: 1, name: "c".to_owned(), type_oid: enum_oid, typmod: -1 };
        assert_eq!(map_type(&source, ColumnUse::Key).unwrap(), (Kind::Text, "VARCHAR(1048576)".to_owned()));
        assert_eq!(mapped(oid::BIT, 12, ColumnUse::Value), "VARCHAR(12)");
        assert_eq!(mapped(oid::TIME, -1, ColumnUse::Value), "VARCHAR(15)");
    }
}
