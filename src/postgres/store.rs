//! Destinations of exports, as a process of PostgreSQL opens them: who may, and how it waits and starts threads.

use std::io;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::catalog::{self, server::ServerProblem};
use super::encoding::own_text;
use super::signal::SignalsBlocked;
use super::{latch, process};
use crate::export::destination::s3::{S3Config, abort_all_unfinished};
use crate::export::destination::{
    Destination, Host, Local, Location, LocationError, PlainHost, S3, StoreError,
};
use crate::server_options::OptionError;

/// What is to be done with the files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// An export, resumed or new.
    Write,
    /// An import, or a look at what is there.
    Read,
}

/// Opens a destination with the rights of `role`, for the main thread. Nothing is read or written yet.
///
/// # Errors
///
/// When the text is no destination, or the role may not use it.
pub(super) fn open(
    destination: &str,
    server: Option<&str>,
    role: pg_sys::Oid,
    access: Access,
) -> Result<Arc<dyn Destination>, OpenError> {
    open_in(destination, server, role, access, Arc::new(ServerHost))
}

/// The same for threads, which have nothing to serve while they wait. They must have been started by [`ServerHost`]: theirs
/// inherit what those are.
///
/// # Errors
///
/// As [`open`].
pub(super) fn open_for_threads(
    destination: &str,
    server: Option<&str>,
    role: pg_sys::Oid,
    access: Access,
) -> Result<Arc<dyn Destination>, OpenError> {
    open_in(destination, server, role, access, Arc::new(PlainHost))
}

fn open_in(
    destination: &str,
    server: Option<&str>,
    role: pg_sys::Oid,
    access: Access,
    host: Arc<dyn Host>,
) -> Result<Arc<dyn Destination>, OpenError> {
    match (destination.parse().map_err(OpenError::Location)?, server) {
        (Location::Directory(_), Some(_)) => Err(OpenError::NeedlessServer),
        (Location::Directory(path), None) => {
            check_role(role, access)?;
            Ok(Arc::new(Local::new(&path)))
        }
        (Location::S3 { .. }, None) => Err(OpenError::MissingServer),
        (Location::S3 { bucket, prefix }, Some(server)) => {
            let config = s3_config(server, role)?;
            if access == Access::Write {
                leave_nothing_behind();
            }
            Ok(Arc::new(S3::new(config, &bucket, &prefix, host).map_err(Arc::new).map_err(OpenError::Store)?))
        }
    }
}

fn s3_config(server: &str, role: pg_sys::Oid) -> Result<S3Config, OpenError> {
    let (options, mapping) = catalog::server::options(server, role, S3_WRAPPER).map_err(OpenError::Server)?;
    S3Config::from_options(&options, &mapping)
        .map_err(|problem| OpenError::Server(ServerProblem::Option { server: server.to_owned(), problem }))
}

/// The wrapper that servers of S3 belong to.
const S3_WRAPPER: &str = "dbmazz_s3";

/// A FATAL does not unwind: uploads that are on their way are aborted when the process ends, whatever ends it.
fn leave_nothing_behind() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| process::on_exit(abort_uploads, pg_sys::Datum::null()));
}

#[pg_guard]
unsafe extern "C-unwind" fn abort_uploads(_code: i32, _argument: pg_sys::Datum) {
    abort_all_unfinished();
}

/// The class of an error of a destination.
pub(super) fn sqlstate(problem: &StoreError) -> PgSqlErrorCode {
    match problem {
        StoreError::Name { .. } => PgSqlErrorCode::ERRCODE_INVALID_NAME,
        StoreError::Missing { .. } => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
        StoreError::Exists { .. } => PgSqlErrorCode::ERRCODE_DUPLICATE_FILE,
        StoreError::InUse { .. } => PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
        StoreError::File { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull => PgSqlErrorCode::ERRCODE_DISK_FULL,
            io::ErrorKind::PermissionDenied => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
        },
        StoreError::Unreachable { .. } => PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        StoreError::Refused { status: 401 | 403, .. } => {
            PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION
        }
        StoreError::Configuration { .. } => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        StoreError::OutOfMemory { .. } => PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        _ => PgSqlErrorCode::ERRCODE_FDW_ERROR,
    }
}

/// Why a destination cannot be used.
#[derive(Clone, Debug)]
pub(super) enum OpenError {
    /// The text is none.
    Location(LocationError),
    /// The role may not have files of the server written or read.
    NoPrivilege(Access),
    /// A directory is on this server.
    NeedlessServer,
    /// A bucket is not.
    MissingServer,
    /// The foreign server cannot be used.
    Server(ServerProblem),
    /// Its options cannot.
    Store(Arc<StoreError>),
}

impl OpenError {
    /// The error's class.
    pub(super) fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            Self::Location(_) => PgSqlErrorCode::ERRCODE_INVALID_NAME,
            Self::NoPrivilege(_) => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::NeedlessServer | Self::MissingServer => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::Server(problem) => problem.sqlstate(),
            Self::Store(problem) => sqlstate(problem),
        }
    }

    /// As an error for the user.
    pub(super) fn into_report(self) -> ErrorReport {
        let report = ErrorReport::new(self.sqlstate(), own_text(&self.to_string()).into_owned(), "dbmazz");
        match self.hint() {
            Some(hint) => report.set_hint(own_text(&hint).into_owned()),
            None => report,
        }
    }

    /// Raises it.
    pub(super) fn report(self) -> ! {
        self.into_report().report(PgLogLevel::ERROR);
        unreachable!("an error has been raised")
    }

    /// Facts or advice: a full sentence.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Location(_) | Self::Store(_) => None,
            Self::Server(problem) => Some(s3_hint(problem)),
            Self::NoPrivilege(access) => Some(format!(
                "Only roles with privileges of the role \"{}\" may {} files of the server.",
                role_for(*access).1,
                if *access == Access::Write { "write" } else { "read" }
            )),
            Self::NeedlessServer => Some("Leave the argument \"server\" out.".to_owned()),
            Self::MissingServer => Some(
                "CREATE SERVER … FOREIGN DATA WRAPPER dbmazz_s3 OPTIONS (endpoint 'https://…'), and name it in the argument \"server\"."
                    .to_owned(),
            ),
        }
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Location(problem) => problem.fmt(f),
            Self::NoPrivilege(Access::Write) => f.write_str("permission denied to export to a directory"),
            Self::NoPrivilege(Access::Read) => f.write_str("permission denied to read a directory"),
            Self::NeedlessServer => f.write_str("a directory is not reached through a foreign server"),
            Self::MissingServer => f.write_str("a bucket is reached through a foreign server"),
            Self::Server(problem) => problem.fmt(f),
            Self::Store(problem) => problem.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// What to do about a server of S3: a full sentence.
fn s3_hint(problem: &ServerProblem) -> String {
    let quoted = |name: &str| pgrx::spi::quote_identifier(name);
    match problem {
        ServerProblem::Missing { server } | ServerProblem::OtherWrapper { server, .. } => format!(
            "CREATE SERVER {} FOREIGN DATA WRAPPER {S3_WRAPPER} OPTIONS (endpoint 'https://…').",
            quoted(server)
        ),
        ServerProblem::NoMapping { server, role } => format!(
            "CREATE USER MAPPING FOR {} SERVER {} OPTIONS (access_key '…', secret '…').",
            quoted(role),
            quoted(server)
        ),
        ServerProblem::Option {
            server,
            problem: OptionError::Missing { name: name @ ("access_key" | "secret") },
        } => {
            format!("ALTER USER MAPPING FOR … SERVER {} OPTIONS (ADD {name} '…').", quoted(server))
        }
        other => other.hint(),
    }
}

fn check_role(role: pg_sys::Oid, access: Access) -> Result<(), OpenError> {
    let (needed, _) = role_for(access);
    // SAFETY: looks into the system caches.
    if unsafe { pg_sys::has_privs_of_role(role, pg_sys::Oid::from(needed)) } {
        return Ok(());
    }
    Err(OpenError::NoPrivilege(access))
}

const fn role_for(access: Access) -> (u32, &'static str) {
    match access {
        Access::Write => (pg_sys::ROLE_PG_WRITE_SERVER_FILES, "pg_write_server_files"),
        Access::Read => (pg_sys::ROLE_PG_READ_SERVER_FILES, "pg_read_server_files"),
    }
}

/// The main thread of this process, and threads born without signals.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerHost;

impl Host for ServerHost {
    fn breathe(&self) {
        latch::serve_interrupts();
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        let _born_without_signals = SignalsBlocked::enter();
        std::thread::Builder::new().name(name.to_owned()).spawn(work)
    }
}
