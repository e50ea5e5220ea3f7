//! The `columns` header of a load, and the JSON keys that go with it.
//!
//! Every load names its columns: then a column that the table has and the mirror does not know keeps its default, and
//! the order of columns does not matter. A bytea column travels as hexadecimal digits under a key of its own, because
//! `c = to_binary(c, 'hex')` would name one thing twice.

use std::fmt;

use crate::sink::LoadShape;
use crate::table::{Column, Kind, TableSpec};

/// The shape of loads that carry the given columns of a table, counted from zero, in the order of `columns`.
///
/// # Errors
/// When the header would be longer than a frontend accepts, a name cannot stand in a header, or a column of the key is
/// missing.
pub fn load_shape(
    spec: &TableSpec,
    columns: impl IntoIterator<Item = usize>,
) -> Result<LoadShape, ShapeError> {
    let mut header = String::new();
    let mut keys = 0;
    let mut carried = 0;
    for index in columns {
        let column = spec.columns.get(index).ok_or(ShapeError::NoSuchColumn { index })?;
        if column.name.contains(|c: char| c.is_control()) {
            return Err(ShapeError::Name { column: column.name.clone() });
        }
        keys += usize::from(index < spec.key_len);
        carried += 1;
        push_column(&mut header, spec, index, column);
    }
    if keys < spec.key_len {
        return Err(ShapeError::IncompleteKey);
    }
    header.push_str("`__op`");
    if header.len() > MAX_COLUMNS_BYTES {
        return Err(ShapeError::TooLong { bytes: header.len() });
    }
    Ok(LoadShape { target: spec.target.clone(), columns: header, partial: carried < spec.columns.len() })
}

/// The JSON key under which the values of a column travel.
///
/// # Panics
/// When the table has no such column.
pub fn field_name(spec: &TableSpec, column_index: usize) -> String {
    let column = &spec.columns[column_index];
    match column.kind {
        Kind::Bytes => hex_field(spec, column_index),
        _ => column.name.clone(),
    }
}

/// A key that no column of the table has; StarRocks compares column names without regard to case.
fn hex_field(spec: &TableSpec, column_index: usize) -> String {
    let mut name = format!("dbmazz_hex_{column_index}");
    while spec.columns.iter().any(|column| column.name.eq_ignore_ascii_case(&name)) {
        name.push('_');
    }
    name
}

fn push_column(header: &mut String, spec: &TableSpec, index: usize, column: &Column) {
    let name = quote_identifier(&column.name);
    if column.kind == Kind::Bytes {
        let field = quote_identifier(&hex_field(spec, index));
        header.push_str(&format!("{field},{name}=to_binary({field},'hex'),"));
    } else {
        header.push_str(&name);
        header.push(',');
    }
}

/// A name in back-ticks.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Why loads of a table cannot be described in a header.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ShapeError {
    /// The table has fewer columns.
    NoSuchColumn {
        /// Counted from zero.
        index: usize,
    },
    /// The name has a control character in it.
    Name {
        /// The column.
        column: String,
    },
    /// A column of the key is not among the columns.
    IncompleteKey,
    /// The names are too many or too long.
    TooLong {
        /// What the header would have.
        bytes: usize,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchColumn { index } => write!(f, "cannot load column {index}: the table has fewer"),
            Self::Name { column } => {
                write!(f, "cannot load column \"{}\": control character in name", column.escape_debug())
            }
            Self::IncompleteKey => f.write_str("cannot load rows without all columns of the key"),
            Self::TooLong { bytes } => write!(
                f,
                "cannot load rows: the names of the columns take {bytes} bytes, at most {MAX_COLUMNS_BYTES} fit \
                 into a request"
            ),
        }
    }
}

impl std::error::Error for ShapeError {}

/// A frontend takes 32768 bytes of headers; the others need less than 2 kB.
const MAX_COLUMNS_BYTES: usize = 30_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{SourceColumn, TargetTable};

    fn spec(columns: &[(&str, Kind)]) -> TableSpec {
        let columns = columns.iter().map(|(name, kind)| {
            let source = SourceColumn { attnum: 1, name: (*name).to_owned(), type_oid: 25, typmod: -1 };
            Column { source, name: (*name).to_owned(), kind: *kind, target_type: "INT".to_owned() }
        });
        let target = TargetTable { database: "d".to_owned(), table: "t".to_owned() };
        TableSpec { relid: 1, source_name: "s.t".to_owned(), target, columns: columns.collect(), key_len: 1 }
    }

    #[test]
    fn header_names_the_columns_and_the_operation() {
        let spec = spec(&[("id", Kind::Int), ("a,`b", Kind::Text), ("größe", Kind::Int)]);
        let shape = load_shape(&spec, 0..3).unwrap();
        assert_eq!(shape.columns, "`id`,`a,``b`,`größe`,`__op`");
        assert!(!shape.partial);
    }

    #[test]
    fn load_without_some_columns_is_partial() {
        let shape =
            load_shape(&spec(&[("id", Kind::Int), ("a", Kind::Text), ("b", Kind::Text)]), [0, 2]).unwrap();
        assert_eq!(shape.columns, "`id`,`b`,`__op`");
        assert!(shape.partial);
    }

    #[test]
    fn bytes_travel_under_a_key_that_no_column_has() {
        let spec = spec(&[("id", Kind::Int), ("data", Kind::Bytes), ("DBMAZZ_hex_1", Kind::Text)]);
        assert_eq!(field_name(&spec, 1), "dbmazz_hex_1_");
        assert_eq!(field_name(&spec, 2), "DBMAZZ_hex_1");
        let shape = load_shape(&spec, 0..3).unwrap();
        assert_eq!(
            shape.columns,
            "`id`,`dbmazz_hex_1_`,`data`=to_binary(`dbmazz_hex_1_`,'hex'),`DBMAZZ_hex_1`,`__op`"
        );
    }

    #[test]
    fn shape_that_no_request_can_carry_is_an_error() {
        let plain = spec(&[("id", Kind::Int), ("a", Kind::Text)]);
        assert_eq!(load_shape(&plain, [1]), Err(ShapeError::IncompleteKey));
        assert_eq!(load_shape(&plain, [0, 2]), Err(ShapeError::NoSuchColumn { index: 2 }));
        let broken = spec(&[("id", Kind::Int), ("a\nb: c", Kind::Text)]);
        assert!(matches!(load_shape(&broken, 0..2), Err(ShapeError::Name { .. })));
        let names: Vec<String> = (0..1600).map(|number| format!("a_rather_long_name_{number}")).collect();
        let wide: Vec<_> = names.iter().map(|name| (name.as_str(), Kind::Int)).collect();
        assert!(matches!(load_shape(&spec(&wide), 0..1600), Err(ShapeError::TooLong { .. })));
    }
}
