//! When open batches are due.
//!
//! A batch's clock starts at the first commit after its first row, and it is due one flush interval later. Tables become
//! due in the order in which their clocks started, so a queue is enough. An entry is stale when its table was sealed
//! meanwhile; it is passed over.
//!
//! With [`FlushInterval::Adaptive`] loads are rationed: each one moves a theoretical time of arrival by a fifth of a
//! second (the generic cell rate algorithm), and a due table waits while that time is more than a second ahead. So at
//! most five loads per second are made in the long run, the oldest tables first, and a mirror of few tables never waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::table::TableIndex;

/// The longest time that a committed change waits for its load to start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlushInterval {
    /// This long, however many loads that makes.
    Fixed(Duration),
    /// This long, but for when that made more than five loads per second.
    Adaptive(Duration),
}

impl FlushInterval {
    /// How long that is.
    pub const fn length(self) -> Duration {
        match self {
            Self::Fixed(length) | Self::Adaptive(length) => length,
        }
    }
}

/// The tables whose clocks run.
#[derive(Debug)]
pub(super) struct FlushClock {
    interval: FlushInterval,
    started: VecDeque<(Instant, TableIndex)>,
    /// The time at which all loads made so far would be due at five per second.
    arrival: Option<Instant>,
}

impl FlushClock {
    pub(super) const fn new(interval: FlushInterval) -> Self {
        Self { interval, started: VecDeque::new(), arrival: None }
    }

    pub(super) const fn set_interval(&mut self, interval: FlushInterval) {
        self.interval = interval;
    }

    /// The clock of a table starts.
    pub(super) fn start(&mut self, table: TableIndex, now: Instant) {
        self.started.push_back((now, table));
    }

    /// A table that was passed over because it was busy is idle again.
    pub(super) fn put_first(&mut self, table: TableIndex, started: Instant) {
        self.started.push_front((started, table));
    }

    /// Takes the first table that is due, whether or not its entry is stale.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, TableIndex)> {
        let due = self.started.front().is_some_and(|(started, _)| self.due_at(*started) <= now);
        if due { self.started.pop_front() } else { None }
    }

    /// When the first table for which `waits` holds is due.
    pub(super) fn next_due(&self, waits: impl Fn(Instant, TableIndex) -> bool) -> Option<Instant> {
        let (started, _) = self.started.iter().find(|(started, table)| waits(*started, *table))?;
        Some(self.due_at(*started))
    }

    /// Counts a load against the ration.
    pub(super) fn load_made(&mut self, now: Instant) {
        let arrival = self.arrival.map_or(now, |arrival| arrival.max(now)) + LOAD_SPACING;
        // Full batches do not ask; they may not make the others wait for ever either.
        self.arrival = Some(arrival.min(now + BURST + LOAD_SPACING));
    }

    fn due_at(&self, started: Instant) -> Instant {
        let due = started + self.interval.length();
        match (self.interval, self.arrival) {
            (FlushInterval::Adaptive(_), Some(arrival)) => {
                arrival.checked_sub(BURST).map_or(due, |free| due.max(free))
            }
            _ => due,
        }
    }
}

/// Five loads per second.
const LOAD_SPACING: Duration = Duration::from_millis(200);
/// How far loads may run ahead of their ration.
const BURST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn table_is_due_one_interval_after_its_clock_started() {
        let now = Instant::now();
        let mut clock = FlushClock::new(FlushInterval::Fixed(SECOND));
        clock.start(TableIndex(3), now);
        assert_eq!(clock.pop_due(now + SECOND / 2), None);
        assert_eq!(clock.next_due(|_, _| true), Some(now + SECOND));
        assert_eq!(clock.pop_due(now + SECOND), Some((now, TableIndex(3))));
        assert_eq!(clock.next_due(|_, _| true), None);
    }

    /// Loads that `tables` busy tables make in ten seconds when each is sealed as soon as it is due.
    fn loads_in_ten_seconds(interval: FlushInterval, tables: u32) -> u32 {
        let begin = Instant::now();
        let mut clock = FlushClock::new(interval);
        for table in 0..tables {
            clock.start(TableIndex(table), begin);
        }
        let mut loads = 0;
        for tick in 0..1000 {
            let now = begin + Duration::from_millis(10) * tick;
            while let Some((_, table)) = clock.pop_due(now) {
                clock.load_made(now);
                clock.start(table, now);
                loads += 1;
            }
        }
        loads
    }

    #[test]
    fn adaptive_interval_makes_at_most_five_loads_per_second() {
        let loads = loads_in_ten_seconds(FlushInterval::Adaptive(SECOND), 100);
        assert!((45..=56).contains(&loads), "{loads} loads");
        assert!(loads_in_ten_seconds(FlushInterval::Fixed(SECOND), 100) >= 900);
    }

    #[test]
    fn few_tables_are_not_slowed_down() {
        let adaptive = loads_in_ten_seconds(FlushInterval::Adaptive(SECOND), 5);
        assert_eq!(adaptive, loads_in_ten_seconds(FlushInterval::Fixed(SECOND), 5));
    }
}
