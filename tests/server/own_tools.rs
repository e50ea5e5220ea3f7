//! The harness itself: a comparison that finds nothing, or a cluster that stays, would make the other tests worthless.

use std::path::Path;
use std::time::Duration;

use crate::harness::{Cluster, Comparison, Outcome, Settings, wait_until};
use crate::on_a_pair;

#[test]
fn a_cluster_that_is_dropped_is_stopped_and_removed() -> Outcome {
    let cluster = Cluster::start(&Settings::default().set("shared_preload_libraries", ""))?;
    let directory = cluster.directory().to_owned();
    let pid_file = std::fs::read_to_string(directory.join("data/postmaster.pid"))?;
    let pid = pid_file.lines().next().unwrap_or_default().to_owned();
    assert!(runs(&pid));
    drop(cluster);
    assert!(!directory.exists());
    // pg_ctl waits for the pid file to go; the process itself needs a moment more.
    wait_until("the postmaster is gone", Duration::from_secs(5), || Ok(!runs(&pid)))
}

/// Whether there is such a process, and not only its remains that nobody has asked for.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn waiting_ends_at_the_deadline_with_what_was_waited_for() {
    let waited = wait_until("the impossible", Duration::from_millis(80), || Ok(false));
    assert!(waited.is_err_and(|failure| failure.message().contains("the impossible")));
}

/// Damages the target in one way; the comparison must say where.
fn finds(damage: &str, expected: &str) {
    on_a_pair(|pair| {
        if pair.control("damaged target").is_none() {
            return Ok(());
        }
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text, n numeric(10,2), b bytea);
             INSERT INTO item SELECT n, 'v' || n, n, '\\x00ff' FROM generate_series(1, 9) n",
        )?;
        let database = pair.target.database().to_owned();
        pair.target.execute(&format!("CREATE DATABASE {database}"))?;
        let table = pair.target.table("item");
        pair.target.execute(&format!(
            "CREATE TABLE {table} (id INT NOT NULL, v VARCHAR(100), n DECIMAL(10,2), b VARBINARY) PRIMARY KEY (id)
             DISTRIBUTED BY HASH (id) PROPERTIES ('replication_num' = '1')"
        ))?;
        let rows: Vec<_> = (1..=9).map(|n| format!("({n}, 'v{n}', {n}.00, x'00ff')")).collect();
        pair.target.execute(&format!("INSERT INTO {table} VALUES {}", rows.join(", ")))?;
        pair.compare(&Comparison::of("item"))?;
        pair.target.execute(&damage.replace("item", &table))?;
        let found = pair.compare(&Comparison::of("item"));
        assert!(found.is_err_and(|failure| failure.message().contains(expected)), "{damage}");
        Ok(())
    });
}

#[test]
fn a_missing_row_is_found() {
    finds("DELETE FROM item WHERE id = 5", "row id=\"5\" is missing at the target");
}

#[test]
fn a_row_too_many_is_found() {
    finds("INSERT INTO item VALUES (99, 'x', 1, NULL)", "row id=\"99\" is at the target alone");
}

#[test]
fn another_value_is_found() {
    finds(
        "UPDATE item SET v = 'other' WHERE id = 3",
        "column \"v\" is \"v3\" at the source, \"other\" at the target",
    );
}

#[test]
fn a_null_is_not_an_empty_text() {
    finds("UPDATE item SET v = '' WHERE id = 3", "column \"v\"");
}
