//! `dbmazz_starrocks_validator`, `dbmazz_s3_validator`: check the options of servers and user mappings when they are
//! written.

use pgrx::pg_sys::{self, panic::ErrorReport};
use pgrx::prelude::*;

use super::failure::Failure;
use crate::export::destination::s3;
use crate::server_options::OptionError;
use crate::sink::starrocks;

/// Checks the options of an object of the wrapper. PostgreSQL calls it with the whole list of `name=value` after each
/// CREATE and ALTER.
///
/// # Errors
///
/// `invalid_parameter_value` with the list of valid options; `insufficient_privilege` for a file of the server that
/// the role may not read.
#[pg_extern(sql = false)]
fn dbmazz_starrocks_validator(options: Vec<Option<String>>, catalog: pg_sys::Oid) -> Result<(), ErrorReport> {
    validate(&STARROCKS, &options, catalog)?;
    Ok(())
}

/// The same for `dbmazz_s3`.
///
/// # Errors
///
/// The same.
#[pg_extern(sql = false)]
fn dbmazz_s3_validator(options: Vec<Option<String>>, catalog: pg_sys::Oid) -> Result<(), ErrorReport> {
    validate(&S3, &options, catalog)?;
    Ok(())
}

type Check = fn(&[(String, String)]) -> Result<(), OptionError>;

/// A wrapper: its name, how its options are checked, and which one of a user mapping names a file.
struct Wrapper {
    name: &'static str,
    check_server: Check,
    check_mapping: Check,
    secret_file: &'static str,
}

const STARROCKS: Wrapper = Wrapper {
    name: "dbmazz_starrocks",
    check_server: starrocks::validate_server_options,
    check_mapping: starrocks::validate_mapping_options,
    secret_file: "password_file",
};

const S3: Wrapper = Wrapper {
    name: "dbmazz_s3",
    check_server: s3::validate_server_options,
    check_mapping: s3::validate_mapping_options,
    secret_file: "secret_file",
};

fn validate(wrapper: &Wrapper, options: &[Option<String>], catalog: pg_sys::Oid) -> Result<(), Failure> {
    let options: Vec<(String, String)> = options.iter().flatten().map(|option| pair(option)).collect();
    if catalog == pg_sys::ForeignServerRelationId {
        (wrapper.check_server)(&options).map_err(failure)?;
        check_file(&options, "ca_file")
    } else if catalog == pg_sys::UserMappingRelationId {
        (wrapper.check_mapping)(&options).map_err(failure)?;
        check_file(&options, wrapper.secret_file)
    } else {
        match options.first() {
            None => Ok(()),
            Some((name, _)) => Err(failure(OptionError::Unrecognized { name: name.clone(), valid: vec![] })
                .hint(format!(
                    "The foreign-data wrapper {} has options for servers and user mappings only.",
                    wrapper.name
                ))),
        }
    }
}

/// A file is read by the server, so it takes the right to read the server's files (`file_fdw.c` asks for the same).
fn check_file(options: &[(String, String)], name: &str) -> Result<(), Failure> {
    if !options.iter().any(|(option, _)| option == name) {
        return Ok(());
    }
    // SAFETY: looks into the system caches, for the current role.
    let may_read = unsafe {
        pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(pg_sys::ROLE_PG_READ_SERVER_FILES))
    };
    if may_read {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Failure::new(code, format!("permission denied to set the option \"{name}\""))
        .detail("Only roles with privileges of the role \"pg_read_server_files\" may set it."))
}

fn pair(option: &str) -> (String, String) {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    (name.to_owned(), value.to_owned())
}

fn failure(problem: OptionError) -> Failure {
    let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    match problem {
        OptionError::Unrecognized { name, valid } => {
            let failure = Failure::new(code, format!("unrecognized option \"{name}\""));
            failure.hint(format!("Valid options are: {}.", valid.join(", ")))
        }
        other => Failure::new(code, other.to_string()),
    }
}
