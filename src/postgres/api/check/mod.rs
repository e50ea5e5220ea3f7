//! Preflight: everything that must hold before a mirror can be started, looked at in one go.
//!
//! `dbmazz_start_mirror` creates nothing unless all of it holds, and reports every failure at once;
//! `dbmazz_check_mirror` shows good and bad findings as rows. Checks run with the rights of the caller.
//!
//! * [`settings`]: the server's settings and room for one more mirror.
//! * [`sizes`]: whether values are too long for the target.
//! * [`tables`]: which tables, and whether each can be mirrored.
//! * [`target`]: whether StarRocks answers and lets us in.

use std::collections::BTreeSet;

use pgrx::pg_sys::{self, panic::ErrorReport};
use pgrx::prelude::*;
use pgrx::{JsonB, name};
use serde_json::Value;

use super::arguments::{current_role, not_null};
use super::failure::Failure;
use crate::options::Options;
use crate::postgres::catalog::{as_extension, export, server, source, table::NewTable};
use crate::postgres::encoding::own_text;
use crate::postgres::guc;

mod settings;
mod sizes;
mod table;
mod tables;
mod target;

pub(super) use tables::{created_table, one_table};

/// What somebody wants mirrored.
pub(super) struct Request<'a> {
    /// Name of the mirror; none when only its feasibility is asked for.
    pub(super) mirror: Option<&'a str>,
    /// Name of the foreign server.
    pub(super) server: &'a str,
    /// The tables; none for those of the publication or the whole database.
    pub(super) tables: Option<Vec<pg_sys::Oid>>,
    /// The publication.
    pub(super) publication: Option<&'a str>,
    /// Options of the mirror.
    pub(super) options: &'a Value,
    /// Who asks.
    pub(super) role: pg_sys::Oid,
}

/// One thing that was looked at.
pub(super) struct Finding {
    /// Its name, the same for all things of the kind.
    pub(super) check: &'static str,
    /// What was found, as a sentence, or what is wrong.
    pub(super) outcome: Result<String, Failure>,
}

/// Everything that was looked at, and what it means for a mirror.
#[derive(Default)]
pub(super) struct Preflight {
    /// In the order in which they are best mended.
    pub(super) findings: Vec<Finding>,
    /// The tables that can be mirrored.
    pub(super) tables: Vec<NewTable>,
    /// The export that the mirror goes on from.
    pub(super) from_export: Option<i64>,
    /// Tables that a mirror of the whole database leaves out, and why.
    pub(super) left_out: Vec<Failure>,
}

impl Preflight {
    /// Looks at everything, even when something has failed.
    pub(super) fn run(request: &Request<'_>) -> Self {
        let mut preflight = Self::default();
        let options = guc::defaults().merged(request.options).map_err(Failure::from);
        preflight.note(
            "options",
            options.as_ref().map(|_| "The options are valid.".to_owned()).map_err(Clone::clone),
        );
        settings::check(request, &mut preflight);
        let config = server::config(request.server, request.role).map_err(Failure::from);
        let found = |_: &_| format!("Server \"{}\" and its user mapping are complete.", request.server);
        preflight.note("server", config.as_ref().map(found).map_err(Clone::clone));
        let database =
            config.as_ref().map_or_else(|_| server::current_database(), |config| config.database.clone());
        let options = options.unwrap_or_else(|_| Options::default());
        preflight.from_export = options.from_export;
        if let Some(export) = options.from_export {
            preflight.note("from_export", check_export(export));
        }
        tables::check(request, &database, &options, &mut preflight);
        if let Ok(config) = config {
            target::check(config, &mut preflight);
        }
        preflight
    }

    fn note(&mut self, check: &'static str, outcome: Result<String, Failure>) {
        self.findings.push(Finding { check, outcome });
    }

    /// Everything that is wrong, as one error: a single failure as it is, several as a list under the first one's
    /// SQLSTATE.
    pub(super) fn failure(&self, mirror: &str) -> Option<Failure> {
        let failures: Vec<&Failure> =
            self.findings.iter().filter_map(|finding| finding.outcome.as_ref().err()).collect();
        let (first, others) = failures.split_first()?;
        if others.is_empty() {
            return Some((*first).clone());
        }
        let message = format!("cannot start mirror \"{mirror}\": {} checks failed", failures.len());
        let list: Vec<String> = failures.iter().map(|failure| failure.summary()).collect();
        let mut seen = BTreeSet::new();
        let hints: Vec<&str> = failures
            .iter()
            .filter_map(|failure| failure.hint.as_deref())
            .filter(|hint| seen.insert(*hint))
            .collect();
        Some(Failure::new(first.code, message).detail(list.join("\n")).hint(hints.join("\n")))
    }
}

/// Looks at everything that must hold before a mirror can be started; one row for each thing. Creates nothing.
///
/// # Errors
///
/// `null_value_not_allowed` for a missing server or a NULL among the tables. What does not hold is no error but a row.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // The columns of the result.
fn dbmazz_check_mirror(
    server: Option<&str>,
    tables: Option<Vec<Option<pg_sys::Oid>>>,
    publication: Option<&str>,
    options: Option<JsonB>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(check_name, String),
            name!(ok, bool),
            name!(detail, Option<String>),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let server = server.ok_or_else(|| Failure::null_argument("server"))?;
    let options = options.map_or_else(|| Value::Object(serde_json::Map::new()), |options| options.0);
    let tables = not_null(tables)?;
    let role = current_role();
    let request = Request { mirror: None, server, tables, publication, options: &options, role };
    let preflight = Preflight::run(&request);
    let left_out = preflight.left_out.into_iter().map(|failure| {
        let detail = format!("left out: {}", failure.summary());
        ("table".to_owned(), true, Some(shown(detail)), failure.hint.map(shown))
    });
    let rows: Vec<_> = preflight
        .findings
        .into_iter()
        .map(|finding| match finding.outcome {
            Ok(detail) => (finding.check.to_owned(), true, Some(shown(detail)), None),
            Err(failure) => {
                (finding.check.to_owned(), false, Some(shown(failure.summary())), failure.hint.map(shown))
            }
        })
        .chain(left_out)
        .collect();
    Ok(TableIterator::new(rows))
}

/// An export that a mirror goes on from must be done, and its slot be there.
fn check_export(id: i64) -> Result<String, Failure> {
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let state = as_extension(|| export::present_state(id)).map(|(state, _)| state);
    if state.as_deref() != Some("done") {
        return Err(Failure::new(code, format!("export {id} is not done"))
            .hint("Wait for it: SELECT dbmazz_wait_export(…)."));
    }
    let slot = export::slot_name(id);
    match as_extension(|| source::slot(&slot)) {
        Some(_) => {
            Ok(format!("Export {id} is done, and replication slot \"{slot}\" keeps what came after it."))
        }
        None => Err(Failure::new(code, format!("export {id} has no replication slot"))
            .hint("Export with the option \"slot\".")),
    }
}

fn shown(text: String) -> String {
    own_text(&text).into_owned()
}
