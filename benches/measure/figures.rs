//! What was measured: values of several runs, and what they are compared with.

use serde::Serialize;

/// Values of one thing, one for each run, in the order of the runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    /// What did it.
    pub(crate) name: String,
    /// What the values are.
    pub(crate) unit: Unit,
    /// The values.
    pub(crate) values: Vec<f64>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Changes or rows per second.
    RowsPerSecond,
    /// Transactions per second.
    TransactionsPerSecond,
    Seconds,
    Milliseconds,
    Megabytes,
    /// Of one core.
    PercentOfACore,
}

/// A bound that the issue of a measurement sets.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The ratio to the baseline.
    RatioAtLeast(f64),
    /// The value itself.
    AtLeast(f64),
    /// The value itself.
    Below(f64),
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// What was measured, for readers.
    pub(crate) what: String,
    /// dbmazz.
    pub(crate) ours: Series,
    /// The baseline of the same runs.
    pub(crate) theirs: Option<Series>,
    /// What is to be reached.
    pub(crate) target: Option<Target>,
}

impl Series {
    /// No values yet.
    pub(crate) fn new(name: impl Into<String>, unit: Unit) -> Self {
        Self { name: name.into(), unit, values: Vec::new() }
    }

    /// The value in the middle; of two in the middle the mean.
    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }

    /// Smallest and largest.
    pub(crate) fn spread(&self) -> (f64, f64) {
        spread(&self.values)
    }
}

impl Unit {
    /// Whether more is better.
    pub(crate) const fn more_is_better(self) -> bool {
        matches!(self, Self::RowsPerSecond | Self::TransactionsPerSecond)
    }

    /// A value for readers.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::RowsPerSecond if value >= 100_000.0 => format!("{:.2} M rows/s", value / 1e6),
            Self::RowsPerSecond if value >= 1000.0 => format!("{:.1} k rows/s", value / 1e3),
            Self::RowsPerSecond => format!("{value:.0} rows/s"),
            Self::TransactionsPerSecond => format!("{value:.0} tps"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::PercentOfACore => format!("{value:.2} %"),
        }
    }
}

impl Line {
    /// How many times better than the baseline, by the medians. Latencies stand side by side and have none: one contains
    /// the other.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let theirs = self.theirs.as_ref().filter(|theirs| theirs.unit != Unit::Milliseconds)?;
        Some(better(self.ours.unit, self.ours.median(), theirs.median()))
    }

    /// The same run by run: smallest and largest. What disturbs a run disturbs both sides of it.
    pub(crate) fn ratio_spread(&self) -> Option<(f64, f64)> {
        let theirs = self.theirs.as_ref()?;
        let pairs = self.ours.values.iter().zip(&theirs.values);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| better(self.ours.unit, *ours, *theirs)).collect();
        Some(spread(&ratios))
    }

    /// Whether the target is reached; nothing without one.
    pub(crate) fn is_met(&self) -> Option<bool> {
        match self.target? {
            Target::RatioAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
            Target::AtLeast(least) => Some(self.ours.median() >= least),
            Target::Below(bound) => Some(self.ours.median() < bound),
        }
    }
}

fn better(unit: Unit, ours: f64, theirs: f64) -> f64 {
    if unit.more_is_better() { ours / theirs } else { theirs / ours }
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of the values lies, between two of them in proportion; NaN without values.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = part * count(last);
    let below = at.floor();
    // Not negative and not above the last index.
    let index = below as usize;
    let (low, high) = (sorted.get(index), sorted.get((index + 1).min(last)));
    low.zip(high).map_or(f64::NAN, |(low, high)| low + (high - low) * (at - below))
}

fn spread(values: &[f64]) -> (f64, f64) {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    (lowest, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// A count as a number to divide with; counts here are far below 2^52.
pub(crate) fn count(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::NAN, |count: u64| count as f64)
}
