//! Streaming from a backlog: what was written while nobody decoded, in the time from the start of a worker until all of it
//! is durable. Beside it, over the same log and in turns, `pg_recvlogical -f /dev/null` reads a pgoutput slot.
//!
//! Each run has rows of its own, written before it and read by every side. All slots begin at the same place, and none
//! reads anything of the run before ([`Lab::align`]). The order of the sides changes from run to run, so that no side always
//! finds the log in a cache that the others have filled. A run counts only if every row arrived.

use std::time::Duration;

use crate::figures::{Line, Series, Target, Unit, count};
use crate::harness::{Failure, Outcome};
use crate::lab::{Lab, Loads, Mirror};
use crate::plan::{Importance, Plan};
use crate::report::Report;
use crate::workload::{Backlog, Shape, Workload, Writes};

/// What may be compared with the baseline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Http,
    Discarded,
    /// Through pgoutput's own callbacks, because the publication has column lists.
    Filtered,
    /// A second baseline: the walsender with streaming of transactions in progress.
    StreamingWalsender,
}

struct Case {
    workload: Workload,
    sides: &'static [(Side, Option<Target>)],
}

const fn case(shape: Shape, writes: Writes, sides: &'static [(Side, Option<Target>)]) -> Case {
    Case { workload: Workload { shape, writes }, sides }
}

const fn at_least(ratio: f64) -> Option<Target> {
    Some(Target::RatioAtLeast(ratio))
}

const NARROW: &[(Side, Option<Target>)] =
    &[(Side::Discarded, at_least(6.5)), (Side::Http, at_least(5.5)), (Side::Filtered, at_least(3.0))];

/// Every case; the first ones have targets.
const CASES: &[Case] = &[
    case(Shape::Narrow, Writes::Inserts, NARROW),
    case(Shape::Wide, Writes::Inserts, &[(Side::Http, at_least(3.0))]),
    case(Shape::Narrow, Writes::Transactions(1), &[(Side::Http, at_least(2.0))]),
    case(
        Shape::Narrow,
        Writes::Unpublished,
        &[(Side::Http, at_least(2.5)), (Side::StreamingWalsender, None)],
    ),
    case(Shape::Middle, Writes::Inserts, &[(Side::Http, None)]),
    case(Shape::Columns, Writes::Inserts, &[(Side::Http, None)]),
    case(Shape::Toasted, Writes::Inserts, &[(Side::Http, None)]),
    case(Shape::Narrow, Writes::Transactions(10), &[(Side::Http, None)]),
    case(Shape::Narrow, Writes::Transactions(1000), &[(Side::Http, None)]),
    case(Shape::Narrow, Writes::Updates, &[(Side::Http, None)]),
    case(Shape::Narrow, Writes::Deletes, &[(Side::Http, None)]),
    case(Shape::Narrow, Writes::TpcB, &[(Side::Http, None)]),
    case(Shape::Narrow, Writes::OneTransaction, &[(Side::Http, None), (Side::StreamingWalsender, None)]),
];

/// Measures the cases whose words contain the filter's.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    for case in CASES {
        let has_target = case.sides.iter().any(|(_, target)| target.is_some());
        let importance = if has_target { Importance::Target } else { Importance::Context };
        if plan.takes("stream", &case.workload.words(), importance) {
            case.measure(plan, report)?;
        }
    }
    Ok(())
}

impl Case {
    fn measure(&self, plan: &Plan, report: &mut Report) -> Outcome {
        let words = self.workload.words();
        println!("stream: {words}");
        let mut bench = Bench::set_up(self.workload, self.sides)?;
        let mut baseline = Series::new("pg_recvlogical", Unit::RowsPerSecond);
        let mut sides: Vec<_> =
            bench.sides.iter().map(|side| Series::new(side.words(), Unit::RowsPerSecond)).collect();
        for run in 1..=plan.runs {
            let changes = plan.scaled(self.workload.changes());
            self.workload.prepare(&mut bench.lab, run, changes)?;
            let apart = bench.lab.align()?;
            let backlog = self.workload.write(&mut bench.lab, run, changes)?;
            let end = bench.lab.end_of_log_at_rest()?;
            let times = bench.run_each(run, backlog, &end)?;
            let rate = |time: &Duration| count(backlog.changes) / time.as_secs_f64();
            let shown: Vec<_> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
            println!(
                "  run {run}: {} changes; baseline and sides {} s; places to begin {apart} bytes apart",
                backlog.changes,
                shown.join(", ")
            );
            let (theirs, ours) = times.split_first().ok_or_else(|| Failure::new("nothing was measured"))?;
            baseline.values.push(rate(theirs));
            sides.iter_mut().zip(ours).for_each(|(side, time)| side.values.push(rate(time)));
        }
        for (series, side) in sides.into_iter().zip(&bench.sides) {
            let target = self.sides.iter().find(|(other, _)| other == side).and_then(|(_, target)| *target);
            let what = format!("stream: {words}; {}", side.words());
            report.add(Line { what, ours: series, theirs: Some(baseline.clone()), target })?;
        }
        Ok(())
    }
}

impl Side {
    const fn words(self) -> &'static str {
        match self {
            Self::Http => "loads over HTTP",
            Self::Discarded => "loads compressed, then thrown away",
            Self::Filtered => "through pgoutput, with column lists, loads over HTTP",
            Self::StreamingWalsender => "not dbmazz: pg_recvlogical with streaming on",
        }
    }
}

struct Bench {
    lab: Lab,
    sides: Vec<Side>,
    tables: String,
}

const PUBLICATION: &str = "plain";
const FILTERED: &str = "filtered";

impl Bench {
    fn set_up(workload: Workload, sides: &[(Side, Option<Target>)]) -> Outcome<Self> {
        let mut lab = Lab::new()?;
        workload.create(&mut lab)?;
        let tables = workload.tables().join(", ");
        lab.pair.source.execute(&format!("CREATE PUBLICATION {PUBLICATION} FOR TABLE pace, {tables}"))?;
        let has_column_lists = lab.pair.source.cluster().installation().major() >= 15;
        let possible = |side: &Side| *side != Side::Filtered || has_column_lists;
        let sides: Vec<Side> = sides.iter().map(|(side, _)| *side).filter(possible).collect();
        if sides.contains(&Side::Filtered) {
            lab.pair.source.execute(&format!(
                "CREATE PUBLICATION {FILTERED} FOR TABLE pace (id), narrow (id, a, b, ts)"
            ))?;
        }
        let mut bench = Self { lab, sides, tables: format!("'{{pace, {tables}}}'") };
        for side in bench.sides.clone() {
            match bench.mirror(side) {
                Some(mirror) => bench.lab.start(&mirror)?,
                None => bench.lab.create_slot("streaming")?,
            }
        }
        bench.lab.create_slot("plain")?;
        Ok(bench)
    }

    fn mirror(&self, side: Side) -> Option<Mirror> {
        let tables = format!("tables => {}", self.tables);
        Some(match side {
            Side::Http => Mirror::new("http", Loads::Http, &tables),
            Side::Discarded => Mirror::new("discarded", Loads::DiscardedCompressed, &tables),
            Side::Filtered => Mirror::new("filtered", Loads::Http, &format!("publication => '{FILTERED}'")),
            Side::StreamingWalsender => return None,
        })
    }

    /// The times of the baseline and of every side.
    fn run_each(&mut self, run: u32, backlog: Backlog, end: &str) -> Outcome<Vec<Duration>> {
        let sides = self.sides.len() + 1;
        let mut times = vec![Duration::ZERO; sides];
        for turn in 0..sides {
            let which = (turn + run as usize) % sides;
            let time = match which.checked_sub(1).and_then(|index| self.sides.get(index)) {
                None => self.receive("plain", end, "1", "off")?,
                Some(side) => match self.mirror(*side) {
                    Some(mirror) => self.lab.catch_up(&mirror, end, backlog.expected)?,
                    None => self.receive("streaming", end, "2", "on")?,
                },
            };
            if let Some(slot) = times.get_mut(which) {
                *slot = time;
            }
        }
        Ok(times)
    }

    fn receive(&mut self, slot: &str, end: &str, version: &str, streaming: &str) -> Outcome<Duration> {
        let mut options =
            vec![format!("proto_version={version}"), format!("publication_names={PUBLICATION}")];
        if streaming == "on" {
            options.push("streaming=on".to_owned());
        }
        self.lab.receive(slot, end, &options)
    }
}
