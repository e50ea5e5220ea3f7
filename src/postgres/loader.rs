//! The load threads of a worker, as its main thread sees them: it hands out jobs, collects outcomes and waits on its
//! latch. Trouble at the target becomes the mirror's state `retrying` and its reason, and goes away with it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use super::latch::{self, Waker};
use super::shmem::{self, MirrorState};
use super::signal::SignalsBlocked;
use crate::sink::starrocks::{self, StarRocksConfig};
use crate::sink::{Event, Job, JobId, LoadThreads, Outcome, StartError, SubmitError};

/// How long the threads have to end when the worker does.
const PATIENCE: Duration = Duration::from_secs(2);

/// Load threads and what wakes this process for them.
pub(super) struct Loader {
    mirror: String,
    /// The state that the mirror is in when nothing is wrong.
    phase: MirrorState,
    threads: LoadThreads,
    waker: Waker,
    /// Jobs that are being retried.
    in_trouble: HashSet<JobId>,
    /// Since when there have been such jobs.
    trouble_began: Option<Instant>,
    /// Reasons that have not been written down as events yet.
    reasons: Vec<String>,
    next_job: JobId,
}

impl Loader {
    /// Starts the threads, with every signal blocked in them.
    pub(super) fn start(mirror: &str, config: &StarRocksConfig, threads: usize) -> Self {
        let waker =
            Waker::new().unwrap_or_else(|problem| error!("could not create event descriptor: {problem}"));
        let config = Arc::new(config.clone());
        let started = {
            let _born_without_signals = SignalsBlocked::enter();
            LoadThreads::start(threads, waker.handle(), || starrocks::open(&config))
        };
        let threads = started.unwrap_or_else(|problem: StartError| error!("{problem}"));
        Self {
            mirror: mirror.to_owned(),
            phase: MirrorState::Starting,
            threads,
            waker,
            in_trouble: HashSet::new(),
            trouble_began: None,
            reasons: Vec::new(),
            next_job: 1 << 63,
        }
    }

    /// The mirror is in another phase of its life.
    pub(super) fn enter_phase(&mut self, phase: MirrorState) {
        self.phase = phase;
        self.show_state();
    }

    /// Hands a job to the threads; gives it back when all are busy.
    pub(super) fn submit(&self, id: JobId, job: Job) -> Result<(), Job> {
        match self.threads.try_submit(id, job) {
            Ok(()) => Ok(()),
            Err(SubmitError::Full(job)) => Err(job),
            Err(SubmitError::Ended(_)) => error!("could not hand out a load: no load thread is left"),
        }
    }

    /// The next outcome, if there is one.
    pub(super) fn poll(&mut self) -> Option<(JobId, Outcome)> {
        while let Some(event) = self.threads.try_recv() {
            match event {
                Event::Done { id, outcome } => {
                    self.forget_trouble(id);
                    return Some((id, outcome));
                }
                Event::Retrying { id, reason } => self.note_trouble(id, &reason),
                Event::Recovered { id } => self.forget_trouble(id),
                Event::Panicked { thread, message, .. } => {
                    error!("load thread \"{thread}\" has ended unexpectedly: {message}")
                }
            }
        }
        None
    }

    /// Waits for an outcome, the latch, or the time-out.
    pub(super) fn wait(&self, timeout: Duration) {
        latch::wait(Some(&self.waker), timeout);
    }

    /// Runs jobs to their end, as many at once as there are threads; outcomes come in any order. After each wait
    /// `meanwhile` is told how long the target has not been reached: it may end the process.
    pub(super) fn run_all(
        &mut self,
        jobs: impl IntoIterator<Item = Job>,
        mut meanwhile: impl FnMut(Duration),
    ) -> Vec<Outcome> {
        let mut jobs = jobs.into_iter().peekable();
        let mut running = 0;
        let mut held = None;
        let mut outcomes = Vec::new();
        while running > 0 || held.is_some() || jobs.peek().is_some() {
            if let Some(job) = held.take().or_else(|| jobs.next()) {
                self.next_job += 1;
                match self.submit(self.next_job, job) {
                    Ok(()) => {
                        running += 1;
                        continue;
                    }
                    Err(job) => held = Some(job),
                }
            }
            match self.poll() {
                Some((_, outcome)) => {
                    running -= 1;
                    outcomes.push(outcome);
                }
                None => {
                    self.wait(Duration::from_secs(1));
                    meanwhile(self.trouble_lasts());
                }
            }
        }
        outcomes
    }

    /// Runs one job to its end, as [`Self::run_all`].
    pub(super) fn run(&mut self, job: Job, meanwhile: impl FnMut(Duration)) -> Outcome {
        self.run_all([job], meanwhile).pop().unwrap_or_else(|| error!("could not run a job: it was lost"))
    }

    /// Ends the threads; requests in flight are cut.
    pub(super) fn shut_down(&mut self) {
        self.threads.shutdown(PATIENCE);
    }

    /// How long the target has not been reached.
    pub(super) fn trouble_lasts(&self) -> Duration {
        self.trouble_began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Reasons for trouble since the last call, for the event table.
    pub(super) fn take_reasons(&mut self) -> Vec<String> {
        std::mem::take(&mut self.reasons)
    }

    fn note_trouble(&mut self, id: JobId, reason: &str) {
        if self.in_trouble.is_empty() {
            log!("mirror \"{}\" is waiting for its target: {reason}", self.mirror);
            self.reasons.push(reason.to_owned());
        }
        self.in_trouble.insert(id);
        self.trouble_began.get_or_insert_with(Instant::now);
        shmem::update(&self.mirror, |slot| {
            slot.state = MirrorState::Retrying;
            slot.note_error(reason);
        });
    }

    fn forget_trouble(&mut self, id: JobId) {
        if self.in_trouble.remove(&id) && self.in_trouble.is_empty() {
            self.trouble_began = None;
            log!("mirror \"{}\" has reached its target again", self.mirror);
            self.show_state();
        }
    }

    fn show_state(&self) {
        let state = if self.in_trouble.is_empty() { self.phase } else { MirrorState::Retrying };
        shmem::update(&self.mirror, |slot| slot.state = state);
    }
}
