//! Whether a StarRocks is there and lets us in: for preflight, with an answer after one request and one login.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};

use super::config::StarRocksConfig;
use super::exchange::Endpoints;
use super::http::{Headers, Http, TlsError};
use super::label_state::{self, Untold};
use super::login::authorization;
use super::owner;
use super::sql::SqlSession;
use super::url::load_path;
use crate::sink::StatementError;
use crate::table::TargetTable;

/// What the two ways into a StarRocks say. Both are tried, whatever the other says.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Whether a frontend answers over HTTP and knows the login.
    pub http: Result<(), HttpCheckError>,
    /// The backend that a frontend names takes connections; `None` when no frontend was there to name one. Otherwise the
    /// reason why no load could be sent.
    pub backend: Option<Result<String, String>>,
    /// The version that the server tells over the MySQL protocol.
    pub version: Result<String, StatementError>,
    /// Whether the user may read the table of the owners, as far as it is there.
    pub owner: Result<(), StatementError>,
}

/// Asks once, without retries.
pub fn check(config: &StarRocksConfig) -> ServerInfo {
    let (http, backend) = match check_http(config) {
        Ok(backend) => (Ok(()), backend),
        Err(problem) => (Err(problem), None),
    };
    let (version, owner) = check_sql(config);
    ServerInfo { http, backend, version, owner }
}

type Backend = Option<Result<String, String>>;

fn check_http(config: &StarRocksConfig) -> Result<Backend, HttpCheckError> {
    let http = Http::new(config).map_err(HttpCheckError::Tls)?;
    let login = [authorization(config).map_err(HttpCheckError::Credentials)?];
    let urls = config.load_urls.clone();
    let mut endpoints = Endpoints::new(urls, config.backend_host.clone(), config.database.clone());
    // Nobody has this label; the answer only has to come.
    let told = label_state::ask(&http, &mut endpoints, &login, &config.database, "dbmazz_check");
    match told {
        Ok(_) => Ok(check_backend(config, &http, &endpoints, &login)),
        Err(Untold::NoFrontend) => Err(HttpCheckError::NoFrontend),
        Err(Untold::Credentials(reason)) => Err(HttpCheckError::Credentials(reason)),
        Err(Untold::Trouble(reason)) => Err(HttpCheckError::Unreachable(reason)),
    }
}

/// Asks where a load would go, and knocks there. A frontend names a backend whether or not the table exists.
fn check_backend(config: &StarRocksConfig, http: &Http, endpoints: &Endpoints, login: &Headers) -> Backend {
    let nowhere = TargetTable { database: config.database.clone(), table: "dbmazz_check".to_owned() };
    match endpoints.backend_for(http, &load_path(&nowhere), login) {
        Ok(None) => None,
        Ok(Some(backend)) => Some(knock(&backend.base, config).map(|()| backend.base)),
        Err(reason) => Some(Err(format!("no backend takes loads: {reason}"))),
    }
}

fn knock(base: &str, config: &StarRocksConfig) -> Result<(), String> {
    let failed = |reason: String| format!("could not connect to backend \"{base}\": {reason}");
    let address = base.split_once("://").map_or(base, |(_, authority)| authority);
    let addresses = address.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let mut reason = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, config.connect_timeout) {
            Ok(_) => return Ok(()),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(failed(reason))
}

fn check_sql(config: &StarRocksConfig) -> (Result<String, StatementError>, Result<(), StatementError>) {
    let mut session = match SqlSession::connect(config) {
        Ok(session) => session,
        // Said once.
        Err(problem) => return (Err(problem), Ok(())),
    };
    // version() is MySQL's for the sake of clients; the own one is asked first.
    let version = match session.query_value("SELECT current_version()") {
        Err(StatementError::Refused { .. }) => session.query_value("SELECT version()"),
        other => other,
    };
    (version, owner::check(&mut session, &config.database))
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
