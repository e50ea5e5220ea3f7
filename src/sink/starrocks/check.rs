//! Whether a StarRocks is there and lets us in: for preflight, with an answer after one request and one login.

use std::fmt;

use super::config::StarRocksConfig;
use super::exchange::Endpoints;
use super::http::{Http, TlsError};
use super::label_state::{self, Untold};
use super::login::authorization;
use super::sql::SqlSession;
use crate::sink::StatementError;

/// What the two ways into a StarRocks say. Both are tried, whatever the other says.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Whether a frontend answers over HTTP and knows the login.
    pub http: Result<(), HttpCheckError>,
    /// The version that the server tells over the MySQL protocol.
    pub version: Result<String, StatementError>,
}

/// Asks once, without retries.
pub fn check(config: &StarRocksConfig) -> ServerInfo {
    ServerInfo { http: check_http(config), version: check_sql(config) }
}

fn check_http(config: &StarRocksConfig) -> Result<(), HttpCheckError> {
    let http = Http::new(config).map_err(HttpCheckError::Tls)?;
    let login = [authorization(config).map_err(HttpCheckError::Credentials)?];
    let urls = config.load_urls.clone();
    let mut endpoints = Endpoints::new(urls, config.backend_host.clone(), config.database.clone());
    // Nobody has this label; the answer only has to come.
    let told = label_state::ask(&http, &mut endpoints, &login, &config.database, "dbmazz_check");
    told.map(drop).map_err(|untold| match untold {
        Untold::NoFrontend => HttpCheckError::NoFrontend,
        Untold::Credentials(reason) => HttpCheckError::Credentials(reason),
        Untold::Trouble(reason) => HttpCheckError::Unreachable(reason),
    })
}

fn check_sql(config: &StarRocksConfig) -> Result<String, StatementError> {
    let mut session = SqlSession::connect(config)?;
    // version() is MySQL's for the sake of clients; the own one is asked first.
    match session.query_value("SELECT current_version()") {
        Err(StatementError::Refused { .. }) => session.query_value("SELECT version()"),
        other => other,
    }
}

/// Why loads would not get through.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HttpCheckError {
    /// The certificates cannot be read.
    Tls(TlsError),
    /// The login was refused, or the password cannot be read.
    Credentials(String),
    /// No load URL answers.
    Unreachable(String),
    /// Backends answer, but nobody who knows labels: after a crash nobody could say what became of a load.
    NoFrontend,
}

impl fmt::Display for HttpCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(source) => write!(f, "{source}"),
            Self::Credentials(reason) => write!(f, "could not log in to StarRocks: {reason}"),
            Self::Unreachable(reason) => f.write_str(reason),
            Self::NoFrontend => f.write_str("could not find a frontend: every load URL names a backend"),
        }
    }
}

impl std::error::Error for HttpCheckError {}
