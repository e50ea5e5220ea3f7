//! `dbmazz_import`: what is wanted is written down; a process does it after the commit.

use std::cell::RefCell;
use std::time::Duration;

use pgrx::prelude::*;
use pgrx::{JsonB, PgXactCallbackEvent, pg_sys, register_xact_callback};
use serde_json::Value;

use super::attempt::{refuse, refuse_with};
use super::options::ImportOptions;
use super::{leader, presence, table};
use crate::postgres::api::arguments::current_role;
use crate::postgres::catalog::{as_extension, query};
use crate::postgres::latch;
use crate::postgres::store::{self, Access};

/// Checks and writes down an import; returns its number. One that was asked for in the same way and is not done goes on.
///
/// Raises `invalid_parameter_value`, `insufficient_privilege`, or what is wrong with the source.
#[pg_extern(sql = false)]
fn dbmazz_import(
    source: Option<String>,
    tables: Option<Vec<Option<String>>>,
    server: Option<String>,
    options: Option<JsonB>,
) -> i64 {
    let Some(source) = source else {
        refuse(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "argument \"source\" must not be null");
    };
    let options = options.unwrap_or_else(|| JsonB(Value::Object(serde_json::Map::new())));
    let parsed = ImportOptions::parse(&options.0.to_string())
        .unwrap_or_else(|problem| refuse(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, problem));
    let role = current_role();
    if let Err(problem) = store::open(&source, server.as_deref(), role, Access::Read) {
        problem.report();
    }
    check_login(role);
    let tables: Option<Vec<String>> = tables.map(|tables| tables.into_iter().flatten().collect());
    let id = as_extension(|| {
        let same = (!parsed.restart).then(|| JsonB(options.0.clone()));
        let known = table::unfinished(&source, role, tables.clone(), same);
        if let Some(id) = known.iter().copied().find(|id| is_led(*id)) {
            refuse_while_running(id);
        }
        match known.first() {
            Some(id) if !parsed.restart => {
                table::ask_again(*id);
                *id
            }
            _ => {
                for id in known {
                    table::set_state(id, "replaced");
                }
                table::insert(&source, server.as_deref(), role, tables, options)
            }
        }
    });
    start_at_commit(id);
    id
}

fn refuse_while_running(id: i64) -> ! {
    let hint =
        format!("Wait for it with dbmazz_wait_export({id}), or stop it with dbmazz_cancel_export({id}).");
    let message = format!("import {id} of the same source is running");
    refuse_with(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, message, "", &hint)
}

thread_local! {
    /// Imports that this transaction has asked for.
    static ASKED_FOR: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// Whether this transaction has asked for an import, which then begins when it commits.
pub(super) fn is_asked_for(id: i64) -> bool {
    ASKED_FOR.with_borrow(|imports| imports.contains(&id))
}

fn start_at_commit(id: i64) {
    let is_first = ASKED_FOR.with_borrow_mut(|imports| {
        imports.push(id);
        imports.len() == 1
    });
    if is_first {
        register_xact_callback(PgXactCallbackEvent::PrePrepare, || {
            error!("cannot PREPARE a transaction that has started an import");
        });
        register_xact_callback(PgXactCallbackEvent::Commit, start_all);
        register_xact_callback(PgXactCallbackEvent::Abort, || ASKED_FOR.with_borrow_mut(Vec::clear));
    }
}

/// Raises nothing: an error after the commit would take the whole server down.
fn start_all() {
    // SAFETY: set before a backend runs its first statement.
    let database = unsafe { pg_sys::MyDatabaseId };
    for id in ASKED_FOR.take() {
        if leader::start(database, id).is_err() {
            warning!("could not start import {id}: all background worker slots are taken; ask for it again");
        }
    }
}

/// How often it is looked whether a leader has gone.
const GLANCE: Duration = Duration::from_millis(50);

/// Whether an import has a leader. One that has said how it ended is given five seconds to be gone.
fn is_led(id: i64) -> bool {
    let has_ended = |import: table::Import| matches!(import.state.as_str(), "failed" | "cancelled");
    if table::read(id).is_some_and(has_ended) {
        for _ in 0..100 {
            if !presence::has_leader(id) {
                return false;
            }
            latch::wait(None, GLANCE);
        }
    }
    presence::has_leader(id)
}

/// Its processes log in as the user.
fn check_login(role: pg_sys::Oid) {
    let may =
        query::row("SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE oid = $1", &[role.into()], |row| {
            row.must::<bool>(1)
        });
    if !may.unwrap_or_default() {
        refuse(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "an import takes a role that is permitted to log in",
        );
    }
}
