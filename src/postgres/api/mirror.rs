//! `dbmazz_start_mirror`, `dbmazz_pause_mirror`, `dbmazz_resume_mirror`, `dbmazz_drop_mirror`.
//!
//! Each writes down what is wanted; the end of the transaction makes it known ([`pending`]), so a transaction that is
//! rolled back leaves nothing.

use pgrx::JsonB;
use pgrx::pg_sys::{self, panic::ErrorReport};
use pgrx::prelude::*;
use serde_json::Value;

use super::arguments::{current_role, not_null};
use super::check::{Preflight, Request};
use super::failure::Failure;
use super::pending;
use super::release::claim_of;
use crate::postgres::catalog::event::{Event, Severity};
use crate::postgres::catalog::mirror::{self, MirrorRow, NewMirror};
use crate::postgres::catalog::{as_extension, identity, source, table};
use crate::postgres::{shmem, worker};

/// Starts a mirror. Takes effect at commit: the worker creates the slot and the target tables.
///
/// # Errors
///
/// Whatever preflight finds, all of it in one error; nothing is created then.
#[pg_extern(sql = false)]
fn dbmazz_start_mirror(
    mirror: Option<&str>,
    server: Option<&str>,
    tables: Option<Vec<Option<pg_sys::Oid>>>,
    publication: Option<&str>,
    snapshot: Option<bool>,
    options: Option<JsonB>,
) -> Result<(), ErrorReport> {
    let name = mirror.ok_or_else(|| Failure::null_argument("mirror"))?;
    let server = server.ok_or_else(|| Failure::null_argument("server"))?;
    let copy_rows = snapshot.ok_or_else(|| Failure::null_argument("snapshot"))?;
    let options = options.map_or_else(|| Value::Object(serde_json::Map::new()), |options| options.0);
    let tables = not_null(tables)?;
    let role = current_role();
    one_start_at_a_time();
    let request = Request { mirror: Some(name), server, tables, publication, options: &options, role };
    let preflight = Preflight::run(&request);
    if let Some(failure) = preflight.failure(name) {
        return Err(failure.into());
    }
    let copy_rows = copy_rows && preflight.from_export.is_none();
    let all_tables = request.tables.is_none() && publication.is_none();
    let new = NewMirror {
        mirror: name,
        server,
        owner: role,
        publication,
        copy_rows,
        all_tables,
        options: &options,
    };
    as_extension(|| write(&new, &preflight))?;
    for failure in &preflight.left_out {
        notice!("{}", failure.message);
    }
    pending::touch(name, false);
    Ok(())
}

/// Until the end of the transaction no other one of this database starts a mirror: neither must overlook that the other
/// takes its name, or writes to the same target table.
fn one_start_at_a_time() {
    // SAFETY: called inside a transaction, with which the lock goes. There is no foreign server zero, so nobody else
    // locks it.
    unsafe {
        let (class, mode) = (pg_sys::ForeignServerRelationId, pg_sys::ExclusiveLock as pg_sys::LOCKMODE);
        pg_sys::LockDatabaseObject(class, pg_sys::InvalidOid, 0, mode);
    }
}

fn write(new: &NewMirror<'_>, preflight: &Preflight) -> Result<(), Failure> {
    if !mirror::insert(new) {
        let code = PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT;
        return Err(Failure::new(code, format!("mirror \"{}\" already exists", new.mirror))
            .hint("Somebody else has just started it."));
    }
    // SAFETY: set before a backend runs its first statement.
    identity::settle(new.mirror, &worker::place(unsafe { pg_sys::MyDatabaseId }));
    for table in &preflight.tables {
        table::insert(new.mirror, table);
    }
    let message = format!("mirror \"{}\" has been started", new.mirror);
    let detail = match preflight.tables.len() {
        1 => "It has one table.".to_owned(),
        count => format!("It has {count} tables."),
    };
    Event { detail: Some(&detail), ..Event::of(new.mirror, Severity::Info, &message) }.record();
    for failure in &preflight.left_out {
        let (detail, hint) = (failure.detail.as_deref(), failure.hint.as_deref());
        Event { detail, hint, ..Event::of(new.mirror, Severity::Warning, &failure.message) }.record();
    }
    Ok(())
}

/// Stops the workers of a mirror; its slot and its progress stay. Takes effect at commit.
///
/// # Errors
///
/// `undefined_object` if there is no such mirror, `insufficient_privilege` if the caller does not own it.
#[pg_extern(sql = false)]
fn dbmazz_pause_mirror(mirror: Option<&str>) -> Result<(), ErrorReport> {
    let name = mirror.ok_or_else(|| Failure::null_argument("mirror"))?;
    let row = owned(name)?.ok_or_else(|| Failure::no_such_mirror(name))?;
    if !row.enabled {
        notice!("mirror \"{name}\" is already paused");
        return Ok(());
    }
    as_extension(|| {
        mirror::pause(name);
        Event::of(name, Severity::Info, &format!("mirror \"{name}\" has been paused")).record();
    });
    pending::touch(name, true);
    Ok(())
}

/// Lets a mirror go on that was paused or stopped by an error. Takes effect at commit.
///
/// # Errors
///
/// As `dbmazz_pause_mirror`; `object_not_in_prerequisite_state` if there is no launcher.
#[pg_extern(sql = false)]
fn dbmazz_resume_mirror(mirror: Option<&str>) -> Result<(), ErrorReport> {
    let name = mirror.ok_or_else(|| Failure::null_argument("mirror"))?;
    let row = owned(name)?.ok_or_else(|| Failure::no_such_mirror(name))?;
    if !shmem::is_available() {
        return Err(Failure::not_preloaded().into());
    }
    if row.enabled && pending::find(name).filter(pending::is_ours).is_some_and(|slot| slot.pid != 0) {
        notice!("mirror \"{name}\" is already running");
    }
    as_extension(|| {
        mirror::resume(name);
        identity::confirm(name);
        Event::of(name, Severity::Info, &format!("mirror \"{name}\" has been resumed")).record();
    });
    pending::touch(name, row.enabled);
    Ok(())
}

/// Removes a mirror: its worker, its slot, and all that is known of it but its events. Target tables stay.
///
/// Rows go now; worker and slot go just before the commit, which fails if the worker does not stop.
///
/// # Errors
///
/// As `dbmazz_pause_mirror`; no error for a missing mirror with `if_exists`; `object_not_in_prerequisite_state` in a
/// transaction that would not see what is there by now.
#[pg_extern(sql = false)]
fn dbmazz_drop_mirror(mirror: Option<&str>, if_exists: Option<bool>) -> Result<(), ErrorReport> {
    let name = mirror.ok_or_else(|| Failure::null_argument("mirror"))?;
    sees_the_present()?;
    let locked = as_extension(|| mirror::lock_to_delete(name));
    let Some(row) = locked.map(|row| owned_by_caller(name, row)).transpose()? else {
        if if_exists == Some(true) {
            notice!("mirror \"{name}\" does not exist, skipping");
            return Ok(());
        }
        return Err(Failure::no_such_mirror(name).into());
    };
    let message = format!("mirror \"{name}\" has been dropped");
    let detail = format!("Its slot was \"{}\".  The target tables stay.", source::slot_name(name));
    let claim = claim_of(name, &row);
    as_extension(|| {
        mirror::delete(name);
        Event { detail: Some(&detail), ..Event::of(name, Severity::Info, &message) }.record();
    });
    pending::touch_dropped(name, row, claim);
    Ok(())
}

/// The end of the transaction looks at what the worker has written until then, and takes the slot away: neither an old
/// snapshot nor a failure to serialize may come between.
fn sees_the_present() -> Result<(), Failure> {
    // SAFETY: a plain variable of the process.
    if unsafe { pg_sys::XactIsoLevel } < pg_sys::XACT_REPEATABLE_READ as i32 {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    Err(Failure::new(
        code,
        "cannot drop a mirror in a transaction of isolation level repeatable read or serializable",
    )
    .hint("Begin the transaction with BEGIN ISOLATION LEVEL READ COMMITTED."))
}

/// A mirror, locked for the rest of the transaction, that the caller may do with as he likes.
pub(super) fn owned(name: &str) -> Result<Option<MirrorRow>, Failure> {
    as_extension(|| mirror::lock(name)).map(|row| owned_by_caller(name, row)).transpose()
}

/// Likewise, and nobody is kept from anything: for calls that wait for a worker, which may have to write the row.
pub(super) fn owned_and_not_locked(name: &str) -> Result<Option<MirrorRow>, Failure> {
    as_extension(|| mirror::read(name)).map(|row| owned_by_caller(name, row)).transpose()
}

fn owned_by_caller(name: &str, row: MirrorRow) -> Result<MirrorRow, Failure> {
    // SAFETY: looks into the system caches. A superuser has the privileges of every role.
    if unsafe { pg_sys::has_privs_of_role(current_role(), row.owner) } {
        return Ok(row);
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Failure::new(code, format!("must be owner of mirror \"{name}\"")))
}
