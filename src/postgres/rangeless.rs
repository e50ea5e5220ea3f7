//! A table access method for tests, with the cargo feature `failpoints` only: a heap that cannot be scanned by ranges of
//! blocks, as methods of others may be.
//!
//! ```sql
//! CREATE FUNCTION rangeless(internal) RETURNS table_am_handler LANGUAGE c AS 'dbmazz', 'rangeless_method_wrapper';
//! CREATE ACCESS METHOD rangeless TYPE TABLE HANDLER rangeless;
//! ```

use pgrx::Internal;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// The handler. What it returns lives as long as the process, as PostgreSQL wants it.
#[pg_extern(sql = false)]
fn rangeless_method() -> Internal {
    // SAFETY: returns a pointer to a static of the server.
    let heap = unsafe { &*pg_sys::GetHeapamTableAmRoutine() };
    let method = pg_sys::TableAmRoutine { scan_set_tidrange: None, scan_getnextslot_tidrange: None, ..*heap };
    let method: *const pg_sys::TableAmRoutine = Box::leak(Box::new(method));
    Internal::from(Some(pg_sys::Datum::from(method)))
}
