//! The server's clock.

use pgrx::pg_sys;

/// Microseconds since 2000, as in `timestamptz`.
pub(super) fn now() -> i64 {
    // SAFETY: reads the clock, and takes nothing.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
