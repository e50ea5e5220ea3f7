//! A mirror goes on only with its own slot, on its own server: whatever else it finds, it stops and says why.

use crate::harness::{Outcome, PATIENCE, Pair, Settings, SlotConsumer, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

fn mirrored_item(pair: &mut Pair) -> Outcome {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

fn pause(pair: &mut Pair) -> Outcome {
    pair.call("dbmazz_pause_mirror")?;
    let sql =
        format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'", pair.mirror());
    wait_until("slot is let go", PATIENCE, || pair.source.is_true(&sql))
}

/// The newest event that is an error has these words, and tells what to do.
fn expect_stop(pair: &mut Pair, state: &str, words: &str) -> Outcome {
    pair.wait_for_state(state)?;
    let event = pair.source.value(
        "SELECT message || ' | ' || hint FROM dbmazz_event WHERE severity = 'error' AND hint IS NOT NULL LIMIT 1",
    )?;
    assert!(event.contains(words), "\"{event}\" does not say \"{words}\"");
    assert!(pair.stat("last_error")?.is_some_and(|error| error.contains(words)));
    Ok(())
}

/// What is done to the slot of a paused mirror, and what the mirror says of it when it is resumed.
fn after_change_of_slot(change: &str, words: &str) {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        pause(pair)?;
        pair.source.execute("INSERT INTO item VALUES (2)")?;
        let slot = format!("'dbmazz_{}'", pair.mirror());
        for statement in change.replace("$slot", &slot).split(';') {
            pair.source.execute(statement)?;
        }
        pair.source.execute("INSERT INTO item VALUES (3)")?;
        pair.call("dbmazz_resume_mirror")?;
        expect_stop(pair, "needs_resync", words)?;
        assert_eq!(pair.target.count("item")?, 1, "nothing is sent any more");
        // The way back that the hint names.
        pair.call("dbmazz_drop_mirror")?;
        // A slot that is not of this database is not ours to drop.
        pair.source.execute(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {slot}"
        ))?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_slot_that_was_dropped_while_the_mirror_was_paused_needs_a_resync() {
    after_change_of_slot("SELECT pg_drop_replication_slot($slot)", "does not exist");
}

#[test]
fn a_slot_that_was_made_again_under_its_name_needs_a_resync() {
    after_change_of_slot(
        "SELECT pg_drop_replication_slot($slot);SELECT pg_create_logical_replication_slot($slot, 'pgoutput')",
        "ahead of the checkpoint",
    );
}

#[test]
fn a_slot_that_somebody_advanced_needs_a_resync() {
    after_change_of_slot(
        "SELECT pg_replication_slot_advance($slot, pg_current_wal_lsn())",
        "ahead of the checkpoint",
    );
}

#[test]
fn a_physical_slot_of_its_name_needs_a_resync() {
    after_change_of_slot(
        "SELECT pg_drop_replication_slot($slot);SELECT pg_create_physical_replication_slot($slot)",
        "physical slot",
    );
}

#[test]
fn a_two_phase_slot_of_its_name_needs_a_resync() {
    after_change_of_slot(
        "SELECT pg_drop_replication_slot($slot);SELECT pg_create_logical_replication_slot($slot, 'pgoutput', false, true)",
        "prepared transactions",
    );
}

#[test]
fn a_slot_that_is_dropped_under_a_running_mirror_needs_a_resync() {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        let slot = format!("dbmazz_{}", pair.mirror());
        wait_until("slot is dropped between two workers", PATIENCE, || {
            pair.source.execute(&format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}'"
            ))?;
            // Fails as long as the old or a new worker has it.
            let _ = pair.source.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
            let left = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
            Ok(pair.source.value(&left)? == "0")
        })?;
        expect_stop(pair, "needs_resync", "does not exist")
    });
}

#[test]
fn a_slot_whose_log_was_removed_needs_a_resync() {
    let small = Settings::default().set("max_slot_wal_keep_size", "16MB").set("max_wal_size", "64MB");
    on_its_own_cluster(&small, |pair| {
        mirrored_item(pair)?;
        pause(pair)?;
        let slot = format!(
            "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'",
            pair.mirror()
        );
        pair.source.execute("CREATE TABLE busy (filler text)")?;
        wait_until("the slot is invalidated", PATIENCE, || {
            pair.source
                .execute("INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 20000)")?;
            pair.source.execute("SELECT pg_switch_wal(); CHECKPOINT")?;
            Ok(pair.source.value(&slot)? == "lost")
        })?;
        pair.call("dbmazz_resume_mirror")?;
        expect_stop(pair, "needs_resync", "has been removed")
    });
}

#[test]
fn a_slot_that_another_process_has_is_awaited() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE PUBLICATION nothing")?;
        mirrored_item(pair)?;
        pause(pair)?;
        let slot = format!("dbmazz_{}", pair.mirror());
        let consumer = SlotConsumer::start(pair.source.cluster(), pair.source.name(), &slot)?;
        let holder = pair
            .source
            .value(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"))?;
        pair.source.execute("INSERT INTO item VALUES (2)")?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_for_state("retrying")?;
        let reason = pair.stat("last_error")?.unwrap_or_default();
        assert!(reason.contains(&holder), "\"{reason}\" does not name process {holder}");
        drop(consumer);
        pair.wait_and_compare(&["item"])?;
        pair.wait_for_state("streaming")
    });
}

#[test]
fn a_database_that_was_made_from_one_with_a_mirror_does_not_mirror() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let cluster = std::sync::Arc::clone(pair.source.cluster());
        let mirror = pair.mirror().to_owned();
        pair.source.execute("ALTER SYSTEM SET dbmazz.enabled = off")?;
        pair.source.execute("SELECT pg_reload_conf()")?;
        let idle = "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dbmazz mirror'";
        wait_until("worker is gone", PATIENCE, || pair.source.is_true(idle))?;
        let original = pair.source.name().to_owned();
        let mut other = crate::harness::Database::connect(&cluster, "postgres")?;
        // Our own session is in the way, too.
        pair.source.become_another("postgres")?;
        other.execute(&format!("CREATE DATABASE copied TEMPLATE {original}"))?;
        other.execute("ALTER SYSTEM RESET dbmazz.enabled")?;
        other.execute("SELECT pg_reload_conf()")?;
        pair.source.become_another(&original)?;

        let mut copied = crate::harness::Database::connect(&cluster, "copied")?;
        let state = format!("SELECT state FROM dbmazz_stat_mirror WHERE mirror = '{mirror}'");
        assert_eq!(copied.value(&state)?, "paused");
        // The scouts find both.
        cluster.restart(crate::harness::StopMode::Fast)?;
        pair.source.reconnect()?;
        copied.reconnect()?;
        pair.source.execute("INSERT INTO item VALUES (2)")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(copied.value(&state)?, "paused");

        copied.execute(&format!("SELECT dbmazz_drop_mirror('{mirror}')"))?;
        assert_eq!(copied.value("SELECT count(*) FROM dbmazz_stat_mirror")?, "0");
        pair.source.execute("INSERT INTO item VALUES (3)")?;
        pair.wait_and_compare(&["item"])?;
        pair.wait_for_state("streaming")
    });
}
