//! How the cost grows: with the number of tables, of mirrors that decode the same log, of rows in a load, of load threads.
//!
//! The same backlog of narrow rows each time, loads over HTTP.

use std::time::Instant;

use crate::figures::{Line, Series, Unit, count};
use crate::harness::Outcome;
use crate::lab::{Expected, Lab, Loads, Mirror};
use crate::plan::{Importance, Plan};
use crate::report::Report;
use crate::svg::{Axis, Chart, Curve, Scale};
use crate::workload::Shape;

/// Rows of a backlog at full size.
const ROWS: u64 = 1_000_000;

/// Measures each direction.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    if plan.takes("growth", "tables", Importance::Context) {
        tables(plan, report)?;
    }
    if plan.takes("growth", "mirrors", Importance::Context) {
        mirrors(plan, report)?;
    }
    if plan.takes("growth", "rows per load", Importance::Context) {
        options(plan, report, "rows per load", "batch_max_rows", &[1_000, 10_000, 100_000])?;
    }
    if plan.takes("growth", "load threads", Importance::Context) {
        options(plan, report, "load threads", "load_threads", &[1, 2, 4, 8])?;
    }
    Ok(())
}

/// One place on the axis: what it is, and the rates of dbmazz and of the baseline.
struct Point {
    at: u32,
    ours: Series,
    theirs: Option<Series>,
}

impl Point {
    fn new(at: u32) -> Self {
        Self { at, ours: Series::new("dbmazz", Unit::RowsPerSecond), theirs: None }
    }

    fn push_baseline(&mut self, value: f64) {
        let series = self.theirs.get_or_insert_with(|| Series::new("pg_recvlogical", Unit::RowsPerSecond));
        series.values.push(value);
    }
}

fn report_points(report: &mut Report, what: &str, points: &[Point]) -> Outcome {
    for point in points {
        report.add(Line {
            what: format!("growth: {what}: {}", point.at),
            ours: point.ours.clone(),
            theirs: point.theirs.clone(),
            target: None,
        })?;
    }
    let curve = |name: &str, of: &dyn Fn(&Point) -> Option<f64>| Curve {
        name: name.to_owned(),
        points: points.iter().filter_map(|point| Some((f64::from(point.at), of(point)?))).collect(),
    };
    let ours = curve("dbmazz", &|point| Some(point.ours.median()));
    let theirs = curve("pg_recvlogical", &|point| point.theirs.as_ref().map(Series::median));
    report.draw(Chart {
        name: format!("growth-{}", what.replace(' ', "-")),
        title: format!("Rows per second by {what}"),
        x: Axis::new(what, Scale::Logarithmic),
        y: Axis::new("rows per second", Scale::Linear),
        lines: [ours, theirs].into_iter().filter(|line| !line.points.is_empty()).collect(),
    })
}

fn tables(plan: &Plan, report: &mut Report) -> Outcome {
    let mut points = Vec::new();
    for tables in [1, 10, 100, 1000] {
        println!("growth: {tables} tables");
        points.push(with_tables(plan, tables)?);
    }
    report_points(report, "tables", &points)
}

/// The rows are spread over all tables, ten times around.
fn with_tables(plan: &Plan, tables: u32) -> Outcome<Point> {
    let mut lab = Lab::new()?;
    let names: Vec<String> = (0..tables).map(|number| format!("t{number}")).collect();
    for name in &names {
        lab.pair.source.execute(&Shape::Narrow.create(name))?;
    }
    let list = names.join(", ");
    lab.pair.source.execute(&format!("CREATE PUBLICATION plain FOR TABLE pace, {list}"))?;
    let mirror = Mirror::new("growth", Loads::Http, &format!("tables => '{{pace, {list}}}'"));
    lab.start(&mirror)?;
    lab.create_slot("plain")?;
    let mut point = Point::new(tables);
    let each = (plan.scaled(ROWS) / u64::from(tables) / 10).max(1);
    let rows = each * u64::from(tables) * 10;
    for run in 1..=plan.runs {
        lab.align()?;
        lab.pair.source.execute("SET synchronous_commit = off")?;
        for round in 0..10 {
            let first = (u64::from(run) * 10 + round) * 1_000_000_000;
            for name in &names {
                lab.execute_each(&Shape::Narrow.inserts(name, first, each))?;
            }
        }
        let end = lab.end_of_log_at_rest()?;
        let plugin = ["proto_version=1".to_owned(), "publication_names=plain".to_owned()];
        let mut theirs = None;
        if run % 2 == 0 {
            theirs = Some(lab.receive("plain", &end, &plugin)?);
        }
        let ours = lab.catch_up(&mirror, &end, Expected::Exactly(rows))?;
        let theirs = theirs.map_or_else(|| lab.receive("plain", &end, &plugin), Ok)?;
        println!("  run {run}: {:.2} s, pg_recvlogical {:.2} s", ours.as_secs_f64(), theirs.as_secs_f64());
        point.ours.values.push(count(rows) / ours.as_secs_f64());
        point.push_baseline(count(rows) / theirs.as_secs_f64());
    }
    Ok(point)
}

/// All mirrors begin at once, and the time is that until the last is done; the rate is that of one of them.
fn mirrors(plan: &Plan, report: &mut Report) -> Outcome {
    let mut points = Vec::new();
    let mut lab = Lab::new()?;
    lab.pair.source.execute(&Shape::Narrow.create("narrow"))?;
    let mut running: Vec<Mirror> = Vec::new();
    for mirrors in [1, 2, 4, 8] {
        println!("growth: {mirrors} mirrors");
        while running.len() < mirrors as usize {
            let name = format!("m{}", running.len());
            let mirror = Mirror::new(&name, Loads::Http, "tables => '{pace, narrow}', snapshot => false");
            lab.start(&mirror)?;
            running.push(mirror);
        }
        let mut point = Point::new(mirrors);
        let rows = plan.scaled(ROWS);
        for run in 1..=plan.runs {
            lab.align()?;
            lab.pair.source.execute("SET synchronous_commit = off")?;
            let first = (u64::from(mirrors) * 1000 + u64::from(run)) * 1_000_000_000;
            lab.execute_each(&Shape::Narrow.inserts("narrow", first, rows))?;
            let end = lab.end_of_log_at_rest()?;
            let began = Instant::now();
            for mirror in &running {
                lab.resume(&mirror.name)?;
            }
            for mirror in &running {
                lab.wait(&mirror.name, &end)?;
            }
            let took = began.elapsed().as_secs_f64();
            println!("  run {run}: {took:.2} s");
            point.ours.values.push(count(rows) / took);
        }
        points.push(point);
    }
    report_points(report, "mirrors", &points)
}

/// One mirror for each value of an option, over the same log.
fn options(plan: &Plan, report: &mut Report, what: &str, option: &str, values: &[u32]) -> Outcome {
    println!("growth: {what}");
    let mut lab = Lab::new()?;
    lab.pair.source.execute(&Shape::Narrow.create("narrow"))?;
    let mut cases = Vec::new();
    for value in values {
        let mirror = Mirror::new(&format!("with{value}"), Loads::Http, "tables => '{pace, narrow}'")
            .with_options(&format!("{{\"{option}\": {value}}}"));
        lab.start(&mirror)?;
        cases.push((mirror, Point::new(*value)));
    }
    let rows = plan.scaled(ROWS);
    for run in 1..=plan.runs {
        lab.align()?;
        lab.pair.source.execute("SET synchronous_commit = off")?;
        lab.execute_each(&Shape::Narrow.inserts("narrow", u64::from(run) * 1_000_000_000, rows))?;
        let end = lab.end_of_log_at_rest()?;
        cases.rotate_left(1);
        for (mirror, point) in &mut cases {
            let took = lab.catch_up(mirror, &end, Expected::Exactly(rows))?;
            println!("  run {run}: {option} {}: {:.2} s", point.at, took.as_secs_f64());
            point.ours.values.push(count(rows) / took.as_secs_f64());
        }
    }
    let mut points: Vec<Point> = cases.into_iter().map(|(_, point)| point).collect();
    points.sort_by_key(|point| point.at);
    report_points(report, what, &points)
}
