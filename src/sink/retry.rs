//! How long to wait between attempts.
//!
//! Delays double from a first value up to a cap, and each is cut to a random part of itself, so that many load threads
//! do not come back at the same moment. A wait notices within 50 ms that the worker goes down.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use super::Watch;

/// The times of the retry policy.
#[derive(Clone, Debug)]
pub struct Pace {
    /// First and longest delay after trouble that passes: unreachable, overloaded, starting.
    pub trouble: Steps,
    /// First and longest delay after wrong credentials: an administrator has to do something.
    pub credentials: Steps,
    /// First and longest delay between questions about a label that is still running.
    pub poll: Steps,
    /// How long a running label is awaited before it is cancelled.
    pub prepare_patience: Duration,
    /// How long an answer that nobody knows is retried before it counts as a refusal.
    pub riddle_patience: Duration,
}

/// A first delay and the longest one.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// The delay after the first failure.
    pub first: Duration,
    /// No delay is longer.
    pub cap: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let steps =
            |first, cap| Steps { first: Duration::from_millis(first), cap: Duration::from_millis(cap) };
        Self {
            trouble: steps(100, 30_000),
            credentials: steps(2_000, 60_000),
            poll: steps(50, 2_000),
            prepare_patience: Duration::from_secs(30),
            riddle_patience: Duration::from_secs(120),
        }
    }
}

/// The worker goes down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stopped;

/// Delays of one series of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    steps: Steps,
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(steps: Steps) -> Self {
        // RandomState is seeded by the system: a random number without a dependency. Zero would stay zero.
        let random = RandomState::new().hash_one(0_u64) | 1;
        Self { steps, next: steps.first, random }
    }

    /// Waits before the next attempt.
    pub(crate) fn wait(&mut self, watch: &dyn Watch) -> Result<(), Stopped> {
        let delay = self.delay();
        pause(delay, watch)
    }

    /// Between half and all of the step; the step doubles.
    fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.steps.cap);
        let half = step / 2;
        half + half.mul_f64(self.fraction())
    }

    /// Xorshift, from 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Waits, in slices short enough to notice a shutdown.
fn pause(delay: Duration, watch: &dyn Watch) -> Result<(), Stopped> {
    let end = Instant::now() + delay;
    loop {
        if watch.stopped() {
            return Err(Stopped);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(SLICE));
    }
}

const SLICE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_are_cut_by_at_most_half() {
        let steps = Steps { first: Duration::from_millis(100), cap: Duration::from_millis(350) };
        let mut backoff = Backoff::new(steps);
        for step in [100, 200, 350, 350] {
            let delay = backoff.delay();
            assert!(delay <= Duration::from_millis(step), "{delay:?} is longer than {step} ms");
            assert!(delay >= Duration::from_millis(step / 2), "{delay:?} is shorter than half of {step} ms");
        }
    }

    #[test]
    fn two_series_do_not_wait_in_step() {
        let steps = Steps { first: Duration::from_secs(1), cap: Duration::from_secs(1) };
        let (mut one, mut other) = (Backoff::new(steps), Backoff::new(steps));
        assert!((0..8).any(|_| one.delay() != other.delay()));
    }

    struct Going;

    impl Watch for Going {
        fn stopped(&self) -> bool {
            true
        }

        fn retrying(&self, _: &str) {}
    }

    #[test]
    fn wait_ends_at_once_when_the_worker_goes_down() {
        let hour = Duration::from_secs(3600);
        let start = Instant::now();
        assert_eq!(Backoff::new(Steps { first: hour, cap: hour }).wait(&Going), Err(Stopped));
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
