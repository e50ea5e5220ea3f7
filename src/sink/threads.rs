//! The load threads of a worker: they own the sinks, take jobs and give events back.
//!
//! Called by the main thread of a PostgreSQL worker, which must never block: [`LoadThreads::try_submit`] and
//! [`LoadThreads::try_recv`] return at once, and a [`Waker`] is called after every event. No thread touches
//! PostgreSQL; the caller starts them with all signals blocked. What is to be logged travels in the events.
//!
//! Guarantees: each accepted job ends in exactly one [`Event::Done`], unless the thread that had it panicked (then in
//! [`Event::Panicked`]) or the threads were shut down. Jobs run in parallel in any order: whoever needs an order
//! submits the next job after the event of the one before. A thread that panicked is gone; the others go on.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};

use super::{
    Interrupter, Label, LabelFate, Load, LoadError, Loaded, Sink, StatementError, TableMatch, Watch,
};
use crate::definition::AlterStep;
use crate::owner::{OwnerRow, OwnerStep};
use crate::table::{TableSpec, TargetTable};

/// What the caller knows a job by.
pub type JobId = u64;

/// Called, from a load thread, after an event was queued: writes to an eventfd, say.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Something for a load thread to do.
#[derive(Debug)]
pub enum Job {
    /// Bring the rows to the target.
    Load(Load),
    /// Empty the table.
    Truncate(TargetTable),
    /// Find out what became of the label, and make it final.
    Settle {
        /// The target's database: labels are known per database.
        database: String,
        /// The label.
        label: Label,
    },
    /// Use the label up.
    Occupy {
        /// The target's database.
        database: String,
        /// The label.
        label: Label,
    },
    /// Create what is missing of the tables and their database, one after another, and compare the others.
    Prepare(Vec<Arc<TableSpec>>),
    /// Drop the tables and create them anew, one after another.
    Replace(Vec<Arc<TableSpec>>),
    /// Change columns of the table.
    Alter {
        /// The table.
        target: TargetTable,
        /// What is done, in this order.
        steps: Vec<AlterStep>,
    },
    /// Do a step with the row of a mirror in `dbmazz_owner`.
    Own {
        /// The target's database.
        database: String,
        /// The step.
        step: OwnerStep,
    },
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Job::Load`]. The load comes back, so that a refused one can be cut into smaller ones.
    Load(Load, Result<Loaded, LoadError>),
    /// Of [`Job::Truncate`].
    Truncate(TargetTable, Result<(), StatementError>),
    /// Of [`Job::Alter`].
    Alter(TargetTable, Result<(), StatementError>),
    /// Of [`Job::Settle`].
    Settle(Label, Result<LabelFate, LoadError>),
    /// Of [`Job::Occupy`].
    Occupy(Label, Result<(), LoadError>),
    /// Of [`Job::Prepare`] and [`Job::Replace`]: one for each table, in the order of the job. It goes on after an error.
    Prepare(Vec<Prepared>),
    /// Of [`Job::Own`]: the row that was there before, and the step.
    Own(OwnerStep, Result<Option<OwnerRow>, StatementError>),
}

/// What became of one table of [`Job::Prepare`] or [`Job::Replace`].
#[derive(Debug)]
pub struct Prepared {
    /// The table.
    pub spec: Arc<TableSpec>,
    /// Whether it is there now, and fits.
    pub result: Result<TableMatch, StatementError>,
}

/// What a load thread has to say.
#[derive(Debug)]
pub enum Event {
    /// A job ended.
    Done {
        /// As it was submitted.
        id: JobId,
        /// How it ended.
        outcome: Outcome,
    },
    /// An attempt failed and will be repeated. Comes once for each attempt.
    Retrying {
        /// The job.
        id: JobId,
        /// Why, in the words of the target where there are any.
        reason: String,
    },
    /// A job that had been retrying got an answer; its `Done` follows.
    Recovered {
        /// The job.
        id: JobId,
    },
    /// A thread is gone because of an error in this program.
    Panicked {
        /// Name of the thread.
        thread: String,
        /// The job that it had, whose outcome is unknown.
        id: Option<JobId>,
        /// The panic's message.
        message: String,
    },
}

/// Why a job was not accepted. The job comes back.
#[derive(Debug)]
pub enum SubmitError {
    /// As many jobs are waiting as there are threads. Try again after the next event.
    Full(Job),
    /// No thread is left: all panicked, or they were shut down.
    Ended(Job),
}

/// Why the load threads could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The operating system refused.
    Spawn(io::Error),
    /// A sink could not be made.
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(source) => write!(f, "could not start load thread: {source}"),
            Self::Sink(source) => write!(f, "could not set up the sink: {source}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A fixed number of load threads.
pub struct LoadThreads {
    jobs: Option<Sender<(JobId, Job)>>,
    events: Receiver<Event>,
    stop: Arc<AtomicBool>,
    interrupters: Vec<Interrupter>,
    handles: Vec<JoinHandle<()>>,
}

impl LoadThreads {
    /// Starts `threads` threads, named `dbmazz load 1` and so on, each with a sink of its own.
    ///
    /// `make_sink` runs on the calling thread. The caller blocks all signals around this call, so that the threads are
    /// born with them blocked.
    ///
    /// # Errors
    /// When a sink cannot be made or a thread cannot be started; those already running are stopped then.
    pub fn start<E>(
        threads: usize,
        waker: Waker,
        mut make_sink: impl FnMut() -> Result<Box<dyn Sink>, E>,
    ) -> Result<Self, StartError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (jobs, job_queue) = bounded(threads.max(1));
        let (event_queue, events) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = Self { jobs: Some(jobs), events, stop, interrupters: Vec::new(), handles: Vec::new() };
        for number in 1..=threads.max(1) {
            let sink = make_sink().map_err(|source| StartError::Sink(source.into()))?;
            all.interrupters.push(sink.interrupter());
            let queues = Queues { jobs: job_queue.clone(), events: event_queue.clone() };
            let thread = LoadThread::new(sink, queues, Arc::clone(&all.stop), Arc::clone(&waker));
            let builder = thread::Builder::new().name(format!("dbmazz load {number}"));
            all.handles.push(builder.spawn(move || thread.run()).map_err(StartError::Spawn)?);
        }
        Ok(all)
    }

    /// Hands a job to the threads. Never waits.
    ///
    /// # Errors
    /// [`SubmitError`]; the job is in it.
    pub fn try_submit(&self, id: JobId, job: Job) -> Result<(), SubmitError> {
        let Some(jobs) = &self.jobs else { return Err(SubmitError::Ended(job)) };
        jobs.try_send((id, job)).map_err(|error| match error {
            TrySendError::Full((_, job)) => SubmitError::Full(job),
            TrySendError::Disconnected((_, job)) => SubmitError::Ended(job),
        })
    }

    /// The next event, if there is one. Never waits.
    pub fn try_recv(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Stops all work, ends the requests in flight, and waits up to `patience` for the threads to end.
    ///
    /// Returns how many are still running: threads that resolve a name, connect, or wait for the answer to a
    /// statement. They end by their timeouts and touch nothing of the caller's.
    pub fn shutdown(&mut self, patience: Duration) -> usize {
        self.stop_all();
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && self.handles.iter().any(|handle| !handle.is_finished()) {
            thread::sleep(Duration::from_millis(2));
        }
        let (ended, running): (Vec<_>, Vec<_>) = self.handles.drain(..).partition(JoinHandle::is_finished);
        for handle in ended {
            // Its panic, if any, is an event already.
            let _ = handle.join();
        }
        running.len()
    }

    fn stop_all(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.jobs = None;
        for interrupt in self.interrupters.drain(..) {
            interrupt();
        }
    }
}

impl Drop for LoadThreads {
    fn drop(&mut self) {
        self.stop_all();
    }
}

struct Queues {
    jobs: Receiver<(JobId, Job)>,
    events: Sender<Event>,
}

/// What one thread owns.
struct LoadThread {
    sink: Box<dyn Sink>,
    jobs: Receiver<(JobId, Job)>,
    watch: ThreadWatch,
}

impl LoadThread {
    fn new(sink: Box<dyn Sink>, queues: Queues, stop: Arc<AtomicBool>, waker: Waker) -> Self {
        let watch = ThreadWatch {
            stop,
            events: queues.events,
            waker,
            job: Cell::new(None),
            in_trouble: Cell::new(false),
        };
        Self { sink, jobs: queues.jobs, watch }
    }

    /// The entry of the thread: no panic leaves it.
    fn run(mut self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.work()));
        if let Err(panic) = result {
            self.watch.tell(Event::Panicked {
                thread: thread::current().name().unwrap_or("dbmazz load").to_owned(),
                id: self.watch.job.get(),
                message: panic_message(panic.as_ref()),
            });
        }
    }

    fn work(&mut self) {
        while let Ok((id, job)) = self.jobs.recv() {
            // A job that was waiting at the shutdown is not begun: its label stays unused.
            if self.watch.stopped() {
                return;
            }
            self.watch.job.set(Some(id));
            let outcome = perform(self.sink.as_mut(), job, &self.watch);
            if self.watch.in_trouble.take() {
                self.watch.tell(Event::Recovered { id });
            }
            self.watch.job.set(None);
            self.watch.tell(Event::Done { id, outcome });
        }
    }
}

fn perform(sink: &mut dyn Sink, job: Job, watch: &dyn Watch) -> Outcome {
    match job {
        Job::Load(load) => {
            let result = sink.load(&load, watch);
            Outcome::Load(load, result)
        }
        Job::Truncate(target) => {
            let result = sink.truncate(&target, watch);
            Outcome::Truncate(target, result)
        }
        Job::Alter { target, steps } => {
            let result = sink.alter(&target, &steps, watch);
            Outcome::Alter(target, result)
        }
        Job::Settle { database, label } => {
            let result = sink.settle(&database, &label, watch);
            Outcome::Settle(label, result)
        }
        Job::Occupy { database, label } => {
            let result = sink.occupy(&database, &label, watch);
            Outcome::Occupy(label, result)
        }
        Job::Own { database, step } => {
            let result = sink.own(&database, &step, watch);
            Outcome::Own(step, result)
        }
        Job::Prepare(specs) => each(specs, |spec| sink.prepare(spec, watch)),
        Job::Replace(specs) => each(specs, |spec| sink.replace(spec, watch)),
    }
}

fn each(
    specs: Vec<Arc<TableSpec>>,
    mut make: impl FnMut(&TableSpec) -> Result<TableMatch, StatementError>,
) -> Outcome {
    let prepared = specs.into_iter().map(|spec| {
        let result = make(&spec);
        Prepared { spec, result }
    });
    Outcome::Prepare(prepared.collect())
}

/// How a thread's sink sees the worker.
struct ThreadWatch {
    stop: Arc<AtomicBool>,
    events: Sender<Event>,
    waker: Waker,
    job: Cell<Option<JobId>>,
    in_trouble: Cell<bool>,
}

impl ThreadWatch {
    fn tell(&self, event: Event) {
        // Nobody listens any more after the caller is gone; then nobody needs to know.
        if self.events.send(event).is_ok() {
            (self.waker)();
        }
    }
}

impl Watch for ThreadWatch {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn retrying(&self, reason: &str) {
        self.in_trouble.set(true);
        let Some(id) = self.job.get() else { return };
        self.tell(Event::Retrying { id, reason: reason.to_owned() });
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
