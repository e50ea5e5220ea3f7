//! The place that an export is written to: whether it is free, and what is in the way.

use pgrx::{PgSqlErrorCode, pg_sys};

use super::super::api::failure::Failure;
use super::super::catalog::as_extension;
use super::super::catalog::export as table;
use super::process::must;
use super::shared;
use crate::export::destination::Destination;
use crate::export::foreign::first_foreign;
use crate::export::options::ExportOptions;

/// Nobody may be writing there: no export of this database that has just been started, and none of any database that has a
/// process there, however the place is called.
///
/// # Errors
///
/// When somebody is.
pub(super) fn check_nobody_writes(
    destination: &str,
    store: &dyn Destination,
    itself: Option<i64>,
) -> Result<(), Failure> {
    let mine = shared::my_database();
    let others = as_extension(|| table::other_to(destination)).into_iter();
    let other = others.filter(|id| Some(*id) != itself).find(|id| shared::find(*id, mine).is_some());
    let there = store
        .identity()
        .and_then(shared::writer_to)
        .filter(|there| Some(*there) != itself.map(|id| (id, mine)));
    match other.map(|id| (id, mine)).or(there) {
        None => Ok(()),
        Some(other) => {
            let code = PgSqlErrorCode::ERRCODE_OBJECT_IN_USE;
            Err(Failure::new(code, occupied(other, destination))
                .hint("Wait for it, cancel it, or export to another place."))
        }
    }
}

/// Who is writing to a destination: an export by its number and database.
pub(super) fn occupied((id, database): (i64, u32), destination: &str) -> String {
    if database == shared::my_database() {
        return format!("export {id} is writing to \"{destination}\"");
    }
    // SAFETY: looks into the system caches; the answer is null or a C string.
    let name = unsafe {
        let name = pg_sys::get_database_name(database.into());
        if name.is_null() {
            String::new()
        } else {
            std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    };
    format!("export {id} of database \"{name}\" is writing to \"{destination}\"")
}

/// There must be nothing, or nothing but an export that may be removed.
///
/// # Errors
///
/// When there are files that are to stay.
pub(super) fn check_room(
    destination: &str,
    store: &dyn Destination,
    options: &ExportOptions,
) -> Result<(), Failure> {
    let objects = must(store.list(""));
    let code = PgSqlErrorCode::ERRCODE_DUPLICATE_FILE;
    if !options.overwrite {
        return if objects.is_empty() {
            Ok(())
        } else {
            Err(Failure::new(code, format!("\"{destination}\" has files already"))
                .hint("Export to an empty directory, or set the option \"overwrite\", which removes an export that is there."))
        };
    }
    match must(first_foreign(store, &objects)) {
        None => Ok(()),
        Some(foreign) => Err(Failure::new(code, foreign_file(foreign, destination))
            .detail("The option \"overwrite\" removes what an export has written, and nothing else.")
            .hint("Move the file away, or export to another place.")),
    }
}

/// Something is in the way that no export has written.
pub(super) fn foreign_file(name: &str, destination: &str) -> String {
    format!("file \"{name}\" in \"{destination}\" is not of an export")
}
