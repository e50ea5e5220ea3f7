//! Checks of the server: what it is set to, and whether it has room for one more mirror.

use pgrx::{PgSqlErrorCode, pg_sys};

use super::{Preflight, Request};
use crate::postgres::api::failure::Failure;
use crate::postgres::api::pending;
use crate::postgres::catalog::{as_extension, mirror, source};
use crate::postgres::encoding::{self, Conversion, NoConversion};
use crate::postgres::shmem::{self, Wanted};

/// Runs all of them.
pub(super) fn check(request: &Request<'_>, preflight: &mut Preflight) {
    preflight.note("preloaded", preloaded());
    preflight.note("primary", primary());
    preflight.note("encoding", encoding());
    preflight.note("wal_level", wal_level());
    preflight.note("max_replication_slots", replication_slots());
    preflight.note("max_worker_processes", worker_processes());
    if shmem::is_available() {
        preflight.note("mirrors", mirrors());
    }
    if let Some(name) = request.mirror {
        preflight.note("mirror", name_is_fit(name).and_then(|()| name_is_free(name)));
    }
}

const NOT_FIT: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
const NO_ROOM: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
const TAKEN: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT;

fn preloaded() -> Result<String, Failure> {
    if shmem::is_available() {
        return Ok("The library was loaded when the server started.".to_owned());
    }
    Err(Failure::not_preloaded())
}

fn primary() -> Result<String, Failure> {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Failure::new(NOT_FIT, "cannot mirror from a server that is in recovery")
            .hint("Start the mirror on the primary."));
    }
    Ok("The server is not in recovery.".to_owned())
}

fn encoding() -> Result<String, Failure> {
    let name = encoding::name();
    match Conversion::of_database() {
        Ok(Some(_)) => Ok(format!("The encoding of the database is {name}; texts are converted to UTF8.")),
        Ok(None) => Ok(format!("The encoding of the database is {name}.")),
        Err(NoConversion) => {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            let message = format!("cannot mirror a database whose encoding is {name}");
            Err(Failure::new(code, message)
                .detail("The server has no conversion from it to UTF8.")
                .hint("Dump the database and restore it into one created with ENCODING 'UTF8'."))
        }
    }
}

fn wal_level() -> Result<String, Failure> {
    // SAFETY: reads a setting of the server, fixed at its start.
    if unsafe { pg_sys::wal_level } >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 {
        return Ok("wal_level is logical.".to_owned());
    }
    Err(Failure::new(NOT_FIT, "wal_level must be \"logical\"")
        .hint("ALTER SYSTEM SET wal_level = 'logical', then restart the server."))
}

fn replication_slots() -> Result<String, Failure> {
    // SAFETY: reads a setting of the server, fixed at its start.
    let limit = i64::from(unsafe { pg_sys::max_replication_slots });
    let used = as_extension(source::slot_count);
    if used < limit {
        return Ok(format!("{used} of {limit} replication slots are in use."));
    }
    Err(Failure::new(NO_ROOM, "all replication slots are in use")
        .detail(format!("max_replication_slots is {limit}."))
        .hint("Free one, or increase max_replication_slots and restart the server."))
}

/// One for the mirror. Holder and snapshot workers wait for a free one, but without any there is no mirror.
fn worker_processes() -> Result<String, Failure> {
    // SAFETY: reads a setting of the server, fixed at its start.
    let limit = i64::from(unsafe { pg_sys::max_worker_processes });
    let used = as_extension(source::background_worker_count);
    if used < limit {
        return Ok(format!("{used} of {limit} background worker processes are in use."));
    }
    Err(Failure::new(NO_ROOM, "all background worker processes are in use")
        .detail(format!("max_worker_processes is {limit}."))
        .hint("Increase max_worker_processes and restart the server."))
}

fn mirrors() -> Result<String, Failure> {
    let (used, limit) = (shmem::all().len(), shmem::MAX_MIRRORS);
    if used < limit {
        return Ok(format!("{used} of {limit} mirrors of the server are in use."));
    }
    Err(Failure::new(NO_ROOM, format!("the server already has {limit} mirrors"))
        .hint("Drop a mirror, or mirror more tables with one of them."))
}

fn name_is_fit(name: &str) -> Result<(), Failure> {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=40).contains(&name.len()) && name.bytes().all(is_fit) {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    Err(Failure::new(code, format!("invalid name for a mirror: \"{name}\""))
        .detail("The name becomes a part of the names of a replication slot and of loads.")
        .hint("Use 1 to 40 lower-case letters, digits and underscores."))
}

fn name_is_free(name: &str) -> Result<String, Failure> {
    if as_extension(|| mirror::read(name)).is_some() {
        return Err(Failure::new(TAKEN, format!("mirror \"{name}\" already exists")).hint(other_name(name)));
    }
    if pending::was_dropped(name) {
        return Err(Failure::new(TAKEN, format!("mirror \"{name}\" was dropped in this transaction"))
            .detail("Its worker and its slot go at commit.")
            .hint("Commit the transaction, then start the mirror."));
    }
    let elsewhere = pending::find(name)
        .filter(|slot| !pending::is_ours(slot) && (slot.wanted == Wanted::Run || slot.pid != 0));
    if elsewhere.is_some() {
        return Err(Failure::new(TAKEN, format!("mirror \"{name}\" already exists in another database"))
            .detail("Names of mirrors are unique in the server, as are names of replication slots.")
            .hint("Choose another name."));
    }
    let slot = source::slot_name(name);
    if as_extension(|| source::slot(&slot)).is_some() {
        return Err(Failure::new(TAKEN, format!("replication slot \"{slot}\" already exists"))
            .detail(format!("It would be the slot of mirror \"{name}\"."))
            .hint(format!("Choose another name; or, if nobody needs the slot, SELECT pg_drop_replication_slot('{slot}').")));
    }
    Ok(format!("The name \"{name}\" is free."))
}

fn other_name(name: &str) -> String {
    format!("Choose another name, or drop the mirror first: SELECT dbmazz_drop_mirror('{name}').")
}
