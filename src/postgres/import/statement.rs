//! A statement of the schema is run. What is there already stays as it is, and what needs roles or a tablespace that are not here
//! is passed over, or made without: the reason is the step's note.

use pgrx::prelude::*;

use super::attempt::{Refusal, attempt, refuse_with};
use super::place;
use super::plan::{BEFORE_ROWS, NOT_ALONE, quoted};
use super::script::{self, What};
use super::table::{Ending, Import, Kind, Step};
use crate::postgres::catalog::query;

/// Runs statements, under the settings that they have in their script.
#[derive(Default)]
pub(super) struct Runner {
    /// Of the last statement.
    settings: String,
    /// Why a setting could not be made.
    missing: Option<String>,
}

impl Runner {
    /// Raises an error when the statement can neither be run nor passed over.
    pub(super) fn run(&mut self, import: &Import, step: &Step) -> Ending {
        let sql = step.statement.as_deref().unwrap_or_default();
        self.set(&step.settings);
        let Err(refusal) = attempt(sql) else {
            let note = self.missing.clone().filter(|_| is_stored(step, sql));
            return note.map_or(Ending::Done(0), Ending::Otherwise);
        };
        let ending = judge(&refusal, sql).unwrap_or_else(|| {
            let shown: String = sql.chars().take(200).collect();
            let message = format!("could not import the schema: {}", refusal.message);
            let hint = hint(step, &refusal);
            refuse_with(refusal.code, message, &format!("The statement was: {shown}"), hint)
        });
        log!("import {}: passed over: {}", import.id, refusal.message);
        ending
    }

    fn set(&mut self, settings: &str) {
        if settings == self.settings {
            return;
        }
        self.missing = None;
        for setting in settings.split(script::BETWEEN_SETTINGS).filter(|it| !it.is_empty()) {
            let Err(refusal) = attempt(setting) else { continue };
            if !setting.contains("default_tablespace") {
                error!("{}", refusal.message);
            }
            attempt("SET default_tablespace = ''").unwrap_or_else(|refusal| error!("{}", refusal.message));
            self.missing = Some(format!("the database's own tablespace is used: {}", refusal.message));
        }
        settings.clone_into(&mut self.settings);
    }
}

fn hint(step: &Step, refusal: &Refusal) -> &'static str {
    match refusal.code {
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE
        | PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION
        | PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT
        | PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME
            if step.phase == BEFORE_ROWS =>
        {
            NOT_ALONE
        }
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE => place::START_OVER,
        _ => "",
    }
}

/// Whether a statement makes something that is in a tablespace.
fn is_stored(step: &Step, sql: &str) -> bool {
    step.kind == Kind::CreateTable
        || ["CREATE INDEX", "CREATE UNIQUE INDEX"].iter().any(|it| sql.starts_with(it))
}

/// How a statement that was refused has ended; none when that is an error.
fn judge(refusal: &Refusal, sql: &str) -> Option<Ending> {
    let statement = script::parse(sql).into_iter().next()?;
    let pass_over = || Some(Ending::PassedOver(refusal.message.clone()));
    match (&statement.what, &statement.about) {
        (What::Ornament, _) => pass_over(),
        (What::Index(index), Some(table)) if is_there_already(refusal) || is_second_key(refusal) => {
            if is_index_of(index, &quoted(table)) {
                return pass_over();
            }
            let (index, table) = (quoted(&(String::new(), index.clone())), quoted(table));
            Some(Ending::Failed(format!("could not create index {index} on {table}: {}", refusal.message)))
        }
        (What::ForRoles(roles), _) if roles.iter().any(|role| !is_role(role)) => pass_over(),
        _ if is_there_already(refusal) || is_repeated(refusal, sql) => pass_over(),
        _ => None,
    }
}

fn is_there_already(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT
            | PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE
            | PgSqlErrorCode::ERRCODE_DUPLICATE_FUNCTION
            | PgSqlErrorCode::ERRCODE_DUPLICATE_SCHEMA
            | PgSqlErrorCode::ERRCODE_DUPLICATE_ALIAS
    )
}

/// A primary key beside another one: "multiple primary keys" has no SQLSTATE of its own.
fn is_second_key(refusal: &Refusal) -> bool {
    refusal.code == PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION
}

/// What an earlier attempt has done, and the server has no SQLSTATE of its own for.
fn is_repeated(refusal: &Refusal, sql: &str) -> bool {
    match refusal.code {
        PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE => sql.contains(" ATTACH PARTITION "),
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE => sql.contains(" ADD GENERATED "),
        // Dictionaries and configurations are not looked for before they are written.
        PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION => {
            sql.starts_with("CREATE TEXT SEARCH ") || sql.starts_with("ALTER TEXT SEARCH ")
        }
        _ => false,
    }
}

fn is_index_of(index: &str, table: &str) -> bool {
    query::exists(
        "SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = pg_catalog.to_regclass($1) AND c.relname = $2",
        &[table.into(), index.into()],
    )
}

fn is_role(name: &str) -> bool {
    query::exists("SELECT FROM pg_catalog.pg_roles WHERE rolname = $1", &[name.into()])
}
