//! dbmazz lets go: of the server, of other databases, of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{
    Cluster, Database, Fault, Outcome, PATIENCE, Pair, Pgbench, Settings, StopMode, wait_until,
};
use crate::{on_a_pair, on_its_own_cluster, shared_cluster};

/// Longest time of a fast stop while clients write.
const UNDER_LOAD: Duration = Duration::from_secs(5);
/// Longest time of a fast stop with nothing to do; the final checkpoint is in it.
const IDLE: Duration = Duration::from_secs(1);

fn mirrored_accounts(pair: &mut Pair) -> Outcome {
    Pgbench::initialize(&pair.source, 1)?;
    pair.start_mirror(&["pgbench_accounts", "pgbench_tellers", "pgbench_branches"])?;
    pair.wait()
}

#[test]
fn a_fast_stop_under_load_takes_less_than_five_seconds() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_accounts(pair)?;
        let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), 60)?;
        let before = pair.stat("loads_total")?;
        wait_until("loads are made", PATIENCE, || Ok(pair.stat("loads_total")? != before))?;
        let took = pair.source.cluster().stop(StopMode::Fast)?;
        assert!(took < UNDER_LOAD, "{took:?}");
        writing.join()?;
        pair.source.cluster().start_again()?;
        pair.source.reconnect()?;
        pair.wait_and_compare(&["pgbench_accounts", "pgbench_tellers", "pgbench_branches"])
    });
}

#[test]
fn a_fast_stop_of_an_idle_server_takes_less_than_a_second() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_accounts(pair)?;
        pair.source.execute("CHECKPOINT")?;
        let took = pair.source.cluster().stop(StopMode::Fast)?;
        assert!(took < IDLE, "{took:?}");
        pair.source.cluster().start_again()?;
        pair.source.reconnect()?;
        pair.wait()
    });
}

#[test]
fn a_fast_stop_during_the_copy_is_fast_and_the_copy_goes_on() {
    on_its_own_cluster(&Settings::default(), |pair| {
        Pgbench::initialize(&pair.source, 4)?;
        pair.start_mirror_with(
            "tables => ARRAY['pgbench_accounts']::regclass[]",
            r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 1000}"#,
        )?;
        wait_until("copy has begun", PATIENCE, || {
            pair.source.is_true(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dbmazz snapshot')",
            )
        })?;
        let took = pair.source.cluster().stop(StopMode::Fast)?;
        assert!(took < UNDER_LOAD, "{took:?}");
        pair.source.cluster().start_again()?;
        pair.source.reconnect()?;
        pair.wait_and_compare(&["pgbench_accounts"])
    });
}

#[test]
fn a_target_that_hangs_does_not_hold_up_a_fast_stop() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let Some(control) = pair.control("fast stop with a hanging target") else { return Ok(()) };
        mirrored_accounts(pair)?;
        control.set(&Fault::lasting("hang"))?;
        let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), 60)?;
        wait_until("a load hangs", PATIENCE, || Ok(pair.stat("queued_bytes")?.as_deref() != Some("0")))?;
        let took = pair.source.cluster().stop(StopMode::Fast)?;
        assert!(took < UNDER_LOAD, "{took:?}");
        writing.join()?;
        control.clear()?;
        pair.source.cluster().start_again()?;
        pair.source.reconnect()?;
        pair.wait_and_compare(&["pgbench_accounts", "pgbench_tellers", "pgbench_branches"])
    });
}

#[test]
fn a_worker_that_waits_within_a_transaction_does_not_hold_up_a_fast_stop() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let Some(control) = pair.control("fast stop within a transaction") else { return Ok(()) };
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY, v text)")?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"memory_limit": "1MB"}"#)?;
        pair.wait()?;
        control.set(&Fault::lasting("hang"))?;
        pair.source
            .execute("INSERT INTO item SELECT n, repeat('v', 50) FROM generate_series(1, 100000) n")?;
        wait_until("memory is full", PATIENCE, || {
            pair.stat("queued_bytes > 600000").map(|full| full.as_deref() == Some("t"))
        })?;
        let took = pair.source.cluster().stop(StopMode::Fast)?;
        assert!(took < UNDER_LOAD, "{took:?}");
        control.clear()?;
        pair.source.cluster().start_again()?;
        pair.source.reconnect()?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn another_database_can_be_dropped_at_any_time() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_accounts(pair)?;
        let cluster = Arc::clone(pair.source.cluster());
        let _writing = Pgbench::write(&cluster, pair.source.name(), 10)?;
        let mut postgres = Database::connect(&cluster, "postgres")?;
        for n in 0..5 {
            postgres.execute(&format!("CREATE DATABASE gone{n}"))?;
            let began = Instant::now();
            postgres.execute(&format!("DROP DATABASE gone{n}"))?;
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
        Ok(())
    });
}

#[test]
fn a_database_whose_mirror_was_dropped_can_be_dropped() {
    on_a_pair(|pair| {
        let cluster: Arc<Cluster> = shared_cluster();
        let mut other = Pair::new(&cluster)?;
        other.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        other.start_mirror(&["item"])?;
        other.wait()?;
        other.call("dbmazz_drop_mirror")?;
        let name = other.source.name().to_owned();
        wait_until("no slot", PATIENCE, || {
            pair.source.is_true(&format!(
                "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = '{name}')"
            ))
        })?;
        pair.source.execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
    });
}

#[test]
fn drop_extension_is_refused_or_leaves_nothing() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        let mirror = pair.mirror().to_owned();
        let error = pair.source.error_of("DROP EXTENSION dbmazz")?;
        assert!(error.hint().is_some() || error.detail().is_some(), "{error}");
        pair.source.execute(&format!("SELECT dbmazz_drop_mirror('{mirror}')"))?;
        wait_until("no slot and no worker", PATIENCE, || {
            pair.source.is_true(
                "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database())
                 AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'dbmazz mirror')",
            )
        })?;
        pair.source.execute("DROP SERVER starrocks CASCADE; DROP EXTENSION dbmazz; CREATE EXTENSION dbmazz")
    });
}
