//! A drop and a worker write to rows of several tables of the extension, and neither waits for the other for ever.

use std::thread::{self, JoinHandle};

use super::{ITEM, PATIENCE, can_be_started_again, remains};
use crate::harness::{Action, Database, Failpoint, Failure, Outcome, Pair, Settings, wait_until};
use crate::on_its_own_cluster;

/// A mirror whose first copy has come to this point, and stays there.
fn mirror_at(pair: &mut Pair, point: &str) -> Outcome<Failpoint> {
    pair.source.execute(&format!("{ITEM}; INSERT INTO item VALUES (1, 'one')"))?;
    let armed = pair.source.cluster().arm(point, Action::Wait, 0)?;
    pair.start_mirror(&["item"])?;
    armed.wait_until_reached()?;
    Ok(armed)
}

/// Another session, which has a lock by these statements.
fn somebody(pair: &Pair, locks: &str) -> Outcome<Database> {
    let mut session = pair.source.another_session()?;
    session.execute(&format!("BEGIN; {locks}"))?;
    Ok(session)
}

fn begin_drop(pair: &mut Pair) -> Outcome<JoinHandle<Outcome>> {
    let mut session = pair.source.another_session()?;
    let drop_mirror = format!("SELECT dbmazz_drop_mirror('{}')", pair.mirror());
    let dropping = thread::spawn(move || session.execute(&drop_mirror));
    wait_for_lock(pair, "query LIKE '%drop_mirror%'")?;
    Ok(dropping)
}

/// Waits until one session, chosen by a condition, waits for a lock.
fn wait_for_lock(pair: &mut Pair, who: &str) -> Outcome {
    let waits = format!("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND {who}");
    wait_until(&format!("somebody waits for a lock: {who}"), PATIENCE, || pair.source.is_true(&waits))
}

fn ends_well(pair: &mut Pair, dropping: JoinHandle<Outcome>) -> Outcome {
    dropping.join().map_err(|_| Failure::new("a session of the test has ended"))??;
    assert_eq!(remains(pair)?, None);
    // Of two that wait for each other either may be the one that is ended.
    assert!(!pair.source.cluster().log().contains("deadlock detected"));
    can_be_started_again(pair)
}

#[test]
fn while_a_chunk_is_written_down() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let chunk = mirror_at(pair, "copy_chunk_all_visible")?;
        // The drop comes first to the row of the table, which somebody has for a moment.
        let mut somebody = somebody(pair, "SELECT FROM dbmazz.mirror_table FOR UPDATE")?;
        let dropping = begin_drop(pair)?;
        drop(chunk);
        wait_for_lock(pair, "backend_type = 'dbmazz snapshot'")?;
        somebody.execute("COMMIT")?;
        ends_well(pair, dropping)
    });
}

/// Chunks of a snapshot worker that is gone are free again: that is several rows, so the mirror's row comes first here too.
#[test]
fn while_chunks_are_given_back() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let claimed = mirror_at(pair, "copy_chunk_claimed")?;
        let mut somebody = somebody(pair, "SELECT FROM dbmazz.mirror FOR UPDATE")?;
        pair.source.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dbmazz snapshot'",
        )?;
        drop(claimed);
        wait_for_lock(pair, "backend_type = 'dbmazz mirror'")?;
        somebody.execute("SELECT FROM dbmazz.snapshot_chunk FOR UPDATE NOWAIT; COMMIT")?;
        pair.wait_and_compare(&["item"])
    });
}

/// The worker has the mirror's row before the drop, and changes it in the same transaction.
#[test]
fn while_the_plan_is_written_down() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let plan = mirror_at(pair, "start_after_target_tables")?;
        // Nothing that has a number of a transaction: the slot would wait for its end.
        let mut somebody = somebody(pair, "LOCK TABLE dbmazz.mirror_table IN SHARE MODE")?;
        drop(plan);
        wait_for_lock(pair, "backend_type = 'dbmazz mirror'")?;
        let dropping = begin_drop(pair)?;
        somebody.execute("COMMIT")?;
        ends_well(pair, dropping)
    });
}
