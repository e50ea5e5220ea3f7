//! Workers, postmaster and connections are taken away under load; afterwards both sides are equal, row by row.
//!
//! `DBMAZZ_TEST_SECONDS` sets how long each load lasts (10 by default, 60 in `make test-long`).

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{
    Control, Fault, Outcome, PATIENCE, Pair, Pgbench, Random, Settings, StopMode, wait_for, wait_until,
};
use crate::on_its_own_cluster;

/// Those with a primary key; `pgbench_history` has none and is not mirrored.
const TABLES: [&str; 3] = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers"];

/// Small chunks and loads, so that there is something to interrupt.
const SMALL: &str = r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 2000, "snapshot_workers": 2}"#;

fn seconds() -> u32 {
    std::env::var("DBMAZZ_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// A mirror of pgbench's tables that is being started while four clients write.
fn under_load(pair: &mut Pair) -> Outcome<Pgbench> {
    Pgbench::initialize(&pair.source, 2)?;
    let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), seconds())?;
    pair.start_mirror_with(&format!("tables => {}", tables()), SMALL)?;
    Ok(writing)
}

fn tables() -> String {
    format!("ARRAY[{}]::regclass[]", TABLES.map(|table| format!("'{table}'")).join(", "))
}

/// The id of some process of this kind, as soon as there is one.
fn pid_of(pair: &mut Pair, backend_type: &str) -> Outcome<i32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = '{backend_type}' ORDER BY random() LIMIT 1"
    );
    wait_for(&format!("a process \"{backend_type}\""), PATIENCE, || {
        Ok(match pair.source.value_or_null(&sql)? {
            Some(pid) => Some(pid.parse()?),
            None => None,
        })
    })
}

/// Makes every load take a while, so that a copy lasts long enough to be struck.
fn slow_down(pair: &Pair) -> Outcome {
    let Some(control) = pair.starrocks.control() else { return Ok(()) };
    control.set(&Fault::lasting("delay_answer").with(50))
}

fn speed_up(pair: &Pair) -> Outcome {
    pair.starrocks.control().map_or(Ok(()), Control::clear)
}

/// What is done to a worker.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// The worker's statement ends in an ERROR.
    Cancel,
    /// SIGTERM.
    Terminate,
    /// SIGKILL: the postmaster restarts all processes.
    Kill,
}

/// Strikes some process of this kind. Returns when the server, if it had to restart its processes, takes connections.
fn strike(pair: &mut Pair, backend_type: &str, blow: Blow) -> Outcome {
    // A process may end by itself before the blow comes; then another one is struck.
    wait_for(&format!("a process \"{backend_type}\" is struck"), PATIENCE, || {
        let pid = pid_of(pair, backend_type)?;
        match blow {
            Blow::Cancel => pair.source.is_true(&format!("SELECT pg_cancel_backend({pid})")),
            Blow::Terminate => pair.source.is_true(&format!("SELECT pg_terminate_backend({pid})")),
            Blow::Kill => kill(pair, pid),
        }
        .map(|hit| hit.then_some(()))
    })
}

/// Returns whether there was such a process to kill.
pub(crate) fn kill(pair: &mut Pair, pid: i32) -> Outcome<bool> {
    if pair.source.cluster().signal(pid, "KILL").is_err() {
        return Ok(false);
    }
    // The postmaster asks for its remains and ends the other processes in one go. As long as they lie there, a
    // connection may still be made, and would be taken away at once.
    wait_until("the postmaster has noticed", PATIENCE, || {
        Ok(!Path::new("/proc").join(pid.to_string()).exists())
    })?;
    come_back(pair)?;
    Ok(true)
}

/// Waits until the server takes connections again.
pub(crate) fn come_back(pair: &mut Pair) -> Outcome {
    wait_for("the server is back", PATIENCE, || {
        let back = pair.source.reconnect().and_then(|()| pair.source.value("SELECT 1"));
        Ok(back.ok().map(drop))
    })
}

/// Clients that write until the time is up, started anew when a crash took their connections.
fn keep_writing(pair: &Pair, writing: &mut Pgbench, until: Instant) -> Outcome {
    if Instant::now() < until && !writing.is_running()? {
        let left = u32::try_from(until.duration_since(Instant::now()).as_secs()).unwrap_or(1).max(1);
        *writing = Pgbench::write(pair.source.cluster(), pair.source.name(), left)?;
    }
    Ok(())
}

/// Strikes one worker several times at random moments of the load, then compares.
fn survives(name: &str, backend_type: &str, blow: Blow) {
    on_its_own_cluster(&Settings::default(), |pair| {
        let mut random = Random::announced(name);
        let until = Instant::now() + Duration::from_secs(u64::from(seconds()));
        let mut writing = under_load(pair)?;
        for _ in 0..3 {
            let before = pair.source.value("SELECT sum(tbalance) FROM pgbench_tellers")?;
            // A random number of looks at tables that change: a random moment, without a fixed pause.
            for _ in 0..random.below(40) {
                pair.source.value("SELECT count(*) FROM pgbench_tellers")?;
            }
            strike(pair, backend_type, blow)?;
            keep_writing(pair, &mut writing, until)?;
            wait_for("clients write", PATIENCE, || {
                keep_writing(pair, &mut writing, until)?;
                let after = pair.source.value("SELECT sum(tbalance) FROM pgbench_tellers")?;
                Ok((after != before || Instant::now() >= until).then_some(()))
            })?;
        }
        writing.join()?;
        pair.wait_and_compare(&TABLES)
    });
}

#[test]
fn both_sides_are_equal_after_a_load_over_copy_and_stream() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let writing = under_load(pair)?;
        writing.succeed()?;
        pair.wait_and_compare(&TABLES)?;
        pair.wait_for_state("streaming")?;
        let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), seconds())?;
        writing.succeed()?;
        pair.wait_and_compare(&TABLES)
    });
}

#[test]
fn a_mirror_worker_that_ends_in_an_error_goes_on() {
    survives("mirror worker, error", "dbmazz mirror", Blow::Cancel);
}

#[test]
fn a_mirror_worker_that_is_terminated_goes_on() {
    survives("mirror worker, SIGTERM", "dbmazz mirror", Blow::Terminate);
}

#[test]
fn a_mirror_worker_that_is_killed_goes_on() {
    survives("mirror worker, SIGKILL", "dbmazz mirror", Blow::Kill);
}

/// A copy that is held up by a slow target, and one blow to a process of this kind in its midst.
fn copy_survives(name: &str, backend_type: &str, blow: Blow) {
    on_its_own_cluster(&Settings::default(), |pair| {
        println!("{name}: {blow:?} to \"{backend_type}\"");
        Pgbench::initialize(&pair.source, 4)?;
        let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), seconds())?;
        slow_down(pair)?;
        pair.start_mirror_with(&format!("tables => {}", tables()), SMALL)?;
        strike(pair, backend_type, blow)?;
        speed_up(pair)?;
        writing.join()?;
        pair.wait_and_compare(&TABLES)
    });
}

#[test]
fn a_snapshot_worker_that_is_terminated_is_replaced() {
    copy_survives("snapshot worker", "dbmazz snapshot", Blow::Terminate);
}

#[test]
fn a_snapshot_worker_that_is_killed_is_replaced() {
    copy_survives("snapshot worker", "dbmazz snapshot", Blow::Kill);
}

#[test]
fn a_snapshot_holder_that_is_terminated_does_not_spoil_the_copy() {
    copy_survives("snapshot holder", "dbmazz snapshot holder", Blow::Terminate);
}

#[test]
fn the_launcher_can_be_terminated() {
    copy_survives("launcher", "dbmazz launcher", Blow::Terminate);
}

/// Within one transaction a worker cannot reserve labels itself: the launcher does, also one that did not start it.
#[test]
fn a_new_launcher_reserves_labels_for_a_worker_that_it_did_not_start() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"batch_max_rows": 1}"#)?;
        pair.wait()?;
        let worker = pid_of(pair, "dbmazz mirror")?;
        let launcher = pid_of(pair, "dbmazz launcher")?;
        strike(pair, "dbmazz launcher", Blow::Terminate)?;
        wait_until("there is another launcher", PATIENCE, || {
            Ok(pid_of(pair, "dbmazz launcher")? != launcher)
        })?;
        pair.source.execute("INSERT INTO item SELECT n FROM generate_series(1, 1500) n")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pid_of(pair, "dbmazz mirror")?, worker);
        Ok(())
    });
}

#[test]
fn an_immediate_stop_during_the_copy_loses_nothing() {
    on_its_own_cluster(&Settings::default(), |pair| {
        Pgbench::initialize(&pair.source, 4)?;
        let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), seconds())?;
        slow_down(pair)?;
        pair.start_mirror_with(&format!("tables => {}", tables()), SMALL)?;
        pid_of(pair, "dbmazz snapshot")?;
        pair.source.cluster().restart(StopMode::Immediate)?;
        speed_up(pair)?;
        writing.join()?;
        come_back(pair)?;
        pair.wait_and_compare(&TABLES)
    });
}

#[test]
fn an_immediate_stop_while_streaming_loses_nothing() {
    on_its_own_cluster(&Settings::default(), |pair| {
        Pgbench::initialize(&pair.source, 1)?;
        pair.start_mirror_with(&format!("tables => {}", tables()), SMALL)?;
        pair.wait()?;
        for _ in 0..3 {
            let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), seconds())?;
            let before = pair.stat("loads_total")?;
            wait_for("loads are made", PATIENCE, || Ok((pair.stat("loads_total")? != before).then_some(())))?;
            pair.source.cluster().restart(StopMode::Immediate)?;
            writing.join()?;
            come_back(pair)?;
        }
        pair.wait_and_compare(&TABLES)
    });
}
