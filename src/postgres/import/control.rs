//! Waiting for imports, and cancelling them: what the functions for exports do when the number is an import's.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{presence, request, table};
use crate::postgres::api::arguments::current_role;
use crate::postgres::api::failure::Failure;
use crate::postgres::catalog::as_extension;
use crate::postgres::latch;

/// How often a wait looks.
const GLANCE: Duration = Duration::from_millis(20);
/// How long an import may be without a process before it counts as interrupted: one that starts has none yet.
const PATIENCE: Duration = Duration::from_secs(10);

const GOES_ON: &str = "dbmazz_import with the same arguments, without \"restart\", goes on with it.";

/// Whether there is an import of this number.
pub(in crate::postgres) fn exists(id: i64) -> bool {
    as_extension(|| table::read(id)).is_some()
}

/// Waits until an import is done: true then, false at the deadline, nothing when there is no such import.
///
/// # Errors
///
/// When it has failed, was cancelled, has no process any more, or begins only when this transaction commits.
pub(in crate::postgres) fn wait(id: i64, deadline: Option<Instant>) -> Result<Option<bool>, Failure> {
    if request::is_asked_for(id) {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        return Err(Failure::new(code, "cannot wait for an import in the transaction that starts it")
            .hint("It starts at commit: call dbmazz_wait_export in a statement of its own."));
    }
    let mut alone_since = None;
    loop {
        let Some(now) = as_extension(|| table::present_state(id)) else { return Ok(None) };
        let hint = now.hint.unwrap_or_else(|| GOES_ON.to_owned());
        match now.state.as_str() {
            "done" => return Ok(Some(true)),
            "failed" => {
                let code = PgSqlErrorCode::ERRCODE_OPERATOR_INTERVENTION;
                let reason = now.error.unwrap_or_default();
                return Err(Failure::new(code, format!("import {id} failed: {reason}")).hint(hint));
            }
            "cancelled" => {
                let code = PgSqlErrorCode::ERRCODE_QUERY_CANCELED;
                return Err(Failure::new(code, format!("import {id} was cancelled")).hint(hint));
            }
            "replaced" => {
                let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
                return Err(Failure::new(
                    code,
                    format!("import {id} was replaced by one that has started over"),
                ));
            }
            _ => {}
        }
        if as_extension(|| presence::has_leader(id)) {
            alone_since = None;
        } else if alone_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            let code = PgSqlErrorCode::ERRCODE_OPERATOR_INTERVENTION;
            return Err(Failure::new(code, format!("import {id} was interrupted")).hint(hint));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Some(false));
        }
        latch::wait(None, GLANCE);
    }
}

/// Stops an import at the commit; false when there is none of this number.
///
/// # Errors
///
/// `insufficient_privilege` if it is somebody else's, `object_not_in_prerequisite_state` if it is done.
pub(in crate::postgres) fn cancel(id: i64) -> Result<bool, Failure> {
    let Some(import) = as_extension(|| table::read(id)) else { return Ok(false) };
    // SAFETY: looks into the system caches.
    if !unsafe { pg_sys::has_privs_of_role(current_role(), import.owner) } {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        return Err(Failure::new(code, format!("must be owner of import {id}")));
    }
    if matches!(import.state.as_str(), "done" | "replaced") {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        return Err(Failure::new(code, format!("import {id} is {}", import.state)));
    }
    as_extension(|| table::set_state(id, "cancelled"));
    Ok(true)
}
