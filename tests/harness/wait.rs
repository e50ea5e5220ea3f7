//! Waiting on conditions, and saying so when it takes more than a moment.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::{Failure, Outcome};

/// How long what must come may take. It ends only tests of what never comes: with many of them beside each other on a small
/// machine, a minute is not long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// How long something may go on without a word.
const SILENCE: Duration = Duration::from_secs(2);
/// How often the word is repeated.
const REPEAT: Duration = Duration::from_secs(5);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// Says what is going on once it has taken two seconds, and again every five.
pub(crate) struct Progress<'a> {
    what: &'a str,
    started: Instant,
    next: Duration,
}

impl<'a> Progress<'a> {
    /// Starts the clock. `what` completes the sentence "still …".
    pub(crate) fn new(what: &'a str) -> Self {
        Self { what, started: Instant::now(), next: SILENCE }
    }

    /// How long it has taken so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// To be called now and then; prints when it is time.
    pub(crate) fn tick(&mut self) {
        let elapsed = self.elapsed();
        if elapsed < self.next {
            return;
        }
        self.next = elapsed + REPEAT;
        // Straight to the terminal: the print macros are captured while tests run.
        let _ = writeln!(std::io::stderr(), "... {} ({} s)", self.what, elapsed.as_secs());
    }
}

/// Waits until `condition` is true.
///
/// # Errors
///
/// When it is not within `deadline`, or when looking at it fails.
#[track_caller]
pub(crate) fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Outcome<bool>,
) -> Outcome {
    let timed_out = Failure::new(format!("{what}: not so within {} s", deadline.as_secs()));
    let found = poll(what, deadline, || Ok(condition()?.then_some(())))?;
    found.ok_or(timed_out)
}

/// Waits until `look` finds something, and returns it.
///
/// # Errors
///
/// When there is nothing within `deadline`, or when looking fails.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    look: impl FnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let timed_out = Failure::new(format!("{what}: nothing within {} s", deadline.as_secs()));
    poll(what, deadline, look)?.ok_or(timed_out)
}

fn poll<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Outcome<Option<T>>,
) -> Outcome<Option<T>> {
    let mut progress = Progress::new(what);
    loop {
        // Looked at before the clock, so that a late last look still counts.
        let late = progress.elapsed() >= deadline;
        let found = look()?;
        if found.is_some() || late {
            return Ok(found);
        }
        progress.tick();
        thread::sleep(LOOK);
    }
}
