//! How to reach one StarRocks: made from a foreign server and a user mapping, copied into threads.
//!
//! It never shows its password: `Debug` leaves it out, and no error repeats it.

use std::path::PathBuf;
use std::time::Duration;

use super::options::{validate_mapping_options, validate_server_options};
use crate::server_options::{OptionError, parse_boolean, parse_urls, value};
pub use crate::server_options::{Secret, TlsVerify};

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
    /// Loads are thrown away, after this compression.
    #[cfg(feature = "discard")]
    pub discard: Option<crate::sink::Compression>,
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
            #[cfg(feature = "discard")]
            discard: value(server, "discard").and_then(super::options::parse_discard),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(server: &[(&str, &str)], mapping: &[(&str, &str)]) -> Result<StarRocksConfig, OptionError> {
        StarRocksConfig::from_options(&options(server), &options(mapping))
    }

    const LEAST: [(&str, &str); 2] = [("load_url", "http://fe1:8030"), ("database", "shop")];

    #[test]
    fn least_options_are_filled_with_defaults() {
        let config = read(&LEAST, &[("user", "root")]).unwrap();
        assert_eq!((config.sql_host.as_str(), config.sql_port), ("fe1", 9030));
        assert_eq!(config.password, Secret::Password(String::new()));
        assert_eq!(
            (config.connect_timeout, config.load_timeout),
            (Duration::from_secs(5), Duration::from_secs(600))
        );
        assert_eq!((config.tls_verify, config.replication_num), (TlsVerify::On, None));
    }

    #[test]
    fn every_option_is_understood() {
        let server = [
            ("load_url", "http://fe1:8030/, https://[::1]:8030"),
            ("sql_host", "10.0.0.1"),
            ("sql_port", "9031"),
            ("database", "shop"),
            ("backend_host", "be.example"),
            ("ca_file", "/etc/ca.pem"),
            ("tls_verify", "off"),
            ("connect_timeout_ms", "250"),
            ("load_timeout_s", "7"),
            ("replication_num", "3"),
        ];
        let config = read(&server, &[("user", "u"), ("password_file", "/etc/secret")]).unwrap();
        assert_eq!(config.load_urls, ["http://fe1:8030", "https://[::1]:8030"]);
        assert_eq!((config.sql_host.as_str(), config.sql_port), ("10.0.0.1", 9031));
        assert_eq!(config.backend_host.as_deref(), Some("be.example"));
        assert_eq!(config.ca_file, Some(PathBuf::from("/etc/ca.pem")));
        assert_eq!((config.tls_verify, config.replication_num), (TlsVerify::Off, Some(3)));
        assert_eq!(
            (config.connect_timeout, config.load_timeout),
            (Duration::from_millis(250), Duration::from_secs(7))
        );
        assert_eq!(config.password, Secret::File(PathBuf::from("/etc/secret")));
    }

    #[test]
    fn option_that_is_missing_is_named() {
        assert_eq!(
            read(&LEAST[..1], &[("user", "u")]).unwrap_err(),
            OptionError::Missing { name: "database" }
        );
        assert_eq!(
            read(&LEAST[1..], &[("user", "u")]).unwrap_err(),
            OptionError::Missing { name: "load_url" }
        );
        assert_eq!(read(&LEAST, &[]).unwrap_err(), OptionError::Missing { name: "user" });
    }

    #[test]
    fn password_is_never_shown() {
        let config = read(&LEAST, &[("user", "root"), ("password", "hunter2")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.password.reveal().unwrap(), "hunter2");
    }
}
