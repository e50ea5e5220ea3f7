//! Databases and tables of the target: what is created, and whether a table that is there will do.
//!
//! Every value column is nullable at the target, whatever the source says: a delete travels as its key alone. Names are
//! quoted with back-ticks, literals with backslash escapes, which StarRocks always honours.

use super::columns::quote_identifier;
use super::fence;
use super::sql::SqlSession;
use crate::sink::{StatementError, TableMatch};
use crate::table::{Column, TableSpec, TargetTable};

/// Creates a database where it is missing.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub fn create_database(session: &mut SqlSession, database: &str) -> Result<(), StatementError> {
    session.execute(&format!("CREATE DATABASE IF NOT EXISTS {}", quote_identifier(database)))
}

/// Creates a table where it is missing, and compares one that is there.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub fn create_table(
    session: &mut SqlSession,
    spec: &TableSpec,
    replication_num: Option<u32>,
) -> Result<TableMatch, StatementError> {
    if is_there(session, &spec.target)? {
        fence::wait_for_others(session, &spec.target, &format!("DESC {}", qualified(&spec.target)))?;
        return compare_with_target(session, spec);
    }
    let mut replicas = replication_num;
    let mut evolution = Evolution::Fast;
    loop {
        match session.execute(&create_table_statement(spec, replicas, evolution)) {
            Ok(()) => return Ok(TableMatch::Created),
            // Somebody was faster, or it could not be looked for.
            Err(StatementError::Refused { code, message, .. }) if is_taken(code, &message) => {
                return compare_with_target(session, spec);
            }
            // Servers before 3.2 do not know the property; they alter tables the slow way.
            Err(StatementError::Refused { message, .. })
                if evolution == Evolution::Fast && names_evolution(&message) =>
            {
                evolution = Evolution::Unsaid;
            }
            // Nobody said how many replicas, and the server's own default is more than it has backends.
            Err(StatementError::Refused { message, .. })
                if replicas.is_none() && names_replication(&message) =>
            {
                replicas = Some(1);
            }
            Err(problem) => return Err(problem),
        }
    }
}

/// Empties a table, once no earlier statement about it is being executed any more ([`fence`]).
///
/// # Errors
/// When the server refuses or cannot be reached; as a statement in progress, which may pass, while an earlier one is
/// executed.
pub fn truncate(session: &mut SqlSession, target: &TargetTable) -> Result<(), StatementError> {
    let statement = format!("TRUNCATE TABLE {}", qualified(target));
    fence::wait_for_others(session, target, &statement)?;
    session.execute(&statement)
}

/// Drops a table, if it is there.
///
/// # Errors
/// As [`truncate`].
pub fn drop_table(session: &mut SqlSession, target: &TargetTable) -> Result<(), StatementError> {
    let statement = drop_statement(target);
    fence::wait_for_others(session, target, &statement)?;
    session.execute(&statement)
}

/// Drops a table, if it is there and a mirror has made it. Nothing is waited for: the name is not used again.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub(super) fn drop_copy(session: &mut SqlSession, copy: &TargetTable) -> Result<(), StatementError> {
    if is_there(session, copy)? && comment_says(session, copy, MADE_BY_US)? {
        session.execute(&drop_statement(copy))?;
    }
    Ok(())
}

/// A table that was dropped is there again, before it could be created. This may pass.
pub(super) fn taken_again(target: &TargetTable) -> StatementError {
    let message = "another one has been created meanwhile: try again".to_owned();
    StatementError::Refused { statement: format!("CREATE TABLE {}", qualified(target)), code: 0, message }
}

/// The statement that drops a table.
pub(super) fn drop_statement(target: &TargetTable) -> String {
    format!("DROP TABLE IF EXISTS {}", qualified(target))
}

/// The statement that creates the table of a mirror.
pub fn create_table_statement(
    spec: &TableSpec,
    replication_num: Option<u32>,
    evolution: Evolution,
) -> String {
    let columns: Vec<String> = spec.columns.iter().enumerate().map(|(i, c)| definition(spec, i, c)).collect();
    let key: Vec<String> = spec.key().iter().map(|column| quote_identifier(&column.name)).collect();
    let key = key.join(", ");
    let mut properties = vec!["\"enable_persistent_index\" = \"true\"".to_owned()];
    if evolution == Evolution::Fast {
        properties.push("\"fast_schema_evolution\" = \"true\"".to_owned());
    }
    if let Some(replicas) = replication_num {
        properties.push(format!("\"replication_num\" = \"{replicas}\""));
    }
    let comment = quote_literal(&format!("{MADE_BY_US} {}", spec.source_name));
    format!(
        "CREATE TABLE {} (\n  {}\n) PRIMARY KEY ({key})\nCOMMENT {comment}\n\
         DISTRIBUTED BY HASH ({key})\nPROPERTIES ({})",
        qualified(&spec.target),
        columns.join(",\n  "),
        properties.join(", "),
    )
}

/// How the comment of every table begins that a mirror has made.
const MADE_BY_US: &str = "mirrored by dbmazz from";

/// Whether new tables promise cheap changes of their columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evolution {
    /// They do: the server's default differs by version, so it is said.
    Fast,
    /// The server does not know the property.
    Unsaid,
}

/// A name with its database.
pub fn qualified(target: &TargetTable) -> String {
    format!("{}.{}", quote_identifier(&target.database), quote_identifier(&target.table))
}

/// A string literal.
pub fn quote_literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

fn definition(spec: &TableSpec, index: usize, column: &Column) -> String {
    let null = if index < spec.key_len { "NOT NULL" } else { "NULL" };
    format!("{} {} {null}", quote_identifier(&column.name), column.target_type)
}

fn is_taken(code: u16, message: &str) -> bool {
    const TABLE_EXISTS: u16 = 1050;
    code == TABLE_EXISTS || message.to_ascii_lowercase().contains("already exists")
}

fn names_evolution(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("fast_schema_evolution") || message.contains("unknown properties")
}

pub(super) fn names_replication(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("replication") || message.contains("replica")
}

/// Whether the comment of a table that is there says so.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub(super) fn comment_says(
    session: &mut SqlSession,
    target: &TargetTable,
    mark: &str,
) -> Result<bool, StatementError> {
    let rows = session.query(&format!("SHOW CREATE TABLE {}", qualified(target)))?;
    Ok(rows.first().and_then(|row| row.at(1)).is_some_and(|text| text.contains(mark)))
}

pub(super) fn is_there(session: &mut SqlSession, target: &TargetTable) -> Result<bool, StatementError> {
    let rows = session.query(&format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = {} AND table_name = {}",
        quote_literal(&target.database),
        quote_literal(&target.table),
    ));
    match rows {
        Ok(rows) => Ok(!rows.is_empty()),
        // A user without a right to look: CREATE TABLE finds out.
        Err(StatementError::Refused { .. }) => Ok(false),
        Err(problem) => Err(problem),
    }
}

/// A column as the target describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TargetColumn {
    pub(super) name: String,
    column_type: String,
    nullable: bool,
    key: bool,
    pub(super) default: Option<String>,
}

impl TargetColumn {
    /// Whether values of a type fit into it.
    pub(super) fn holds(&self, target_type: &str) -> bool {
        holds(&self.column_type, target_type)
    }
}

pub(super) fn describe(
    session: &mut SqlSession,
    target: &TargetTable,
) -> Result<Vec<TargetColumn>, StatementError> {
    let statement = format!("DESC {}", qualified(target));
    let rows = session.query(&statement)?;
    let columns = rows.iter().map(|row| {
        Some(TargetColumn {
            name: row.named("Field")?,
            column_type: row.named("Type")?,
            nullable: row.named("Null")?.eq_ignore_ascii_case("YES"),
            key: matches!(row.named("Key")?.to_ascii_uppercase().as_str(), "TRUE" | "YES" | "PRI" | "1"),
            default: row.named("Default"),
        })
    });
    columns.collect::<Option<Vec<_>>>().ok_or(StatementError::Malformed {
        statement,
        reason: "no columns Field, Type, Null and Key".to_owned(),
    })
}

fn compare_with_target(session: &mut SqlSession, spec: &TableSpec) -> Result<TableMatch, StatementError> {
    let actual = describe(session, &spec.target)?;
    let statement = format!("SHOW CREATE TABLE {}", qualified(&spec.target));
    let rows = match session.query(&statement) {
        // Who may load need not be allowed to see this; a load says as much when the table is of another model.
        Err(StatementError::Refused { .. }) => None,
        other => Some(other?),
    };
    let text = rows.map(|rows| rows.first().and_then(|row| row.at(1)).unwrap_or_default());
    // A user who may not look is told by the loads; nothing says then that the table is anybody else's.
    let is_ours = text.as_ref().is_none_or(|text| text.contains(MADE_BY_US));
    let is_surely_ours = text.as_ref().is_some_and(|text| text.contains(MADE_BY_US));
    let has_primary_key = |text: String| {
        text.lines().any(|line| line.trim_start_matches([')', ' ']).starts_with("PRIMARY KEY"))
    };
    if text.is_some_and(|text| !has_primary_key(text)) {
        return Ok(TableMatch::Differs("it is not a Primary Key table".to_owned()));
    }
    if let Some(difference) = compare(spec, &actual) {
        return Ok(match is_surely_ours {
            true if is_empty(session, &spec.target)? => TableMatch::Unused(difference),
            true => TableMatch::Outdated(difference),
            false => TableMatch::Differs(difference),
        });
    }
    if is_surely_ours {
        let more = unknown_columns(spec, &actual);
        return Ok(if more.is_empty() { TableMatch::Replaceable } else { TableMatch::Wider(more) });
    }
    if is_ours || is_empty(session, &spec.target)? { Ok(TableMatch::Fits) } else { Ok(TableMatch::Occupied) }
}

fn is_empty(session: &mut SqlSession, target: &TargetTable) -> Result<bool, StatementError> {
    let rows = session.query(&format!("SELECT 1 FROM {} LIMIT 1", qualified(target)))?;
    Ok(rows.is_empty())
}

/// The first difference that loads of the mirror would stumble over.
fn compare(spec: &TableSpec, actual: &[TargetColumn]) -> Option<String> {
    let key: Vec<&str> =
        actual.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    let wanted: Vec<&str> = spec.key().iter().map(|column| column.name.as_str()).collect();
    let same_key = key.len() == wanted.len()
        && key.iter().zip(&wanted).all(|(one, other)| one.eq_ignore_ascii_case(other));
    if !same_key {
        return Some(format!("its key is ({}), not ({})", key.join(", "), wanted.join(", ")));
    }
    let mut columns = spec.columns.iter().enumerate();
    columns
        .find_map(|(index, column)| compare_column(column, index < spec.key_len, actual))
        .or_else(|| unfilled_column(spec, actual))
}

fn compare_column(column: &Column, is_key: bool, actual: &[TargetColumn]) -> Option<String> {
    let Column { name, target_type, .. } = column;
    let Some(there) = actual.iter().find(|there| there.name.eq_ignore_ascii_case(name)) else {
        return Some(format!("it has no column \"{name}\""));
    };
    // Keys of JSON are compared with the case that loads send: the target's own.
    if there.name != *name {
        return Some(format!("its column \"{name}\" is called \"{}\"", there.name));
    }
    if !holds(&there.column_type, target_type) {
        return Some(format!("its column \"{name}\" is {}, not {target_type}", there.column_type));
    }
    if !is_key && !there.nullable {
        return Some(format!("its column \"{name}\" is NOT NULL, but deletes travel without values"));
    }
    None
}

/// Columns of the target that the mirror does not know.
fn unknown_columns(spec: &TableSpec, actual: &[TargetColumn]) -> Vec<String> {
    actual.iter().filter(|there| !is_known(spec, there)).map(|there| there.name.clone()).collect()
}

fn is_known(spec: &TableSpec, there: &TargetColumn) -> bool {
    spec.columns.iter().any(|column| column.name.eq_ignore_ascii_case(&there.name))
}

/// A column that the mirror does not fill and the server cannot.
fn unfilled_column(spec: &TableSpec, actual: &[TargetColumn]) -> Option<String> {
    let unfilled =
        actual.iter().find(|there| !is_known(spec, there) && !there.nullable && there.default.is_none())?;
    Some(format!(
        "its column \"{}\" is NOT NULL without a default, and the mirror has no such column",
        unfilled.name
    ))
}

/// Whether values of one type fit into a column of another, spelled as servers spell it.
fn holds(actual: &str, wanted: &str) -> bool {
    let (actual, wanted) = (normal_type(actual), normal_type(wanted));
    if actual == wanted {
        return true;
    }
    match (varchar_bytes(&actual), varchar_bytes(&wanted)) {
        (Some(room), Some(needed)) => room >= needed,
        _ => false,
    }
}

/// One spelling per type: versions differ in case, blanks, display widths and internal names.
fn normal_type(spelled: &str) -> String {
    let text: String = spelled.to_ascii_lowercase().split_whitespace().collect();
    let (name, arguments) =
        text.split_once('(').map_or((text.as_str(), None), |(name, rest)| (name, Some(rest)));
    match name {
        "tinyint" if arguments == Some("1)") => "boolean".to_owned(),
        "bool" => "boolean".to_owned(),
        "integer" => "int".to_owned(),
        "tinyint" | "smallint" | "int" | "bigint" | "largeint" | "float" | "double" | "varbinary" => {
            name.to_owned()
        }
        "string" => "varchar(65533)".to_owned(),
        "decimal32" | "decimal64" | "decimal128" | "decimal256" | "decimalv3" => {
            format!("decimal({}", arguments.unwrap_or("10,0)"))
        }
        _ => text,
    }
}

fn varchar_bytes(normal: &str) -> Option<usize> {
    normal.strip_prefix("varchar(")?.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Kind, SourceColumn};

    fn column(name: &str, target_type: &str) -> Column {
        let source = SourceColumn { attnum: 1, name: name.to_owned(), type_oid: 25, typmod: -1 };
        Column { source, name: name.to_owned(), kind: Kind::Text, target_type: target_type.to_owned() }
    }

    fn spec() -> TableSpec {
        TableSpec {
            relid: 1,
            source_name: "public.it's".to_owned(),
            target: TargetTable { database: "shop".to_owned(), table: "or`ders".to_owned() },
            columns: vec![
                column("id", "BIGINT"),
                column("note", "VARCHAR(40)"),
                column("sum", "DECIMAL(10,2)"),
            ],
            key_len: 1,
        }
    }

    fn there(name: &str, column_type: &str, key: bool) -> TargetColumn {
        let (name, column_type) = (name.to_owned(), column_type.to_owned());
        TargetColumn { name, column_type, nullable: !key, key, default: None }
    }

    fn fitting() -> Vec<TargetColumn> {
        vec![
            there("id", "bigint(20)", true),
            there("note", "varchar(65533)", false),
            there("sum", "DECIMAL64(10, 2)", false),
        ]
    }

    #[test]
    fn statement_creates_a_primary_key_table_whose_values_may_be_null() {
        assert_eq!(
            create_table_statement(&spec(), Some(1), Evolution::Fast),
            "CREATE TABLE `shop`.`or``ders` (\n  `id` BIGINT NOT NULL,\n  `note` VARCHAR(40) NULL,\n  \
             `sum` DECIMAL(10,2) NULL\n) PRIMARY KEY (`id`)\nCOMMENT 'mirrored by dbmazz from public.it\\'s'\n\
             DISTRIBUTED BY HASH (`id`)\nPROPERTIES (\"enable_persistent_index\" = \"true\", \
             \"fast_schema_evolution\" = \"true\", \"replication_num\" = \"1\")"
        );
        let plain = create_table_statement(&spec(), None, Evolution::Unsaid);
        assert!(plain.ends_with("PROPERTIES (\"enable_persistent_index\" = \"true\")"), "{plain}");
    }

    #[test]
    fn table_in_another_spelling_fits() {
        assert_eq!(compare(&spec(), &fitting()), None);
        let mut more = fitting();
        more.push(there("added_by_hand", "int", false));
        assert_eq!(compare(&spec(), &more), None);
    }

    #[test]
    fn each_difference_is_named() {
        type Change = fn(&mut Vec<TargetColumn>);
        let cases: [(Change, &str); 7] = [
            (|columns| columns[0].key = false, "its key is ()"),
            (|columns| columns[1].key = true, "its key is (id, note)"),
            (|columns| drop(columns.remove(1)), "no column \"note\""),
            (|columns| columns[1].column_type = "varchar(39)".to_owned(), "is varchar(39), not VARCHAR(40)"),
            (|columns| columns[2].column_type = "decimal(10,3)".to_owned(), "is decimal(10,3)"),
            (|columns| columns[2].nullable = false, "\"sum\" is NOT NULL"),
            (|columns| columns[1].name = "Note".to_owned(), "is called \"Note\""),
        ];
        for (change, expected) in cases {
            let mut columns = fitting();
            change(&mut columns);
            let difference = compare(&spec(), &columns).unwrap_or_default();
            assert!(difference.contains(expected), "\"{difference}\" does not say \"{expected}\"");
        }
    }

    #[test]
    fn unknown_column_must_be_fillable_by_the_server() {
        let mut columns = fitting();
        columns.push(TargetColumn { nullable: false, ..there("extra", "int", false) });
        assert!(compare(&spec(), &columns).is_some());
        columns[3].default = Some("0".to_owned());
        assert_eq!(compare(&spec(), &columns), None);
    }

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(quote_literal("a'b\\c\n"), "'a\\'b\\\\c\\n'");
    }
}
