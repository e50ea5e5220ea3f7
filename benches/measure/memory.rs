//! What a mirror costs the machine: memory and processor time of its worker, idle and at work, and the transactions that the
//! source loses to it.
//!
//! Memory is the proportional set size without shared memory. Processor time is that of all threads of the worker.

use std::time::{Duration, Instant};

use crate::figures::{Line, Series, Target, Unit, count};
use crate::harness::{Failure, Outcome, Pgbench};
use crate::lab::{Lab, Loads, Mirror};
use crate::plan::{Importance, Plan};
use crate::process::Process;
use crate::report::Report;
use crate::workload::Shape;

/// Measures it all.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    if plan.takes("memory", "idle, buffered, flood", Importance::Target) {
        worker(plan, report)?;
    }
    if plan.takes("source", "pgbench with and without a mirror", Importance::Context) {
        source(plan, report)?;
    }
    Ok(())
}

/// Changes that stay in the buffer.
const BUFFERED: u64 = 100_000;

#[derive(Debug)]
struct Worker {
    idle_memory: Series,
    idle_cpu: Series,
    wake_ups: f64,
    buffered: Series,
    flood: Series,
    cpu_of_a_million: Series,
}

fn worker(plan: &Plan, report: &mut Report) -> Outcome {
    println!("memory: a worker idle, with {BUFFERED} changes in its buffer, under a flood");
    let megabytes = |name: &str| Series::new(name, Unit::Megabytes);
    let mut worker = Worker {
        idle_memory: megabytes("idle"),
        idle_cpu: Series::new("idle", Unit::PercentOfACore),
        wake_ups: 0.0,
        buffered: megabytes("buffered"),
        flood: megabytes("flood"),
        cpu_of_a_million: Series::new("cpu", Unit::Seconds),
    };
    for run in 1..=plan.runs {
        worker.run(plan, run)?;
    }
    let line = |what: &str, ours, target| Line { what: what.to_owned(), ours, theirs: None, target };
    let buffered = format!("memory: {BUFFERED} narrow changes in the buffer");
    report.add(line("memory: idle worker", worker.idle_memory, None))?;
    report.add(line(&buffered, worker.buffered, Some(Target::Below(100.0))))?;
    report.add(line("memory: most under a flood of narrow rows, memory_limit 128MB", worker.flood, None))?;
    report.add(line("processor: idle mirror", worker.idle_cpu, Some(Target::Below(0.5))))?;
    report.add(line(
        "processor: of a million narrow changes, loads over HTTP",
        worker.cpu_of_a_million,
        None,
    ))?;
    report.note(format!("An idle worker woke up {:.1} times per second.", worker.wake_ups))
}

impl Worker {
    fn run(&mut self, plan: &Plan, run: u32) -> Outcome {
        let mut lab = Lab::new()?;
        lab.pair.source.execute(&Shape::Narrow.create("narrow"))?;
        let patient = Mirror::new("patient", Loads::Http, "tables => '{pace, narrow}'")
            .with_options("{\"flush_interval\": \"1h\", \"batch_max_rows\": 1000000}");
        lab.start(&patient)?;
        let end = lab.end_of_log()?;
        lab.wait("patient", &end)?;
        let process = Process(lab.pid("patient")?);
        self.idle(process, plan)?;
        lab.execute_each(&Shape::Narrow.inserts("narrow", 0, BUFFERED))?;
        wait_for_buffer(&mut lab)?;
        self.buffered.values.push(megabytes(process.memory()?));
        lab.drop_mirror("patient")?;
        self.flood(&mut lab, plan.scaled(2_000_000))?;
        println!(
            "  run {run}: idle {:.1} MB and {:.2} % of a core, buffered {:.1} MB, flood {:.1} MB, {:.2} s of processor time per million",
            last(&self.idle_memory),
            last(&self.idle_cpu),
            last(&self.buffered),
            last(&self.flood),
            last(&self.cpu_of_a_million)
        );
        Ok(())
    }

    fn idle(&mut self, process: Process, plan: &Plan) -> Outcome {
        // What follows a load (its checkpoint, the slot) is over after a moment.
        std::thread::sleep(Duration::from_secs(3));
        let before = process.usage()?;
        std::thread::sleep(Duration::from_secs(plan.seconds(30)));
        let after = process.usage()?;
        self.idle_cpu.values.push(after.percent_since(before));
        self.wake_ups = after.wake_ups_since(before);
        self.idle_memory.values.push(megabytes(process.memory()?));
        Ok(())
    }

    /// A backlog that is decoded as fast as it goes.
    fn flood(&mut self, lab: &mut Lab, rows: u64) -> Outcome {
        let mirror = Mirror::new("flood", Loads::Http, "tables => '{pace, narrow}', snapshot => false");
        lab.start(&mirror)?;
        let end = lab.end_of_log()?;
        lab.wait("flood", &end)?;
        lab.align()?;
        lab.pair.source.execute("SET synchronous_commit = off")?;
        lab.execute_each(&Shape::Narrow.inserts("narrow", 1_000_000_000, rows))?;
        let end = lab.end_of_log()?;
        lab.resume("flood")?;
        let (mut most, mut used) = (0, Duration::ZERO);
        let process = first_look(lab)?;
        let before = process.usage()?;
        let caught_up = format!(
            "SELECT dbmazz_wait_mirror('flood', '{end}', '50 ms') FROM dbmazz_stat_mirror WHERE mirror = 'flood'"
        );
        while !lab.pair.source.is_true(&caught_up)? {
            most = most.max(process.memory()?);
            used = process.usage()?.cpu_since(before);
        }
        used = used.max(process.usage()?.cpu_since(before));
        most = most.max(process.memory()?);
        self.flood.values.push(megabytes(most));
        self.cpu_of_a_million.values.push(used.as_secs_f64() / count(rows) * 1e6);
        Ok(())
    }
}

/// The worker, as soon as there is one.
fn first_look(lab: &mut Lab) -> Outcome<Process> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        if let Ok(pid) = lab.pid("flood") {
            return Ok(Process(pid));
        }
    }
    Err(Failure::new("no worker came"))
}

fn wait_for_buffer(lab: &mut Lab) -> Outcome {
    let end = lab.pair.source.value("SELECT pg_current_wal_flush_lsn()")?;
    let sql = format!("SELECT received_lsn >= '{end}' FROM dbmazz_stat_mirror WHERE mirror = 'patient'");
    crate::harness::wait_until("all is decoded", Duration::from_secs(60), || lab.pair.source.is_true(&sql))
}

fn megabytes(bytes: u64) -> f64 {
    count(bytes) / 1e6
}

fn last(series: &Series) -> f64 {
    series.values.last().copied().unwrap_or(f64::NAN)
}

/// pgbench's own rate, with the mirror at work and without it. A paused mirror has no process.
fn source(plan: &Plan, report: &mut Report) -> Outcome {
    println!("source: pgbench with and without a mirror");
    let mut lab = Lab::new()?;
    Pgbench::initialize(&lab.pair.source, 10)?;
    let tables = "tables => '{pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history}'";
    lab.start(&Mirror::new("cost", Loads::Http, tables))?;
    let end = lab.end_of_log()?;
    lab.wait("cost", &end)?;
    let mut with = Series::new("with a mirror", Unit::TransactionsPerSecond);
    let mut without = Series::new("without", Unit::TransactionsPerSecond);
    for run in 1..=plan.runs {
        for turn in 0..2 {
            if (turn + run) % 2 == 0 {
                lab.pause("cost")?;
                without.values.push(transactions(&mut lab, plan)?);
            } else {
                lab.resume("cost")?;
                let end = lab.end_of_log()?;
                lab.wait("cost", &end)?;
                with.values.push(transactions(&mut lab, plan)?);
            }
        }
        println!("  run {run}: {:.0} tps with, {:.0} tps without", last(&with), last(&without));
    }
    let what = "source: pgbench TPC-B, 4 clients, the stand-in on the same machine".to_owned();
    report.add(Line { what, ours: with, theirs: Some(without), target: None })
}

fn transactions(lab: &mut Lab, plan: &Plan) -> Outcome<f64> {
    let before = lab.number("SELECT count(*) FROM pgbench_history")?;
    let (cluster, name) = (lab.pair.source.cluster().clone(), lab.pair.source.name().to_owned());
    let seconds = plan.seconds(20);
    let began = Instant::now();
    Pgbench::write(&cluster, &name, u32::try_from(seconds)?)?.succeed()?;
    let took = began.elapsed();
    let done = lab.number("SELECT count(*) FROM pgbench_history")? - before;
    Ok(count(done) / took.as_secs_f64())
}
