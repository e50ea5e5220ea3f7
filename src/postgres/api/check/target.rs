//! Whether StarRocks answers and lets us in: one request and one login, made by a thread, so that a target that is
//! silent can be cancelled and never keeps the session from answering interrupts.

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use pgrx::PgSqlErrorCode;

use super::Preflight;
use crate::postgres::api::failure::Failure;
use crate::postgres::latch::{self, Waker};
use crate::postgres::signal::SignalsBlocked;
use crate::sink::StatementError;
use crate::sink::starrocks::{self, HttpCheckError, ServerInfo, StarRocksConfig};

/// Longest wait for anybody to answer; a session is waiting for this.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// And for all answers together, whatever the single time-outs make of it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Asks the frontend and the MySQL port.
pub(super) fn check(mut config: StarRocksConfig, preflight: &mut Preflight) {
    config.connect_timeout = config.connect_timeout.min(MAX_CONNECT_TIMEOUT);
    let load_urls = config.load_urls.join(",");
    let sql = format!("{}:{}", config.sql_host, config.sql_port);
    match ask(config) {
        Ok(info) => {
            let answered = format!("StarRocks answers at {load_urls} and knows the user.");
            match info.http {
                Err(HttpCheckError::NoFrontend) => {
                    let detail = "Every load URL names a backend: labels cannot be asked for after a crash.";
                    preflight.note("load_url", Ok(detail.to_owned()));
                }
                http => preflight.note("load_url", http.map(|()| answered).map_err(http_failure)),
            }
            if let Some(backend) = info.backend {
                let answered = |backend| format!("The backend at {backend} takes connections.");
                preflight.note("backend", backend.map(answered).map_err(backend_failure));
            }
            let answered = |version| format!("StarRocks {version} answers at {sql} and knows the user.");
            preflight.note("sql_host", info.version.map(answered).map_err(sql_failure));
            if let Err(problem) = info.owner {
                preflight.note("owner", Err(owner_failure(&problem)));
            }
        }
        Err(failure) => preflight.note("load_url", Err(failure)),
    }
}

/// Lets a thread ask, and waits for it on the latch.
fn ask(config: StarRocksConfig) -> Result<ServerInfo, Failure> {
    let waker = Waker::new().map_err(|error| no_thread(&error))?;
    let wake = waker.handle();
    let (answer, answers) = bounded(1);
    let thread = std::thread::Builder::new().name("dbmazz check".to_owned());
    {
        let _signals = SignalsBlocked::enter();
        // The thread ends by itself when its time-outs are over; nobody joins it. A panic in it closes the channel.
        thread
            .spawn(move || {
                let _ = answer.send(starrocks::check(&config));
                wake();
            })
            .map_err(|error| no_thread(&error))?;
    }
    wait_for(&answers, &waker)
}

fn wait_for(answers: &Receiver<ServerInfo>, waker: &Waker) -> Result<ServerInfo, Failure> {
    let started = Instant::now();
    loop {
        match answers.try_recv() {
            Ok(info) => return Ok(info),
            Err(TryRecvError::Disconnected) => {
                let code = PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;
                return Err(Failure::new(code, "could not check StarRocks: the thread that asked it ended")
                    .hint("The server log may say why."));
            }
            Err(TryRecvError::Empty) if started.elapsed() > TIMEOUT => {
                let code = PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE;
                return Err(Failure::new(code, "could not check StarRocks: it has not answered in time")
                    .detail(format!("There was no answer for {} seconds.", TIMEOUT.as_secs()))
                    .hint(REACH));
            }
            // The latch may be set for other reasons; the timeout covers a thread that ends without a word.
            Err(TryRecvError::Empty) => latch::wait(Some(waker), Duration::from_millis(200)),
        }
    }
}

const REACH: &str = "Check load_url, sql_host and sql_port of the server, and that StarRocks is running: ALTER SERVER … OPTIONS (SET load_url '…').";
const LOG_IN: &str = "ALTER USER MAPPING FOR … SERVER … OPTIONS (SET user '…', SET password '…').";

fn no_thread(error: &io::Error) -> Failure {
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES;
    Failure::new(code, format!("could not start a thread: {error}"))
        .hint("Check the limits of the operating system.")
}

fn http_failure(error: HttpCheckError) -> Failure {
    let (code, hint) = match &error {
        HttpCheckError::Credentials(_) => {
            (PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, LOG_IN)
        }
        HttpCheckError::Tls(_) => (
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "ALTER SERVER … OPTIONS (SET ca_file '…') with a file of certificates in PEM form.",
        ),
        _ => (PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, REACH),
    };
    Failure::new(code, error.to_string()).hint(hint)
}

fn backend_failure(reason: String) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, reason).hint(
        "Check that the backends are running, and set backend_host of the server when they are known by another name: ALTER SERVER … OPTIONS (ADD backend_host '…').",
    )
}

fn owner_failure(error: &StatementError) -> Failure {
    let message = format!("could not read the table of the mirrors' owners at the target: {error}");
    Failure::new(PgSqlErrorCode::ERRCODE_FDW_ERROR, message).hint(
        "Grant the user SELECT, INSERT and DELETE on the table dbmazz_owner of the target database, and CREATE TABLE on the database.",
    )
}

fn sql_failure(error: StatementError) -> Failure {
    let (code, hint) = match &error {
        StatementError::Credentials { .. } => {
            (PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, LOG_IN)
        }
        StatementError::Unreachable { .. } => (PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, REACH),
        _ => (PgSqlErrorCode::ERRCODE_FDW_ERROR, REACH),
    };
    Failure::new(code, error.to_string()).hint(hint)
}
