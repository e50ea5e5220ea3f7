//! What SQLite lacks to answer as StarRocks would: exact decimals and a few functions.

use std::cmp::Ordering;

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};

use crate::decimal::{Decimal, compare, print_scaled};

/// Adds the collation `decimals`, an exact `sum`, and StarRocks' own functions to a connection.
pub(crate) fn register(connection: &Connection, version: &'static str) -> Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection
        .create_collation("decimals", |left: &str, right: &str| -> Ordering { compare(left, right) })?;
    connection.create_aggregate_function("sum", 1, pure, Sum)?;
    connection.create_scalar_function("version", 0, pure, move |_| Ok("8.0.33"))?;
    connection.create_scalar_function("current_version", 0, pure, move |_| Ok(version))?;
    connection.create_scalar_function("connection_id", 0, pure, |_| Ok(1))?;
    connection
        .create_scalar_function("now", 0, FunctionFlags::SQLITE_UTF8, |_| Ok(crate::server::now_text()))?;
    // StarRocks counts bytes here.
    connection.create_scalar_function("length", 1, pure, |context| match context.get_raw(0) {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Some(bytes.len() as i64)),
        ValueRef::Integer(value) => Ok(Some(value.to_string().len() as i64)),
        ValueRef::Real(value) => Ok(Some(value.to_string().len() as i64)),
    })?;
    connection.create_scalar_function("char_length", 1, pure, |context| {
        Ok(context.get::<Option<String>>(0)?.map(|text| text.chars().count() as i64))
    })
}

/// `sum` over integers and over decimals kept as text, without rounding.
struct Sum;

/// A running sum.
struct Total {
    exact: i128,
    scale: usize,
    /// Set once a value was floating-point.
    inexact: Option<f64>,
    has_text: bool,
    is_empty: bool,
}

impl Total {
    fn add_exact(&mut self, value: &Decimal) -> Option<()> {
        if value.scale() > self.scale {
            let shift = u32::try_from(value.scale() - self.scale).ok()?;
            self.exact = self.exact.checked_mul(10i128.checked_pow(shift)?)?;
            self.scale = value.scale();
        }
        self.exact = self.exact.checked_add(value.to_scaled(self.scale)?)?;
        Some(())
    }
}

impl Aggregate<Total, Option<Value>> for Sum {
    fn init(&self, _: &mut Context<'_>) -> Result<Total> {
        Ok(Total { exact: 0, scale: 0, inexact: None, has_text: false, is_empty: true })
    }

    fn step(&self, context: &mut Context<'_>, total: &mut Total) -> Result<()> {
        let overflow = || Error::UserFunctionError("sum overflows 128 bits".into());
        match context.get_raw(0) {
            ValueRef::Null => return Ok(()),
            ValueRef::Integer(value) => {
                let scale = u32::try_from(total.scale).ok().and_then(|scale| 10i128.checked_pow(scale));
                let scaled = scale.and_then(|scale| scale.checked_mul(value.into())).ok_or_else(overflow)?;
                total.exact = total.exact.checked_add(scaled).ok_or_else(overflow)?;
            }
            ValueRef::Real(value) => *total.inexact.get_or_insert(0.0) += value,
            ValueRef::Text(bytes) => {
                let value = std::str::from_utf8(bytes).ok().and_then(Decimal::parse);
                let value = value
                    .ok_or_else(|| Error::UserFunctionError("sum of a text that is no number".into()))?;
                total.add_exact(&value).ok_or_else(overflow)?;
                total.has_text = true;
            }
            ValueRef::Blob(_) => return Err(Error::UserFunctionError("sum of binary values".into())),
        }
        total.is_empty = false;
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, total: Option<Total>) -> Result<Option<Value>> {
        let Some(total) = total.filter(|total| !total.is_empty) else { return Ok(None) };
        if let Some(inexact) = total.inexact {
            let exact: f64 = print_scaled(total.exact, total.scale).parse().unwrap_or(f64::NAN);
            return Ok(Some(Value::Real(inexact + exact)));
        }
        Ok(Some(match i64::try_from(total.exact) {
            Ok(value) if !total.has_text => Value::Integer(value),
            _ => Value::Text(print_scaled(total.exact, total.scale)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(sql: &str) -> Value {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection, "3.5.0").unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn decimals_are_summed_exactly() {
        let sum = eval(
            "SELECT sum(v) FROM (SELECT '0.10' AS v UNION ALL SELECT '0.20' UNION ALL SELECT '-12345678901234567890.05')",
        );
        assert_eq!(sum, Value::Text("-12345678901234567889.75".into()));
        assert_eq!(eval("SELECT sum(v) FROM (SELECT 1 AS v UNION ALL SELECT 2)"), Value::Integer(3));
        assert_eq!(eval("SELECT sum(v) FROM (SELECT 1 AS v) WHERE v > 1"), Value::Null);
        assert_eq!(eval("SELECT sum(v) FROM (SELECT 1.5 AS v UNION ALL SELECT 2)"), Value::Real(3.5));
    }

    #[test]
    fn decimals_are_ordered_as_numbers() {
        let sql = "SELECT group_concat(v) FROM (SELECT v FROM (SELECT '10.0' AS v UNION ALL SELECT '9.5') ORDER BY v COLLATE decimals)";
        assert_eq!(eval(sql), Value::Text("9.5,10.0".into()));
    }

    #[test]
    fn length_counts_bytes() {
        assert_eq!(eval("SELECT length('é')"), Value::Integer(2));
        assert_eq!(eval("SELECT char_length('é')"), Value::Integer(1));
    }
}
