//! The harness itself: a comparison that finds nothing, or a cluster that stays, would make the other tests worthless.

use std::path::Path;
use std::time::Duration;

use crate::harness::{Cluster, Comparison, Fault, Outcome, Settings, StarRocks, Target, wait_until};
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

/// Changes the source while the mirror is paused; the comparison must say what differs.
fn finds(change: &str, expected: &str) {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text, n numeric(10,2), b bytea);
             INSERT INTO item SELECT n, 'v' || n, n, '\\x00ff' FROM generate_series(1, 9) n",
        )?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        pair.source.execute(change)?;
        match pair.compare(&Comparison::of("item")) {
            Ok(()) => panic!("nothing found after: {change}"),
            Err(failure) => assert!(failure.message().contains(expected), "{failure}"),
        }
        Ok(())
    });
}

#[test]
fn a_missing_row_is_found() {
    finds("INSERT INTO item VALUES (5000, 'x', 1, NULL)", "row id=\"5000\" is missing at the target");
}

#[test]
fn a_row_too_many_is_found() {
    finds("DELETE FROM item WHERE id = 5", "row id=\"5\" is at the target alone");
}

#[test]
fn another_value_is_found() {
    finds(
        "UPDATE item SET v = 'x' WHERE id = 3",
        "column \"v\" is \"x\" at the source, \"v3\" at the target",
    );
}

#[test]
fn another_byte_is_found() {
    finds(
        "UPDATE item SET b = '\\x00fe' WHERE id = 3",
        "column \"b\" is \"00fe\" at the source, \"00ff\" at the target",
    );
}

#[test]
fn a_null_is_not_a_value() {
    finds("UPDATE item SET n = NULL WHERE id = 3", "column \"n\" is NULL at the source");
}

#[test]
fn the_stand_in_can_be_asked_and_told() -> Outcome {
    let starrocks = StarRocks::standin(&[])?;
    let Some(control) = starrocks.control() else { panic!("a stand-in has a control interface") };
    let mut target = Target::of(&starrocks, "shop")?;
    target.execute("CREATE DATABASE shop")?;
    let item = target.table("item");
    target.execute(&format!(
        "CREATE TABLE {item} (id INT NOT NULL, v VARCHAR(10)) PRIMARY KEY (id) DISTRIBUTED BY HASH (id)
         PROPERTIES ('replication_num' = '1')"
    ))?;
    assert!(target.has("item")?);
    assert!(!target.has("order")?);
    assert_eq!(target.count("item")?, 0);
    control.set(&Fault::lasting("no_backend").on_table("item"))?;
    control.clear()?;
    assert_eq!(control.rows_received()?, 0);
    assert!(control.set(&Fault::once("no such fault")).is_err());
    Ok(())
}
