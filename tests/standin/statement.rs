//! Which statement a text is, and what runs it.

use std::sync::Arc;

use crate::catalog::Table;
use crate::ddl::{self, alterations};
use crate::ddl_checks::{check_database_name, checked_table};
use crate::server::Shared;
use crate::sql_error::SqlError;
use crate::sql_parser::{Parser, TableName};
use crate::sql_tokens::{Token, tokenize};
use crate::{alter, dml, select, show};

/// What a connection remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) database: Option<String>,
}

impl Session {
    /// The database of a table's name: the one that was written, or the one in use.
    pub(crate) fn database_of(&self, name: &TableName) -> Result<String, SqlError> {
        name.database.clone().or_else(|| self.database.clone()).ok_or_else(SqlError::no_database)
    }
}

/// A value of a result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnedCell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// How a column of a result is announced to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WireType {
    Tiny,
    Short,
    Long,
    LongLong,
    Float,
    Double,
    Decimal,
    Date,
    DateTime,
    Text,
    Json,
    Blob,
}

/// Rows for the client.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<(String, WireType)>,
    pub(crate) rows: Vec<Vec<OwnedCell>>,
}

impl Rows {
    /// A result of texts only.
    pub(crate) fn texts(columns: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self {
            columns: columns.iter().map(|name| ((*name).to_owned(), WireType::Text)).collect(),
            rows: rows.into_iter().map(|row| row.into_iter().map(OwnedCell::Text).collect()).collect(),
        }
    }
}

/// What a statement gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Done { affected: u64 },
    Rows(Rows),
}

const DONE: Result<Reply, SqlError> = Ok(Reply::Done { affected: 0 });

/// Runs a text of one or several statements; the reply is the last one's.
pub(crate) fn run(shared: &Arc<Shared>, session: &mut Session, sql: &str) -> Result<Reply, SqlError> {
    let tokens = tokenize(sql).map_err(SqlError::syntax)?;
    let mut reply = Err(SqlError::syntax("the statement is empty"));
    for statement in tokens.split(|token| token.is_symbol(";")).filter(|statement| !statement.is_empty()) {
        reply = Ok(run_one(shared, session, statement)?);
    }
    reply
}

fn run_one(shared: &Arc<Shared>, session: &mut Session, tokens: &[Token]) -> Result<Reply, SqlError> {
    let mut parser = Parser::new(tokens);
    let first = parser.next().map(|token| token.text.to_ascii_uppercase()).unwrap_or_default();
    match first.as_str() {
        "SELECT" | "WITH" | "(" => select::run(shared, session, tokens, &[]).map(Reply::Rows),
        "SHOW" => show::run(shared, session, &mut parser),
        "DESC" | "DESCRIBE" => show::describe(shared, session, &mut parser),
        "CREATE" => create(shared, session, &mut parser),
        "DROP" => drop_object(shared, session, &mut parser),
        "TRUNCATE" => truncate(shared, session, &mut parser),
        "ALTER" => {
            parser.require("TABLE")?;
            let name = parser.table_name()?;
            let database = session.database_of(&name)?;
            known_database(shared, &database)?;
            if let Some(other) = ddl::swap(&mut parser)? {
                alter::swap(shared, &database, &name.table, &other)?;
                return DONE;
            }
            alter::alter(shared, &database, &name.table, alterations(&mut parser)?)?;
            DONE
        }
        "INSERT" => dml::insert(shared, session, &mut parser),
        "DELETE" => dml::delete(shared, session, tokens),
        "USE" => {
            let name = parser.name()?;
            known_database(shared, &name)?;
            session.database = Some(name);
            DONE
        }
        "SET" => DONE,
        _ => Err(SqlError::syntax(format!("Unexpected input '{first}'"))),
    }
}

/// Fails unless the database exists.
pub(crate) fn known_database(shared: &Shared, name: &str) -> Result<(), SqlError> {
    let is_known = name == "information_schema" || shared.storage.lock().catalog.databases.contains_key(name);
    if is_known { Ok(()) } else { Err(SqlError::unknown_database(name)) }
}

/// A table, or the error that says which part of its name is wrong.
pub(crate) fn known_table(shared: &Shared, session: &Session, name: &TableName) -> Result<Table, SqlError> {
    let database = session.database_of(name)?;
    known_database(shared, &database)?;
    let store = shared.storage.lock();
    store.catalog.table(&database, &name.table).cloned().ok_or_else(|| SqlError::unknown_table(&name.table))
}

fn create(shared: &Shared, session: &Session, parser: &mut Parser<'_>) -> Result<Reply, SqlError> {
    if parser.eat("DATABASE") || parser.eat("SCHEMA") {
        let if_not_exists = parser.eat("IF NOT EXISTS");
        let name = parser.name()?;
        parser.end()?;
        check_database_name(&name)?;
        let mut store = shared.storage.lock();
        if store.catalog.databases.contains_key(&name) {
            return if if_not_exists {
                DONE
            } else {
                Err(SqlError::new(1007, format!("Can't create database '{name}'; database exists")))
            };
        }
        store.catalog.databases.insert(name, Default::default());
        store.save_catalog()?;
        return DONE;
    }
    parser.require("TABLE")?;
    let spec = ddl::create_table(parser)?;
    let database = session.database_of(&spec.name)?;
    let mut store = shared.storage.lock();
    let Some(tables) = store.catalog.databases.get(&database) else {
        return Err(SqlError::unknown_database(&database));
    };
    if tables.contains_key(&spec.name.table) {
        let message = format!("Table '{}' already exists", spec.name.table);
        return if spec.if_not_exists { DONE } else { Err(SqlError::new(1050, message)) };
    }
    let id = store.catalog.draw_id();
    let table = checked_table(&spec, &database, id, shared.args.backends)?;
    store.atomically(|store| {
        store.create_storage(&table)?;
        if let Some(tables) = store.catalog.databases.get_mut(&database) {
            tables.insert(table.name.clone(), table);
        }
        store.save_catalog()
    })?;
    DONE
}

fn drop_object(shared: &Shared, session: &Session, parser: &mut Parser<'_>) -> Result<Reply, SqlError> {
    if parser.eat("DATABASE") || parser.eat("SCHEMA") {
        let if_exists = parser.eat("IF EXISTS");
        let name = parser.name()?;
        let mut store = shared.storage.lock();
        let Some(tables) = store.catalog.databases.remove(&name) else {
            return if if_exists { DONE } else { Err(SqlError::unknown_database(&name)) };
        };
        tables.values().try_for_each(|table| store.drop_storage(table))?;
        store.catalog.jobs.retain(|job| job.database != name);
        store.save_catalog()?;
        drop(store);
        shared.labels.forget_database(&name);
        return DONE;
    }
    parser.require("TABLE")?;
    let if_exists = parser.eat("IF EXISTS");
    let name = parser.table_name()?;
    let table = match known_table(shared, session, &name) {
        Ok(table) => table,
        Err(error) if if_exists && error.code == 5502 => return DONE,
        Err(error) => return Err(error),
    };
    let mut store = shared.storage.lock();
    store.atomically(|store| {
        store.drop_storage(&table)?;
        if let Some(tables) = store.catalog.databases.get_mut(&table.database) {
            tables.remove(&table.name);
        }
        store.catalog.jobs.retain(|job| job.database != table.database || job.table != table.name);
        store.save_catalog()
    })?;
    DONE
}

fn truncate(shared: &Shared, session: &Session, parser: &mut Parser<'_>) -> Result<Reply, SqlError> {
    parser.require("TABLE")?;
    let name = parser.table_name()?;
    parser.end()?;
    let table = known_table(shared, session, &name)?;
    let mut store = shared.storage.lock();
    if store.has_running_job(&table.database, &table.name) {
        let message = format!(
            "Table[{}]'s state(SCHEMA_CHANGE) is not NORMAL. Do not allow doing truncate",
            table.name
        );
        return Err(SqlError::new(5014, message));
    }
    store.atomically(|store| {
        store.empty_storage(&table)?;
        if let Some(table) = store.catalog.table_mut(&table.database, &table.name) {
            table.generation += 1;
        }
        store.save_catalog()
    })?;
    DONE
}
