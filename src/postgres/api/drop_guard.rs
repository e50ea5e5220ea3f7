//! What may not be dropped while a mirror needs it: the extension, and a database that has mirrors.
//!
//! PostgreSQL drops the tables of an extension without asking anybody, and a mirror that only they knew would leave its
//! slot behind, which keeps the log for ever. So the drop of `dbmazz.mirror` is refused while it has rows. That is where
//! every way leads, be it `DROP EXTENSION`, `DROP SCHEMA … CASCADE` or `DROP OWNED`: the hook is called just before the
//! table goes, and an error takes the whole command back. An event trigger would go first, in the same command.
//!
//! The hook is there in every process that has the library: all of them with `shared_preload_libraries`, else those
//! sessions that have called one of its functions.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, ObjectAccessType};
use pgrx::prelude::*;

use super::failure::Failure;
use crate::postgres::catalog::{as_extension, mirror, source};
use crate::postgres::shmem;

/// The hook that was there before.
static PREVIOUS: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();

/// Installs the hook. Called when the library is loaded, once per process.
pub(in crate::postgres) fn install() {
    // SAFETY: the variable is the server's, for libraries to set while they are being loaded, in the main thread.
    unsafe {
        if PREVIOUS.set(pg_sys::object_access_hook).is_ok() {
            pg_sys::object_access_hook = Some(on_access);
        }
    }
}

/// Called for every function that is run and every schema that is searched, so it looks at numbers only, and goes
/// without a guard: it owns nothing that an error of the previous hook could leave behind.
unsafe extern "C-unwind" fn on_access(
    access: ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    if let Some(previous) = PREVIOUS.get().copied().flatten() {
        // SAFETY: the arguments are handed on as they came.
        unsafe { previous(access, class, object, part, argument) };
    }
    if access == ObjectAccessType::OAT_DROP && part == 0 {
        if class == pg_sys::RelationRelationId {
            before_drop_of_relation(object);
        } else if class == pg_sys::DatabaseRelationId {
            before_drop_of_database(object);
        }
    }
}

#[pg_guard]
extern "C-unwind" fn before_drop_of_relation(relation: pg_sys::Oid) {
    if !is_table_of_mirrors(relation) || is_being_upgraded() {
        return;
    }
    let mirrors = mirror::names_before_drop(relation);
    if !mirrors.is_empty() {
        refuse("cannot drop extension dbmazz because it has mirrors", &mirrors, "Drop");
    }
}

#[pg_guard]
extern "C-unwind" fn before_drop_of_database(database: pg_sys::Oid) {
    let mut mirrors = as_extension(|| source::mirrors_with_slot_in(database));
    if shmem::is_available() {
        let running = shmem::all().into_iter().filter(|slot| {
            slot.database == database.to_u32() && (slot.wanted == shmem::Wanted::Run || slot.pid != 0)
        });
        mirrors.extend(running.map(|slot| slot.mirror.as_str().to_owned()));
    }
    mirrors.sort_unstable();
    mirrors.dedup();
    if !mirrors.is_empty() {
        let name = name_of(|| {
            // SAFETY: looks into a shared catalog; the name is palloc'd, or null.
            unsafe { pg_sys::get_database_name(database) }
        });
        refuse(
            &format!("cannot drop database \"{name}\" because it has mirrors"),
            &mirrors,
            "In that database, drop",
        );
    }
}

/// Whether a relation is `dbmazz.mirror`, as the extension made it. Somebody may have a table of that name without the
/// extension.
fn is_table_of_mirrors(relation: pg_sys::Oid) -> bool {
    // SAFETY: called inside a transaction. Each function looks into the system caches and gives back a palloc'd name or
    // null.
    unsafe {
        name_of(|| pg_sys::get_rel_name(relation)) == "mirror"
            && name_of(|| pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation))) == "dbmazz"
            && name_of(|| {
                pg_sys::get_extension_name(pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation))
            }) == "dbmazz"
    }
}

/// Scripts of `ALTER EXTENSION dbmazz UPDATE` know what they do.
fn is_being_upgraded() -> bool {
    // SAFETY: a plain variable of the process.
    unsafe { pg_sys::creating_extension }
}

fn name_of(look: impl FnOnce() -> *mut std::ffi::c_char) -> String {
    let name = look();
    if name.is_null() {
        return String::new();
    }
    // SAFETY: what is not null is a C string of the server.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

fn refuse(message: &str, mirrors: &[String], drop: &str) {
    let named: Vec<String> = mirrors.iter().map(|mirror| format!("\"{mirror}\"")).collect();
    let drops: Vec<String> =
        mirrors.iter().map(|mirror| format!("SELECT dbmazz_drop_mirror('{mirror}');")).collect();
    let failure = Failure::new(PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST, message)
        .detail(format!("Each keeps a replication slot.  Mirrors: {}.", named.join(", ")))
        .hint(format!("{drop} the mirrors first: {}", drops.join(" ")));
    ErrorReport::from(failure).report(PgLogLevel::ERROR);
}
