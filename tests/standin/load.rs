//! One load on the backend, from its head to its answer.
//!
//! ```text
//! login ─► database ─► begin label ─► headers, table, plan ─► [100 Continue] ─► body ─► rows ─► commit ─► answer
//!    └────────── final answer without 100, connection ends ──────┘
//! ```

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use twox_hash::XxHash3_128;

use crate::answer::{LoadAnswer, Timings};
use crate::args::{Keep, StorageMode};
use crate::arrivals::{Arrival, KeyReader, now_us};
use crate::auth::Refusal;
use crate::body::Body;
use crate::faults::{Fault, GARBAGE, Kind};
use crate::http::{After, Answer, Connection, Framing, Head};
use crate::labels::{self, BeginError, Finished};
use crate::load_headers::LoadHeaders;
use crate::plan::Plan;
use crate::request_log::Entry;
use crate::rows::{Counter, Refused, Tally, read_rows};
use crate::server::Shared;
use crate::storage::{Applier, Store};

/// A load as it was asked for.
pub(crate) struct Request<'a> {
    pub(crate) head: &'a Head,
    pub(crate) framing: Framing,
    pub(crate) database: &'a str,
    pub(crate) table: &'a str,
}

/// Memory of loads, used again for the next ones.
#[derive(Default)]
pub(crate) struct Scratch {
    body: Vec<u8>,
    window: Vec<u8>,
}

/// How the connection goes on.
pub(crate) enum Ending {
    Answered(After),
    /// The answer came before the body.
    RefusedEarly,
    /// No answer: the connection is cut.
    Cut,
}

/// A load between its head and its end. Dropping it aborts what is still in PREPARE.
struct Job<'a> {
    shared: &'a Shared,
    request: &'a Request<'a>,
    label: String,
    transaction: i64,
    plan: Plan,
    /// Bytes of the body.
    received: u64,
    /// Of the body.
    digest: u128,
    timings: Timings,
    started: Instant,
    /// When the body was read whole.
    received_us: u64,
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.shared.labels.abort(self.transaction, "the load was given up");
    }
}

/// Takes a load and answers it.
pub(crate) fn answer(
    shared: &Shared,
    connection: &mut Connection,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Ending {
    if shared.faults.strike_if(Kind::Http500, request.table, at_backend).is_some() {
        let answer = Answer::json("500 Internal Server Error", "Internal Server Error".into()).closing();
        shared.requests.add(Entry::new("be", request.head, 0, answer.status, &answer.body));
        let _ = connection.send(&answer);
        return Ending::RefusedEarly;
    }
    let mut job = match prepare(shared, request) {
        Ok(job) => job,
        Err(refusal) => return refuse(shared, connection, request, &refusal),
    };
    let Ok(length) = job.receive(connection, scratch) else {
        shared.labels.abort(job.transaction, "receive body don't equal with body bytes");
        shared.requests.add(Entry::new("be", request.head, 0, "", "the client went away"));
        return Ending::Cut;
    };
    job.received = length as u64;
    job.digest = digest_of(scratch.body.get(..length).unwrap_or_default());
    let outcome = job.run(length, scratch);
    job.finish(connection, outcome)
}

/// Faults of both ports strike here unless they name the other one.
fn at_backend(fault: &Fault) -> bool {
    fault.text().is_none_or(|hop| hop == "be")
}

fn digest_of(body: &[u8]) -> u128 {
    XxHash3_128::oneshot(body)
}

fn refuse(
    shared: &Shared,
    connection: &mut Connection,
    request: &Request<'_>,
    refusal: &LoadAnswer,
) -> Ending {
    let answer = Answer::json("200 OK", refusal.to_json()).closing();
    shared.requests.add(Entry::new("be", request.head, 0, answer.status, &answer.body));
    let _ = connection.send(&answer);
    if shared.faults.strike(Kind::ResetOnRefusal, request.table).is_some() {
        return Ending::Cut;
    }
    Ending::RefusedEarly
}

/// The header phase.
fn prepare<'a>(shared: &'a Shared, request: &'a Request<'a>) -> Result<Job<'a>, Box<LoadAnswer>> {
    let started = Instant::now();
    let label = request
        .head
        .header("label")
        .map_or_else(|| format!("standin-{:x}", shared.labels.next_id()), str::to_owned);
    let refusal =
        |transaction, message: String| Box::new(LoadAnswer::early(transaction, &label, "Fail", message));
    match shared.check_login(request.head.header("authorization")) {
        Ok(()) => {}
        Err(Refusal::Missing) => return Err(refusal(-1, "no valid Basic authorization".into())),
        Err(Refusal::Denied { user }) => {
            return Err(refusal(-1, format!("Access denied for {user}@127.0.0.1")));
        }
    }
    if !labels::is_well_formed(&label) {
        return Err(refusal(-1, format!("Label format error. regex: ^[-\\w]{{1,128}}$, label: {label}")));
    }
    if !shared.storage.lock().catalog.databases.contains_key(request.database) {
        return Err(refusal(-1, format!("unknown database, database={}", request.database)));
    }
    if let Some(fault) = shared.faults.strike(Kind::DelayBegin, request.table) {
        std::thread::sleep(fault.delay(1000));
    }
    let transaction = match shared.labels.begin(request.database, request.table, &label) {
        Ok(id) => id,
        Err(error) => return Err(Box::new(cannot_begin(shared, request, &label, error))),
    };
    let begin = started.elapsed();
    match plan(shared, request) {
        Ok(plan) => {
            let timings = Timings { begin, plan: started.elapsed() - begin, ..Timings::default() };
            let (received, digest, received_us) = (0, 0, 0);
            Ok(Job {
                shared,
                request,
                label,
                transaction,
                plan,
                received,
                digest,
                timings,
                started,
                received_us,
            })
        }
        Err(message) => {
            shared.labels.abort(transaction, &message);
            shared.counts.failed(format!("{}.{}", request.database, request.table));
            Err(refusal(transaction, message))
        }
    }
}

fn cannot_begin(shared: &Shared, request: &Request<'_>, label: &str, error: BeginError) -> LoadAnswer {
    match error {
        BeginError::Exists { id, job } => {
            let message = format!("Label [{label}] has already been used.");
            if shared.faults.strike(Kind::LabelExistsAsFail, request.table).is_some() {
                return LoadAnswer::early(-1, label, "Fail", format!("Cancelled: {message}"));
            }
            let mut answer = LoadAnswer::early(id, label, "Label Already Exists", message);
            answer.existing_job = Some(job);
            answer
        }
        BeginError::TooManyRunning { running, limit } => {
            let message = format!("current running txns on db 10001 is {running}, larger than limit {limit}");
            LoadAnswer::early(-1, label, "Fail", message)
        }
    }
}

fn plan(shared: &Shared, request: &Request<'_>) -> Result<Plan, String> {
    let headers = LoadHeaders::parse(request.head, request.framing)?;
    let table = shared.storage.lock().catalog.table(request.database, request.table).cloned();
    let table = table.ok_or_else(|| format!("unknown table \"{}.{}\"", request.database, request.table))?;
    Plan::new(table, headers)
}

/// What a load came to, apart from faults on the way to the client.
enum Outcome {
    Status { status: &'static str, message: String, tally: Tally },
    Cut,
}

fn fail(message: impl Into<String>, tally: Tally) -> Outcome {
    Outcome::Status { status: "Fail", message: message.into(), tally }
}

impl Job<'_> {
    fn strike(&self, kind: Kind) -> Option<Fault> {
        self.shared.faults.strike(kind, self.request.table)
    }

    /// Asks for the body, if the client waits, and reads it; returns its length.
    fn receive(&mut self, connection: &mut Connection, scratch: &mut Scratch) -> io::Result<usize> {
        if self.request.head.expects_continue() {
            if let Some(fault) = self.strike(Kind::DelayContinue) {
                std::thread::sleep(fault.delay(1000));
            }
            connection.send_continue()?;
        }
        let reading = Instant::now();
        connection.stream().set_read_timeout(Some(self.plan.headers.timeout))?;
        let length = connection.read_body(self.request.framing, &mut scratch.body);
        connection.stream().set_read_timeout(None)?;
        self.received_us = now_us();
        self.timings.read = reading.elapsed();
        length
    }

    /// Reads the rows and commits.
    fn run(&mut self, bytes: usize, scratch: &mut Scratch) -> Outcome {
        let clearances = self.shared.faults.clearances();
        let hang = self.strike(Kind::Hang);
        let hangs_late = hang.as_ref().and_then(|fault| fault.text()) == Some("after_commit");
        if hang.is_some() && !hangs_late {
            self.shared.faults.wait_for_clearance(clearances);
        }
        let writing = Instant::now();
        let body = scratch.body.get(..bytes).unwrap_or_default();
        let (compression, shape) = (self.plan.headers.compression, self.plan.headers.shape);
        let mut body = Body::new(body, compression, shape, std::mem::take(&mut scratch.window));
        let outcome = match self.shared.args.storage {
            StorageMode::On => self.apply(&mut body),
            StorageMode::Off => self.count(&mut body),
        };
        scratch.window = body.into_buffer();
        self.timings.write = writing.elapsed();
        if hangs_late {
            self.shared.faults.wait_for_clearance(clearances);
        }
        outcome
    }

    fn refused_rows(&self) -> Refused {
        match self.strike(Kind::RefuseRows) {
            None => Refused::None,
            Some(fault) => match fault.text() {
                Some(text) => Refused::Containing(text.as_bytes().to_vec()),
                None => Refused::All,
            },
        }
    }

    fn count(&self, body: &mut Body<'_>) -> Outcome {
        if self.shared.args.arrivals == Keep::On {
            return self.count_and_keep_keys(body);
        }
        match read_rows(&self.plan, body, &self.refused_rows(), &mut Counter::new(&self.plan)) {
            Ok(tally) => self.end(tally, None),
            Err((message, tally)) => fail(message, tally),
        }
    }

    fn count_and_keep_keys(&self, body: &mut Body<'_>) -> Outcome {
        let mut reader = KeyReader::new(&self.plan);
        match read_rows(&self.plan, body, &self.refused_rows(), &mut reader) {
            Ok(tally) => {
                let (table, keys) = (self.plan.table.full_name(), reader.into_keys());
                self.shared.arrivals.add(Arrival { at_us: self.received_us, table, keys });
                self.end(tally, None)
            }
            Err((message, tally)) => fail(message, tally),
        }
    }

    fn apply(&self, body: &mut Body<'_>) -> Outcome {
        let store = self.shared.storage.lock();
        let outcome = match self.apply_rows(&store, body) {
            Ok(tally) => self.end(tally, Some(&store)),
            Err((message, tally)) => fail(message, tally),
        };
        // After a commit there is nothing to roll back.
        store.roll_back();
        outcome
    }

    fn apply_rows(&self, store: &Store, body: &mut Body<'_>) -> Result<Tally, (String, Tally)> {
        let early = |message: String| (message, Tally::default());
        let planned = &self.plan.table;
        let current =
            store.catalog.table(&planned.database, &planned.name).filter(|table| table.id == planned.id);
        let current = current.ok_or_else(|| early(format!("unknown table \"{}\"", planned.full_name())))?;
        // A schema change may have passed since the load was planned.
        let plan = if current.columns == planned.columns {
            Cow::Borrowed(&self.plan)
        } else {
            Cow::Owned(Plan::new(current.clone(), self.plan.headers.clone()).map_err(early)?)
        };
        if current.generation != planned.generation {
            // TRUNCATE swapped the tablets away: the rows are checked and go nowhere.
            return read_rows(&plan, body, &self.refused_rows(), &mut Counter::new(&plan));
        }
        store.begin().map_err(|error| early(error.to_string()))?;
        let mut applier = Applier::new(store, &plan).map_err(early)?;
        read_rows(&plan, body, &self.refused_rows(), &mut applier)
    }

    /// Judges what was read, and commits.
    fn end(&self, tally: Tally, store: Option<&Store>) -> Outcome {
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        if tally.filtered as f64 > self.plan.headers.max_filter_ratio * tally.total as f64 {
            return fail("too many filtered rows", tally);
        }
        if tally.loaded() == 0 {
            return fail("No partitions have data available for loading", tally);
        }
        if self.strike(Kind::TooManyVersions).is_some() {
            return fail(
                "too many versions, current/limit: 1001/1000, please reduce your request rate",
                tally,
            );
        }
        if self.strike(Kind::CutBeforeCommit).is_some() {
            return Outcome::Cut;
        }
        let unknown = self.strike(Kind::FailCommitUnknown);
        let is_lost = unknown.as_ref().and_then(|fault| fault.text()) == Some("aborted");
        let published = if is_lost { Ok(Published::AtOnce) } else { self.commit(store, &tally) };
        match published {
            Err(message) => fail(message, tally),
            Ok(_) if unknown.is_some() => {
                fail("Transaction status unknown, you can retry with same label.", tally)
            }
            Ok(Published::Later) => Outcome::Status {
                status: "Publish Timeout",
                message: "Publish timeout. The data will be visible after a while".into(),
                tally,
            },
            Ok(Published::AtOnce) if self.strike(Kind::CutAfterCommit).is_some() => Outcome::Cut,
            Ok(Published::AtOnce) => Outcome::Status { status: "Success", message: "OK".into(), tally },
        }
    }

    fn commit(&self, store: Option<&Store>, tally: &Tally) -> Result<Published, String> {
        let fault = self.strike(Kind::PublishTimeout);
        let delay = fault.as_ref().map_or(Duration::ZERO, |fault| fault.delay(1000));
        self.shared.labels.commit(self.transaction, delay)?;
        if let Some(store) = store
            && let Err(error) = self.keep(store)
        {
            // The label says COMMITTED and cannot be taken back: a stand-in that lies is worse than none.
            eprintln!("starrocks_standin: could not commit to SQLite: {error}");
            std::process::exit(1);
        }
        let bytes = self.received;
        self.shared.counts.committed(self.plan.table.full_name(), tally, bytes);
        Ok(if fault.is_some() { Published::Later } else { Published::AtOnce })
    }

    /// Rows and label become durable together.
    fn keep(&self, store: &Store) -> rusqlite::Result<()> {
        store.keep_label(&Finished {
            id: self.transaction,
            database: self.request.database.to_owned(),
            label: self.label.clone(),
            table: self.request.table.to_owned(),
        })?;
        // Nothing is open where TRUNCATE has swapped the tablets away.
        if store.connection.is_autocommit() { Ok(()) } else { store.commit() }
    }

    /// Answers, unless a fault cuts the connection.
    fn finish(mut self, connection: &mut Connection, outcome: Outcome) -> Ending {
        self.timings.total = self.started.elapsed();
        let (status, message, tally) = match outcome {
            Outcome::Status { status, message, tally } => (status, message, tally),
            Outcome::Cut => {
                let entry = Entry::new("be", self.request.head, self.received, "", "the connection was cut");
                self.shared.requests.add(entry.with_digest(self.digest));
                return Ending::Cut;
            }
        };
        // Aborts nothing that is committed.
        self.shared.labels.abort(self.transaction, &message);
        if status == "Fail" {
            self.shared.counts.failed(self.plan.table.full_name());
        }
        let mut answer = Answer::json("200 OK", self.answer(status, message, tally).to_json());
        if self.shared.faults.strike_if(Kind::GarbageAnswer, self.request.table, at_backend).is_some() {
            answer.body = GARBAGE.into();
        }
        if let Some(fault) = self.strike(Kind::DelayAnswer) {
            std::thread::sleep(fault.delay(1000));
        }
        let entry = Entry::new("be", self.request.head, self.received, answer.status, &answer.body);
        self.shared.requests.add(entry.with_digest(self.digest));
        if self.strike(Kind::GarbageBytes).is_some() {
            let _ = connection.stream().write_all(&[0x15, 0x03, 0x00, b'\n', 0xff]);
            return Ending::Cut;
        }
        match connection.send(&answer) {
            Ok(()) => Ending::Answered(After::KeepAlive),
            Err(_) => Ending::Cut,
        }
    }

    fn answer(&self, status: &'static str, message: String, tally: Tally) -> LoadAnswer {
        let error_url = (!tally.samples.is_empty()).then(|| {
            let file = self.shared.error_log.keep(self.transaction, &tally.samples);
            format!("http://127.0.0.1:{}/api/_load_error_log?file={file}", self.shared.ports.be)
        });
        LoadAnswer {
            transaction: self.transaction,
            label: self.label.clone(),
            status,
            existing_job: None,
            message,
            tally,
            load_bytes: self.received,
            timings: self.timings,
            error_url,
        }
    }
}

/// When a committed load becomes visible.
enum Published {
    AtOnce,
    Later,
}
