//! The copy of rows that are there: from the call that starts a mirror until its tables are in step. Beside it, in turns,
//! `psql -c "COPY t TO STDOUT (FORMAT binary)"` into `/dev/null`.
//!
//! The start of a mirror (slot, snapshot, workers, target table) takes its time whatever the size; how much is measured with
//! an empty table in the same run, and both rates are told, with it and without it.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::figures::{Line, Series, Target, Unit, count};
use crate::harness::{Failure, Outcome};
use crate::lab::{Lab, Loads, Mirror};
use crate::plan::{Importance, Plan};
use crate::report::Report;
use crate::svg::{Axis, Chart, Curve, Scale};
use crate::workload::Shape;

const TOPIC: &str = "snapshot";

/// Measures it all.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    if plan.takes(TOPIC, "workers", Importance::Target) {
        workers(plan, report)?;
    }
    for shape in [Shape::Middle, Shape::Wide, Shape::Columns, Shape::Toasted] {
        if plan.takes(TOPIC, shape.words(), Importance::Context) {
            rows_of(plan, report, shape)?;
        }
    }
    if plan.takes(TOPIC, "1,000 tables", Importance::Context) {
        many_tables(plan, report)?;
    }
    Ok(())
}

struct Bench {
    lab: Lab,
    copies: u32,
}

impl Bench {
    /// One table of this shape, filled and read once.
    fn with_table(shape: Shape, rows: u64) -> Outcome<Self> {
        let mut lab = Lab::new()?;
        lab.pair.source.execute(&shape.create(shape.table()))?;
        lab.pair.source.execute("SET synchronous_commit = off")?;
        lab.execute_each(&shape.inserts(shape.table(), 0, rows))?;
        lab.execute_each(&[format!("VACUUM ANALYZE {}", shape.table()), "CHECKPOINT".to_owned()])?;
        lab.end_of_log_at_rest()?;
        Ok(Self { lab, copies: 0 })
    }

    /// Starts a mirror, waits until it is in step, and drops it.
    fn copy(&mut self, tables: &str, loads: Loads, workers: u32, rows: u64) -> Outcome<Duration> {
        self.copies += 1;
        let name = format!("copy{}", self.copies);
        let mirror = Mirror::new(&name, loads, &format!("tables => {tables}"))
            .with_options(&format!("{{\"snapshot_workers\": {workers}}}"));
        let end = self.lab.end_of_log()?;
        let before = self.lab.control.rows_received()?;
        let began = Instant::now();
        self.lab.start(&mirror)?;
        self.lab.wait(&name, &end)?;
        let whole = began.elapsed();
        let received = match loads {
            Loads::Http => self.lab.control.rows_received()? - before,
            _ => self
                .lab
                .number(&format!("SELECT sum(rows_loaded) FROM dbmazz_stat_table WHERE mirror = '{name}'"))?,
        };
        if received != rows {
            return Err(Failure::new(format!("{received} rows arrived instead of {rows}")));
        }
        self.lab.drop_mirror(&name)?;
        Ok(whole)
    }

    /// `psql` copies the tables in one session.
    fn psql(&mut self, tables: &[String]) -> Outcome<Duration> {
        let cluster = Arc::clone(self.lab.pair.source.cluster());
        let mut command: Command = cluster.client_program("psql");
        command.args(["--no-psqlrc", "--quiet", "--dbname", self.lab.pair.source.name()]);
        for table in tables {
            command.args(["-c", &format!("COPY {table} TO STDOUT (FORMAT binary)")]);
        }
        command.stdout(Stdio::null());
        let began = Instant::now();
        let status = command.status()?;
        if !status.success() {
            return Err(Failure::new(format!("psql: {status}")));
        }
        Ok(began.elapsed())
    }
}

/// Where the loads of a copy go, and by how many workers it is made.
const KINDS: [(Loads, u32); 6] = [
    (Loads::Http, 1),
    (Loads::Http, 2),
    (Loads::Http, 4),
    (Loads::DiscardedPlain, 1),
    (Loads::DiscardedPlain, 2),
    (Loads::DiscardedPlain, 4),
];

const WITH_START: &str = "from the start to in step";
const WITHOUT_START: &str = "less the start";

const fn words(loads: Loads) -> &'static str {
    match loads {
        Loads::Http => "loads over HTTP",
        Loads::DiscardedPlain => "loads thrown away before compression",
        Loads::DiscardedCompressed => "loads compressed, then thrown away",
    }
}

fn workers(plan: &Plan, report: &mut Report) -> Outcome {
    let rows = plan.scaled(10_000_000);
    println!("snapshot: {rows} rows of 100 B, 1, 2 and 4 workers");
    let mut bench = Bench::with_table(Shape::Narrow, rows)?;
    bench.lab.pair.source.execute(&Shape::Narrow.create("empty"))?;
    let mut psql = Series::new("psql COPY", Unit::RowsPerSecond);
    let mut start = Series::new("start", Unit::Seconds);
    let new = |what: &str| -> Vec<Series> {
        KINDS
            .iter()
            .map(|(loads, workers)| {
                Series::new(format!("{what}, {workers}, {}", words(*loads)), Unit::RowsPerSecond)
            })
            .collect()
    };
    let (mut whole, mut of_rows_alone) = (new("whole"), new("rows alone"));
    bench.psql(&["narrow".to_owned()])?;
    for run in 1..=plan.runs {
        let start_time = bench.copy("'{empty}'", Loads::Http, 1, 0)?;
        start.values.push(start_time.as_secs_f64());
        let kinds = KINDS.iter().enumerate();
        let kinds: Vec<_> = if run % 2 == 1 { kinds.collect() } else { kinds.rev().collect() };
        for (place, (loads, workers)) in kinds {
            if place == 0 {
                psql.values.push(count(rows) / bench.psql(&["narrow".to_owned()])?.as_secs_f64());
            }
            let time = bench.copy("'{narrow}'", *loads, *workers, rows)?;
            println!("  run {run}: {workers} workers, {}: {:.2} s", words(*loads), time.as_secs_f64());
            push(&mut whole, place, count(rows) / time.as_secs_f64());
            // A copy that is not longer than the start says nothing about rows.
            let of_rows = time.saturating_sub(start_time).max(Duration::from_millis(1));
            push(&mut of_rows_alone, place, count(rows) / of_rows.as_secs_f64());
        }
    }
    report_workers(report, &psql, &whole, &of_rows_alone)?;
    report.add(Line {
        what: "snapshot: start of a mirror of an empty table".to_owned(),
        ours: start,
        theirs: None,
        target: None,
    })
}

fn push(series: &mut [Series], place: usize, value: f64) {
    if let Some(series) = series.get_mut(place) {
        series.values.push(value);
    }
}

fn report_workers(report: &mut Report, psql: &Series, whole: &[Series], rows_alone: &[Series]) -> Outcome {
    for (what, series) in [(WITH_START, whole), (WITHOUT_START, rows_alone)] {
        for ((loads, workers), ours) in KINDS.iter().zip(series) {
            let one = KINDS.iter().position(|kind| *kind == (*loads, 1)).and_then(|place| series.get(place));
            let line = |theirs: Option<&Series>, target| Line {
                what: format!("snapshot: rows of 100 B, {workers} workers, {}, {what}", words(*loads))
                    .replace(" 1 workers", " 1 worker"),
                ours: ours.clone(),
                theirs: theirs.cloned(),
                target,
            };
            match (loads, workers) {
                (Loads::Http, 1) => {
                    report.add(line(Some(psql), (what == WITH_START).then_some(Target::RatioAtLeast(2.0))))?
                }
                (_, 1) => report.add(line(Some(psql), None))?,
                _ => {
                    let mut one = one.cloned();
                    if let Some(one) = &mut one {
                        "1 worker".clone_into(&mut one.name);
                    }
                    let is_target = (*loads, *workers, what) == (Loads::DiscardedPlain, 2, WITHOUT_START);
                    report.add(line(one.as_ref(), is_target.then_some(Target::RatioAtLeast(1.7))))?;
                }
            }
        }
    }
    report.draw(by_workers(rows_alone))
}

fn by_workers(rows_alone: &[Series]) -> Chart {
    let curve = |loads: Loads| {
        let points = KINDS.iter().zip(rows_alone).filter(|(kind, _)| kind.0 == loads);
        Curve {
            name: words(loads).to_owned(),
            points: points.map(|((_, workers), series)| (f64::from(*workers), series.median())).collect(),
        }
    };
    Chart {
        name: "snapshot-workers".to_owned(),
        title: "Copy of a table of narrow rows".to_owned(),
        x: Axis::new("workers", Scale::Linear),
        y: Axis::new("rows per second", Scale::Linear),
        lines: vec![curve(Loads::Http), curve(Loads::DiscardedPlain)],
    }
}

fn rows_of(plan: &Plan, report: &mut Report, shape: Shape) -> Outcome {
    let rows = plan.scaled(shape.rows() * 2);
    println!("snapshot: {}, {rows} rows", shape.words());
    let mut bench = Bench::with_table(shape, rows)?;
    compare(
        plan,
        report,
        &mut bench,
        &Copy { what: shape.words(), tables: vec![shape.table().to_owned()], rows },
    )
}

fn many_tables(plan: &Plan, report: &mut Report) -> Outcome {
    let (tables, rows) = (plan.scaled(1000).max(2), 1000);
    println!("snapshot: {tables} tables of {rows} rows");
    let mut lab = Lab::new()?;
    let names: Vec<String> = (0..tables).map(|number| format!("t{number}")).collect();
    lab.pair.source.execute("SET synchronous_commit = off")?;
    for name in &names {
        lab.execute_each(&[Shape::Narrow.create(name), Shape::Narrow.insert(name, 1, rows)])?;
    }
    lab.execute_each(&["VACUUM ANALYZE".to_owned(), "CHECKPOINT".to_owned()])?;
    lab.end_of_log_at_rest()?;
    let mut bench = Bench { lab, copies: 0 };
    let what = format!("{tables} tables of {rows} rows");
    compare(plan, report, &mut bench, &Copy { what: &what, tables: names, rows: rows * tables })
}

struct Copy<'a> {
    what: &'a str,
    tables: Vec<String>,
    rows: u64,
}

/// One worker over HTTP beside psql.
fn compare(plan: &Plan, report: &mut Report, bench: &mut Bench, copy: &Copy<'_>) -> Outcome {
    let list = format!("'{{{}}}'", copy.tables.join(","));
    let mut psql = Series::new("psql COPY", Unit::RowsPerSecond);
    let mut ours = Series::new("dbmazz", Unit::RowsPerSecond);
    bench.psql(&copy.tables)?;
    for run in 1..=plan.runs {
        let rate = |time: Duration| count(copy.rows) / time.as_secs_f64();
        if run % 2 == 0 {
            psql.values.push(rate(bench.psql(&copy.tables)?));
        }
        ours.values.push(rate(bench.copy(&list, Loads::Http, 1, copy.rows)?));
        if run % 2 == 1 {
            psql.values.push(rate(bench.psql(&copy.tables)?));
        }
        println!("  run {run} of {}", plan.runs);
    }
    let what = format!("snapshot: {}, 1 worker, loads over HTTP, {WITH_START}", copy.what);
    report.add(Line { what, ours, theirs: Some(psql), target: None })
}
