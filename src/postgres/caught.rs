//! What an error says that was caught on its way out of a process.

use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};

/// The error, whether PostgreSQL raised it or a panic has.
pub(super) fn report_of(error: &CaughtError) -> &ErrorReportWithLevel {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    }
}

/// Primary message and detail, in one line.
pub(super) fn text_of(error: &CaughtError) -> String {
    let report = report_of(error);
    match report.detail() {
        Some(detail) => format!("{}: {detail}", report.message()),
        None => report.message().to_owned(),
    }
}
