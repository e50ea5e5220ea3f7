//! A backlog, decoded by dbmazz and by `pg_recvlogical`, over the same WAL, in turns.
//!
//! With the mirror paused, two million narrow rows are inserted. Then, several times and alternating:
//!
//! * the mirror is resumed; measured is the time from that call until `dbmazz_wait_mirror` says that all of it is durable
//!   at the stand-in, which counts the rows and throws them away (`--storage off`);
//! * `pg_recvlogical -f /dev/null` reads its own pgoutput slot up to the same position; measured is its whole run.
//!
//! Each run has rows of its own, written before it and read by both sides of the pair. A run counts only if the
//! stand-in received every row. `BENCH_ROWS` and `BENCH_RUNS` change its size.

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Cluster, Control, Failure, Outcome, Pair, Settings, StarRocks};

const PUBLICATION: &str = "walsender";
const SLOT: &str = "walsender";

fn main() -> Outcome {
    let rows = from_environment("BENCH_ROWS", 2_000_000)?;
    let runs = from_environment("BENCH_RUNS", 5)?;
    let mut bench = Bench::set_up()?;
    let (mut mirror, mut walsender) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        bench.write_backlog(run, rows)?;
        // The order changes, so that neither side always finds the WAL in the cache of the other.
        if run % 2 == 1 {
            mirror.push(bench.mirror(rows)?);
            walsender.push(bench.walsender()?);
        } else {
            walsender.push(bench.walsender()?);
            mirror.push(bench.mirror(rows)?);
        }
        let (ours, theirs) = (seconds(mirror.last()), seconds(walsender.last()));
        println!("run {run}: dbmazz {ours:.2} s, pg_recvlogical {theirs:.2} s, ratio {:.2}", theirs / ours);
    }
    report(rows, &mut mirror, &mut walsender);
    Ok(())
}

struct Bench {
    pair: Pair,
    control: Control,
}

impl Bench {
    /// Durability as in production: the comparison must not profit from settings of a test.
    fn set_up() -> Outcome<Self> {
        let settings = Settings::default()
            .set("fsync", "on")
            .set("shared_buffers", "1GB")
            .set("max_wal_size", "16GB")
            .set("checkpoint_timeout", "1h")
            .set("autovacuum", "off");
        let cluster = Arc::new(Cluster::start(&settings)?);
        let starrocks = StarRocks::standin(&["--storage", "off"])?;
        let mut pair = Pair::with(&cluster, starrocks)?;
        let control =
            pair.starrocks.control().ok_or_else(|| Failure::new("the stand-in has no control interface"))?;
        pair.source.execute(&format!(
            "CREATE TABLE narrow (id bigint PRIMARY KEY, a integer, b text, ts timestamptz);
             CREATE PUBLICATION {PUBLICATION} FOR TABLE narrow"
        ))?;
        pair.start_mirror_with("tables => ARRAY['narrow']::regclass[]", "{}")?;
        pair.wait()?;
        pair.source.execute(&format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"))?;
        Ok(Self { pair, control })
    }

    /// Pauses the mirror and inserts rows that it has not seen, in one statement per 100,000.
    fn write_backlog(&mut self, run: u32, rows: u32) -> Outcome {
        self.pair.call("dbmazz_pause_mirror")?;
        self.pair.wait_for_state("paused")?;
        let mut first = u64::from(run) * 1_000_000_000;
        let end = first + u64::from(rows);
        while first < end {
            let last = (first + 100_000).min(end) - 1;
            self.pair.source.execute(&format!(
                "INSERT INTO narrow SELECT n, n % 1000, 'row number ' || n % 1000000, now()
                 FROM generate_series({first}, {last}) n"
            ))?;
            first = last + 1;
        }
        Ok(())
    }

    /// From the call that resumes the mirror, the start of its worker included, to the last durable row.
    fn mirror(&mut self, rows: u32) -> Outcome<Duration> {
        let end = self.pair.source.value("SELECT pg_current_wal_insert_lsn()")?;
        let received_before = self.control.rows_received()?;
        let began = Instant::now();
        self.pair.call("dbmazz_resume_mirror")?;
        let waited = format!("SELECT dbmazz_wait_mirror('{}', '{end}', '5 min')", self.pair.mirror());
        if self.pair.source.value(&waited)? != "t" {
            return Err(Failure::new("the backlog did not become durable"));
        }
        let took = began.elapsed();
        let received = self.control.rows_received()? - received_before;
        if received != u64::from(rows) {
            return Err(Failure::new(format!("the stand-in received {received} rows instead of {rows}")));
        }
        Ok(took)
    }

    /// The whole run of `pg_recvlogical`; it ends at the position where the backlog ends.
    fn walsender(&mut self) -> Outcome<Duration> {
        let end = self.pair.source.value("SELECT pg_current_wal_flush_lsn()")?;
        let cluster = Arc::clone(self.pair.source.cluster());
        let began = Instant::now();
        let status = cluster
            .client_program("pg_recvlogical")
            .args(["--dbname", self.pair.source.name(), "--slot", SLOT, "--start", "--file", "/dev/null"])
            .args(["--no-loop", "--endpos", &end, "-o", "proto_version=1"])
            .args(["-o", &format!("publication_names={PUBLICATION}")])
            .stderr(Stdio::inherit())
            .status()?;
        if !status.success() {
            return Err(Failure::new(format!("pg_recvlogical: {status}")));
        }
        Ok(began.elapsed())
    }
}

fn report(rows: u32, mirror: &mut [Duration], walsender: &mut [Duration]) {
    mirror.sort_unstable();
    walsender.sort_unstable();
    for (name, times) in
        [("dbmazz, durable at the stand-in", &*mirror), ("pg_recvlogical -f /dev/null", &*walsender)]
    {
        let median = seconds(times.get(times.len() / 2));
        println!(
            "{name:<32} median {median:.2} s ({:.2} to {:.2}), {:.2} million rows/s",
            seconds(times.first()),
            seconds(times.last()),
            f64::from(rows) / median / 1e6
        );
    }
    let ratio = seconds(walsender.get(walsender.len() / 2)) / seconds(mirror.get(mirror.len() / 2));
    println!("ratio of the medians: {ratio:.2}");
}

fn seconds(time: Option<&Duration>) -> f64 {
    time.map_or(f64::NAN, Duration::as_secs_f64)
}

fn from_environment(name: &str, default: u32) -> Outcome<u32> {
    Ok(std::env::var(name).ok().map_or(Ok(default), |text| text.parse())?)
}
