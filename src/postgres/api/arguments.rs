//! What the SQL functions make of their arguments, and who calls them.

use pgrx::pg_sys;

use super::failure::Failure;

/// The elements of an array of tables, none of which may be NULL.
///
/// # Errors
///
/// `null_value_not_allowed` when one is.
pub(in crate::postgres) fn not_null(
    tables: Option<Vec<Option<pg_sys::Oid>>>,
) -> Result<Option<Vec<pg_sys::Oid>>, Failure> {
    let Some(tables) = tables else { return Ok(None) };
    let tables: Option<Vec<pg_sys::Oid>> = tables.into_iter().collect();
    tables
        .map(Some)
        .ok_or_else(|| Failure::null_argument("tables").detail("An element of the array is null."))
}

/// The role whose rights count.
pub(in crate::postgres) fn current_role() -> pg_sys::Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetUserId() }
}
