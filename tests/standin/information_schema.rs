//! `information_schema`: made from the catalog when it is asked.

use rusqlite::types::Value;

use crate::catalog::{DefaultValue, Table};
use crate::sql_error::SqlError;
use crate::storage::{Store, quote_name};
use crate::typing::ColumnType;

const TABLES: &[&str] = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "TABLE_TYPE",
    "ENGINE",
    "VERSION",
    "TABLE_ROWS",
    "CREATE_TIME",
    "TABLE_COMMENT",
];
const COLUMNS: &[&str] = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "COLUMN_NAME",
    "ORDINAL_POSITION",
    "COLUMN_DEFAULT",
    "IS_NULLABLE",
    "DATA_TYPE",
    "CHARACTER_MAXIMUM_LENGTH",
    "NUMERIC_PRECISION",
    "NUMERIC_SCALE",
    "COLUMN_TYPE",
    "COLUMN_KEY",
    "EXTRA",
    "COLUMN_COMMENT",
    "COLUMN_SIZE",
    "DECIMAL_DIGITS",
];
const SCHEMATA: &[&str] = &["CATALOG_NAME", "SCHEMA_NAME"];
const TABLES_CONFIG: &[&str] = &[
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "TABLE_ENGINE",
    "TABLE_MODEL",
    "PRIMARY_KEY",
    "DISTRIBUTE_KEY",
    "DISTRIBUTE_TYPE",
    "PROPERTIES",
];

/// Fills the SQLite table behind a view of information_schema; returns its name.
pub(crate) fn refreshed(store: &Store, view: &str) -> Result<String, SqlError> {
    let lower = view.to_ascii_lowercase();
    let tables = || store.catalog.databases.values().flat_map(|tables| tables.values());
    let (names, rows): (&[&str], Vec<Vec<Value>>) = match lower.as_str() {
        "tables" => (TABLES, tables().map(table_row).collect()),
        "columns" => (COLUMNS, tables().flat_map(column_rows).collect()),
        "tables_config" => (TABLES_CONFIG, tables().map(config_row).collect()),
        "schemata" => {
            let names = store.catalog.databases.keys().map(String::as_str).chain(["information_schema"]);
            (SCHEMATA, names.map(|name| vec![text("default_catalog"), text(name)]).collect())
        }
        _ => return Err(SqlError::unknown_table(view)),
    };
    let table = format!("information_schema_{lower}");
    let columns: Vec<String> = names.iter().map(|name| quote_name(name)).collect();
    let marks = vec!["?"; names.len()].join(", ");
    store.connection.execute_batch(&format!(
        "CREATE TEMP TABLE IF NOT EXISTS {table} ({}); DELETE FROM {table}",
        columns.join(", ")
    ))?;
    let mut insert = store.connection.prepare_cached(&format!("INSERT INTO {table} VALUES ({marks})"))?;
    for row in rows {
        insert.execute(rusqlite::params_from_iter(row))?;
    }
    Ok(table)
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn table_row(table: &Table) -> Vec<Value> {
    vec![
        text("def"),
        text(&table.database),
        text(&table.name),
        text("BASE TABLE"),
        text("StarRocks"),
        Value::Null,
        Value::Null,
        Value::Null,
        text(&table.comment),
    ]
}

fn column_rows(table: &Table) -> Vec<Vec<Value>> {
    let row = |(index, column): (usize, &crate::catalog::Column)| {
        let (length, precision, scale) = sizes(&column.ty);
        let is_key = index < table.key_columns;
        let number = |value: Option<u32>| value.map_or(Value::Null, |value| Value::Integer(value.into()));
        vec![
            text("def"),
            text(&table.database),
            text(&table.name),
            text(&column.name),
            Value::Integer(i64::try_from(index).unwrap_or(i64::MAX) + 1),
            match &column.default {
                Some(DefaultValue::Literal(value)) => text(value),
                Some(DefaultValue::CurrentTimestamp) => text("CURRENT_TIMESTAMP"),
                None => Value::Null,
            },
            text(if column.is_nullable { "YES" } else { "NO" }),
            text(column.ty.mysql_data_type()),
            number(length),
            number(precision),
            number(scale),
            text(&column.ty.mysql_column_type()),
            text(if is_key { "PRI" } else { "" }),
            text(""),
            text(&column.comment),
            number(length.or(precision)),
            number(scale),
        ]
    };
    table.columns.iter().enumerate().map(row).collect()
}

/// Length, precision and scale of a type, where it has them.
fn sizes(ty: &ColumnType) -> (Option<u32>, Option<u32>, Option<u32>) {
    match ty {
        ColumnType::Char(length) | ColumnType::Varchar(length) | ColumnType::VarBinary(length) => {
            (Some(*length), None, None)
        }
        ColumnType::Decimal { precision, scale } => (None, Some(*precision), Some(*scale)),
        _ => (None, None, None),
    }
}

fn config_row(table: &Table) -> Vec<Value> {
    let list =
        |names: Vec<&str>| text(&names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
    let properties = serde_json::to_string(&table.properties).unwrap_or_default();
    vec![
        text(&table.database),
        text(&table.name),
        text("OLAP"),
        text("PRIMARY_KEYS"),
        list(table.keys().iter().map(|column| column.name.as_str()).collect()),
        list(table.distribution.iter().map(String::as_str).collect()),
        text("HASH"),
        text(&properties),
    ]
}
