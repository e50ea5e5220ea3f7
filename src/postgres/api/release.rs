//! A mirror that is dropped gives its claim to the target back: the tables that were being filled to take the places of others
//! are dropped, and the row in `dbmazz_owner` goes.
//!
//! Called just before the commit, right after the slot is gone. A target that cannot be reached keeps nobody from dropping
//! a mirror: row and tables stay then, with a warning and an event that names them, and the next mirror of that name on this
//! server takes the row over.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::owner::server_name;
use crate::postgres::catalog::event::{Event, Severity};
use crate::postgres::catalog::identity::{self, Standing};
use crate::postgres::catalog::mirror::MirrorRow;
use crate::postgres::catalog::{as_extension, server, table};
use crate::postgres::latch::{self, Waker};
use crate::postgres::signal::SignalsBlocked;
use crate::postgres::worker;
use crate::sink::starrocks::{StarRocksConfig, release_claim};
use crate::table::TargetTable;

/// How long the target may take. A session is waiting for this.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a mirror has at the target.
#[derive(Clone)]
pub(super) struct Claim {
    config: StarRocksConfig,
    server: String,
    /// Tables that are no mirror's targets, and nobody's once it is gone.
    copies: Vec<TargetTable>,
}

/// The claim of a mirror; none when it never claimed, or its row may be another server's: a copy must not give back what
/// its original has.
pub(super) fn claim_of(mirror: &str, row: &MirrorRow) -> Option<Claim> {
    let last = as_extension(|| identity::read(mirror))?;
    // SAFETY: set before a backend runs its first statement.
    let here = worker::place(unsafe { pg_sys::MyDatabaseId });
    if last.incarnations.is_empty() || last.standing != Standing::Settled || last.place != here {
        return None;
    }
    let mut config = as_extension(|| server::config(&row.server, row.owner)).ok()?;
    config.connect_timeout = config.connect_timeout.min(TIMEOUT);
    let server = server_name(here.system_identifier, here.database_oid);
    Some(Claim { config, server, copies: as_extension(|| table::copies(mirror)) })
}

/// Gives it back, if that can be done now.
pub(super) fn release(mirror: &str, claim: Claim) {
    let copies: Vec<String> = claim.copies.iter().map(TargetTable::to_string).collect();
    let Err(reason) = ask(mirror, claim) else { return };
    let (message, detail) = told(mirror, &copies, &reason);
    let hint = "A mirror of the same name that this server starts into that database takes it over; before another server \
                may, delete the row or resume its mirror.";
    match detail.clone() {
        Some(detail) => {
            ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, message.clone(), detail)
        }
        None => warning!("{message}"),
    }
    // SAFETY: the transaction is still open, but its last statement has ended and taken its snapshot along; the one that is
    // pushed here is popped below, or by the abort after an error.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    as_extension(|| {
        let event = Event::of(mirror, Severity::Warning, &message);
        Event { detail: detail.as_deref(), hint: Some(hint), ..event }.record();
    });
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
}

/// What is said of a claim that is not given back, and of tables that were being filled.
fn told(mirror: &str, copies: &[String], reason: &str) -> (String, Option<String>) {
    if copies.is_empty() {
        return (
            format!("the row of mirror \"{mirror}\" in dbmazz_owner at the target stays: {reason}"),
            None,
        );
    }
    let message =
        format!("not all that mirror \"{mirror}\" has at the target is gone, some of it stays: {reason}");
    let tables = copies.join(", ");
    let detail = format!(
        "Its row in dbmazz_owner may be there, and tables that were being filled, which are to be dropped: {tables}."
    );
    (message, Some(detail))
}

fn ask(mirror: &str, claim: Claim) -> Result<(), String> {
    let waker = Waker::new().map_err(|error| error.to_string())?;
    let (wake, mirror) = (waker.handle(), mirror.to_owned());
    let (answer, answers) = bounded(1);
    let thread = std::thread::Builder::new().name("dbmazz release".to_owned());
    {
        let _signals = SignalsBlocked::enter();
        // The thread ends by itself when its time-outs are over; nobody joins it. A panic in it closes the channel.
        thread
            .spawn(move || {
                let result = release_claim(&claim.config, &mirror, &claim.server, &claim.copies);
                let _ = answer.send(result.map_err(|error| error.to_string()));
                wake();
            })
            .map_err(|error| error.to_string())?;
    }
    wait_for(&answers, &waker)
}

fn wait_for(answers: &Receiver<Result<(), String>>, waker: &Waker) -> Result<(), String> {
    let started = Instant::now();
    loop {
        match answers.try_recv() {
            Ok(result) => return result,
            Err(TryRecvError::Disconnected) => return Err("the thread that asked for it ended".to_owned()),
            Err(TryRecvError::Empty) if started.elapsed() > TIMEOUT => {
                return Err(format!("there was no answer for {} seconds", TIMEOUT.as_secs()));
            }
            Err(TryRecvError::Empty) => latch::wait(Some(waker), Duration::from_millis(200)),
        }
    }
}
