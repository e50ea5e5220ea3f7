//! A statement that may fail without taking the transaction along.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::postgres::caught::{report_of, text_of};
use crate::postgres::encoding::own_text;

/// Why a statement was not done.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// SQLSTATE.
    pub(super) code: PgSqlErrorCode,
    /// Primary message and detail.
    pub(super) message: String,
}

/// Raises an error.
pub(super) fn refuse(code: PgSqlErrorCode, message: impl Into<String>) -> ! {
    ErrorReport::new(code, own_text(&message.into()).into_owned(), "dbmazz").report(PgLogLevel::ERROR);
    unreachable!("an error has been raised")
}

/// The same, with facts or advice.
pub(super) fn refuse_with(code: PgSqlErrorCode, message: impl Into<String>, detail: &str, hint: &str) -> ! {
    let mut report = ErrorReport::new(code, own_text(&message.into()).into_owned(), "dbmazz");
    if !detail.is_empty() {
        report = report.set_detail(own_text(detail).into_owned());
    }
    if !hint.is_empty() {
        report = report.set_hint(hint.to_owned());
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an error has been raised")
}

/// Runs a statement in a subtransaction of its own; what it did before it failed is undone.
///
/// # Errors
///
/// [`Refusal`]. A cancel is not caught.
pub(super) fn attempt(sql: &str) -> Result<(), Refusal> {
    // SAFETY: inside a transaction; what is current now is current again after the subtransaction, however it ends.
    let (memory, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        before
    };
    let body = AssertUnwindSafe(|| {
        Spi::connect_mut(|client| client.update(sql, None, &[]).map(|_| ()))
            .unwrap_or_else(|problem| error!("{problem}"));
        // SAFETY: the subtransaction that was begun above.
        unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        Ok(())
    });
    let result = PgTryBuilder::new(body)
        .catch_others(|error| {
            let refusal = Refusal { code: report_of(&error).sql_error_code(), message: text_of(&error) };
            if refusal.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED {
                error.rethrow();
            }
            // SAFETY: the failed statement is over; its subtransaction is the current one.
            unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() };
            Err(refusal)
        })
        .execute();
    // SAFETY: both are the transaction's own, which goes on.
    unsafe {
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    result
}
