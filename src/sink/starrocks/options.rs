//! The options of `CREATE SERVER` and `CREATE USER MAPPING` for the wrapper `dbmazz_starrocks`.
//!
//! One table names every option, where it belongs and what its value must look like; the validators of the wrapper
//! and the configuration both read it, so that what is accepted at `CREATE SERVER` is what is understood later.

use std::fmt;

/// Checks the options of a server, as the wrapper's validator does. Options that are missing are no error here.
///
/// # Errors
/// The first option that is not recognized or whose value is not valid.
pub fn validate_server_options(options: &[(String, String)]) -> Result<(), OptionError> {
    validate(&SERVER_OPTIONS, options)
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

/// Why an option was not accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OptionError {
    /// No such option.
    Unrecognized {
        /// Its name.
        name: String,
        /// The names there are.
        valid: Vec<&'static str>,
    },
    /// The value cannot be understood.
    Invalid {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What the value must be.
        expected: &'static str,
    },
    /// The option has no default.
    Missing {
        /// The option.
        name: &'static str,
    },
    /// Only one of the two can be.
    Conflicting {
        /// An option.
        one: &'static str,
        /// Another one.
        other: &'static str,
    },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrecognized { name, valid } => {
                write!(f, "unrecognized option \"{name}\": valid options are {}", valid.join(", "))
            }
            Self::Invalid { name, value, expected } => {
                write!(f, "invalid value for option \"{name}\": \"{value}\" is not {expected}")
            }
            Self::Missing { name } => write!(f, "option \"{name}\" is required"),
            Self::Conflicting { one, other } => {
                write!(f, "options \"{one}\" and \"{other}\" cannot be given together")
            }
        }
    }
}

impl std::error::Error for OptionError {}

/// What the value of an option must look like.
#[derive(Clone, Copy)]
enum Form {
    Urls,
    Host,
    Port,
    Name,
    Text,
    Path,
    Boolean,
    Positive,
}

impl Form {
    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Urls => parse_urls(value).is_some(),
            Self::Host => {
                !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || "/?#@".contains(c))
            }
            Self::Port => value.parse::<u16>().is_ok_and(|port| port != 0),
            Self::Name => !value.is_empty() && !value.contains('\0'),
            Self::Text => true,
            Self::Path => value.starts_with('/'),
            Self::Boolean => parse_boolean(value).is_some(),
            Self::Positive => value.parse::<u32>().is_ok_and(|number| number != 0),
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Urls => "a comma-separated list of URLs like \"http://host:8030\"",
            Self::Host => "a host name or address",
            Self::Port => "a port number",
            Self::Name => "a name",
            Self::Text => "a text",
            Self::Path => "an absolute path",
            Self::Boolean => "a Boolean",
            Self::Positive => "a number greater than zero",
        }
    }
}

const SERVER_OPTIONS: [(&str, Form); 10] = [
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
];

const MAPPING_OPTIONS: [(&str, Form); 3] =
    [("user", Form::Name), ("password", Form::Text), ("password_file", Form::Path)];

fn validate(known: &[(&'static str, Form)], options: &[(String, String)]) -> Result<(), OptionError> {
    for (name, value) in options {
        let Some(&(name, form)) = known.iter().find(|(known, _)| known == name) else {
            let valid = known.iter().map(|(name, _)| *name).collect();
            return Err(OptionError::Unrecognized { name: name.clone(), valid });
        };
        if !form.accepts(value) {
            // A URL may carry a password by mistake: that value is not repeated.
            let value = if value.contains('@') { "…".to_owned() } else { value.clone() };
            return Err(OptionError::Invalid { name, value, expected: form.expected() });
        }
    }
    Ok(())
}

/// The value of an option, if it is given.
pub(super) fn value<'a>(options: &'a [(String, String)], name: &str) -> Option<&'a str> {
    options.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

/// `http://host:port`, several with commas between; no path, no user. `None` when one is not of that form.
pub(super) fn parse_urls(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|url| parse_url(url.trim())).collect()
}

fn parse_url(url: &str) -> Option<String> {
    let url = url.strip_suffix('/').unwrap_or(url);
    let (scheme, authority) = url.split_once("://")?;
    let (host, port) = authority.rsplit_once(':')?;
    let host_is_bracketed = host.starts_with('[') && host.ends_with(']');
    let good_host = Form::Host.accepts(host) && (host_is_bracketed || !host.contains(':'));
    let good = matches!(scheme, "http" | "https") && good_host && Form::Port.accepts(port);
    good.then(|| url.to_owned())
}

/// As PostgreSQL reads a Boolean.
pub(super) fn parse_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
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
