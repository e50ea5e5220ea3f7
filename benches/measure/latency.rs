//! How long a committed row takes to the target: from its commit, by the server's own timestamp
//! (`track_commit_timestamp`), until the last byte of its load is read at the stand-in, by the same machine's clock.
//!
//! `pgbench --rate` inserts a row per transaction. The stand-in keeps when each load came and which keys were in it. Beside it
//! stands pgbench's own latency of the same transactions, without the lag of its schedule: what the commit itself took.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;

use crate::figures::{Line, Series, Target, Unit, quantile};
use crate::harness::{Failure, Outcome, Settings};
use crate::lab::{Lab, Loads, Mirror};
use crate::plan::{Importance, Plan};
use crate::report::Report;
use crate::svg::{Axis, Chart, Curve, Scale};

const RATES: [u32; 3] = [100, 500, 2000];
const INTERVALS: [&str; 2] = ["5ms", "1s"];
/// The parts of the transactions that are told.
const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Measures every rate with every flush interval.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    for interval in INTERVALS {
        let mut curves = Vec::new();
        for rate in RATES {
            let importance =
                if (interval, rate) == ("5ms", 500) { Importance::Target } else { Importance::Context };
            if plan.takes("latency", &format!("{interval}, {rate} tps"), importance) {
                let measured = at(plan, report, interval, rate)?;
                curves.push(curve(format!("{rate} tps"), &measured.arrival));
                curves.push(curve(format!("{rate} tps, pgbench's own latency"), &measured.commit));
            }
        }
        if !curves.is_empty() {
            report.draw(Chart {
                name: format!("latency-{interval}"),
                title: format!("From commit to the last byte of the load, flush_interval {interval}"),
                x: Axis::new("part of the transactions", Scale::Nines),
                y: Axis::new("ms", Scale::Logarithmic),
                lines: curves,
            })?;
        }
    }
    Ok(())
}

/// Latencies in milliseconds.
#[derive(Default)]
struct Latencies {
    /// From the commit to the last byte of the load.
    arrival: Vec<f64>,
    /// pgbench's own.
    commit: Vec<f64>,
}

fn at(plan: &Plan, report: &mut Report, interval: &str, rate: u32) -> Outcome<Latencies> {
    let seconds = plan.seconds(30);
    println!("latency: flush_interval {interval}, {rate} transactions/s, {seconds} s each");
    let mut bench = Bench::set_up(interval)?;
    let mut all = Latencies::default();
    let name =
        |what: &str, part: &str| format!("latency: {what} {part}, {rate} tps, flush_interval {interval}");
    let new = |what: &str| PARTS.map(|(part, _)| Series::new(format!("{what} {part}"), Unit::Milliseconds));
    let (mut arrival, mut commit) = (new("dbmazz"), new("pgbench's own latency"));
    // The first run warms up.
    for run in 0..=plan.runs {
        let measured = bench.run(rate, seconds)?;
        println!(
            "  run {run}{}: {} transactions, p99 {:.2} ms, pgbench's own {:.2} ms",
            if run == 0 { " (not counted)" } else { "" },
            measured.arrival.len(),
            quantile(&measured.arrival, 0.99),
            quantile(&measured.commit, 0.99)
        );
        if run == 0 {
            continue;
        }
        for (index, (_, part)) in PARTS.iter().enumerate() {
            arrival[index].values.push(quantile(&measured.arrival, *part));
            commit[index].values.push(quantile(&measured.commit, *part));
        }
        all.arrival.extend(measured.arrival);
        all.commit.extend(measured.commit);
    }
    for (((part, _), ours), theirs) in PARTS.iter().zip(arrival).zip(commit) {
        let target = ((interval, rate, *part) == ("5ms", 500, "p99")).then_some(Target::Below(10.0));
        report.add(Line { what: name("commit to last byte,", part), ours, theirs: Some(theirs), target })?;
    }
    Ok(all)
}

fn curve(name: String, latencies: &[f64]) -> Curve {
    // Not so far out that single transactions make the line.
    let parts = (0..=400).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 100.0));
    let parts = parts.take_while(|part| crate::figures::count(latencies.len()) * (1.0 - part) >= 5.0);
    Curve { name, points: parts.map(|part| (part, quantile(latencies, part))).collect() }
}

struct Bench {
    lab: Lab,
    next: i64,
}

#[derive(Deserialize)]
struct Arrival {
    at_us: i64,
    table: String,
    keys: Vec<i64>,
}

impl Bench {
    fn set_up(interval: &str) -> Outcome<Self> {
        let settings = Settings::default().set("track_commit_timestamp", "on");
        let mut lab = Lab::with(settings, &["--arrivals", "on"])?;
        lab.pair.source.execute(
            "CREATE TABLE tick (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, client integer, at timestamptz)",
        )?;
        let mirror = Mirror::new("latency", Loads::Http, "tables => '{pace, tick}'");
        lab.start(&mirror.with_options(&format!("{{\"flush_interval\": \"{interval}\"}}")))?;
        let end = lab.end_of_log()?;
        lab.wait("latency", &end)?;
        Ok(Self { lab, next: 0 })
    }

    fn run(&mut self, rate: u32, seconds: u64) -> Outcome<Latencies> {
        let cluster = self.lab.pair.source.cluster().clone();
        let directory = std::env::temp_dir().join(format!("dbmazz-bench-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let script = directory.join("script.sql");
        fs::write(&script, "INSERT INTO tick (client, at) VALUES (:client_id, now());\n")?;
        let mut pgbench = cluster.client_program("pgbench");
        pgbench.current_dir(&directory).args(["--no-vacuum", "--client", "8", "--jobs", "2", "--log"]);
        pgbench.args(["--protocol", "prepared", "--file", "script.sql", "--log-prefix", "log"]);
        pgbench.args(["--rate", &rate.to_string(), "--time", &seconds.to_string()]);
        let status =
            pgbench.arg(self.lab.pair.source.name()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if !status.success() {
            return Err(Failure::new(format!("pgbench: {status}")));
        }
        let commit = logged(&directory)?;
        fs::remove_dir_all(&directory)?;
        let end = self.lab.end_of_log()?;
        // No flush is asked for: that would hurry the last rows.
        std::thread::sleep(Duration::from_millis(1500));
        self.lab.wait("latency", &end)?;
        Ok(Latencies { arrival: self.arrivals()?, commit })
    }

    /// The rows since the last call.
    fn arrivals(&mut self) -> Outcome<Vec<f64>> {
        let arrivals: Vec<Arrival> = serde_json::from_value(self.lab.control.arrivals()?)?;
        let loads = arrivals.iter().filter(|load| load.table.ends_with(".tick"));
        let came: HashMap<i64, i64> =
            loads.flat_map(|load| load.keys.iter().map(|key| (*key, load.at_us))).collect();
        let committed = self.lab.pair.source.rows(&format!(
            "SELECT id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM tick WHERE id > {}",
            self.next
        ))?;
        let mut latencies = Vec::new();
        for row in committed {
            let mut cells = row.into_iter().flatten();
            let mut number = || cells.next().unwrap_or_default().parse::<i64>();
            let (id, at) = (number()?, number()?);
            let came = came.get(&id).ok_or_else(|| Failure::new(format!("row {id} has not arrived")))?;
            latencies.push((came - at) as f64 / 1000.0);
            self.next = self.next.max(id);
        }
        Ok(latencies)
    }
}

/// pgbench's latencies in milliseconds, without the lag: client, transaction, microseconds, script, second, microsecond, lag.
fn logged(directory: &Path) -> Outcome<Vec<f64>> {
    let mut latencies = Vec::new();
    for file in fs::read_dir(directory)? {
        let file = file?;
        if !file.file_name().to_string_lossy().starts_with("log.") {
            continue;
        }
        for line in fs::read_to_string(file.path())?.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let number = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
            let (whole, lag) =
                number(2).zip(number(6)).ok_or_else(|| Failure::new(format!("pgbench wrote {line:?}")))?;
            latencies.push((whole - lag) / 1000.0);
        }
    }
    Ok(latencies)
}
