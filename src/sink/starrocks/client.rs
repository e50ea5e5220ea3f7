//! The sink that is a StarRocks: the retry loops around one attempt.
//!
//! ```text
//!              ┌──────────────── back-off, same label, same bytes ◄───────────────┐
//!              ▼                                                                  │
//!  load ──► attempt ──► Visible ─────────────────────────────► count rows ──► Ok  │
//!              ├──────► Committed, label finished ──► ask until VISIBLE ──────► Ok  │
//!              ├──────► unknown, label in use ──► ask ──► VISIBLE ────────────► Ok  │
//!              │                                    └──► ABORTED, UNKNOWN ─────────┤
//!              ├──────► trouble, credentials ─────────────────────────────────────┘
//!              └──────► refused ──► Err
//! ```

use std::sync::Arc;
use std::time::Instant;

use ureq::http::{HeaderName, HeaderValue};

use super::alter;
use super::answer::LoadAnswer;
use super::config::StarRocksConfig;
use super::ddl;
use super::exchange::{Attempt, Endpoints, Request, Role};
use super::http::{Http, TlsError};
use super::label_state::{self, LabelState, Untold};
use super::login::{authorization, load_headers};
use super::owner;
use super::retries::Retries;
use super::sql::SqlSession;
use super::url::load_path;
use super::verdict::{Verdict, judge};
use crate::definition::AlterStep;
use crate::owner::{OwnerRow, OwnerStep};
use crate::sink::pack::{Packed, Packer};
use crate::sink::retry::Backoff;
use crate::sink::{
    Compression, Interrupter, Label, LabelFate, Load, LoadError, Loaded, Pace, Refusal, Sink, StatementError,
    TableMatch, Watch,
};
use crate::table::{TableSpec, TargetTable};

/// Loads and statements for one StarRocks. One per load thread.
pub struct StarRocksSink {
    config: Arc<StarRocksConfig>,
    pace: Pace,
    http: Http,
    endpoints: Endpoints,
    packer: Packer,
    compression: Compression,
}

impl StarRocksSink {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the certificates of `ca_file` cannot be read.
    pub fn new(config: Arc<StarRocksConfig>) -> Result<Self, TlsError> {
        Self::with_pace(config, Pace::default())
    }

    /// With other times between attempts.
    ///
    /// # Errors
    /// As [`StarRocksSink::new`].
    pub fn with_pace(config: Arc<StarRocksConfig>, pace: Pace) -> Result<Self, TlsError> {
        let http = Http::new(&config)?;
        let urls = config.load_urls.clone();
        let endpoints = Endpoints::new(urls, config.backend_host.clone(), config.database.clone());
        let (packer, compression) = (Packer::new(), Compression::Lz4Frame);
        Ok(Self { config, pace, http, endpoints, packer, compression })
    }

    fn attempt(&mut self, load: &Load) -> Result<(Attempt, u64), LoadError> {
        let Packed { body, compression } = self.packer.pack(load, self.compression)?;
        let bytes_sent = body.len() as u64;
        let login = match authorization(&self.config) {
            Ok(login) => login,
            Err(reason) => return Ok((Attempt::Credentials(reason), bytes_sent)),
        };
        let timeout_s = self.config.load_timeout.as_secs().max(1);
        let mut headers = load_headers(load, compression, timeout_s).map_err(refused_by_us)?;
        headers.push(login);
        let path = load_path(&load.shape.target);
        let request = Request { path: &path, headers: &headers, body };
        Ok((self.endpoints.put(&self.http, &request), bytes_sent))
    }

    /// Asks for a label until its fate is known. A running load is awaited, then cancelled.
    fn fate(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<LabelFate, LoadError> {
        let label = label.to_string();
        let mut retries = Retries::new(&self.pace, watch);
        let mut poll = Backoff::new(self.pace.poll);
        let mut patience_ends = Instant::now() + self.pace.prepare_patience;
        loop {
            match self.ask(database, &label) {
                Ok(LabelState::Visible) => return Ok(LabelFate::Visible),
                Ok(LabelState::Aborted) => return Ok(LabelFate::Aborted),
                Ok(LabelState::Unknown) => return Ok(LabelFate::Unknown),
                Ok(LabelState::Prepare) if Instant::now() >= patience_ends => {
                    patience_ends = Instant::now() + self.pace.prepare_patience;
                    if let Err(untold) = self.cancel(database, &label) {
                        retries.untold(untold)?;
                    }
                }
                Ok(LabelState::Prepare | LabelState::Committed) => poll.wait(watch)?,
                Err(untold) => retries.untold(untold)?,
            }
        }
    }

    fn ask(&mut self, database: &str, label: &str) -> Result<LabelState, Untold> {
        let login = self.login()?;
        label_state::ask(&self.http, &mut self.endpoints, &login, database, label)
    }

    fn cancel(&mut self, database: &str, label: &str) -> Result<(), Untold> {
        let login = self.login()?;
        label_state::cancel(&self.http, &mut self.endpoints, &login, database, label)
    }

    fn login(&self) -> Result<[(HeaderName, HeaderValue); 1], Untold> {
        authorization(&self.config).map(|login| [login]).map_err(Untold::Credentials)
    }

    /// What became of a load whose label is known to be in use: `None` when it has to be sent again.
    fn landed(&mut self, load: &Load, known: Known, watch: &dyn Watch) -> Result<Option<()>, LoadError> {
        let fate = match self.fate(&load.shape.target.database, &load.label, watch) {
            // Nobody to ask: what the backend said must do, and else the same label again tells.
            Err(LoadError::NoFrontend) => LabelFate::Unknown,
            other => other?,
        };
        Ok(match (fate, known) {
            (LabelFate::Visible, _) | (LabelFate::Unknown, Known::Committed) => Some(()),
            (LabelFate::Aborted, _) | (LabelFate::Unknown, Known::Nothing) => None,
        })
    }

    fn refused(&self, answer: LoadAnswer, refusal: Refusal) -> LoadError {
        let url = answer.error_url.as_deref().and_then(|url| self.endpoints.reachable(url));
        let log = url.and_then(|url| self.http.get_start(&url.text(), ERROR_LOG_BYTES));
        let error_log = log.map(|log| first_lines(&log));
        LoadError::Refused { refusal, status: answer.status, message: answer.message, error_log }
    }

    /// What follows from an attempt. `Ok(None)`: the same load again.
    fn conclude(
        &mut self,
        load: &Load,
        attempt: Attempt,
        retries: &mut Retries<'_>,
    ) -> Result<Option<()>, LoadError> {
        let (answer, by) = match attempt {
            Attempt::Answered { answer, by } => (answer, by),
            Attempt::Credentials(reason) => return retries.credentials(&reason).map(|()| None),
            Attempt::NotBegun(reason) => return retries.trouble(&reason).map(|()| None),
            Attempt::Unknown(reason) => {
                retries.label_is_ours = true;
                retries.watch.retrying(&reason);
                return self.landed_or_wait(load, Known::Nothing, retries);
            }
        };
        let verdict = judge(&answer);
        let label_was_ours = retries.label_is_ours;
        retries.label_is_ours |= by == Role::Backend;
        match verdict {
            Verdict::Visible => check_count(load, &answer).map(Some),
            Verdict::Committed => {
                check_count(load, &answer)?;
                retries.watch.retrying("the rows are committed and not yet visible: publish timeout");
                self.landed_or_wait(load, Known::Committed, retries)
            }
            Verdict::LabelFinished | Verdict::LabelInUse if !label_was_ours => {
                Err(LoadError::LabelTaken { message: answer.message })
            }
            Verdict::LabelFinished => self.landed_or_wait(load, Known::Committed, retries),
            Verdict::LabelInUse => self.landed_or_wait(load, Known::Nothing, retries),
            Verdict::Ask => {
                retries.watch.retrying(&answer.message);
                self.landed_or_wait(load, Known::Nothing, retries)
            }
            Verdict::Trouble => retries.trouble(&answer.message).map(|()| None),
            Verdict::Credentials => retries.credentials(&answer.message).map(|()| None),
            Verdict::Uncompressed if self.compression != Compression::None => {
                self.compression = Compression::None;
                Ok(None)
            }
            Verdict::Uncompressed => Err(self.refused(answer, Refusal::Table)),
            Verdict::Refused(refusal) => Err(self.refused(answer, refusal)),
            // Nothing points at a row, and each smaller load would cost the same patience again.
            Verdict::Riddle if retries.is_out_of_patience() => Err(self.refused(answer, Refusal::Table)),
            Verdict::Riddle => retries.trouble(&answer.message).map(|()| None),
        }
    }

    fn landed_or_wait(
        &mut self,
        load: &Load,
        known: Known,
        retries: &mut Retries<'_>,
    ) -> Result<Option<()>, LoadError> {
        let landed = self.landed(load, known, retries.watch)?;
        if landed.is_none() {
            retries.wait()?;
        }
        Ok(landed)
    }

    /// Repeats a task over the MySQL protocol until the server answers it.
    fn with_session<T>(
        &self,
        watch: &dyn Watch,
        task: impl FnMut(&mut SqlSession) -> Result<T, StatementError>,
    ) -> Result<T, StatementError> {
        self.with_patience(Refusals::Final, watch, task)
    }

    fn with_patience<T>(
        &self,
        refusals: Refusals,
        watch: &dyn Watch,
        mut task: impl FnMut(&mut SqlSession) -> Result<T, StatementError>,
    ) -> Result<T, StatementError> {
        let mut retries = Retries::new(&self.pace, watch);
        loop {
            if watch.stopped() {
                return Err(StatementError::Stopped);
            }
            let error = match SqlSession::connect(&self.config).and_then(|mut session| task(&mut session)) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let waited = match &error {
                StatementError::Credentials { .. } => retries.credentials(&error.to_string()),
                StatementError::Unreachable { .. } => retries.trouble(&error.to_string()),
                StatementError::Refused { message, .. } if may_pass(message) => {
                    retries.trouble(&error.to_string())
                }
                StatementError::Refused { .. } if refusals == Refusals::Waited => {
                    retries.trouble(&error.to_string())
                }
                _ => return Err(error),
            };
            waited.map_err(|_| StatementError::Stopped)?;
        }
    }
}

impl Sink for StarRocksSink {
    fn load(&mut self, load: &Load, watch: &dyn Watch) -> Result<Loaded, LoadError> {
        let start = Instant::now();
        let mut retries = Retries::new(&self.pace, watch);
        loop {
            if watch.stopped() {
                return Err(LoadError::Stopped);
            }
            let (attempt, bytes_sent) = self.attempt(load)?;
            if self.conclude(load, attempt, &mut retries)?.is_some() {
                let body_bytes = load.body_bytes() as u64;
                return Ok(Loaded { rows: load.rows, bytes_sent, body_bytes, elapsed: start.elapsed() });
            }
        }
    }

    fn settle(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<LabelFate, LoadError> {
        self.fate(database, label, watch)
    }

    fn occupy(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<(), LoadError> {
        self.use_up(database, label, watch)
    }

    fn truncate(&mut self, target: &TargetTable, watch: &dyn Watch) -> Result<(), StatementError> {
        self.with_session(watch, |session| ddl::truncate(session, target))
    }

    fn prepare(&mut self, spec: &TableSpec, watch: &dyn Watch) -> Result<TableMatch, StatementError> {
        let replication_num = self.config.replication_num;
        self.with_session(watch, |session| {
            ddl::create_database(session, &spec.target.database)?;
            ddl::create_table(session, spec, replication_num)
        })
    }

    fn replace(&mut self, spec: &TableSpec, watch: &dyn Watch) -> Result<TableMatch, StatementError> {
        let replication_num = self.config.replication_num;
        self.with_session(watch, |session| {
            ddl::drop_table(session, &spec.target)?;
            match ddl::create_table(session, spec, replication_num)? {
                fits @ (TableMatch::Created | TableMatch::Fits | TableMatch::Replaceable) => Ok(fits),
                // An earlier statement was faster, with other columns.
                _ => Err(ddl::taken_again(&spec.target)),
            }
        })
    }

    fn alter(
        &mut self,
        target: &TargetTable,
        steps: &[AlterStep],
        watch: &dyn Watch,
    ) -> Result<(), StatementError> {
        self.with_session(watch, |session| {
            steps.iter().try_for_each(|step| alter::take_step(session, target, step, watch))
        })
    }

    fn own(
        &mut self,
        database: &str,
        step: &OwnerStep,
        watch: &dyn Watch,
    ) -> Result<Option<OwnerRow>, StatementError> {
        let replication_num = self.config.replication_num;
        self.with_patience(Refusals::Waited, watch, |session| {
            owner::step(session, database, replication_num, step)
        })
    }

    fn interrupter(&self) -> Interrupter {
        let agent = self.http.agent();
        Box::new(move || agent.clone().shutdown())
    }
}

/// What an error that the server answers with means.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Refusals {
    /// Somebody is told, unless it says itself that it may pass.
    Final,
    /// Nothing goes on without the statement: it is repeated until the server takes it, or an administrator mends why not.
    Waited,
}

/// What is known of a load before its label is asked for.
#[derive(Clone, Copy)]
enum Known {
    /// The target said that it is committed; a label that is forgotten changes nothing.
    Committed,
    /// Nothing.
    Nothing,
}

/// An answer without a count is no proof that all rows arrived.
fn check_count(load: &Load, answer: &LoadAnswer) -> Result<(), LoadError> {
    let loaded = answer.loaded_rows.unwrap_or(0);
    if loaded == load.rows { Ok(()) } else { Err(LoadError::CountMismatch { sent: load.rows, loaded }) }
}

fn refused_by_us(message: String) -> LoadError {
    LoadError::Refused { refusal: Refusal::Table, status: "not sent".to_owned(), message, error_log: None }
}

/// Statements that wait for something to end on the server.
fn may_pass(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    const WAITING: [&str; 12] = [
        "not normal",
        "operation is in progress",
        "timeout",
        "timed out",
        "not ready",
        "no alive",
        "no backend",
        "try again",
        "too many connections",
        "shutting down",
        "rpc failed",
        "unavailable",
    ];
    WAITING.iter().any(|fragment| message.contains(fragment))
}

/// The beginning of an error log: whole lines, as far as they are few and short.
fn first_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let mut lines = String::new();
    for line in text.lines().take(ERROR_LOG_LINES) {
        lines.extend(line.chars().take(ERROR_LOG_LINE_CHARS));
        lines.push('\n');
    }
    lines.truncate(lines.trim_end().len());
    lines
}

const ERROR_LOG_BYTES: u64 = 64 * 1024;
const ERROR_LOG_LINES: usize = 10;
const ERROR_LOG_LINE_CHARS: usize = 500;

mod occupy;
#[cfg(test)]
mod tests;
