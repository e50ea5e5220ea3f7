//! `dbmazz_retry_rejected`, `dbmazz_skip_rejected`: what becomes of rows that were refused.
//!
//! A retry is done by the mirror's worker: the call leaves a wish in shared memory and waits until the worker has read the
//! rows from the source and had them loaded, or refused once more.

use std::time::Duration;

use pgrx::pg_sys::{self, panic::ErrorReport};
use pgrx::prelude::*;

use super::check::one_table;
use super::failure::Failure;
use super::mirror::{owned, owned_and_not_locked};
use super::pending;
use crate::postgres::catalog::event::{Event, Severity};
use crate::postgres::catalog::table::{self, MirrorTableRow, TableState};
use crate::postgres::catalog::{as_extension, rejected};
use crate::postgres::{latch, shmem};

/// How often a call looks whether its wish was granted.
const PAUSE: Duration = Duration::from_millis(20);

/// Reads the rows that were refused from the source again, and loads them; tables in error are copied again. Returns how
/// many rows are no longer rejected.
///
/// # Errors
///
/// `undefined_object` if there is no such mirror, `undefined_table` if it does not have the table,
/// `insufficient_privilege` if the caller does not own it, `object_not_in_prerequisite_state` if it does not stream.
#[pg_extern(sql = false)]
fn dbmazz_retry_rejected(mirror: Option<&str>, relation: Option<pg_sys::Oid>) -> Result<i64, ErrorReport> {
    let (name, tables) = arguments(mirror, relation)?;
    let (in_error, others): (Vec<_>, Vec<_>) =
        tables.into_iter().partition(|table| table.state == TableState::Error);
    // First, while this transaction has locked nothing that the worker may have to write.
    let mut retried = try_again(name, &others)?;
    for table in in_error {
        let rows = as_extension(|| rejected::count(name, table.relid));
        if rows == 0 && relation.is_none() {
            continue;
        }
        let row = owned(name)?.ok_or_else(|| Failure::no_such_mirror(name))?;
        let new = one_table(name, &row, table.relid)?;
        as_extension(|| {
            table::copy_again(name, table.relid, new.filtered, new.published.as_deref());
            record(name, &table, &format!("table \"{}\" will be copied again", table.source_name));
        });
        pending::touch_tables(name);
        retried += rows;
    }
    Ok(retried)
}

/// Has rows of these tables read and loaded; returns how many are no longer rejected.
fn try_again(name: &str, tables: &[MirrorTableRow]) -> Result<i64, Failure> {
    let before = rejected_of(name, tables);
    if before == 0 {
        return Ok(0);
    }
    wait_for_worker(name)?;
    Ok((before - rejected_of(name, tables)).max(0))
}

/// Forgets rows that were refused. Returns how many. A later change of such a row still brings the whole row.
///
/// # Errors
///
/// As `dbmazz_retry_rejected`, but the mirror need not run.
#[pg_extern(sql = false)]
fn dbmazz_skip_rejected(mirror: Option<&str>, relation: Option<pg_sys::Oid>) -> Result<i64, ErrorReport> {
    let (name, tables) = arguments(mirror, relation)?;
    let mut skipped = 0;
    for table in tables {
        let rows = as_extension(|| rejected::skip(name, table.relid));
        if rows == 0 {
            continue;
        }
        skipped += rows;
        as_extension(|| {
            record(
                name,
                &table,
                &format!("{rows} rejected rows of table \"{}\" have been skipped", table.source_name),
            );
        });
        if table.state == TableState::Error {
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("table \"{}\" is still in error", table.source_name),
                "dbmazz",
            )
            .set_hint(format!(
                "Copy it again: SELECT dbmazz_resync_table('{name}', '{}').",
                table.source_name.replace('\'', "''")
            ))
            .report(PgLogLevel::NOTICE);
        }
    }
    Ok(skipped)
}

fn arguments(
    mirror: Option<&str>,
    relation: Option<pg_sys::Oid>,
) -> Result<(&str, Vec<MirrorTableRow>), Failure> {
    let name = mirror.ok_or_else(|| Failure::null_argument("mirror"))?;
    owned_and_not_locked(name)?.ok_or_else(|| Failure::no_such_mirror(name))?;
    let mut tables = as_extension(|| table::list(name));
    if let Some(relid) = relation {
        tables.retain(|table| table.relid == relid);
        if tables.is_empty() {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE;
            let message = format!("mirror \"{name}\" does not have relation {}", relid.to_u32());
            return Err(
                Failure::new(code, message).hint("dbmazz_stat_table shows the tables of each mirror.")
            );
        }
    }
    Ok((name, tables))
}

fn rejected_of(mirror: &str, tables: &[MirrorTableRow]) -> i64 {
    as_extension(|| tables.iter().map(|table| rejected::count(mirror, table.relid)).sum())
}

/// Has the worker try all rows of the mirror, and waits until it has.
fn wait_for_worker(name: &str) -> Result<(), Failure> {
    if !shmem::is_available() {
        return Err(Failure::not_preloaded());
    }
    let ticket = shmem::update(name, |slot| {
        slot.retries_wanted += 1;
        (slot.retries_wanted, slot.proc_number)
    });
    let Some((ticket, proc_number)) = ticket else { return Err(not_streaming(name)) };
    let Some(slot) = shmem::find(name).filter(is_streaming) else { return Err(not_streaming(name)) };
    if slot.pid != 0 {
        latch::wake(proc_number);
    }
    loop {
        let Some(slot) = shmem::find(name).filter(is_streaming) else { return Err(not_streaming(name)) };
        if slot.retries_done >= ticket {
            return Ok(());
        }
        latch::wait(None, PAUSE);
    }
}

/// A worker that has just ended by an error is started again, and has the wish still before it.
fn is_streaming(slot: &shmem::MirrorSlot) -> bool {
    use shmem::MirrorState::{Retrying, Starting, Streaming};
    slot.wanted == shmem::Wanted::Run && matches!(slot.state, Streaming | Retrying | Starting)
}

fn not_streaming(name: &str) -> Failure {
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    Failure::new(code, format!("mirror \"{name}\" does not stream"))
        .detail("Rows are read again and loaded by the worker of the mirror.")
        .hint(format!("If it is paused, let it go on: SELECT dbmazz_resume_mirror('{name}')."))
}

fn record(mirror: &str, table: &MirrorTableRow, message: &str) {
    Event { relid: Some(table.relid), ..Event::of(mirror, Severity::Info, message) }.record();
}
