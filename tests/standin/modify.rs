//! MODIFY COLUMN: which types may become which, and what becomes of the rows.

use std::borrow::Cow;

use rusqlite::types::{Value, ValueRef};

use crate::catalog::{Column, Table};
use crate::ndjson::Shape;
use crate::sql_error::SqlError;
use crate::storage::{Store, storage_column};
use crate::typing::ColumnType;
use crate::values::{Cell, Raw, compact_json, convert};

/// Whether StarRocks changes a column of one type into the other.
pub(crate) fn is_allowed(from: &ColumnType, to: &ColumnType) -> bool {
    use ColumnType::{
        BigInt, Date, DateTime, Decimal, Double, Float, Int, Json, LargeInt, SmallInt, TinyInt, Varchar,
    };
    let rank =
        |ty: &ColumnType| [TinyInt, SmallInt, Int, BigInt, LargeInt].iter().position(|other| other == ty);
    if from == to {
        return true;
    }
    match (from, to) {
        (Int, Date) | (Float, Double) | (Date, DateTime) | (DateTime, Date) => true,
        (Float | Double | Decimal { .. } | Json, Varchar(_)) => true,
        (Varchar(old), Varchar(new)) => new >= old,
        (Varchar(_), Float | Double | Decimal { .. } | Date | Json) => true,
        (Varchar(_), number) => rank(number).is_some(),
        (Decimal { precision: p, scale: s }, Decimal { precision, scale }) => {
            scale >= s && precision - scale >= p.saturating_sub(*s)
        }
        (number, Double | Varchar(_)) => rank(number).is_some(),
        (old, new) => rank(old).zip(rank(new)).is_some_and(|(old, new)| old < new),
    }
}

/// Fills the storage of a changed column from that of the old one; a value that does not fit fails the change.
pub(crate) fn convert_rows(store: &Store, table: &Table, from: &Column, to: &Column) -> Result<(), SqlError> {
    let keys: Vec<String> = table.keys().iter().map(storage_column).collect();
    let select =
        format!("SELECT {}, {} FROM {}", storage_column(from), keys.join(", "), table.storage_name());
    let matches: Vec<String> = keys.iter().zip(2..).map(|(key, index)| format!("{key} = ?{index}")).collect();
    let update = format!(
        "UPDATE {} SET {} = ?1 WHERE {}",
        table.storage_name(),
        storage_column(to),
        matches.join(" AND ")
    );
    let mut select = store.connection.prepare(&select)?;
    let mut changes: Vec<Vec<Value>> = Vec::new();
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let mut values = vec![converted(row.get_ref(0)?, from, to)?];
        for index in 1..=keys.len() {
            values.push(row.get(index)?);
        }
        changes.push(values);
    }
    let mut update = store.connection.prepare(&update)?;
    for values in changes {
        update.execute(rusqlite::params_from_iter(values))?;
    }
    Ok(())
}

fn converted(value: ValueRef<'_>, from: &Column, to: &Column) -> Result<Value, SqlError> {
    let text: Cow<'_, str> = match value {
        ValueRef::Null => return Ok(Value::Null),
        ValueRef::Integer(value) => value.to_string().into(),
        #[expect(clippy::cast_possible_truncation, reason = "a FLOAT was stored from 32 bits")]
        ValueRef::Real(value) if from.ty == ColumnType::Float => (value as f32).to_string().into(),
        ValueRef::Real(value) => value.to_string().into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes),
    };
    let failure = || SqlError::analyzing(format!("value '{text}' of column {} is no {}", from.name, to.ty));
    if to.ty == ColumnType::Json {
        return compact_json(&text).map(Value::Text).ok_or_else(failure);
    }
    match convert(&to.ty, Raw { shape: Shape::Plain, text: &text }) {
        Ok(Cell::Int(value)) => Ok(Value::Integer(value)),
        Ok(Cell::Real(value)) => Ok(Value::Real(value)),
        Ok(Cell::Text(text)) => Ok(Value::Text(text.into_owned())),
        Ok(Cell::Blob(bytes)) => Ok(Value::Blob(bytes)),
        Ok(Cell::Null) | Err(_) => Err(failure()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(precision: u32, scale: u32) -> ColumnType {
        ColumnType::Decimal { precision, scale }
    }

    #[test]
    fn types_widen_and_do_not_narrow() {
        use ColumnType::{BigInt, Boolean, Date, DateTime, Double, Int, Json, LargeInt, SmallInt, Varchar};
        for (from, to) in [
            (Int, BigInt),
            (SmallInt, LargeInt),
            (Int, Double),
            (Int, Varchar(20)),
            (Varchar(5), Varchar(9)),
            (Varchar(5), Int),
            (Date, DateTime),
            (Json, Varchar(100)),
            (decimal(10, 2), decimal(12, 4)),
        ] {
            assert!(is_allowed(&from, &to), "{from} -> {to}");
        }
        for (from, to) in [
            (BigInt, Int),
            (Int, decimal(10, 2)),
            (DateTime, Varchar(30)),
            (Boolean, Int),
            (Varchar(9), Varchar(5)),
            (decimal(10, 2), decimal(10, 4)),
            (Double, Int),
        ] {
            assert!(!is_allowed(&from, &to), "{from} -> {to}");
        }
    }
}
