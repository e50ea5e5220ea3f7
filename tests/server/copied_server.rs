//! Copies of a server: only one of them may write to the target, and none may go on where rows are missing or too many.

use std::sync::Arc;

use crate::harness::{Cluster, Database, Outcome, PATIENCE, Pair, Settings, StopMode, wait_until};
use crate::on_its_own_cluster;

fn mirrored_item(pair: &mut Pair) -> Outcome {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])?;
    add(pair, 2)
}

/// A row that goes through the stream, checkpoint included.
fn add(pair: &mut Pair, id: u32) -> Outcome {
    pair.source.execute(&format!("INSERT INTO item VALUES ({id})"))?;
    pair.wait_and_compare(&["item"])?;
    let committed = pair.source.value("SELECT pg_current_wal_lsn()")?;
    pair.source.execute("INSERT INTO item VALUES (1000000); DELETE FROM item WHERE id = 1000000")?;
    let sql =
        format!("SELECT owner_lsn >= '{committed}' AND confirmed_lsn >= owner_lsn FROM dbmazz.checkpoint");
    wait_until("checkpoint is written", PATIENCE, || pair.source.is_true(&sql))
}

fn in_copy(pair: &Pair, copy: &Arc<Cluster>) -> Outcome<Database> {
    Database::connect(copy, pair.source.name())
}

fn wait_for_state(copy: &mut Database, state: &str) -> Outcome {
    let waited = wait_until(&format!("copy in state {state}"), PATIENCE, || {
        Ok(copy.value("SELECT state FROM dbmazz_stat_mirror")? == state)
    });
    if waited.is_err() {
        println!("{:?}", copy.rows("SELECT to_jsonb(v) FROM dbmazz_stat_mirror v")?);
        println!("{:?}", copy.rows("SELECT to_jsonb(v) FROM dbmazz_event v LIMIT 5")?);
        println!("{}", copy.cluster().end_of_log());
    }
    waited
}

fn newest_error(copy: &mut Database) -> Outcome<String> {
    copy.value(
        "SELECT concat_ws(' | ', message, detail, hint) FROM dbmazz_event WHERE severity = 'error' LIMIT 1",
    )
}

/// The files as they are, while the mirror streams on afterwards.
fn copied(pair: &mut Pair) -> Outcome<Cluster> {
    let cluster = Arc::clone(pair.source.cluster());
    cluster.stop(StopMode::Fast)?;
    let copy = cluster.copy_files()?;
    cluster.start_again()?;
    pair.source.reconnect()?;
    Ok(copy)
}

#[test]
fn a_copy_of_the_data_directory_comes_up_paused_and_leaves_the_original_alone() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let copy = Arc::new(copied(pair)?);
        copy.start_copy()?;
        let mut other = in_copy(pair, &copy)?;
        wait_for_state(&mut other, "paused")?;
        let event = newest_error(&mut other)?;
        assert!(event.contains("is a copy") && event.contains("dbmazz_resume_mirror"), "{event}");
        other.execute("INSERT INTO item VALUES (77)")?;

        // Dropped on the copy, it takes nothing from the original: neither rows nor the claim.
        other.execute(&format!("SELECT dbmazz_drop_mirror('{}')", pair.mirror()))?;
        for id in 3..6 {
            add(pair, id)?;
        }
        pair.wait_for_state("streaming")
    });
}

#[test]
fn a_copy_takes_over_when_somebody_says_so() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let cluster = Arc::clone(pair.source.cluster());
        cluster.stop(StopMode::Fast)?;
        let copy = Arc::new(cluster.copy_files()?);
        copy.start_copy()?;
        let mut other = in_copy(pair, &copy)?;
        wait_for_state(&mut other, "paused")?;
        other.execute("INSERT INTO item VALUES (77)")?;
        other.execute(&format!("SELECT dbmazz_resume_mirror('{}')", pair.mirror()))?;
        wait_for_state(&mut other, "streaming")?;
        assert!(other.is_true(&format!("SELECT dbmazz_wait_mirror('{}')", pair.mirror()))?);
        assert_eq!(pair.target.count("item")?, 3);

        // The original comes back, and finds that the target is not its own any more.
        cluster.start_again()?;
        pair.source.reconnect()?;
        pair.wait_for_state("needs_resync")?;
        let event = newest_error(&mut pair.source)?;
        assert!(event.contains("does not know"), "{event}");
        other.execute("INSERT INTO item VALUES (78)")?;
        assert!(other.is_true(&format!("SELECT dbmazz_wait_mirror('{}')", pair.mirror()))?);
        assert_eq!(pair.target.count("item")?, 4);
        Ok(())
    });
}

#[test]
fn the_original_stops_when_its_copy_takes_over_beside_it() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let copy = Arc::new(copied(pair)?);
        // The original claims anew with its start; wait for that, so that the copy comes second.
        pair.wait_for_state("streaming")?;
        pair.call("dbmazz_pause_mirror")?;
        copy.start_copy()?;
        let mut other = in_copy(pair, &copy)?;
        wait_for_state(&mut other, "paused")?;
        pair.call("dbmazz_resume_mirror")?;
        add(pair, 3)?;
        other.execute(&format!("SELECT dbmazz_resume_mirror('{}')", pair.mirror()))?;
        // The target has what the copy never had, so the copy does not go on; it has claimed nothing.
        wait_for_state(&mut other, "needs_resync")?;
        add(pair, 4)?;
        // Started anew, it claims and copies, and the original stops.
        other.execute(&format!("SELECT dbmazz_drop_mirror('{}')", pair.mirror()))?;
        other.execute(&pair.start_statement("tables => ARRAY['item']::regclass[]", "{}"))?;
        wait_for_state(&mut other, "streaming")?;
        pair.source.execute("INSERT INTO item VALUES (5)")?;
        pair.wait_for_state("paused")?;
        let event = newest_error(&mut pair.source)?;
        assert!(event.contains("has been claimed by another server"), "{event}");
        Ok(())
    });
}

#[test]
fn a_server_restored_to_a_point_in_time_needs_a_resync() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let copy = Arc::new(copied(pair)?);
        add(pair, 3)?;
        pair.source.cluster().stop(StopMode::Fast)?;
        copy.start_copy_on_a_new_timeline()?;
        let mut restored = in_copy(pair, &copy)?;
        wait_for_state(&mut restored, "needs_resync")?;
        let event = newest_error(&mut restored)?;
        assert!(event.contains("before it was restored"), "{event}");
        pair.source.cluster().start_again()?;
        pair.source.reconnect()
    });
}

#[test]
fn a_server_whose_files_were_rolled_back_in_place_needs_a_resync() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let copy = copied(pair)?;
        add(pair, 3)?;
        let cluster = Arc::clone(pair.source.cluster());
        cluster.stop(StopMode::Fast)?;
        cluster.restore_from(&copy)?;
        cluster.start_again()?;
        pair.source.reconnect()?;
        pair.wait_for_state("needs_resync")
    });
}

#[test]
fn a_promoted_standby_goes_on_if_it_has_the_slot() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let primary = Arc::clone(pair.source.cluster());
        let standby = Arc::new(primary.start_standby()?);
        mirrored_item(pair)?;
        let slot = format!("dbmazz_{}", pair.mirror());
        let replayed = "SELECT pg_current_wal_lsn() <= min(replay_lsn) FROM pg_stat_replication";
        add(pair, 3)?;
        wait_until("standby is in step", PATIENCE, || pair.source.is_true(replayed))?;
        primary.stop(StopMode::Fast)?;
        standby.stop(StopMode::Fast)?;
        primary.give_slot_to(&standby, &slot)?;
        standby.start_again()?;
        standby.promote()?;
        let mut promoted = in_copy(pair, &standby)?;
        wait_for_state(&mut promoted, "streaming")?;
        promoted.execute("INSERT INTO item VALUES (4)")?;
        assert!(promoted.is_true(&format!("SELECT dbmazz_wait_mirror('{}')", pair.mirror()))?);
        assert_eq!(pair.target.count("item")?, 4);
        // It is at home there now.
        standby.restart(StopMode::Fast)?;
        promoted.reconnect()?;
        wait_for_state(&mut promoted, "streaming")?;
        primary.start_again()?;
        pair.source.reconnect()
    });
}

#[test]
fn a_promoted_standby_with_the_slot_and_without_its_log_needs_a_resync() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let primary = Arc::clone(pair.source.cluster());
        // The backup begins with the next file.
        pair.source.execute("SELECT pg_switch_wal()")?;
        let standby = Arc::new(primary.start_standby()?);
        primary.stop(StopMode::Fast)?;
        standby.stop(StopMode::Fast)?;
        primary.give_slot_to(&standby, &format!("dbmazz_{}", pair.mirror()))?;
        standby.start_again()?;
        standby.promote()?;
        let mut promoted = in_copy(pair, &standby)?;
        wait_for_state(&mut promoted, "needs_resync")?;
        let event = newest_error(&mut promoted)?;
        assert!(event.contains("is not on this server"), "{event}");
        primary.start_again()?;
        pair.source.reconnect()
    });
}

#[test]
fn a_promoted_standby_without_the_slot_needs_a_resync() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_item(pair)?;
        let standby = Arc::new(pair.source.cluster().start_standby()?);
        pair.source.cluster().stop(StopMode::Fast)?;
        standby.promote()?;
        let mut promoted = in_copy(pair, &standby)?;
        wait_for_state(&mut promoted, "needs_resync")?;
        let event = newest_error(&mut promoted)?;
        assert!(event.contains("does not exist"), "{event}");
        pair.source.cluster().start_again()?;
        pair.source.reconnect()
    });
}
