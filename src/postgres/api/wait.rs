//! `dbmazz_wait_mirror`: until everything that committed before a position is visible at the target.

use std::time::{Duration, Instant};

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::failure::Failure;
use super::pending;
use crate::lsn::Lsn;
use crate::postgres::catalog::{as_extension, mirror, source, table};
use crate::postgres::latch;
use crate::postgres::lsn_datum::LsnDatum;
use crate::postgres::{session, shmem};

/// The pause between polls is this part of the time that was waited already: no wait is longer for it by more.
const PART_OF_WAIT: u32 = 32;
/// Polls start with this pause …
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// … and become as rare as this.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The tables are looked at no more often than this while the position is not reached.
const TABLES_EVERY: Duration = Duration::from_millis(250);

/// Waits until everything that committed before `lsn` is visible at the target; without a timeout, for ever.
///
/// Answers true then, and false after the timeout, or as soon as a table of the mirror is found in error.
///
/// # Errors
///
/// `undefined_object` if there is no such mirror (any more), `object_not_in_prerequisite_state` if there is no launcher.
#[pg_extern(sql = false)]
fn dbmazz_wait_mirror(
    mirror: Option<&str>,
    lsn: Option<LsnDatum>,
    timeout: Option<Interval>,
) -> Result<bool, ErrorReport> {
    let name = mirror.ok_or_else(|| Failure::null_argument("mirror"))?;
    let lsn = lsn.ok_or_else(|| Failure::null_argument("lsn"))?.0;
    if as_extension(|| mirror::read(name)).is_none() {
        return Err(Failure::no_such_mirror(name).into());
    }
    if !shmem::is_available() {
        return Err(Failure::not_preloaded().into());
    }
    let deadline = timeout.map(|timeout| Instant::now() + length_of(&timeout));
    flush_past_insert_position();
    Ok(wait(name, lsn, deadline)?)
}

/// The insert position may lie behind the header of a page that is not there yet, and nothing would ever be flushed up
/// to it. A message of our own makes the log go on, and is flushed.
fn flush_past_insert_position() {
    let end = as_extension(source::emit_message);
    session::flush_log(end);
}

fn wait(name: &str, lsn: Lsn, deadline: Option<Instant>) -> Result<bool, Failure> {
    let began = Instant::now();
    let mut tables_seen = None;
    loop {
        let is_durable = pending::find(name).is_some_and(|slot| slot.progress.durable_lsn >= lsn);
        if is_durable || tables_seen.is_none_or(|seen: Instant| seen.elapsed() > TABLES_EVERY) {
            tables_seen = Some(Instant::now());
            let tables =
                as_extension(|| table::standing(name)).ok_or_else(|| Failure::no_such_mirror(name))?;
            if tables.in_error {
                return Ok(false);
            }
            if is_durable && tables.all_ready {
                return Ok(true);
            }
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        ask_for_flush(name, lsn);
        let pause = (began.elapsed() / PART_OF_WAIT).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        latch::wait(None, left.map_or(pause, |left| left.min(pause)));
    }
}

/// Open batches up to the position are to be loaded at once. Asked again when a worker has started anew.
fn ask_for_flush(name: &str, lsn: Lsn) {
    let is_asked = pending::find(name).is_none_or(|slot| slot.flush_requested >= lsn);
    if is_asked {
        return;
    }
    let worker = shmem::update(name, |slot| {
        slot.flush_requested = slot.flush_requested.max(lsn);
        (slot.pid, slot.proc_number)
    });
    if let Some((pid, proc_number)) = worker
        && pid != 0
    {
        latch::wake(proc_number);
    }
}

/// An interval as PostgreSQL compares it: a month has 30 days, a day 24 hours. Nothing for a negative one.
fn length_of(interval: &Interval) -> Duration {
    const DAY: i128 = 86_400_000_000;
    let days = i128::from(interval.months()) * 30 + i128::from(interval.days());
    let micros = days * DAY + i128::from(interval.micros());
    // An Instant cannot be much further away than this; nobody waits longer.
    const CENTURY: i128 = DAY * 36_525;
    u64::try_from(micros.clamp(0, CENTURY)).map_or(Duration::ZERO, Duration::from_micros)
}
