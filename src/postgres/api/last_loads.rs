//! The last loads of a mirror that is being dropped: when the drop has committed, none of them may still arrive. The
//! same tables may be mirrored anew a moment later, and rows of before would come on top of the fresh copy.
//!
//! Called when every process of the mirror has ended, so no label is used that is not known here. Running loads are
//! cancelled, not awaited. A target that does not answer is not waited for long: then the numbers stay in
//! `dbmazz.incarnation`, and the next mirror of the name settles them before it does anything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::postgres::catalog::incarnation::Unsettled;
use crate::postgres::latch::{self, Waker};
use crate::postgres::signal::SignalsBlocked;
use crate::sink::starrocks::{StarRocksConfig, StarRocksSink};
use crate::sink::{Event, Job, Label, LoadThreads, Outcome, Pace, SubmitError};

/// Questions at a time: there are up to a thousand labels, nearly all of them never used.
const THREADS: usize = 8;
/// How long the target may be silent. Somebody waits for this.
const SILENCE: Duration = Duration::from_secs(2);
/// And how long all may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Makes the fate of every label final.
///
/// # Errors
///
/// Why the fate of some label is not known, as a sentence without its end.
pub(super) fn settle(
    mirror: &str,
    mut config: StarRocksConfig,
    unsettled: &[Unsettled],
) -> Result<(), String> {
    config.connect_timeout = config.connect_timeout.min(SILENCE);
    let database = config.database.clone();
    let mut jobs = unsettled.iter().flat_map(|earlier| {
        (earlier.settled_until..earlier.reserved_until).map(|number| Job::Settle {
            database: database.clone(),
            label: Label { mirror: mirror.into(), incarnation: earlier.incarnation, number },
        })
    });
    let mut held = jobs.next();
    if held.is_none() {
        return Ok(());
    }
    let waker = Waker::new().map_err(|problem| format!("could not create event descriptor: {problem}"))?;
    let threads = start(config, &waker)?;
    let began = Instant::now();
    let mut answered = began;
    let mut trouble = None;
    let mut running = 0u64;
    let mut next = 0;
    while held.is_some() || running > 0 {
        if let Some(job) = held.take() {
            match threads.try_submit(next, job) {
                Ok(()) => {
                    (next, running) = (next + 1, running + 1);
                    held = jobs.next();
                }
                Err(SubmitError::Full(job)) => held = Some(job),
                Err(SubmitError::Ended(_)) => return Err("the threads that ask it have ended".to_owned()),
            }
        }
        match threads.try_recv() {
            Some(Event::Done { outcome, .. }) => {
                if let Outcome::Settle(_, Err(problem)) = outcome {
                    return Err(problem.to_string());
                }
                running -= 1;
                answered = Instant::now();
            }
            Some(Event::Retrying { reason, .. }) => trouble = Some(reason),
            Some(Event::Recovered { .. }) => {}
            Some(Event::Panicked { message, .. }) => return Err(message),
            None if answered.elapsed() > SILENCE || began.elapsed() > TIMEOUT => {
                return Err(trouble.unwrap_or_else(|| "it has not answered in time".to_owned()));
            }
            None => latch::wait(Some(&waker), Duration::from_millis(100)),
        }
    }
    Ok(())
}

fn start(config: StarRocksConfig, waker: &Waker) -> Result<LoadThreads, String> {
    let config = Arc::new(config);
    let pace = Pace { prepare_patience: Duration::ZERO, ..Pace::default() };
    let _born_without_signals = SignalsBlocked::enter();
    LoadThreads::start(THREADS, waker.handle(), || {
        StarRocksSink::with_pace(Arc::clone(&config), pace.clone()).map(|sink| Box::new(sink) as _)
    })
    .map_err(|problem| problem.to_string())
}
