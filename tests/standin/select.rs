//! SELECT: rewritten for SQLite, run, and typed as the tables declare.
//!
//! Table names become views (`shop.orders` → `v10001 AS "orders"`), double-quoted texts become texts, names in back-ticks become names in
//! double quotes. What SQLite does not know fails with its own message.

use rusqlite::types::{Value, ValueRef};

use crate::server::Shared;
use crate::sql_error::SqlError;
use crate::sql_tokens::{Kind, Token};
use crate::statement::{OwnedCell, Rows, Session, WireType};
use crate::storage::{Store, quote_name, quote_text};
use crate::{information_schema, storage};

/// Runs a query with the parameters of a prepared statement.
pub(crate) fn run(
    shared: &Shared,
    session: &Session,
    tokens: &[Token],
    parameters: &[Value],
) -> Result<Rows, SqlError> {
    let store = shared.storage.lock();
    let sql = rewrite(&store, session, tokens)?;
    let mut statement = store.connection.prepare(&sql)?;
    if !statement.readonly() {
        return Err(SqlError::syntax("a query must not change anything"));
    }
    let declared = columns_of(&statement);
    let mut rows = Vec::new();
    let mut found = statement.query(rusqlite::params_from_iter(parameters))?;
    while let Some(row) = found.next()? {
        let cell = |index| row.get_ref(index).map(owned);
        rows.push((0..declared.len()).map(cell).collect::<Result<Vec<_>, _>>()?);
    }
    let column_type =
        |index: usize, declared: Option<WireType>| declared.unwrap_or_else(|| guess(&rows, index));
    let columns = declared
        .into_iter()
        .enumerate()
        .map(|(index, (name, declared))| (name, column_type(index, declared)))
        .collect();
    Ok(Rows { columns, rows })
}

/// The columns of a query that is only prepared, and how many parameters it has.
pub(crate) fn prepare(
    shared: &Shared,
    session: &Session,
    tokens: &[Token],
) -> Result<(Vec<(String, WireType)>, usize), SqlError> {
    let store = shared.storage.lock();
    let sql = rewrite(&store, session, tokens)?;
    let statement = store.connection.prepare(&sql)?;
    let columns = columns_of(&statement);
    let known =
        columns.into_iter().map(|(name, declared)| (name, declared.unwrap_or(WireType::Text))).collect();
    Ok((known, statement.parameter_count()))
}

fn owned(value: ValueRef<'_>) -> OwnedCell {
    match value {
        ValueRef::Null => OwnedCell::Null,
        ValueRef::Integer(value) => OwnedCell::Int(value),
        ValueRef::Real(value) => OwnedCell::Real(value),
        ValueRef::Text(bytes) => OwnedCell::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => OwnedCell::Blob(bytes.to_vec()),
    }
}

fn columns_of(statement: &rusqlite::Statement<'_>) -> Vec<(String, Option<WireType>)> {
    statement
        .columns()
        .map(|column| (column.name().to_owned(), column.decl_type().and_then(declared)))
        .collect()
}

/// The type that [`crate::typing::ColumnType::sqlite_declaration`] wrote.
fn declared(declaration: &str) -> Option<WireType> {
    let name = declaration.split([' ', '(']).next().unwrap_or_default();
    Some(match name {
        "BOOLEAN" | "TINYINT" => WireType::Tiny,
        "SMALLINT" => WireType::Short,
        "INT" => WireType::Long,
        "BIGINT" => WireType::LongLong,
        "FLOAT" => WireType::Float,
        "DOUBLE" => WireType::Double,
        "DECIMAL" => WireType::Decimal,
        "DATE" => WireType::Date,
        "DATETIME" => WireType::DateTime,
        "JSON" => WireType::Json,
        "VARBINARY" => WireType::Blob,
        "VARCHAR" | "LARGE" | "NESTED" => WireType::Text,
        _ => return None,
    })
}

/// The type of an expression, from the values that it gave.
fn guess(rows: &[Vec<OwnedCell>], index: usize) -> WireType {
    let mut guess = None;
    for cell in rows.iter().filter_map(|row| row.get(index)) {
        let found = match cell {
            OwnedCell::Null => continue,
            OwnedCell::Int(_) => WireType::LongLong,
            OwnedCell::Real(_) => WireType::Double,
            OwnedCell::Text(_) => WireType::Text,
            OwnedCell::Blob(_) => WireType::Blob,
        };
        guess = match guess {
            None => Some(found),
            Some(known) if known == found => guess,
            Some(WireType::LongLong | WireType::Double)
                if found != WireType::Text && found != WireType::Blob =>
            {
                Some(WireType::Double)
            }
            Some(_) => return WireType::Text,
        };
    }
    guess.unwrap_or(WireType::Text)
}

/// The text that SQLite gets.
pub(crate) fn rewrite(store: &Store, session: &Session, tokens: &[Token]) -> Result<String, SqlError> {
    let mut rewriter =
        Rewriter { store, session, tokens, at: 0, out: String::new(), frames: vec![Frame::default()] };
    while let Some(token) = rewriter.tokens.get(rewriter.at) {
        rewriter.step(token)?;
    }
    Ok(rewriter.out)
}

/// Where a parenthesis level stands in its FROM clause.
#[derive(Clone, Copy, Default)]
struct Frame {
    in_from: bool,
    expects_table: bool,
}

struct Rewriter<'a> {
    store: &'a Store,
    session: &'a Session,
    tokens: &'a [Token],
    at: usize,
    out: String,
    frames: Vec<Frame>,
}

impl<'a> Rewriter<'a> {
    fn ahead(&self, distance: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + distance)
    }

    fn emit(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(text);
    }

    fn step(&mut self, token: &Token) -> Result<(), SqlError> {
        let expects_table = self.frames.last().is_some_and(|frame| frame.expects_table);
        let is_name = matches!(token.kind, Kind::Word | Kind::Name);
        if expects_table && is_name && !token.is_word("SELECT") && !token.is_word("LATERAL") {
            return self.table();
        }
        self.at += 1;
        match token.kind {
            Kind::Text => self.emit(&quote_text(&token.text)),
            Kind::Name => self.name(token),
            Kind::Variable => self.emit(&variable(&token.text)),
            Kind::Symbol => self.symbol(token),
            Kind::Word => self.word(token),
            Kind::Number | Kind::Mark => self.emit(&token.text),
        }
        Ok(())
    }

    fn symbol(&mut self, token: &Token) {
        match token.text.as_str() {
            "(" => self.frames.push(Frame { expects_table: false, ..Frame::default() }),
            ")" if self.frames.len() > 1 => {
                self.frames.pop();
                if let Some(frame) = self.frames.last_mut() {
                    frame.expects_table = false;
                }
            }
            "," => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.expects_table = frame.in_from;
                }
            }
            _ => {}
        }
        self.emit(match token.text.as_str() {
            "<=>" => "IS",
            "&&" => "AND",
            // Two pipes are a logical OR unless the session says otherwise.
            "||" => "OR",
            other => other,
        });
    }

    /// A name outside of FROM; of `db.table.column` the database is dropped.
    fn name(&mut self, token: &Token) {
        let dot = |token: Option<&Token>| token.is_some_and(|token| token.is_symbol("."));
        let is_qualified_twice = dot(self.ahead(0)) && dot(self.ahead(2));
        let is_database =
            self.store.catalog.databases.contains_key(&token.text) || token.text == "information_schema";
        if is_qualified_twice && is_database {
            self.at += 1;
            return;
        }
        if token.kind == Kind::Name { self.emit(&quote_name(&token.text)) } else { self.emit(&token.text) }
    }

    fn word(&mut self, token: &Token) {
        let word = token.text.to_ascii_uppercase();
        let is_call = self.ahead(0).is_some_and(|next| next.is_symbol("("));
        if let Some(frame) = self.frames.last_mut() {
            match word.as_str() {
                "FROM" | "JOIN" => (frame.in_from, frame.expects_table) = (true, true),
                "WHERE" | "GROUP" | "ORDER" | "HAVING" | "LIMIT" | "UNION" | "EXCEPT" | "INTERSECT"
                | "SELECT" | "WINDOW" => {
                    frame.in_from = false;
                }
                _ => {}
            }
        }
        match word.as_str() {
            "DATABASE" | "SCHEMA" if is_call => {
                self.at += 2;
                let database = self.session.database.as_deref();
                self.emit(&database.map_or("NULL".into(), quote_text));
            }
            "IF" if is_call => self.emit("iif"),
            "STRING" if self.out.ends_with(" AS") || self.out.ends_with(" as") => self.emit("TEXT"),
            _ => self.name(token),
        }
    }

    /// A table in FROM, with its alias.
    fn table(&mut self) -> Result<(), SqlError> {
        if let Some(frame) = self.frames.last_mut() {
            frame.expects_table = false;
        }
        let first = self.tokens.get(self.at).map(|token| token.text.clone()).unwrap_or_default();
        let is_qualified = self.ahead(1).is_some_and(|token| token.is_symbol("."));
        let second = self.ahead(2).map(|token| token.text.clone());
        let (database, table) = match second {
            Some(table) if is_qualified => (first, table),
            _ if self.is_common_table(&first) => {
                self.at += 1;
                self.emit(&quote_name(&first));
                return Ok(());
            }
            _ => (self.session.database.clone().ok_or_else(SqlError::no_database)?, first),
        };
        self.at += if is_qualified { 3 } else { 1 };
        let view = self.view(&database, &table)?;
        self.emit(&view);
        if !self.has_alias() {
            self.emit("AS");
            self.emit(&quote_name(&table));
        }
        Ok(())
    }

    fn view(&self, database: &str, table: &str) -> Result<String, SqlError> {
        if database == "information_schema" {
            return information_schema::refreshed(self.store, table);
        }
        let tables =
            self.store.catalog.databases.get(database).ok_or_else(|| SqlError::unknown_database(database))?;
        let found = tables.get(table).ok_or_else(|| SqlError::unknown_table(table))?;
        Ok(storage_view(found))
    }

    /// Whether `WITH name AS (…)` defines it.
    fn is_common_table(&self, name: &str) -> bool {
        self.tokens.windows(3).any(|window| match window {
            [defined, keyword, open] => defined.text == name && keyword.is_word("AS") && open.is_symbol("("),
            _ => false,
        })
    }

    fn has_alias(&self) -> bool {
        const NO_ALIAS: &[&str] = &[
            "WHERE",
            "GROUP",
            "ORDER",
            "HAVING",
            "LIMIT",
            "UNION",
            "EXCEPT",
            "INTERSECT",
            "JOIN",
            "INNER",
            "LEFT",
            "RIGHT",
            "FULL",
            "CROSS",
            "ON",
            "USING",
            "NATURAL",
            "WINDOW",
        ];
        match self.ahead(0) {
            Some(token) if token.kind == Kind::Name => true,
            Some(token) if token.kind == Kind::Word => !NO_ALIAS.iter().any(|word| token.is_word(word)),
            _ => false,
        }
    }
}

fn storage_view(table: &crate::catalog::Table) -> String {
    table.view_name()
}

/// The value of `@@name`, as an SQL literal.
fn variable(name: &str) -> String {
    let name = name.trim_start_matches('@').to_ascii_lowercase();
    let name = name.trim_start_matches("session.").trim_start_matches("global.");
    match name {
        "version" => "'8.0.33'".into(),
        "version_comment" => quote_text(&format!("StarRocks version {}", storage::STARROCKS_VERSION)),
        "max_allowed_packet" => "33554432".into(),
        "wait_timeout" | "interactive_timeout" => "28800".into(),
        "query_timeout" => "300".into(),
        "autocommit" | "auto_increment_increment" => "1".into(),
        "time_zone" | "system_time_zone" => "'UTC'".into(),
        "sql_mode" => "'ONLY_FULL_GROUP_BY'".into(),
        "character_set_client"
        | "character_set_connection"
        | "character_set_results"
        | "character_set_server" => "'utf8'".into(),
        "run_mode" => "'shared_nothing'".into(),
        _ => "NULL".into(),
    }
}
