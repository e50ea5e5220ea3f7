//! Foreign servers and user mappings: where a mirror's rows go, and as whom.
//!
//! Reads the system caches, so the decoding worker must ask before it decodes, or bracket the call by
//! `InvalidateSystemCaches`.

use std::ffi::{CStr, CString, c_char};
use std::{fmt, slice};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;

use super::super::compat;
use crate::sink::starrocks::{OptionError, StarRocksConfig};

/// The wrapper that servers of StarRocks belong to.
pub(in crate::postgres) const WRAPPER: &str = "dbmazz_starrocks";

/// Why a server cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum ServerProblem {
    /// There is none of this name.
    Missing {
        /// The name.
        server: String,
    },
    /// It belongs to another wrapper.
    OtherWrapper {
        /// The name.
        server: String,
        /// Its wrapper.
        wrapper: String,
        /// The one that it should be.
        wanted: String,
    },
    /// Neither the role nor PUBLIC has a user mapping.
    NoMapping {
        /// The server.
        server: String,
        /// The role.
        role: String,
    },
    /// The role may not use the server.
    NoUsage {
        /// The server.
        server: String,
        /// The role.
        role: String,
    },
    /// An option is missing or wrong.
    Option {
        /// The server.
        server: String,
        /// What about it.
        problem: OptionError,
    },
}

impl ServerProblem {
    /// The error's class.
    pub(in crate::postgres) const fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            Self::Missing { .. } | Self::NoMapping { .. } => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            Self::OtherWrapper { .. } => PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            Self::NoUsage { .. } => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::Option { .. } => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        }
    }

    /// What to do about it: a full sentence.
    pub(in crate::postgres) fn hint(&self) -> String {
        match self {
            Self::Missing { server } | Self::OtherWrapper { server, .. } => {
                let server = quoted(server);
                format!(
                    "CREATE SERVER {server} FOREIGN DATA WRAPPER {WRAPPER} OPTIONS (load_url 'http://…:8030')."
                )
            }
            Self::NoMapping { server, role } => {
                let (server, role) = (quoted(server), quoted(role));
                format!("CREATE USER MAPPING FOR {role} SERVER {server} OPTIONS (user '…', password '…').")
            }
            Self::NoUsage { server, role } => {
                format!("GRANT USAGE ON FOREIGN SERVER {} TO {}.", quoted(server), quoted(role))
            }
            Self::Option { server, problem: OptionError::Missing { name: "user" } } => {
                format!("ALTER USER MAPPING FOR … SERVER {} OPTIONS (ADD user '…').", quoted(server))
            }
            Self::Option { server, problem: OptionError::Missing { name } } => {
                format!("ALTER SERVER {} OPTIONS (ADD {name} '…').", quoted(server))
            }
            Self::Option { server, .. } => {
                format!("ALTER SERVER {} or its user mapping OPTIONS (SET …).", quoted(server))
            }
        }
    }
}

impl fmt::Display for ServerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { server } => write!(f, "server \"{server}\" does not exist"),
            Self::OtherWrapper { server, wrapper, wanted } => {
                write!(
                    f,
                    "server \"{server}\" belongs to foreign-data wrapper \"{wrapper}\", not \"{wanted}\""
                )
            }
            Self::NoMapping { server, role } => {
                write!(f, "user mapping for role \"{role}\" on server \"{server}\" does not exist")
            }
            Self::NoUsage { server, role } => {
                write!(f, "permission denied for foreign server \"{server}\" and role \"{role}\"")
            }
            Self::Option { server, problem } => write!(f, "server \"{server}\" cannot be used: {problem}"),
        }
    }
}

impl std::error::Error for ServerProblem {}

/// How to reach the server `server` as `role`. The target database is the server's `database`, or has the name of the
/// current one. Any process; in the decoding worker see the module's remark.
///
/// # Errors
///
/// When the server or the mapping is missing, is not of our wrapper, may not be used, or lacks an option.
pub(in crate::postgres) fn config(server: &str, role: pg_sys::Oid) -> Result<StarRocksConfig, ServerProblem> {
    let (mut options, mapping) = options(server, role, WRAPPER)?;
    if !options.iter().any(|(name, _)| name == "database") {
        options.push(("database".to_owned(), current_database()));
    }
    StarRocksConfig::from_options(&options, &mapping)
        .map_err(|problem| ServerProblem::Option { server: server.to_owned(), problem })
}

/// The options of a server of the wrapper, and of the user mapping of `role`. Any process.
///
/// # Errors
///
/// When the server or the mapping is missing, is not of the wrapper, or may not be used.
#[allow(clippy::type_complexity)] // Two lists of the same kind.
pub(in crate::postgres) fn options(
    server: &str,
    role: pg_sys::Oid,
    wrapper: &str,
) -> Result<(Vec<(String, String)>, Vec<(String, String)>), ServerProblem> {
    let missing = || ServerProblem::Missing { server: server.to_owned() };
    let name = CString::new(server).map_err(|_| missing())?;
    // SAFETY: looks into the system cache; the answer is null or a struct in the current memory context.
    let found =
        unsafe { pg_sys::GetForeignServerByName(name.as_ptr(), true).as_ref() }.ok_or_else(missing)?;
    check_wrapper(found.fdwid, server, wrapper)?;
    check_usage(found.serverid, server, role)?;
    let mapping = mapping_options(found.serverid, server, role)?;
    // SAFETY: `options` is the list of that struct.
    Ok((unsafe { options_of(found.options) }, mapping))
}

/// The name of the database that this process is connected to.
pub(in crate::postgres) fn current_database() -> String {
    // SAFETY: the database of this process exists for as long as the process is connected to it.
    unsafe { text(pg_sys::get_database_name(pg_sys::MyDatabaseId)) }
}

/// The name of a role; its number when there is no such role any more.
pub(in crate::postgres) fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: looks into the system cache; the answer is null or a C string.
    let name = unsafe { pg_sys::GetUserNameFromId(role, true) };
    if name.is_null() {
        return role.to_u32().to_string();
    }
    // SAFETY: not null, so a C string.
    unsafe { text(name) }
}

fn check_wrapper(wrapper: pg_sys::Oid, server: &str, wanted: &str) -> Result<(), ServerProblem> {
    // SAFETY: a server's wrapper exists as long as the server does; raises an error otherwise.
    let wrapper = unsafe { text((*pg_sys::GetForeignDataWrapper(wrapper)).fdwname) };
    if wrapper == wanted {
        return Ok(());
    }
    let wanted = wanted.to_owned();
    Err(ServerProblem::OtherWrapper { server: server.to_owned(), wrapper, wanted })
}

fn check_usage(server: pg_sys::Oid, name: &str, role: pg_sys::Oid) -> Result<(), ServerProblem> {
    let usage = pg_sys::ACL_USAGE as pg_sys::AclMode;
    if compat::foreign_server_aclcheck(server, role, usage) == pg_sys::AclResult::ACLCHECK_OK {
        return Ok(());
    }
    Err(ServerProblem::NoUsage { server: name.to_owned(), role: role_name(role) })
}

fn mapping_options(
    server: pg_sys::Oid,
    name: &str,
    role: pg_sys::Oid,
) -> Result<Vec<(String, String)>, ServerProblem> {
    let has_mapping = |user: pg_sys::Oid| {
        let cache = pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as i32;
        // SAFETY: the cache has these two keys, both of them OIDs.
        unsafe { pg_sys::SearchSysCacheExists(cache, user.into(), server.into(), 0.into(), 0.into()) }
    };
    if !has_mapping(role) && !has_mapping(pg_sys::InvalidOid) {
        return Err(ServerProblem::NoMapping { server: name.to_owned(), role: role_name(role) });
    }
    // SAFETY: there is one, for the role or for PUBLIC; its options are a list of its own.
    Ok(unsafe { options_of((*pg_sys::GetUserMapping(role, server)).options) })
}

/// # Safety
///
/// `list` is a list of `DefElem`, or null.
unsafe fn options_of(list: *mut pg_sys::List) -> Vec<(String, String)> {
    // SAFETY: the caller vouches for the list; a list that is not null has as many elements as it says.
    let elements = unsafe {
        let Some(list) = list.as_ref() else { return vec![] };
        slice::from_raw_parts(list.elements, usize::try_from(list.length).unwrap_or(0))
    };
    let pair = |element: &pg_sys::ListCell| {
        // SAFETY: each element has a name, and a value that is a string.
        unsafe {
            let element: *mut pg_sys::DefElem = element.ptr_value.cast();
            (text((*element).defname), text(pg_sys::defGetString(element)))
        }
    };
    elements.iter().map(pair).collect()
}

/// # Safety
///
/// `pointer` is a C string.
unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: the caller vouches.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn quoted(name: &str) -> String {
    pgrx::spi::quote_identifier(name)
}
