//! `dbmazz_add_table`, `dbmazz_remove_table`, `dbmazz_resync_table`: one table of a mirror, while the others stream on.
//!
//! Each writes down what is wanted; the mirror worker is told at commit and makes it so ([`pending`]). A mirror that is
//! paused, or still makes its first copy, does it when it gets there.

use pgrx::pg_sys::{self, panic::ErrorReport};
use pgrx::prelude::*;

use super::check::{created_table, one_table};
use super::failure::Failure;
use super::mirror::owned;
use super::pending;
use crate::options::NewTables;
use crate::postgres::catalog::event::{Event, Severity};
use crate::postgres::catalog::table::{self, MirrorTableRow};
use crate::postgres::catalog::{as_extension, mirror, mirror::MirrorRow, publication};
use crate::postgres::guc;

/// Adds a table to a mirror: its rows are copied, then it streams with the others.
///
/// # Errors
///
/// What a start would say about the table; `duplicate_object` if the mirror has it already, `undefined_object` if there is
/// no such mirror, `insufficient_privilege` if the caller does not own it.
#[pg_extern(sql = false)]
fn dbmazz_add_table(mirror: Option<&str>, relation: Option<pg_sys::Oid>) -> Result<(), ErrorReport> {
    let (name, relid, row) = arguments(mirror, relation)?;
    let found = find(name, relid);
    if let (Some(table), Some(publication)) = (&found, &row.publication) {
        notice!(
            "mirror \"{name}\" already has table \"{}\", which publication \"{publication}\" has brought in",
            table.source_name
        );
        return Ok(());
    }
    if let Some(table) = found {
        let code = PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT;
        let message = format!("mirror \"{name}\" already has table \"{}\"", table.source_name);
        return Err(Failure::new(code, message)
            .hint(format!("To copy it again: {}.", call("dbmazz_resync_table", name, &table.source_name)))
            .into());
    }
    let new = one_table(name, &row, relid)?;
    as_extension(|| {
        table::insert(name, &new);
        record(name, relid, &format!("table \"{}\" has been added", new.source_name));
    });
    pending::touch_tables(name);
    Ok(())
}

/// Takes a table out of a mirror. The target table stays as it is.
///
/// # Errors
///
/// `undefined_table` if the mirror does not have the table; for the mirror as `dbmazz_add_table`.
#[pg_extern(sql = false)]
fn dbmazz_remove_table(mirror: Option<&str>, relation: Option<pg_sys::Oid>) -> Result<(), ErrorReport> {
    let (name, relid, row) = arguments(mirror, relation)?;
    let table = existing(name, relid)?;
    if let Some(publication) = row.publication.filter(|publication| is_published(publication, relid)) {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        let message = format!("mirror \"{name}\" follows publication \"{publication}\", which has the table");
        return Err(Failure::new(code, message)
            .hint(format!(
                "ALTER PUBLICATION {} DROP TABLE …: the mirror lets it go by itself.",
                pgrx::spi::quote_identifier(publication)
            ))
            .into());
    }
    as_extension(|| {
        table::remove(name, relid);
        let message = format!("table \"{}\" has been removed", table.source_name);
        let detail = format!("The target table \"{}\" stays as it is.", table.target);
        let event = Event::of(name, Severity::Info, &message);
        Event { relid: Some(relid), detail: Some(&detail), ..event }.record();
    });
    pending::touch_tables(name);
    Ok(())
}

/// Copies a table of a mirror again, into the emptied target table, also when it is in error.
///
/// # Errors
///
/// As `dbmazz_remove_table`, and what a start would say about the table.
#[pg_extern(sql = false)]
fn dbmazz_resync_table(mirror: Option<&str>, relation: Option<pg_sys::Oid>) -> Result<(), ErrorReport> {
    let (name, relid, row) = arguments(mirror, relation)?;
    let table = existing(name, relid)?;
    let new = one_table(name, &row, relid)?;
    as_extension(|| {
        table::copy_again(name, relid, new.filtered, new.published.as_deref());
        record(name, relid, &format!("table \"{}\" will be copied again", table.source_name));
    });
    pending::touch_tables(name);
    Ok(())
}

fn is_published(name: &str, relid: pg_sys::Oid) -> bool {
    let found = as_extension(|| publication::read(name));
    found.is_some_and(|publication| publication.tables.iter().any(|table| table.relid == relid))
}

/// Has a table that has just been created join the mirrors of all tables that want new ones. What is in the way becomes an
/// event: nobody's CREATE TABLE fails because of a mirror. Their workers are told by a message in the log, which is also there
/// after a prepared transaction. Returns whether there was such a mirror.
#[pg_extern(sql = false)]
fn add_new_table(relation: pg_sys::Oid) -> bool {
    let mut has_joined = false;
    for (name, row) in as_extension(mirror::of_all_tables) {
        let wants_new =
            guc::defaults().merged(&row.options).is_ok_and(|options| options.new_tables == NewTables::Add);
        if !wants_new || find(&name, relation).is_some() {
            continue;
        }
        match created_table(&name, &row, relation) {
            Ok(new) => {
                has_joined = true;
                as_extension(|| {
                    table::insert(&name, &new);
                    record(
                        &name,
                        relation,
                        &format!("table \"{}\" is new and joins the mirror", new.source_name),
                    );
                });
            }
            Err(failure) => as_extension(|| {
                let message = format!("a new table does not join the mirror: {}", failure.message);
                let event = Event::of(&name, Severity::Warning, &message);
                let (detail, hint) = (failure.detail.as_deref(), failure.hint.as_deref());
                Event { relid: Some(relation), detail, hint, ..event }.record();
            }),
        }
    }
    has_joined
}

fn arguments(
    mirror: Option<&str>,
    relation: Option<pg_sys::Oid>,
) -> Result<(&str, pg_sys::Oid, MirrorRow), Failure> {
    let name = mirror.ok_or_else(|| Failure::null_argument("mirror"))?;
    let relid = relation.ok_or_else(|| Failure::null_argument("relation"))?;
    let row = owned(name)?.ok_or_else(|| Failure::no_such_mirror(name))?;
    Ok((name, relid, row))
}

fn find(mirror: &str, relid: pg_sys::Oid) -> Option<MirrorTableRow> {
    as_extension(|| table::list(mirror)).into_iter().find(|table| table.relid == relid)
}

fn existing(mirror: &str, relid: pg_sys::Oid) -> Result<MirrorTableRow, Failure> {
    find(mirror, relid).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE;
        Failure::new(code, format!("mirror \"{mirror}\" does not have relation {}", relid.to_u32()))
            .hint("dbmazz_stat_table shows the tables of each mirror.")
    })
}

fn call(function: &str, mirror: &str, table: &str) -> String {
    format!("SELECT {function}('{mirror}', '{}')", table.replace('\'', "''"))
}

fn record(mirror: &str, relid: pg_sys::Oid, message: &str) {
    Event { relid: Some(relid), ..Event::of(mirror, Severity::Info, message) }.record();
}
