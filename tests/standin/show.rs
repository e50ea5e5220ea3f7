//! SHOW and DESC.

use crate::catalog::{AlterJob, DefaultValue, Table};
use crate::server::{Shared, lock};
use crate::sql_error::SqlError;
use crate::sql_parser::{Parser, TableName};
use crate::statement::{OwnedCell, Reply, Rows, Session, WireType, known_database, known_table};

/// Runs what follows `SHOW`.
pub(crate) fn run(shared: &Shared, session: &Session, parser: &mut Parser<'_>) -> Result<Reply, SqlError> {
    if parser.eat("DATABASES") || parser.eat("SCHEMAS") {
        return databases(shared, parser);
    }
    if parser.eat("TABLES") || parser.eat("FULL TABLES") {
        return tables(shared, session, parser);
    }
    if parser.eat("CREATE TABLE") {
        let table = known_table(shared, session, &parser.table_name()?)?;
        let row = vec![table.name.clone(), create_text(&table)];
        return Ok(Reply::Rows(Rows::texts(&["Table", "Create Table"], vec![row])));
    }
    if parser.eat("ALTER TABLE COLUMN") {
        return alter_jobs(shared, session, parser);
    }
    if parser.eat("FULL COLUMNS") || parser.eat("COLUMNS") {
        if !parser.eat("FROM") {
            parser.require("IN")?;
        }
        return describe(shared, session, parser);
    }
    if parser.eat("BACKENDS") {
        return Ok(Reply::Rows(backends(shared)));
    }
    if parser.eat("FRONTENDS") {
        let port = |port: u16| port.to_string();
        let row = vec![
            "fe".into(),
            "127.0.0.1".into(),
            port(shared.ports.fe),
            port(shared.ports.mysql),
            "LEADER".into(),
            "true".into(),
        ];
        return Ok(Reply::Rows(Rows::texts(
            &["Name", "IP", "HttpPort", "QueryPort", "Role", "Alive"],
            vec![row],
        )));
    }
    if parser.eat("FULL PROCESSLIST") || parser.eat("PROCESSLIST") {
        let running = lock(&shared.running);
        let rows = running.iter().map(|(id, statement)| {
            vec![id.to_string(), shared.args.user.clone(), "Query".into(), statement.clone()]
        });
        return Ok(Reply::Rows(Rows::texts(&["Id", "User", "Command", "Info"], rows.collect())));
    }
    if parser.eat("VARIABLES") || parser.eat("WARNINGS") || parser.eat("GRANTS") {
        return Ok(Reply::Rows(Rows::texts(&["Variable_name", "Value"], Vec::new())));
    }
    Err(parser.unexpected())
}

/// Runs what follows `DESC`.
pub(crate) fn describe(
    shared: &Shared,
    session: &Session,
    parser: &mut Parser<'_>,
) -> Result<Reply, SqlError> {
    let mut name = parser.table_name()?;
    if parser.eat("FROM") || parser.eat("IN") {
        name = TableName { database: Some(parser.name()?), table: name.table };
    }
    let table = known_table(shared, session, &name)?;
    let text = |value: &str| OwnedCell::Text(value.into());
    let row = |(index, column): (usize, &crate::catalog::Column)| {
        vec![
            text(&column.name),
            text(&column.ty.to_string()),
            text(if column.is_nullable { "YES" } else { "NO" }),
            text(if index < table.key_columns { "true" } else { "false" }),
            match &column.default {
                Some(DefaultValue::Literal(value)) => text(value),
                Some(DefaultValue::CurrentTimestamp) => text("CURRENT_TIMESTAMP"),
                None => OwnedCell::Null,
            },
            text(""),
        ]
    };
    let columns = ["Field", "Type", "Null", "Key", "Default", "Extra"];
    Ok(Reply::Rows(Rows {
        columns: columns.iter().map(|name| ((*name).to_owned(), WireType::Text)).collect(),
        rows: table.columns.iter().enumerate().map(row).collect(),
    }))
}

fn backends(shared: &Shared) -> Rows {
    let port = shared.ports.be.to_string();
    let row = |id: u32| vec![(10_000 + id).to_string(), "127.0.0.1".into(), port.clone(), "true".into()];
    Rows::texts(&["BackendId", "IP", "HttpPort", "Alive"], (1..=shared.args.backends).map(row).collect())
}

/// The pattern of a `LIKE` clause, if one comes next.
fn pattern(parser: &mut Parser<'_>) -> Result<Option<String>, SqlError> {
    if parser.eat("LIKE") { parser.text().map(Some) } else { Ok(None) }
}

/// SQL's LIKE.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.chars();
    match parts.next() {
        None => text.is_empty(),
        Some('%') => text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .any(|at| is_like(&text[at..], parts.as_str())),
        Some(wanted) => {
            let wanted = if wanted == '\\' { parts.next() } else { Some(wanted).filter(|c| *c != '_') };
            let mut rest = text.chars();
            rest.next().is_some_and(|c| wanted.is_none_or(|wanted| wanted == c))
                && is_like(rest.as_str(), parts.as_str())
        }
    }
}

fn names(column: &str, names: impl Iterator<Item = String>, pattern: Option<&str>) -> Reply {
    let kept = names.filter(|name| pattern.is_none_or(|pattern| is_like(name, pattern)));
    Reply::Rows(Rows::texts(&[column], kept.map(|name| vec![name]).collect()))
}

fn databases(shared: &Shared, parser: &mut Parser<'_>) -> Result<Reply, SqlError> {
    let pattern = pattern(parser)?;
    parser.end()?;
    let store = shared.storage.lock();
    let all = store.catalog.databases.keys().cloned().chain(["information_schema".to_owned()]);
    Ok(names("Database", all, pattern.as_deref()))
}

fn tables(shared: &Shared, session: &Session, parser: &mut Parser<'_>) -> Result<Reply, SqlError> {
    let database = database_clause(session, parser)?;
    known_database(shared, &database)?;
    let pattern = pattern(parser)?;
    parser.end()?;
    let store = shared.storage.lock();
    let all = store.catalog.databases.get(&database).into_iter().flat_map(|tables| tables.keys().cloned());
    Ok(names(&format!("Tables_in_{database}"), all, pattern.as_deref()))
}

fn database_clause(session: &Session, parser: &mut Parser<'_>) -> Result<String, SqlError> {
    if parser.eat("FROM") || parser.eat("IN") {
        return parser.name();
    }
    session.database.clone().ok_or_else(SqlError::no_database)
}

/// `SHOW ALTER TABLE COLUMN [FROM db] [WHERE TableName = 't'] [ORDER BY CreateTime [DESC]] [LIMIT n]`.
fn alter_jobs(shared: &Shared, session: &Session, parser: &mut Parser<'_>) -> Result<Reply, SqlError> {
    let database = database_clause(session, parser)?;
    known_database(shared, &database)?;
    let mut table = None;
    if parser.eat("WHERE") {
        parser.require("TableName")?;
        parser.require_symbol("=")?;
        table = Some(parser.text()?);
    }
    let mut newest_first = false;
    if parser.eat("ORDER BY") {
        parser.name()?;
        newest_first = parser.eat("DESC");
        if !newest_first {
            parser.eat("ASC");
        }
    }
    let limit = match parser.peek() {
        Some(token) if token.is_word("LIMIT") => {
            parser.next();
            parser.number()? as usize
        }
        _ => usize::MAX,
    };
    parser.end()?;
    let store = shared.storage.lock();
    let mut jobs: Vec<&AlterJob> = store
        .catalog
        .jobs
        .iter()
        .filter(|job| job.database == database && table.as_ref().is_none_or(|table| *table == job.table))
        .collect();
    if newest_first {
        jobs.reverse();
    }
    let columns = [
        "JobId",
        "TableName",
        "CreateTime",
        "FinishTime",
        "IndexName",
        "IndexId",
        "OriginIndexId",
        "SchemaVersion",
        "TransactionId",
        "State",
        "Msg",
        "Progress",
        "Timeout",
    ];
    let rows = jobs.into_iter().take(limit).map(|job| job_row(shared, job)).collect();
    Ok(Reply::Rows(Rows::texts(&columns, rows)))
}

fn job_row(shared: &Shared, job: &AlterJob) -> Vec<String> {
    let state = if job.failure.is_some() {
        "CANCELLED"
    } else if job.finished_at.is_some() {
        "FINISHED"
    } else if shared.labels.open_loads(&job.database, &job.table, job.transaction_id) > 0 {
        "WAITING_TXN"
    } else {
        "RUNNING"
    };
    vec![
        job.id.to_string(),
        job.table.clone(),
        job.created_at.clone(),
        job.finished_at.clone().unwrap_or_else(|| "NULL".into()),
        job.table.clone(),
        job.id.to_string(),
        job.id.to_string(),
        "1:0".into(),
        job.transaction_id.to_string(),
        state.into(),
        job.failure.clone().unwrap_or_default(),
        "NULL".into(),
        "86400".into(),
    ]
}

/// The statement that would make a table again.
fn create_text(table: &Table) -> String {
    let quoted =
        |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let null = if column.is_nullable { "NULL" } else { "NOT NULL" };
            let default = match &column.default {
                Some(DefaultValue::Literal(value)) => format!(" DEFAULT \"{value}\""),
                Some(DefaultValue::CurrentTimestamp) => " DEFAULT CURRENT_TIMESTAMP".into(),
                None => String::new(),
            };
            format!("  `{}` {} {null}{default} COMMENT \"{}\"", column.name, column.ty, column.comment)
        })
        .collect();
    let properties: Vec<String> =
        table.properties.iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"")).collect();
    format!(
        "CREATE TABLE `{}` (\n{}\n) ENGINE=OLAP\nPRIMARY KEY({})\nCOMMENT \"{}\"\nDISTRIBUTED BY HASH({})\nPROPERTIES (\n{}\n);",
        table.name,
        columns.join(",\n"),
        quoted(table.keys().iter().map(|column| column.name.as_str()).collect()),
        table.comment,
        quoted(table.distribution.iter().map(String::as_str).collect()),
        properties.join(",\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_has_two_wildcards_and_an_escape() {
        assert!(is_like("orders", "ord%"));
        assert!(is_like("orders", "%"));
        assert!(is_like("orders", "_rders"));
        assert!(!is_like("orders", "order"));
        assert!(is_like("a_b", "a\\_b") && !is_like("axb", "a\\_b"));
    }
}
