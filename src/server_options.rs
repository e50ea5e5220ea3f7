//! Options of foreign servers and user mappings, whatever their wrapper: what values look like, secrets, certificates.
//!
//! A wrapper has one table of its options; its validator and its configuration both read it, so that what is accepted at
//! `CREATE SERVER` is what is understood later.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

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
pub(crate) enum Form {
    Urls,
    Url,
    Host,
    Port,
    Name,
    Text,
    Path,
    Boolean,
    Positive,
    #[cfg(feature = "discard")]
    Discard,
}

impl Form {
    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Urls => parse_urls(value).is_some(),
            Self::Url => endpoint(value).is_some(),
            Self::Host => {
                !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || "/?#@".contains(c))
            }
            Self::Port => value.parse::<u16>().is_ok_and(|port| port != 0),
            Self::Name => !value.is_empty() && !value.contains('\0'),
            Self::Text => true,
            Self::Path => value.starts_with('/'),
            Self::Boolean => parse_boolean(value).is_some(),
            Self::Positive => value.parse::<u32>().is_ok_and(|number| number != 0),
            #[cfg(feature = "discard")]
            Self::Discard => matches!(value, "compressed" | "plain"),
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Urls => "a comma-separated list of URLs like \"http://host:8030\"",
            Self::Url => "a URL like \"https://host:port\"",
            Self::Host => "a host name or address",
            Self::Port => "a port number",
            Self::Name => "a name",
            Self::Text => "a text",
            Self::Path => "an absolute path",
            Self::Boolean => "a Boolean",
            Self::Positive => "a number greater than zero",
            #[cfg(feature = "discard")]
            Self::Discard => "\"compressed\" or \"plain\"",
        }
    }
}

/// Checks options against a table of what there is.
pub(crate) fn validate(
    known: &[(&'static str, Form)],
    options: &[(String, String)],
) -> Result<(), OptionError> {
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
pub(crate) fn value<'a>(options: &'a [(String, String)], name: &str) -> Option<&'a str> {
    options.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

/// `http://host:port`, several with commas between; no path, no user. `None` when one is not of that form.
pub(crate) fn parse_urls(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|url| parse_url(url.trim())).collect()
}

/// `http://host`, with or without a port; no path, no user.
pub(crate) fn endpoint(url: &str) -> Option<String> {
    let url = url.trim().strip_suffix('/').unwrap_or(url.trim());
    let (scheme, authority) = url.split_once("://")?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Form::Port.accepts(port).then_some(host)?,
        _ => authority,
    };
    (matches!(scheme, "http" | "https") && Form::Host.accepts(host)).then(|| url.to_owned())
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
pub(crate) fn parse_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Whether certificates are checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsVerify {
    /// They are.
    On,
    /// Any certificate will do.
    Off,
}

/// A password, or where to read it.
#[derive(Clone, Eq, PartialEq)]
pub enum Secret {
    /// The password itself; may be empty.
    Password(String),
    /// A file whose first line is the password. It is read for each login: a new password needs no restart. The
    /// server's own user reads it: who may name one is for the caller to decide.
    File(PathBuf),
}

impl Secret {
    /// The password as of now.
    ///
    /// # Errors
    /// When the file cannot be read, in words for the administrator.
    pub fn reveal(&self) -> Result<String, String> {
        match self {
            Self::Password(password) => Ok(password.clone()),
            Self::File(path) => {
                let text = fs::read_to_string(path).map_err(|error| {
                    format!("could not read password file \"{}\": {error}", path.display())
                })?;
                Ok(text.lines().next().unwrap_or_default().to_owned())
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why the certificates of `ca_file` cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsError {
    path: String,
    reason: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not read certificates from \"{}\": {}", self.path, self.reason)
    }
}

impl std::error::Error for TlsError {}

/// How `https` is spoken.
///
/// # Errors
/// When the certificates cannot be used.
pub(crate) fn tls(ca_file: Option<&Path>, verify: TlsVerify) -> Result<TlsConfig, TlsError> {
    let builder =
        TlsConfig::builder().provider(TlsProvider::Rustls).disable_verification(verify == TlsVerify::Off);
    let Some(path) = ca_file else { return Ok(builder.build()) };
    Ok(builder.root_certs(RootCerts::new_with_certs(&certificates(path)?)).build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TlsError> {
    let fail = |reason: String| TlsError { path: path.display().to_string(), reason };
    let pem = fs::read(path).map_err(|error| fail(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| fail(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(fail("no certificate in it".to_owned()));
    }
    Ok(found)
}
