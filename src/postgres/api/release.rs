//! A mirror that is dropped gives its claim to the target back: the row in `dbmazz_owner` goes.
//!
//! Called just before the commit, right after the slot is gone. A target that cannot be reached keeps nobody from dropping
//! a mirror: the row stays then, with a warning and an event, and the next mirror of that name on this server takes it
//! over.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::owner::server_name;
use crate::postgres::catalog::event::{Event, Severity};
use crate::postgres::catalog::identity::{self, Standing};
use crate::postgres::catalog::mirror::MirrorRow;
use crate::postgres::catalog::{as_extension, server};
use crate::postgres::latch::{self, Waker};
use crate::postgres::signal::SignalsBlocked;
use crate::postgres::worker;
use crate::sink::starrocks::{StarRocksConfig, release_claim};

/// How long the target may take. A session is waiting for this.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a mirror has at the target.
#[derive(Clone)]
pub(super) struct Claim {
    config: StarRocksConfig,
    server: String,
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
    Some(Claim { config, server: server_name(here.system_identifier, here.database_oid) })
}

/// Gives it back, if that can be done now.
pub(super) fn release(mirror: &str, claim: Claim) {
    let Err(reason) = ask(mirror, claim) else { return };
    let message = format!("the row of mirror \"{mirror}\" in dbmazz_owner at the target stays: {reason}");
    let hint = "A mirror of the same name that this server starts into that database takes it over; before another server \
                may, delete the row or resume its mirror.";
    warning!("{message}");
    // SAFETY: the transaction is still open, but its last statement has ended and taken its snapshot along; the one that is
    // pushed here is popped below, or by the abort after an error.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    as_extension(|| Event { hint: Some(hint), ..Event::of(mirror, Severity::Warning, &message) }.record());
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
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
                let result = release_claim(&claim.config, &mirror, &claim.server);
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
