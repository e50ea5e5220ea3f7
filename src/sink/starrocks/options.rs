//! The options of `CREATE SERVER` and `CREATE USER MAPPING` for the wrapper `dbmazz_starrocks`.
//!
//! One table names every option, where it belongs and what its value must look like; the validators of the wrapper
//! and the configuration both read it, so that what is accepted at `CREATE SERVER` is what is understood later.

pub use crate::server_options::OptionError;
use crate::server_options::{Form, validate, value};

/// Checks the options of a server, as the wrapper's validator does. Options that are missing are no error here.
///
/// # Errors
/// The first option that is not recognized or whose value is not valid.
pub fn validate_server_options(options: &[(String, String)]) -> Result<(), OptionError> {
    validate(SERVER_OPTIONS, options)
}

/// Checks the options of a user mapping.
///
/// # Errors
/// The first option that is not recognized or whose value is not valid; a password given twice.
pub fn validate_mapping_options(options: &[(String, String)]) -> Result<(), OptionError> {
    validate(&MAPPING_OPTIONS, options)?;
    if value(options, "password").is_some() && value(options, "password_file").is_some() {
        return Err(OptionError::Conflicting { one: "password", other: "password_file" });
    }
    Ok(())
}

const SERVER_OPTIONS: &[(&str, Form)] = &[
    ("load_url", Form::Urls),
    ("sql_host", Form::Host),
    ("sql_port", Form::Port),
    ("database", Form::Name),
    ("backend_host", Form::Host),
    ("ca_file", Form::Path),
    ("tls_verify", Form::Boolean),
    ("connect_timeout_ms", Form::Positive),
    ("load_timeout_s", Form::Positive),
    ("replication_num", Form::Positive),
    #[cfg(feature = "discard")]
    ("discard", Form::Discard),
];

const MAPPING_OPTIONS: [(&str, Form); 3] =
    [("user", Form::Name), ("password", Form::Text), ("password_file", Form::Path)];

/// What is done to a load before it is thrown away.
#[cfg(feature = "discard")]
pub(super) fn parse_discard(text: &str) -> Option<crate::sink::Compression> {
    match text {
        "compressed" => Some(crate::sink::Compression::Lz4Frame),
        "plain" => Some(crate::sink::Compression::None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error(name: &str, value: &str) -> Option<String> {
        let options = [(name.to_owned(), value.to_owned())];
        validate_server_options(&options).err().map(|error| error.to_string())
    }

    #[test]
    fn unrecognized_option_lists_the_valid_ones() {
        assert_eq!(
            server_error("load_urls", "x").unwrap(),
            "unrecognized option \"load_urls\": valid options are load_url, sql_host, sql_port, database, backend_host, \
             ca_file, tls_verify, connect_timeout_ms, load_timeout_s, replication_num"
        );
        let error = validate_mapping_options(&[("pasword".to_owned(), String::new())]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unrecognized option \"pasword\": valid options are user, password, password_file"
        );
    }

    #[test]
    fn value_that_cannot_work_is_refused_at_once() {
        let wrong = [
            ("load_url", "fe1:8030"),
            ("load_url", "ftp://fe1:8030"),
            ("load_url", "http://fe1"),
            ("load_url", "http://fe1:99999"),
            ("load_url", "http://fe1:8030/api"),
            ("load_url", "http://::1:8030"),
            ("load_url", "http://fe1:8030,"),
            ("sql_port", "0"),
            ("sql_host", "http://fe1"),
            ("database", ""),
            ("tls_verify", "maybe"),
            ("ca_file", "ca.pem"),
            ("connect_timeout_ms", "0"),
            ("load_timeout_s", "10s"),
            ("replication_num", "-1"),
        ];
        for (name, value) in wrong {
            assert!(server_error(name, value).is_some(), "{name} '{value}' is taken");
        }
    }

    #[test]
    fn password_in_a_url_is_not_repeated() {
        let error = server_error("load_url", "http://root:hunter2@fe1:8030").unwrap();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn password_comes_from_one_place() {
        let both = [("password", "x"), ("password_file", "/x")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let error = validate_mapping_options(&both).unwrap_err();
        assert_eq!(error, OptionError::Conflicting { one: "password", other: "password_file" });
    }
}
