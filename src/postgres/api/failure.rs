//! What is wrong with a request, in the parts of a PostgreSQL message.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::options::OptionError;
use crate::postgres::catalog::server::ServerProblem;
use crate::postgres::encoding::own_text;

/// Something that keeps a request from being done, and what would mend it.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct Failure {
    /// SQLSTATE.
    pub(in crate::postgres) code: PgSqlErrorCode,
    /// Primary message: no sentence.
    pub(in crate::postgres) message: String,
    /// Facts, as sentences.
    pub(in crate::postgres) detail: Option<String>,
    /// Advice, as a sentence; if it can be, a command.
    pub(in crate::postgres) hint: Option<String>,
}

impl Failure {
    /// A failure that its message says all about.
    pub(in crate::postgres) fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None }
    }

    /// With facts.
    pub(in crate::postgres) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With advice.
    pub(in crate::postgres) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Message and detail in one text, for lists.
    pub(in crate::postgres) fn summary(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{} ({})", self.message, detail.trim_end_matches('.')),
            None => self.message.clone(),
        }
    }

    /// There is no such mirror.
    pub(in crate::postgres) fn no_such_mirror(mirror: &str) -> Self {
        let message = format!("mirror \"{mirror}\" does not exist");
        Self::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
    }

    /// The library is not there from the server's start, so there is neither shared memory nor a launcher.
    pub(in crate::postgres) fn not_preloaded() -> Self {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        Self::new(code, "dbmazz must be loaded by shared_preload_libraries")
            .detail("Mirrors are run by background workers that start with the server.")
            .hint("Add dbmazz to shared_preload_libraries in postgresql.conf and restart the server: shared_preload_libraries = 'dbmazz'.")
    }

    /// An argument that must not be NULL is.
    pub(in crate::postgres) fn null_argument(name: &str) -> Self {
        let code = PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED;
        Self::new(code, format!("argument \"{name}\" must not be null"))
    }
}

impl From<OptionError> for Failure {
    fn from(problem: OptionError) -> Self {
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        Self { hint: problem.hint(), ..Self::new(code, problem.to_string()) }
    }
}

impl From<ServerProblem> for Failure {
    fn from(problem: ServerProblem) -> Self {
        Self::new(problem.sqlstate(), problem.to_string()).hint(problem.hint())
    }
}

impl From<Failure> for ErrorReport {
    fn from(failure: Failure) -> Self {
        let mut report = Self::new(failure.code, own_text(&failure.message).into_owned(), "dbmazz");
        if let Some(detail) = failure.detail {
            report = report.set_detail(own_text(&detail).into_owned());
        }
        if let Some(hint) = failure.hint {
            report = report.set_hint(own_text(&hint).into_owned());
        }
        report
    }
}
