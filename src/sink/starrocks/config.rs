//! How to reach one StarRocks: made from a foreign server and a user mapping, copied into threads.
//!
//! It never shows its password: `Debug` leaves it out, and no error repeats it.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::options::{
    OptionError, parse_boolean, parse_urls, validate_mapping_options, validate_server_options, value,
};

/// Where a StarRocks is and how to talk to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StarRocksConfig {
    /// `scheme://host:port` of frontends, tried in order; a backend may be among them. At least one.
    pub load_urls: Vec<String>,
    /// Host of the MySQL protocol. Default: that of the first load URL.
    pub sql_host: String,
    /// Port of the MySQL protocol. Default: 9030.
    pub sql_port: u16,
    /// The target database.
    pub database: String,
    /// Whom to log in as.
    pub user: String,
    /// And how.
    pub password: Secret,
    /// Replaces the host of a redirect to a backend.
    pub backend_host: Option<String>,
    /// Certificates to trust for `https`, in PEM form. Default: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whether the certificate of an `https` URL is checked at all.
    pub tls_verify: TlsVerify,
    /// Longest time for one connection to be made. Default: 5 s.
    pub connect_timeout: Duration,
    /// Longest time for one load. Default: 600 s.
    pub load_timeout: Duration,
    /// Replicas of new tables. Without it the target's default counts.
    pub replication_num: Option<u32>,
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
    /// A file whose first line is the password. It is read for each login: a new password needs no restart.
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

impl StarRocksConfig {
    /// Reads the options of a foreign server and of the user mapping for it.
    ///
    /// # Errors
    /// When an option is not recognized, not valid or missing.
    pub fn from_options(
        server: &[(String, String)],
        user_mapping: &[(String, String)],
    ) -> Result<Self, OptionError> {
        validate_server_options(server)?;
        validate_mapping_options(user_mapping)?;
        let load_urls = value(server, "load_url").and_then(parse_urls);
        let load_urls = load_urls.ok_or(OptionError::Missing { name: "load_url" })?;
        let sql_host = value(server, "sql_host").map(str::to_owned);
        let millis = number(server, "connect_timeout_ms").unwrap_or(5_000);
        let seconds = number(server, "load_timeout_s").unwrap_or(600);
        let tls_verify = value(server, "tls_verify").and_then(parse_boolean).unwrap_or(true);
        Ok(Self {
            sql_host: sql_host.unwrap_or_else(|| host_of(&load_urls)),
            load_urls,
            sql_port: value(server, "sql_port").and_then(|port| port.parse().ok()).unwrap_or(9030),
            database: required(server, "database")?,
            user: required(user_mapping, "user")?,
            password: secret(user_mapping),
            backend_host: value(server, "backend_host").map(str::to_owned),
            ca_file: value(server, "ca_file").map(PathBuf::from),
            tls_verify: if tls_verify { TlsVerify::On } else { TlsVerify::Off },
            connect_timeout: Duration::from_millis(millis.into()),
            load_timeout: Duration::from_secs(seconds.into()),
            replication_num: number(server, "replication_num"),
        })
    }
}

fn required(options: &[(String, String)], name: &'static str) -> Result<String, OptionError> {
    value(options, name).map(str::to_owned).ok_or(OptionError::Missing { name })
}

fn number(options: &[(String, String)], name: &str) -> Option<u32> {
    value(options, name).and_then(|text| text.parse().ok())
}

fn secret(user_mapping: &[(String, String)]) -> Secret {
    match value(user_mapping, "password_file") {
        Some(path) => Secret::File(PathBuf::from(path)),
        None => Secret::Password(value(user_mapping, "password").unwrap_or_default().to_owned()),
    }
}

/// The host of the first URL; without brackets, as the MySQL client wants it.
fn host_of(urls: &[String]) -> String {
    let authority = urls.first().and_then(|url| url.split_once("://")).map_or("", |(_, rest)| rest);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}
