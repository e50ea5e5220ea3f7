//! The last loads of a mirror that is being dropped: when the drop has committed, none of them may still arrive. The
//! same tables may be mirrored anew a moment later, and rows of before would come on top of the fresh copy.
//!
//! Called when every process of the mirror has ended, so no label is used that is not known here. Running loads are
//! cancelled, not awaited. A target that does not answer is not waited for long: then the numbers stay in
//! `dbmazz.incarnation`, and the next mirror of the name settles them before it does anything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::postgres::catalog::incarnation::Unsettled;
use crate::postgres::labels;
use crate::postgres::latch::{self, Waker};
use crate::postgres::signal::SignalsBlocked;
use crate::sink::starrocks::{StarRocksConfig, StarRocksSink};
use crate::sink::{Event, Job, LoadThreads, Outcome, Pace, SubmitError};

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
    if unsettled.is_empty() {
        return Ok(());
    }
    config.connect_timeout = config.connect_timeout.min(SILENCE);
    let database = config.database.clone();
    let waker = Waker::new().map_err(|problem| format!("could not create event descriptor: {problem}"))?;
    let mut asking = Asking { threads: start(config, &waker)?, waker, began: Instant::now() };
    unsettled
        .iter()
        .try_for_each(|earlier| labels::settle(mirror, &database, earlier, |jobs| asking.run(jobs)))
}

/// Threads that ask the target, and since when.
struct Asking {
    threads: LoadThreads,
    waker: Waker,
    began: Instant,
}

impl Asking {
    /// Has jobs done, many at a time.
    fn run(&mut self, jobs: Vec<Job>) -> Result<Vec<Outcome>, String> {
        let mut jobs = jobs.into_iter().peekable();
        let mut outcomes = Vec::new();
        let (mut held, mut submitted, mut trouble) = (None, 0, None);
        let mut answered = Instant::now();
        while held.is_some() || jobs.peek().is_some() || submitted > outcomes.len() as u64 {
            if let Some(job) = held.take().or_else(|| jobs.next()) {
                match self.threads.try_submit(submitted, job) {
                    Ok(()) => {
                        submitted += 1;
                        continue;
                    }
                    Err(SubmitError::Full(job)) => held = Some(job),
                    Err(SubmitError::Ended(_)) => return Err("the threads that ask it have ended".to_owned()),
                }
            }
            match self.threads.try_recv() {
                Some(Event::Done { outcome, .. }) => {
                    outcomes.push(outcome);
                    answered = Instant::now();
                }
                Some(Event::Retrying { reason, .. }) => trouble = Some(reason),
                Some(Event::Recovered { .. }) => {}
                Some(Event::Panicked { message, .. }) => return Err(message),
                None if answered.elapsed() > SILENCE || self.began.elapsed() > TIMEOUT => {
                    return Err(trouble.unwrap_or_else(|| "it has not answered in time".to_owned()));
                }
                None => latch::wait(Some(&self.waker), Duration::from_millis(100)),
            }
        }
        Ok(outcomes)
    }
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
