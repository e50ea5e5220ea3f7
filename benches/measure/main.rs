//! What dbmazz costs and how fast it is, beside what else there is: `make bench`, `make bench-quick`.
//!
//! Every figure has its baseline in the same run, on the same data, in turns, several times. Ratios are the result; absolute
//! figures depend on the machine. Loads go to the stand-in without storage, which checks headers, decompresses, parses and
//! counts the rows; a run counts only if the count is right. Needs a server whose extension is built with the feature
//! `discard`; the Makefile makes one.
//!
//! ```text
//! measure [--quick] [word …]     words choose by the names of topics and measurements
//! BENCH_RUNS=5 BENCH_SCALE=1     how often, and how many rows in proportion to the full size
//! ```
//!
//! * [`engine`]: what criterion said of it.
//! * [`stream`]: a backlog, beside `pg_recvlogical`.
//! * [`snapshot`]: the copy, beside psql's binary COPY.
//! * [`latency`]: from the commit to the target, beside pgbench's own latency.
//! * [`memory`]: what a worker costs the machine, and the source.
//! * [`growth`]: with the number of tables, mirrors, rows per load, threads.
//! * [`export`]: files, beside `pg_dump` and `dd`.
//! * [`import`]: tables again, beside `pg_restore`.
//!
//! Results go to `target/bench`: `table.md` in the form of the README, `results.json`, curves as SVG.

// Rates and medians: numbers far below 2^52.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

mod engine;
mod export;
mod export_load;
mod figures;
mod files;
mod growth;
mod import;
mod lab;
mod latency;
mod machine;
mod memory;
mod plan;
mod process;
mod report;
mod snapshot;
mod stream;
mod svg;
mod workload;

use std::path::PathBuf;

use harness::{Failure, Outcome};
use machine::Machine;
use plan::Plan;
use report::Report;

fn main() -> Outcome {
    let plan = Plan::read()?;
    let target = target_directory()?;
    let mut report = Report::new(target.join("bench"), Machine::here()?, plan.command())?;
    engine::measure(&plan, &mut report, &target)?;
    stream::measure(&plan, &mut report)?;
    snapshot::measure(&plan, &mut report)?;
    latency::measure(&plan, &mut report)?;
    memory::measure(&plan, &mut report)?;
    growth::measure(&plan, &mut report)?;
    export::measure(&plan, &mut report)?;
    if !report.print() {
        println!("a target was missed");
    }
    Ok(())
}

/// This program lies in `target/<profile>/deps`.
fn target_directory() -> Outcome<PathBuf> {
    let here = std::env::current_exe()?;
    here.ancestors().nth(3).map(PathBuf::from).ok_or_else(|| Failure::new("this program lies nowhere"))
}
