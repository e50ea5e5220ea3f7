//! `slot_guard_size` and `slot_guard_action`: what happens when a slot keeps too much log, whatever the mirror is doing.

use crate::harness::{Outcome, PATIENCE, Pair, Settings, StopMode, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

fn guarded_item(pair: &mut Pair, action: &str) -> Outcome {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE busy (filler text)")?;
    let options = format!("{{\"slot_guard_size\": \"24MB\", \"slot_guard_action\": \"{action}\"}}");
    pair.start_mirror_with("tables => ARRAY['item']::regclass[]", &options)?;
    pair.wait()
}

fn pause(pair: &mut Pair) -> Outcome {
    pair.call("dbmazz_pause_mirror")?;
    let sql =
        format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'", pair.mirror());
    wait_until("slot is let go", PATIENCE, || pair.source.is_true(&sql))
}

fn write_log(pair: &mut Pair, megabytes: u32) -> Outcome {
    pair.source.execute(&format!(
        "INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, {})",
        megabytes * 1000
    ))
}

fn warnings(pair: &mut Pair) -> Outcome<u32> {
    Ok(pair
        .source
        .value("SELECT count(*) FROM dbmazz_event WHERE severity = 'warning' AND message LIKE '%slot_guard_size%'")?
        .parse()?)
}

fn slots(pair: &mut Pair) -> Outcome<String> {
    let sql =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'", pair.mirror());
    pair.source.value(&sql)
}

#[test]
fn the_guard_warns_of_a_paused_mirror_once_per_crossing() {
    on_its_own_cluster(&Settings::default(), |pair| {
        guarded_item(pair, "warn")?;
        pause(pair)?;
        assert_eq!(warnings(pair)?, 0);
        write_log(pair, 30)?;
        wait_until("a warning", PATIENCE, || Ok(warnings(pair)? == 1))?;
        assert!(pair.stat("last_error")?.is_some_and(|error| error.contains("slot_guard_size")));
        assert!(pair.stat("retained_bytes")?.unwrap_or_default().parse::<u64>()? > 24 << 20);
        write_log(pair, 5)?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait()?;
        // Checkpoints and what they bring let the log go; the guard may speak again then.
        wait_until("log is let go", PATIENCE, || {
            // Not more than checkpoints need: whoever writes faster than that always has some log kept.
            pair.source.execute("CHECKPOINT")?;
            Ok(pair.stat("retained_bytes")?.unwrap_or_default().parse::<u64>()? < 15 << 20)
        })?;
        wait_until("guard has seen it", PATIENCE, || {
            Ok(pair.source.cluster().log().contains("of log again"))
        })?;
        assert_eq!(warnings(pair)?, 1, "one crossing, one warning");
        pause(pair)?;
        write_log(pair, 30)?;
        wait_until("a second warning", PATIENCE, || Ok(warnings(pair)? == 2))
    });
}

#[test]
fn a_mirror_that_was_paused_before_the_server_started_is_guarded() {
    on_its_own_cluster(&Settings::default(), |pair| {
        guarded_item(pair, "warn")?;
        pause(pair)?;
        pair.source.cluster().restart(StopMode::Fast)?;
        pair.source.reconnect()?;
        write_log(pair, 30)?;
        wait_until("a warning", PATIENCE, || Ok(warnings(pair)? == 1))?;
        assert_eq!(pair.stat("state")?.as_deref(), Some("paused"));
        // The place in shared memory is given back with the mirror.
        pair.call("dbmazz_drop_mirror")?;
        wait_until("place is free", PATIENCE, || {
            Ok(pair.source.value("SELECT count(*) FROM dbmazz.live_mirrors()")? == "0")
        })
    });
}

#[test]
fn release_lets_go_of_the_slot_of_a_paused_mirror() {
    on_a_pair(|pair| {
        guarded_item(pair, "release")?;
        pause(pair)?;
        write_log(pair, 30)?;
        pair.wait_for_state("needs_resync")?;
        assert_eq!(slots(pair)?, "0");
        let event =
            pair.source.value("SELECT message || hint FROM dbmazz_event WHERE severity = 'error' LIMIT 1")?;
        assert!(event.contains("let go of its log") && event.contains("start it again"), "{event}");
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_for_state("needs_resync")?;
        pair.call("dbmazz_drop_mirror")?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn release_ends_a_worker_that_waits_for_its_target() {
    on_a_pair(|pair| {
        guarded_item(pair, "release")?;
        let Some(control) = pair.control("release_ends_a_worker_that_waits_for_its_target") else {
            return Ok(());
        };
        control.set(&crate::harness::Fault::lasting("no_backend"))?;
        pair.source.execute("INSERT INTO item SELECT generate_series(1, 1000)")?;
        pair.wait_for_state("retrying")?;
        write_log(pair, 30)?;
        pair.wait_for_state("needs_resync")?;
        wait_until("the slot is gone", PATIENCE, || Ok(slots(pair)? == "0"))?;
        wait_until("no worker is left", PATIENCE, || Ok(pair.stat("pid")?.is_none()))
    });
}

#[test]
fn throttle_slows_the_copy_and_lets_it_end() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE busy (filler text);
             CREATE TABLE item (id int PRIMARY KEY, v text);
             INSERT INTO item SELECT n, repeat('x', 200) FROM generate_series(1, 3000) n",
        )?;
        // No load gets through before the guard has acted.
        let Some(control) = pair.control("throttle_slows_the_copy_and_lets_it_end") else { return Ok(()) };
        control.set(&crate::harness::Fault::lasting("hang").on_table("item"))?;
        let options = "{\"slot_guard_size\": \"24MB\", \"slot_guard_action\": \"throttle\", \
                        \"snapshot_workers\": 1, \"batch_max_rows\": 100}";
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", options)?;
        pair.wait_for_state("snapshot")?;
        assert!(pair.stat("snapshot_xmin_age")?.is_some(), "the copy holds a snapshot, and the view says so");
        write_log(pair, 30)?;
        wait_until("a word", PATIENCE, || Ok(warnings(pair)? == 1))?;
        let event =
            pair.source.value("SELECT message FROM dbmazz_event WHERE severity = 'warning' LIMIT 1")?;
        assert!(event.contains("its copy is slowed"), "{event}");
        control.clear()?;
        let slow = "SELECT count(*) > 0 FROM pg_stat_activity
                    WHERE backend_type = 'dbmazz snapshot' AND datname = current_database() AND query LIKE '%copying slowly%'";
        wait_until("snapshot worker is slow", PATIENCE, || pair.source.is_true(slow))?;
        pair.wait_and_compare(&["item"])?;
        pair.wait_for_state("streaming")
    });
}
