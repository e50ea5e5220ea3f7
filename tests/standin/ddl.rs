//! The grammar of CREATE TABLE and ALTER TABLE.

use std::collections::BTreeMap;

use crate::catalog::DefaultValue;
use crate::sql_error::SqlError;
use crate::sql_parser::{Parser, TableName};
use crate::sql_tokens::Kind;
use crate::typing::{ColumnType, MAX_VARCHAR_BYTES, STRING_BYTES};

/// A column as written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ColumnSpec {
    pub(crate) name: String,
    pub(crate) ty: ColumnType,
    /// `NULL` and `NOT NULL`; nothing if neither was written.
    pub(crate) nullability: Option<Nullability>,
    pub(crate) default: Option<DefaultValue>,
    pub(crate) comment: String,
}

/// What was written about NULL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nullability {
    Null,
    NotNull,
}

/// `CREATE TABLE`, parsed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CreateTable {
    pub(crate) name: TableName,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<ColumnSpec>,
    pub(crate) keys: Vec<String>,
    pub(crate) comment: String,
    /// Empty without a `DISTRIBUTED BY` clause.
    pub(crate) distribution: Vec<String>,
    pub(crate) properties: BTreeMap<String, String>,
}

/// Where a new column goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Last,
    First,
    After(String),
}

/// One clause of `ALTER TABLE`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Alteration {
    Add { column: ColumnSpec, place: Place },
    Drop(String),
    Rename { from: String, to: String },
    Modify(ColumnSpec),
}

/// Parses what follows `CREATE TABLE`.
pub(crate) fn create_table(parser: &mut Parser<'_>) -> Result<CreateTable, SqlError> {
    let if_not_exists = parser.eat("IF NOT EXISTS");
    let name = parser.table_name()?;
    parser.require_symbol("(")?;
    let mut columns = vec![column(parser)?];
    while parser.eat_symbol(",") {
        columns.push(column(parser)?);
    }
    parser.require_symbol(")")?;
    if parser.eat("ENGINE") {
        parser.require_symbol("=")?;
        parser.require("OLAP")?;
    }
    for other in ["DUPLICATE KEY", "UNIQUE KEY", "AGGREGATE KEY"] {
        if parser.eat(other) {
            return Err(SqlError::unsupported(format!("{other} (only PRIMARY KEY is)")));
        }
    }
    let keys = if parser.eat("PRIMARY KEY") { parser.names()? } else { Vec::new() };
    let comment = if parser.eat("COMMENT") { parser.text()? } else { String::new() };
    if parser.eat("PARTITION") {
        return Err(SqlError::unsupported("PARTITION BY"));
    }
    let distribution = distribution(parser)?;
    if parser.eat("ORDER BY") {
        return Err(SqlError::unsupported("ORDER BY of a table"));
    }
    let properties = if parser.eat("PROPERTIES") { properties(parser)? } else { BTreeMap::new() };
    parser.end()?;
    Ok(CreateTable { name, if_not_exists, columns, keys, comment, distribution, properties })
}

fn distribution(parser: &mut Parser<'_>) -> Result<Vec<String>, SqlError> {
    if !parser.eat("DISTRIBUTED BY") {
        return Ok(Vec::new());
    }
    if parser.eat("RANDOM") {
        return Err(SqlError::analyzing("PRIMARY KEY must use hash distribution"));
    }
    parser.require("HASH")?;
    let columns = parser.names()?;
    if parser.eat("BUCKETS") {
        parser.number()?;
    }
    Ok(columns)
}

fn properties(parser: &mut Parser<'_>) -> Result<BTreeMap<String, String>, SqlError> {
    let mut properties = BTreeMap::new();
    parser.require_symbol("(")?;
    loop {
        let name = parser.text()?;
        parser.require_symbol("=")?;
        properties.insert(name, parser.text()?);
        if !parser.eat_symbol(",") {
            parser.require_symbol(")")?;
            return Ok(properties);
        }
    }
}

fn column(parser: &mut Parser<'_>) -> Result<ColumnSpec, SqlError> {
    let name = parser.name()?;
    let ty = column_type(parser)?;
    let nullability = if parser.eat("NOT NULL") {
        Some(Nullability::NotNull)
    } else {
        parser.eat("NULL").then_some(Nullability::Null)
    };
    if parser.eat("AUTO_INCREMENT") || parser.eat("AS") {
        return Err(SqlError::unsupported("AUTO_INCREMENT and generated columns"));
    }
    let default = if parser.eat("DEFAULT") { default_value(parser)? } else { None };
    let comment = if parser.eat("COMMENT") { parser.text()? } else { String::new() };
    Ok(ColumnSpec { name, ty, nullability, default, comment })
}

fn default_value(parser: &mut Parser<'_>) -> Result<Option<DefaultValue>, SqlError> {
    if parser.eat("NULL") {
        return Ok(None);
    }
    if parser.eat("CURRENT_TIMESTAMP") {
        if parser.eat_symbol("(") {
            parser.require_symbol(")")?;
        }
        return Ok(Some(DefaultValue::CurrentTimestamp));
    }
    if parser.peek().is_some_and(|token| token.is_symbol("(")) {
        return Err(SqlError::unsupported("a default expression"));
    }
    parser.text().map(|text| Some(DefaultValue::Literal(text)))
}

/// Parses a type.
pub(crate) fn column_type(parser: &mut Parser<'_>) -> Result<ColumnType, SqlError> {
    let name = match parser.peek() {
        Some(token) if token.kind == Kind::Word => token.text.to_ascii_uppercase(),
        _ => return Err(parser.unexpected()),
    };
    parser.next();
    Ok(match name.as_str() {
        "BOOLEAN" | "BOOL" => ColumnType::Boolean,
        "TINYINT" => with_width(parser, ColumnType::TinyInt)?,
        "SMALLINT" => with_width(parser, ColumnType::SmallInt)?,
        "INT" | "INTEGER" => with_width(parser, ColumnType::Int)?,
        "BIGINT" => with_width(parser, ColumnType::BigInt)?,
        "LARGEINT" => with_width(parser, ColumnType::LargeInt)?,
        "FLOAT" => ColumnType::Float,
        "DOUBLE" => ColumnType::Double,
        "DECIMAL" | "NUMERIC" => decimal(parser)?,
        "DATE" => ColumnType::Date,
        "DATETIME" => ColumnType::DateTime,
        "CHAR" => ColumnType::Char(length(parser)?.unwrap_or(1)),
        "VARCHAR" => ColumnType::Varchar(length(parser)?.unwrap_or(1)),
        "STRING" => ColumnType::Varchar(STRING_BYTES),
        "VARBINARY" | "BINARY" => ColumnType::VarBinary(length(parser)?.unwrap_or(MAX_VARCHAR_BYTES)),
        "JSON" => ColumnType::Json,
        "ARRAY" | "MAP" | "STRUCT" => nested(parser, &name)?,
        "TIME" => return Err(SqlError::analyzing("Unsupported data type: TIME")),
        _ => return Err(SqlError::syntax(format!("Unexpected input '{name}', a type is missing"))),
    })
}

fn with_width(parser: &mut Parser<'_>, ty: ColumnType) -> Result<ColumnType, SqlError> {
    length(parser)?;
    Ok(ty)
}

fn length(parser: &mut Parser<'_>) -> Result<Option<u32>, SqlError> {
    if !parser.eat_symbol("(") {
        return Ok(None);
    }
    let length = parser.number()?;
    parser.require_symbol(")")?;
    Ok(Some(length))
}

fn decimal(parser: &mut Parser<'_>) -> Result<ColumnType, SqlError> {
    if !parser.eat_symbol("(") {
        return Ok(ColumnType::Decimal { precision: 10, scale: 0 });
    }
    let precision = parser.number()?;
    let scale = if parser.eat_symbol(",") { parser.number()? } else { 0 };
    parser.require_symbol(")")?;
    Ok(ColumnType::Decimal { precision, scale })
}

fn nested(parser: &mut Parser<'_>, name: &str) -> Result<ColumnType, SqlError> {
    let mut text = name.to_ascii_lowercase();
    let mut depth = 0;
    loop {
        let Some(token) = parser.next() else { return Err(parser.unexpected()) };
        if token.is_symbol("<") {
            depth += 1;
        } else if token.is_symbol(">") {
            depth -= 1;
        }
        if depth == 0 && !token.is_symbol(">") {
            return Err(SqlError::syntax(format!("Unexpected input '{}'", token.text)));
        }
        let is_word = |text: &str| text.chars().next_back().is_some_and(char::is_alphanumeric);
        if is_word(&text) && is_word(&token.text) {
            text.push(' ');
        }
        text.push_str(&token.text.to_ascii_lowercase());
        if depth == 0 {
            return Ok(ColumnType::Nested(text));
        }
    }
}

/// Parses `SWAP WITH name`, if it follows.
pub(crate) fn swap(parser: &mut Parser<'_>) -> Result<Option<String>, SqlError> {
    if !parser.eat("SWAP WITH") {
        return Ok(None);
    }
    let name = parser.name()?;
    parser.end()?;
    Ok(Some(name))
}

/// Parses the clauses that follow `ALTER TABLE name`.
pub(crate) fn alterations(parser: &mut Parser<'_>) -> Result<Vec<Alteration>, SqlError> {
    let mut changes = Vec::new();
    loop {
        if parser.eat("ADD COLUMN") {
            add_columns(parser, &mut changes)?;
        } else if parser.eat("MODIFY COLUMN") {
            changes.push(Alteration::Modify(column(parser)?));
        } else if parser.eat("DROP COLUMN") {
            changes.push(Alteration::Drop(parser.name()?));
        } else if parser.eat("RENAME COLUMN") {
            let from = parser.name()?;
            parser.require("TO")?;
            changes.push(Alteration::Rename { from, to: parser.name()? });
        } else if parser.peek().is_some() {
            let clause: Vec<&str> = parser.rest().iter().take(2).map(|token| token.text.as_str()).collect();
            return Err(SqlError::unsupported(format!("ALTER TABLE … {}", clause.join(" "))));
        } else {
            return Err(parser.unexpected());
        }
        if !parser.eat_symbol(",") {
            parser.end()?;
            return Ok(changes);
        }
    }
}

fn add_columns(parser: &mut Parser<'_>, changes: &mut Vec<Alteration>) -> Result<(), SqlError> {
    if parser.eat_symbol("(") {
        loop {
            changes.push(Alteration::Add { column: column(parser)?, place: Place::Last });
            if !parser.eat_symbol(",") {
                return parser.require_symbol(")");
            }
        }
    }
    let mut column = column(parser)?;
    let place = if parser.eat("FIRST") {
        Place::First
    } else if parser.eat("AFTER") {
        Place::After(parser.name()?)
    } else {
        Place::Last
    };
    if parser.eat("COMMENT") {
        column.comment = parser.text()?;
    }
    changes.push(Alteration::Add { column, place });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql_tokens::tokenize;

    pub(crate) fn create(sql: &str) -> Result<CreateTable, SqlError> {
        let tokens = tokenize(sql).unwrap();
        let mut parser = Parser::new(&tokens);
        parser.require("CREATE TABLE")?;
        create_table(&mut parser)
    }

    fn ty(text: &str) -> Result<ColumnType, SqlError> {
        create(&format!("CREATE TABLE t (c {text}) PRIMARY KEY (c)")).map(|table| table.columns[0].ty.clone())
    }

    #[test]
    fn table_is_parsed() {
        let table = create(
            "CREATE TABLE IF NOT EXISTS `cdc`.`orders` (`id` BIGINT NOT NULL, amount DECIMAL(18,4) NULL DEFAULT \"1.5\",
             `note` VARCHAR(1048576) NULL COMMENT \"free text\") PRIMARY KEY (`id`) COMMENT \"by cdc\"
             DISTRIBUTED BY HASH (`id`) BUCKETS 4 PROPERTIES (\"replication_num\" = \"1\")",
        )
        .unwrap();
        assert_eq!(table.name.database.as_deref(), Some("cdc"));
        assert_eq!((table.keys.len(), table.columns.len()), (1, 3));
        assert_eq!(table.columns[1].default, Some(DefaultValue::Literal("1.5".into())));
        assert_eq!(table.columns[2].comment, "free text");
        assert_eq!(table.properties["replication_num"], "1");
    }

    #[test]
    fn bare_types_have_starrocks_defaults() {
        assert_eq!(ty("VARCHAR"), Ok(ColumnType::Varchar(1)));
        assert_eq!(ty("STRING"), Ok(ColumnType::Varchar(65533)));
        assert_eq!(ty("DECIMAL"), Ok(ColumnType::Decimal { precision: 10, scale: 0 }));
        assert_eq!(ty("VARBINARY"), Ok(ColumnType::VarBinary(1_048_576)));
        assert_eq!(ty("ARRAY<VARCHAR(10)>"), Ok(ColumnType::Nested("array<varchar(10)>".into())));
        assert_eq!(ty("MAP<INT,ARRAY<INT>>"), Ok(ColumnType::Nested("map<int,array<int>>".into())));
    }

    #[test]
    fn time_is_refused() {
        assert!(ty("TIME").unwrap_err().message.contains("Unsupported data type: TIME"));
        assert!(ty("SERIAL").is_err());
    }

    #[test]
    fn clauses_keep_their_order() {
        assert!(create("CREATE TABLE t (a INT) DISTRIBUTED BY HASH (a) PRIMARY KEY (a)").is_err());
        assert!(create("CREATE TABLE t (a INT, PRIMARY KEY (a))").is_err());
    }

    #[test]
    fn alter_clauses_are_parsed() {
        let tokens =
            tokenize("ADD COLUMN `x` INT NULL AFTER id, DROP COLUMN y, RENAME COLUMN a TO b").unwrap();
        let changes = alterations(&mut Parser::new(&tokens)).unwrap();
        assert!(matches!(&changes[0], Alteration::Add { place: Place::After(after), .. } if after == "id"));
        assert_eq!(changes[1], Alteration::Drop("y".into()));
        assert_eq!(changes[2], Alteration::Rename { from: "a".into(), to: "b".into() });
        let tokens = tokenize("ORDER BY (a)").unwrap();
        assert!(alterations(&mut Parser::new(&tokens)).unwrap_err().message.contains("not supported"));
        let tokens = tokenize("SWAP WITH `a b`").unwrap();
        assert_eq!(swap(&mut Parser::new(&tokens)), Ok(Some("a b".to_owned())));
    }
}
