//! A statement that the frontend executes when its worker is gone already, or has sent it again: it must not undo what came
//! after it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Control, Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

/// How late the statement is.
const LATE: Duration = Duration::from_secs(3);

fn start(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text, c int);
         INSERT INTO item SELECT n, 'v' || n, n FROM generate_series(1, 500) n",
    )?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

fn resync(pair: &mut Pair) -> Outcome {
    let mirror = pair.mirror().to_owned();
    pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'item')"))
}

/// Ends the processes of the mirror that are called like this, when the frontend has the statement in hand. Returns when the
/// statement will have been executed.
fn worker_is_gone_before(pair: &mut Pair, control: Control, workers: &str) -> Outcome<Instant> {
    wait_until("the frontend has the statement", PATIENCE, || Ok(!control.has_faults()?))?;
    let executed = Instant::now() + LATE;
    pair.source.execute(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type ~ '^dbmazz ({workers})$'"
    ))?;
    Ok(executed)
}

fn stays_equal_when_it_is_executed(pair: &mut Pair, executed: Instant) -> Outcome {
    pair.wait_and_compare(&["item"])?;
    std::thread::sleep((executed + Duration::from_millis(500)).saturating_duration_since(Instant::now()));
    pair.wait_and_compare(&["item"])
}

fn late(text: &str) -> Fault {
    let ms = u64::try_from(LATE.as_millis()).unwrap_or_default();
    Fault::once("late_statement").with(json!({"of": text, "ms": ms}))
}

/// As [`late`], and no list of processes shows it.
fn late_and_hidden(text: &str) -> Fault {
    let ms = u64::try_from(LATE.as_millis()).unwrap_or_default();
    Fault::once("late_statement").with(json!({"of": text, "ms": ms, "hidden": true}))
}

/// The table is copied again; the SWAP at the end is late, and strikes while the next process copies it once more.
fn swap_strikes_the_next_copy(swap: &Fault) {
    on_a_pair(|pair| {
        let Some(control) = pair.control("late swap") else { return Ok(()) };
        start(pair)?;
        control.set(swap)?;
        resync(pair)?;
        let executed = worker_is_gone_before(pair, control, "table sync|snapshot holder")?;
        let longer = u64::try_from((LATE * 2).as_millis())?;
        control.set(&Fault::once("delay_begin").on_table("dbmazz_copy_of_item*").with(longer))?;
        pair.source
            .execute("DELETE FROM item WHERE id <= 100; UPDATE item SET v = 'later' WHERE id > 400")?;
        stays_equal_when_it_is_executed(pair, executed)?;
        assert_eq!(pair.target.tables_beside()?, Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn a_swap_of_a_process_that_died_does_not_strike_the_next_copy() {
    swap_strikes_the_next_copy(&late("SWAP WITH"));
}

/// It lies in the socket of the frontend, say.
#[test]
fn a_swap_that_nobody_can_see_does_not_strike_the_next_copy() {
    swap_strikes_the_next_copy(&late_and_hidden("SWAP WITH"));
}

/// Two of the same SWAP are none. The second one strikes in the only place where it can: when the old table is about to be
/// dropped, which by then is the new one.
#[test]
fn a_swap_that_is_executed_twice_is_noticed_and_the_table_copied_again() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("swap executed twice") else { return Ok(()) };
        start(pair)?;
        control.set(
            &Fault::once("late_statement")
                .with(json!({"of": "SWAP WITH", "ms": 2000, "hidden": true, "cut": true})),
        )?;
        control.set(&Fault::once("late_statement").with(json!({"of": "DROP TABLE", "ms": 4000})))?;
        control.set(&Fault::once("delay_begin").on_table("dbmazz_copy_of_item*").with(1000))?;
        resync(pair)?;
        wait_until("the copy is under way", PATIENCE, || {
            pair.source.is_true("SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')")
        })?;
        pair.source
            .execute("DELETE FROM item WHERE id <= 100; UPDATE item SET v = 'later' WHERE id > 400")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.tables_beside()?, Vec::<String>::new());
        let noticed = "SELECT EXISTS (SELECT FROM dbmazz_event WHERE message ~ 'executed twice')";
        assert!(pair.source.is_true(noticed)?, "the test has not hit the moment");
        Ok(())
    });
}

#[test]
fn a_column_that_a_worker_that_died_drops_is_not_the_next_one_of_that_name() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("late drop of a column") else { return Ok(()) };
        start(pair)?;
        control.set(&late("DROP COLUMN"))?;
        pair.source.execute("ALTER TABLE item DROP COLUMN c; INSERT INTO item VALUES (1001, 'without')")?;
        let executed = worker_is_gone_before(pair, control, "mirror")?;
        pair.source.execute(
            "ALTER TABLE item ADD COLUMN c int DEFAULT 7; UPDATE item SET c = id WHERE id % 2 = 0",
        )?;
        stays_equal_when_it_is_executed(pair, executed)
    });
}

#[test]
fn a_swap_of_a_mirror_that_was_dropped_does_not_strike_the_next_mirror() {
    for swap in [late("SWAP WITH"), late_and_hidden("SWAP WITH")] {
        on_a_pair(|pair| {
            let Some(control) = pair.control("late swap and drop") else { return Ok(()) };
            start(pair)?;
            control.set(&swap)?;
            resync(pair)?;
            wait_until("the frontend has the statement", PATIENCE, || Ok(!control.has_faults()?))?;
            let executed = Instant::now() + LATE;
            pair.call("dbmazz_drop_mirror")?;
            pair.source.execute("DELETE FROM item WHERE id <= 100")?;
            pair.start_mirror(&["item"])?;
            stays_equal_when_it_is_executed(pair, executed)?;
            assert_eq!(pair.target.tables_beside()?, Vec::<String>::new());
            Ok(())
        });
    }
}
