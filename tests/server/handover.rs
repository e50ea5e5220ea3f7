//! Where the copy ends and the stream begins: nothing falls between, nothing comes twice, and the later state wins.

use crate::harness::{Control, Database, Fault, Outcome, PATIENCE, Pair, Random, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

/// Some five chunks and forty loads. The memory is so small that the copy cannot read on while nothing is acknowledged.
const ROWS: u32 = 40_000;
const SMALL: &str =
    r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 1000, "snapshot_workers": 2, "memory_limit": "1MB"}"#;

fn create_items(pair: &mut Pair) -> Outcome {
    pair.source.execute(&format!(
        "CREATE TABLE item (id int PRIMARY KEY, v text, filler text);
         INSERT INTO item SELECT n, 'v' || n, repeat('f', 80) FROM generate_series(1, {ROWS}) n"
    ))
}

fn start(pair: &mut Pair) -> Outcome {
    pair.start_mirror_with("tables => ARRAY['item']::regclass[]", SMALL)
}

/// Starts a copy whose first loads get no answer, and waits until they are on their way.
fn start_and_hold(pair: &mut Pair, control: Control) -> Outcome {
    control.set(&Fault::lasting("hang").on_table("item"))?;
    start(pair)?;
    pair.wait_for_state("snapshot")?;
    let copying = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dbmazz snapshot'
                   AND datname = current_database())
                   AND EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')";
    wait_until("chunks are being copied", PATIENCE, || pair.source.is_true(copying))
}

/// Changes rows of every chunk, those that are read and those that are not, and leaves the transaction open.
fn change_without_commit(session: &mut Database, remainder: u32) -> Outcome {
    session.execute(&format!(
        "BEGIN; UPDATE item SET v = 'changed {remainder}' WHERE id % 10 = {remainder};
         DELETE FROM item WHERE id % 100 = {remainder};
         INSERT INTO item SELECT {ROWS} + n * 10 + {remainder}, 'new', NULL FROM generate_series(1, 50) n"
    ))
}

#[test]
fn a_transaction_that_commits_after_the_copy_has_read_its_rows_is_not_lost() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("commit after the copy") else { return Ok(()) };
        create_items(pair)?;
        start_and_hold(pair, control)?;
        let (mut during, mut after) = (pair.source.another_session()?, pair.source.another_session()?);
        change_without_commit(&mut during, 3)?;
        change_without_commit(&mut after, 7)?;
        during.execute("COMMIT")?;
        control.clear()?;
        pair.wait_for_state("streaming")?;
        assert_eq!(pair.table_state("item")?.as_deref(), Some("r"));
        after.execute("COMMIT")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.count("item")?, u64::from(ROWS) - 800 + 100);
        Ok(())
    });
}

#[test]
fn a_transaction_that_is_rolled_back_after_the_copy_leaves_nothing() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("rollback after the copy") else { return Ok(()) };
        create_items(pair)?;
        start_and_hold(pair, control)?;
        let mut after = pair.source.another_session()?;
        change_without_commit(&mut after, 7)?;
        control.clear()?;
        pair.wait_for_state("streaming")?;
        after.execute("ROLLBACK")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.count("item")?, u64::from(ROWS));
        Ok(())
    });
}

/// A slot's creation waits for prepared transactions too, and they belong to no process.
#[test]
fn a_transaction_that_was_prepared_before_the_start_is_named_and_not_lost() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text);
             INSERT INTO item SELECT n, 'v' || n FROM generate_series(1, 100) n",
        )?;
        pair.source.execute(
            "BEGIN; UPDATE item SET v = 'prepared' WHERE id <= 50; DELETE FROM item WHERE id = 51;
             INSERT INTO item VALUES (101, 'prepared'); PREPARE TRANSACTION 'forgotten'",
        )?;
        pair.start_mirror(&["item"])?;
        wait_until("the views name the prepared transaction", PATIENCE, || {
            Ok(pair.stat("last_error")?.is_some_and(|reason| reason.contains("forgotten")))
        })?;
        assert_ne!(pair.stat("state")?.as_deref(), Some("streaming"));
        pair.source.execute("COMMIT PREPARED 'forgotten'")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.count("item")?, 100);
        Ok(())
    });
}

#[test]
fn the_last_state_of_a_row_wins_over_its_copy() {
    on_a_pair(|pair| {
        let mut random = Random::announced("handover");
        create_items(pair)?;
        if let Some(control) = pair.control("slow loads") {
            control.set(&Fault::lasting("delay_answer").with(40))?;
        }
        start(pair)?;
        let mut changes = 0;
        wait_until("copied while rows change", PATIENCE, || {
            for _ in 0..10 {
                pair.source.execute(&change_of_a_row(&mut random))?;
                changes += 1;
            }
            Ok(pair.stat("state")?.as_deref() == Some("streaming"))
        })?;
        println!("{changes} transactions during the copy");
        assert!(changes > 50, "the copy was over before anything changed");
        pair.wait_and_compare(&["item"])
    });
}

/// What could confuse a copied row with a streamed one: gone and back, moved away, moved to where another was.
fn change_of_a_row(random: &mut Random) -> String {
    let rows = u64::from(ROWS);
    let (id, other, mark) = (random.below(rows) + 1, random.below(rows) + 1, random.below(1_000_000));
    match random.below(6) {
        0 => format!("UPDATE item SET v = 'u{mark}' WHERE id BETWEEN {id} AND {id} + 20"),
        1 => format!("DELETE FROM item WHERE id BETWEEN {id} AND {id} + 5"),
        2 => format!(
            "BEGIN; DELETE FROM item WHERE id = {id}; INSERT INTO item VALUES ({id}, 'again {mark}', NULL); COMMIT"
        ),
        3 => format!(
            "DELETE FROM item WHERE id = {id}; INSERT INTO item VALUES ({id}, 'later {mark}', 'x') ON CONFLICT DO NOTHING"
        ),
        4 => format!(
            "BEGIN; DELETE FROM item WHERE id = {other}; UPDATE item SET id = {other}, v = 'moved {mark}' WHERE id = {id}; COMMIT"
        ),
        _ => format!(
            "BEGIN; DELETE FROM item WHERE id = {id}; UPDATE item SET v = 'not {mark}' WHERE id = {other}; ROLLBACK"
        ),
    }
}

#[test]
fn rows_that_were_deleted_between_two_mirrors_are_gone_at_the_target() {
    on_a_pair(|pair| {
        create_items(pair)?;
        start(pair)?;
        pair.wait_and_compare(&["item"])?;
        pair.call("dbmazz_drop_mirror")?;
        pair.source.execute(
            "DELETE FROM item WHERE id % 3 = 0; UPDATE item SET v = 'between' WHERE id % 7 = 0;
             INSERT INTO item VALUES (-1, 'between', NULL)",
        )?;
        assert_eq!(pair.target.count("item")?, u64::from(ROWS), "the target keeps its rows");
        start(pair)?;
        pair.source.execute("DELETE FROM item WHERE id = 1")?;
        pair.wait_and_compare(&["item"])
    });
}

/// The workers of the copy know the password as it was when they began.
#[test]
fn a_password_that_is_mended_during_the_copy_is_picked_up() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("password during the copy") else { return Ok(()) };
        create_items(pair)?;
        start_and_hold(pair, control)?;
        control.set_password("changed")?;
        control.clear()?;
        wait_until("the password is refused", PATIENCE, || {
            Ok(pair.stat("last_error")?.is_some_and(|reason| reason.to_lowercase().contains("denied")))
        })?;
        pair.source.execute("UPDATE item SET v = 'meanwhile' WHERE id % 50 = 0")?;
        pair.source.execute(
            "ALTER USER MAPPING FOR CURRENT_USER SERVER starrocks OPTIONS (SET password 'changed')",
        )?;
        pair.wait_and_compare(&["item"])?;
        pair.wait_for_state("streaming")
    });
}
