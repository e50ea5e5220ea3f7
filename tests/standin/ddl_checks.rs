//! The rules that tables must keep: names, keys, types, replication.

use std::collections::BTreeMap;

use crate::catalog::{Column, DefaultValue, Table, same_name};
use crate::ddl::{ColumnSpec, CreateTable, Nullability};
use crate::ndjson::Shape;
use crate::sql_error::SqlError;
use crate::typing::{ColumnType, MAX_VARCHAR_BYTES};
use crate::values::{Raw, convert};

const MAX_COLUMNS: usize = 10_000;
const KNOWN_PROPERTIES: &[&str] = &[
    "replication_num",
    "fast_schema_evolution",
    "enable_persistent_index",
    "persistent_index_type",
    "compression",
    "bucket_size",
    "storage_medium",
    "replicated_storage",
    "write_quorum",
    "labels.location",
];

/// Checks a new table and makes it.
pub(crate) fn checked_table(
    spec: &CreateTable,
    database: &str,
    id: u64,
    backends: u32,
) -> Result<Table, SqlError> {
    check_table_name(&spec.name.table)?;
    if spec.columns.len() > MAX_COLUMNS {
        return Err(SqlError::analyzing(format!("max column number is {MAX_COLUMNS}")));
    }
    for (index, column) in spec.columns.iter().enumerate() {
        if spec.columns.iter().take(index).any(|earlier| same_name(&earlier.name, &column.name)) {
            return Err(SqlError::new(1060, format!("Duplicate column name '{}'", column.name)));
        }
    }
    check_keys(spec)?;
    check_properties(&spec.properties, backends)?;
    let mut columns = Vec::with_capacity(spec.columns.len());
    for (index, column) in (1..).zip(&spec.columns) {
        let is_key = spec.keys.iter().any(|key| same_name(key, &column.name));
        let nullability =
            if is_key { Nullability::NotNull } else { column.nullability.unwrap_or(Nullability::Null) };
        columns.push(checked_column(column, nullability, index)?);
    }
    let next_storage_id = u32::try_from(columns.len()).unwrap_or(u32::MAX) + 1;
    Ok(Table {
        id,
        database: database.into(),
        name: spec.name.table.clone(),
        columns,
        key_columns: spec.keys.len(),
        distribution: if spec.distribution.is_empty() {
            spec.keys.clone()
        } else {
            spec.distribution.clone()
        },
        comment: spec.comment.clone(),
        properties: spec.properties.clone(),
        generation: 0,
        retired_names: Vec::new(),
        next_storage_id,
    })
}

fn check_keys(spec: &CreateTable) -> Result<(), SqlError> {
    if spec.keys.is_empty() {
        return Err(SqlError::unsupported("a table without PRIMARY KEY"));
    }
    for (index, key) in spec.keys.iter().enumerate() {
        let Some(column) = spec.columns.iter().find(|column| same_name(&column.name, key)) else {
            return Err(SqlError::analyzing(format!("Key column({key}) doesn't exist")));
        };
        if !spec.columns.get(index).is_some_and(|column| same_name(&column.name, key)) {
            return Err(SqlError::analyzing(
                "Key columns must be the first few columns of the schema and the order of the key columns must be \
                 consistent with the order of the schema",
            ));
        }
        if !column.ty.can_be_key() {
            return Err(SqlError::analyzing(format!(
                "primary key column[{key}] type not supported: {}",
                column.ty
            )));
        }
        if column.nullability == Some(Nullability::Null) {
            return Err(SqlError::analyzing(format!("primary key column[{key}] cannot be nullable")));
        }
    }
    for column in &spec.distribution {
        if !spec.keys.iter().any(|key| same_name(key, column)) {
            return Err(SqlError::analyzing(format!("Distribution column({column}) is not a key column")));
        }
    }
    Ok(())
}

fn check_properties(properties: &BTreeMap<String, String>, backends: u32) -> Result<(), SqlError> {
    if let Some(name) = properties.keys().find(|name| !KNOWN_PROPERTIES.contains(&name.as_str())) {
        return Err(SqlError::analyzing(format!("Unknown properties: {{{name}}}")));
    }
    let replicas = properties.get("replication_num").map_or("3", String::as_str);
    match replicas.parse::<u32>() {
        Ok(number) if number >= 1 && number <= backends => Ok(()),
        Ok(number) if number >= 1 => Err(SqlError::analyzing(format!(
            "Table replication num should be less than or equal to the number of available BE nodes. You can change \
             this default by setting the replication_num table properties. Current alive backend is {backends}"
        ))),
        _ => Err(SqlError::analyzing(format!("Replication num should larger than 0, not {replicas}"))),
    }
}

/// Checks a column on its own and makes it.
pub(crate) fn checked_column(
    spec: &ColumnSpec,
    nullability: Nullability,
    id: u32,
) -> Result<Column, SqlError> {
    check_column_name(&spec.name)?;
    check_type(&spec.name, &spec.ty)?;
    let is_nullable = nullability == Nullability::Null;
    if let Some(default) = &spec.default {
        check_default(spec, default)?;
    }
    Ok(Column {
        name: spec.name.clone(),
        ty: spec.ty.clone(),
        is_nullable,
        default: spec.default.clone(),
        comment: spec.comment.clone(),
        storage_id: id,
    })
}

fn check_default(spec: &ColumnSpec, default: &DefaultValue) -> Result<(), SqlError> {
    let invalid = || SqlError::analyzing(format!("Invalid default value for '{}'", spec.name));
    match (default, &spec.ty) {
        (DefaultValue::CurrentTimestamp, ColumnType::DateTime) => Ok(()),
        (DefaultValue::CurrentTimestamp, _) => Err(invalid()),
        (DefaultValue::Literal(_), ColumnType::Json | ColumnType::Nested(_) | ColumnType::Boolean) => {
            Err(invalid())
        }
        (DefaultValue::Literal(text), ty) => match convert(ty, Raw { shape: Shape::Plain, text }) {
            Ok(_) => Ok(()),
            Err(_) => Err(invalid()),
        },
    }
}

fn check_type(column: &str, ty: &ColumnType) -> Result<(), SqlError> {
    let complaint = match ty {
        ColumnType::Char(length) if !(1..=255).contains(length) => "Char size must be in [1, 255]",
        ColumnType::Varchar(length) | ColumnType::VarBinary(length)
            if !(1..=MAX_VARCHAR_BYTES).contains(length) =>
        {
            "Varchar size must be in [1, 1048576]"
        }
        ColumnType::Decimal { precision, .. } if !(1..=38).contains(precision) => {
            "DECIMAL's precision should range from 1 to 38"
        }
        ColumnType::Decimal { precision, scale } if scale > precision => {
            "DECIMAL's scale must not exceed its precision"
        }
        _ => return Ok(()),
    };
    Err(SqlError::analyzing(format!("{complaint}, column {column}")))
}

fn check_column_name(name: &str) -> Result<(), SqlError> {
    let lower = name.to_lowercase();
    let is_reserved = lower == "__op"
        || lower == "__row"
        || lower.starts_with("__starrocks_shadow_")
        || lower.starts_with("__generated_partition_column_");
    let is_bad =
        name.is_empty() || name.chars().count() > 1024 || name.contains(['\0', '=', '<', '>', '!', '*']);
    if is_reserved || is_bad {
        return Err(SqlError::analyzing(format!("Incorrect column name '{name}'")));
    }
    Ok(())
}

fn check_table_name(name: &str) -> Result<(), SqlError> {
    if name.is_empty() || name.chars().count() > 1024 || name.contains('\0') {
        return Err(SqlError::analyzing(format!("Incorrect table name '{name}'")));
    }
    Ok(())
}

/// Checks the name of a new database.
pub(crate) fn check_database_name(name: &str) -> Result<(), SqlError> {
    let starts_well = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let is_good = |c: char| c.is_alphanumeric() || "_-~!@#$%^&<>=+".contains(c);
    if !starts_well || name.chars().count() > 256 || !name.chars().all(is_good) {
        return Err(SqlError::analyzing(format!("Incorrect database name '{name}'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddl::create_table;
    use crate::sql_parser::Parser;
    use crate::sql_tokens::tokenize;

    fn check(columns: &str, tail: &str) -> Result<Table, SqlError> {
        let tokens = tokenize(&format!("t ({columns}) {tail}")).unwrap();
        let spec = create_table(&mut Parser::new(&tokens))?;
        checked_table(&spec, "db", 1, 1)
    }

    fn complaint(columns: &str) -> String {
        check(columns, "PRIMARY KEY (k) DISTRIBUTED BY HASH (k) PROPERTIES (\"replication_num\" = \"1\")")
            .map_or_else(|error| error.message, |_| String::new())
    }

    #[test]
    fn keys_come_first_and_have_key_types() {
        assert_eq!(complaint("k INT, v INT"), "");
        assert!(complaint("v INT, k INT").contains("Key columns must be the first few columns"));
        assert!(complaint("k DECIMAL(10,2)").contains("primary key column[k] type not supported"));
        assert!(complaint("k INT NULL").contains("nullable"));
        assert!(complaint("v INT").contains("doesn't exist"));
    }

    #[test]
    fn replication_needs_backends() {
        let three = check("k INT", "PRIMARY KEY (k) DISTRIBUTED BY HASH (k)").unwrap_err();
        assert!(three.message.contains("available BE nodes") && three.message.contains("backend is 1"));
    }

    #[test]
    fn reserved_and_doubled_names_are_refused() {
        assert!(complaint("k INT, __op INT").contains("Incorrect column name '__op'"));
        assert!(complaint("k INT, K INT").contains("Duplicate column name"));
        assert!(complaint("k INT, `a=b` INT").contains("Incorrect column name"));
    }

    #[test]
    fn defaults_must_fit_their_type() {
        assert_eq!(complaint("k INT, v DECIMAL(4,2) DEFAULT \"1.5\""), "");
        assert!(complaint("k INT, v INT DEFAULT \"x\"").contains("Invalid default"));
        assert!(complaint("k INT, v JSON DEFAULT \"{}\"").contains("Invalid default"));
    }

    #[test]
    fn lengths_have_limits() {
        assert!(complaint("k INT, v VARCHAR(1048577)").contains("Varchar size"));
        assert!(complaint("k INT, v DECIMAL(39,1)").contains("precision"));
    }
}
