//! What is measured, how often and at which size: the arguments and the environment.

use crate::harness::Outcome;

/// The whole of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Runs of each measurement.
    pub(crate) runs: u32,
    /// Rows in proportion to the full size.
    pub(crate) scale: f64,
    /// Only what has a target.
    pub(crate) extent: Extent,
    /// Words of which one must be in the name of a topic or of a measurement; all without any.
    filters: Vec<String>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// What a target is set for, at a small size.
    Quick,
    /// Everything.
    Full,
}

impl Plan {
    /// From arguments (`--quick`, and words), `BENCH_RUNS` and `BENCH_SCALE`.
    pub(crate) fn read() -> Outcome<Self> {
        let arguments: Vec<String> =
            std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
        let is_quick = arguments.iter().any(|argument| argument == "--quick");
        let extent = if is_quick { Extent::Quick } else { Extent::Full };
        let (runs, scale) = if is_quick { (3, 0.2) } else { (5, 1.0) };
        Ok(Self {
            runs: from_environment("BENCH_RUNS", runs)?.max(1),
            scale: from_environment("BENCH_SCALE", scale)?,
            extent,
            filters: arguments.into_iter().filter(|argument| !argument.starts_with("--")).collect(),
        })
    }

    /// A number of rows at this size.
    pub(crate) fn scaled(&self, rows: u64) -> u64 {
        // Far below 2^52.
        ((crate::figures::count(rows) * self.scale) as u64).max(1)
    }

    /// How long something is watched, of so many seconds in a full run: a third in a quick one, and moments in a trial.
    pub(crate) fn seconds(&self, full: u64) -> u64 {
        match self.extent {
            _ if self.scale < 0.1 => 3,
            Extent::Quick => full / 3,
            Extent::Full => full,
        }
    }

    /// Whether something of this name is measured. Names begin with their topic.
    pub(crate) fn takes(&self, topic: &str, name: &str, importance: Importance) -> bool {
        let is_chosen = self.filters.is_empty()
            || self.filters.iter().any(|filter| format!("{topic}: {name}").contains(filter.as_str()));
        is_chosen && (self.extent == Extent::Full || importance == Importance::Target)
    }

    /// The plan in words, as it would be typed.
    pub(crate) fn command(&self) -> String {
        let target = if self.extent == Extent::Quick { "make bench-quick" } else { "make bench" };
        let words = self
            .filters
            .iter()
            .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word.clone() });
        let words = words.collect::<Vec<_>>().join(" ");
        let filter = if words.is_empty() { String::new() } else { format!(" BENCH='{words}'") };
        format!("{target}{filter} BENCH_RUNS={} BENCH_SCALE={}", self.runs, self.scale)
    }
}

/// Whether a target hangs on a measurement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Importance {
    Target,
    Context,
}

fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> Outcome<T> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    text.parse().map_err(|_| crate::harness::Failure::new(format!("{name} is a number, not \"{text}\"")))
}
