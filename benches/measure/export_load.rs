//! What an export costs the source: pgbench at 1,000 transactions per second, alone, and while one export follows another.

use std::process::{Child, Stdio};

use crate::export::TOPIC;
use crate::figures::{Line, Series, Unit};
use crate::files::{Files, clear};
use crate::harness::{Failure, Outcome, Pgbench};
use crate::plan::{Importance, Plan};
use crate::report::Report;
use crate::workload::Shape;

const RATE: &str = "1000";

/// Measures transactions per second, and their latency.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    if !plan.takes(TOPIC, "source under load", Importance::Context) {
        return Ok(());
    }
    let (rows, seconds) = (plan.scaled(5_000_000), plan.seconds(30));
    println!("export: {RATE} transactions/s for {seconds} s, and {rows} narrow rows exported meanwhile");
    let mut bench = Bench::new(rows, seconds)?;
    let new = |what: &str, unit| Series::new(what, unit);
    let (mut rate_beside, mut rate_alone) =
        (new("beside exports", Unit::TransactionsPerSecond), new("alone", Unit::TransactionsPerSecond));
    let (mut beside, mut alone) =
        (new("beside exports", Unit::Milliseconds), new("alone", Unit::Milliseconds));
    for run in 1..=plan.runs {
        let idle = bench.alone()?;
        let (busy, exports) = bench.beside_exports()?;
        println!("  run {run} of {}: {idle:?} alone, {busy:?} beside {exports} exports", plan.runs);
        rate_alone.values.push(idle.rate);
        rate_beside.values.push(busy.rate);
        alone.values.push(idle.latency);
        beside.values.push(busy.latency);
    }
    let what =
        |what: &str| format!("export: TPC-B at {RATE} transactions/s while tables are exported, {what}");
    let line = |what, ours, theirs| Line { what, ours, theirs: Some(theirs), target: None };
    report.add(line(what("rate"), rate_beside, rate_alone))?;
    report.add(line(what("mean latency"), beside, alone))
}

struct Bench {
    files: Files,
    seconds: u64,
}

/// What pgbench says in the end.
#[derive(Clone, Copy, Debug)]
struct Said {
    rate: f64,
    /// In milliseconds, without the lag of its schedule.
    latency: f64,
}

impl Bench {
    fn new(rows: u64, seconds: u64) -> Outcome<Self> {
        let mut files = Files::new()?;
        Pgbench::initialize(&files.lab.pair.source, 10)?;
        files.lab.pair.source.execute(&Shape::Narrow.create("narrow"))?;
        files.lab.execute_each(&Shape::Narrow.inserts("narrow", 0, rows))?;
        files.lab.execute_each(&["VACUUM ANALYZE".to_owned(), "CHECKPOINT".to_owned()])?;
        Ok(Self { files, seconds })
    }

    fn begin(&self) -> Outcome<Child> {
        let source = &self.files.lab.pair.source;
        let mut pgbench = source.cluster().client_program("pgbench");
        pgbench.args(["--no-vacuum", "--client", "4", "--jobs", "1", "--protocol", "prepared"]);
        pgbench.args(["--rate", RATE, "--time", &self.seconds.to_string(), source.name()]);
        Ok(pgbench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    }

    fn alone(&self) -> Outcome<Said> {
        said(self.begin()?)
    }

    /// Also how many exports were done in the time.
    fn beside_exports(&mut self) -> Outcome<(Said, u32)> {
        let mut pgbench = self.begin()?;
        let (directory, mut exports) = (self.files.memory.clone(), 0);
        let tables = "narrow,pgbench_accounts,pgbench_branches,pgbench_tellers,pgbench_history";
        while pgbench.try_wait()?.is_none() {
            self.files.export(tables, &directory.join("export"), "zstd")?;
            clear(&directory)?;
            exports += 1;
        }
        Ok((said(pgbench)?, exports))
    }
}

fn said(pgbench: Child) -> Outcome<Said> {
    let output = pgbench.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| {
        let line = words.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let found =
        number("tps = ").zip(number("latency average = ")).zip(number("rate limit schedule lag: avg "));
    let Some(((rate, latency), lag)) = found else { return Err(Failure::new(format!("pgbench: {words}"))) };
    Ok(Said { rate, latency: latency - lag })
}
