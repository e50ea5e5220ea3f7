//! INSERT … VALUES and DELETE … WHERE, for the few rows that clients write over SQL.

use std::sync::Arc;
use std::time::Duration;

use crate::body::{Body, Compression};
use crate::columns_header::Entry;
use crate::load_headers::{BodyShape, LoadHeaders, Strictness, UpdateScope};
use crate::plan::Plan;
use crate::rows::{Refused, read_rows};
use crate::select;
use crate::server::Shared;
use crate::sql_error::SqlError;
use crate::sql_parser::Parser;
use crate::sql_tokens::{Kind, Token};
use crate::statement::{Reply, Session, known_table};
use crate::storage::Applier;

/// Runs what follows `INSERT`: rows of literals, upserted like those of a load.
pub(crate) fn insert(
    shared: &Arc<Shared>,
    session: &Session,
    parser: &mut Parser<'_>,
) -> Result<Reply, SqlError> {
    parser.require("INTO")?;
    let table = known_table(shared, session, &parser.table_name()?)?;
    let columns = if parser.peek().is_some_and(|token| token.is_symbol("(")) {
        parser.names()?
    } else {
        table.columns.iter().map(|column| column.name.clone()).collect()
    };
    parser.require("VALUES")?;
    let body = rows_as_json(parser, &columns)?;
    parser.end()?;
    let headers = LoadHeaders {
        columns: Some(columns.into_iter().map(|name| Entry { name, expression: None }).collect()),
        strict: Strictness::Strict,
        max_filter_ratio: 0.0,
        update: UpdateScope::FullRows,
        shape: BodyShape::Objects,
        compression: Compression::None,
        timeout: Duration::from_secs(300),
    };
    let plan = Plan::new(table, headers).map_err(SqlError::analyzing)?;
    let store = shared.storage.lock();
    store.begin()?;
    let mut applier = Applier::new(&store, &plan).map_err(SqlError::analyzing)?;
    let mut body = Body::new(body.as_bytes(), Compression::None, BodyShape::Objects, Vec::new());
    let tally = read_rows(&plan, &mut body, &Refused::None, &mut applier);
    match tally {
        Ok(tally) if tally.filtered == 0 => {
            store.commit()?;
            Ok(Reply::Done { affected: tally.upserts })
        }
        Ok(tally) => {
            store.roll_back();
            Err(SqlError::analyzing(tally.samples.join("; ")))
        }
        Err((message, _)) => {
            store.roll_back();
            Err(SqlError::analyzing(message))
        }
    }
}

/// `(literal, …), …` as one JSON object per row.
fn rows_as_json(parser: &mut Parser<'_>, columns: &[String]) -> Result<String, SqlError> {
    let mut body = String::new();
    loop {
        parser.require_symbol("(")?;
        let mut row = serde_json::Map::new();
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                parser.require_symbol(",")?;
            }
            row.insert(column.clone(), literal(parser)?);
        }
        parser.require_symbol(")")?;
        body.push_str(&serde_json::Value::Object(row).to_string());
        if !parser.eat_symbol(",") {
            return Ok(body);
        }
    }
}

fn literal(parser: &mut Parser<'_>) -> Result<serde_json::Value, SqlError> {
    if parser.eat("NULL") {
        return Ok(serde_json::Value::Null);
    }
    if parser.eat("TRUE") {
        return Ok(true.into());
    }
    if parser.eat("FALSE") {
        return Ok(false.into());
    }
    let sign = if parser.eat_symbol("-") { "-" } else { "" };
    match parser.peek() {
        Some(token) if token.kind == Kind::Number || token.kind == Kind::Text && sign.is_empty() => {
            parser.next();
            // Numbers travel as text, so that no digit is lost.
            Ok(format!("{sign}{}", token.text).into())
        }
        _ => Err(parser.unexpected()),
    }
}

/// Runs `DELETE FROM table [WHERE condition]`.
pub(crate) fn delete(shared: &Shared, session: &Session, tokens: &[Token]) -> Result<Reply, SqlError> {
    let mut parser = Parser::new(tokens);
    parser.require("DELETE FROM")?;
    let table = known_table(shared, session, &parser.table_name()?)?;
    let stored: Vec<String> = table.keys().iter().map(|key| format!("c{}", key.storage_id)).collect();
    // The condition names columns, so it is asked of the view, and the keys that it finds are deleted.
    let mut query = vec![word("SELECT")];
    for (index, key) in table.keys().iter().enumerate() {
        if index > 0 {
            query.push(Token { kind: Kind::Symbol, text: ",".into() });
        }
        query.push(Token { kind: Kind::Name, text: key.name.clone() });
    }
    query.extend(tokens.iter().skip(1).cloned());
    let store = shared.storage.lock();
    let keys = select::rewrite(&store, session, &query)?;
    let sql = format!("DELETE FROM {} WHERE ({}) IN ({keys})", table.storage_name(), stored.join(", "));
    let affected = store.connection.execute(&sql, [])?;
    Ok(Reply::Done { affected: affected as u64 })
}

fn word(text: &str) -> Token {
    Token { kind: Kind::Word, text: text.into() }
}
