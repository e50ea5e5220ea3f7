//! Changes of tables that are not mirrored: the server does not keep them for the mirror, and none is missing when such a table
//! is mirrored later.

use crate::harness::{Fault, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

fn items(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text); CREATE TABLE late (id int PRIMARY KEY, v text, big text);
         ALTER TABLE late ALTER big SET STORAGE EXTERNAL; INSERT INTO item VALUES (1, 'a');
         INSERT INTO late SELECT n, 'v', repeat('x', 3000) FROM generate_series(1, 500) n",
    )?;
    pair.start_mirror(&["item"])?;
    pair.wait()
}

/// Waits until all that is in the log by now has been decoded, open transactions included.
fn wait_until_read(pair: &mut Pair) -> Outcome {
    let end = pair.source.value("SELECT pg_logical_emit_message(false, 'dbmazz_test', 'x')")?;
    pair.source.execute("CHECKPOINT")?;
    wait_until("the log has been decoded", PATIENCE, || {
        let mirror = pair.mirror().to_owned();
        pair.source.is_true(&format!(
            "SELECT received_lsn >= '{end}' FROM dbmazz_stat_mirror WHERE mirror = '{mirror}'"
        ))
    })
}

fn wait_for_letter(pair: &mut Pair, table: &str, letters: &str) -> Outcome {
    wait_until("the table has come so far", PATIENCE, || {
        Ok(pair.table_state(table)?.is_some_and(|state| letters.contains(&state)))
    })
}

#[test]
fn bulk_work_in_other_tables_is_not_kept() {
    on_its_own_cluster(&Settings::default().set("logical_decoding_work_mem", "64kB"), |pair| {
        items(pair)?;
        let spilled = format!(
            "SELECT pg_stat_force_next_flush() IS NULL, sum(spill_bytes) FROM pg_stat_replication_slots
             WHERE slot_name = 'dbmazz_{}'",
            pair.mirror()
        );
        // Values out of line too, in a table of which the worker has seen nothing yet.
        pair.source.execute(
            "BEGIN; INSERT INTO late SELECT n, 'bulk', repeat('y', 3000) FROM generate_series(1001, 3000) n;
             UPDATE late SET v = 'w'; DELETE FROM late WHERE id % 2 = 0;
             INSERT INTO late VALUES (5001, 'x') ON CONFLICT (id) DO UPDATE SET v = 'y'; INSERT INTO item VALUES (2, 'b'); COMMIT",
        )?;
        pair.wait_and_compare(&["item"])?;
        if pair.source.cluster().installation().major() >= 15 {
            let bytes = pair.source.rows(&spilled)?.pop().and_then(|row| row.into_iter().nth(1).flatten());
            assert_eq!(bytes.as_deref().unwrap_or("0"), "0", "bytes that were spilled");
        }
        // In one that is mirrored they are kept, or the figure says nothing.
        pair.source
            .execute("INSERT INTO item SELECT n, repeat('z', 100) FROM generate_series(10, 5000) n")?;
        pair.wait_and_compare(&["item"])?;
        wait_until("the server has counted what was spilled", PATIENCE, || {
            let bytes = pair.source.rows(&spilled.replace("pg_stat_force_next_flush() IS NULL", "1"))?;
            Ok(bytes[0][1].as_deref().unwrap_or("0") != "0")
        })
    });
}

#[test]
fn transactions_that_are_open_when_their_table_joins_arrive_whole() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("transactions_that_are_open") else { return Ok(()) };
        items(pair)?;
        // The copy cannot end before the transaction has begun, and been read.
        control.set(&Fault::lasting("delay_answer").with(1500).on_table("late"))?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_add_table('{mirror}', 'late')"))?;
        wait_for_letter(pair, "late", "d")?;
        let mut other = pair.source.another_session()?;
        other.execute(
            "BEGIN; INSERT INTO late SELECT n, 'open', repeat('z', 3000) FROM generate_series(2001, 2100) n;
             UPDATE late SET v = 'changed' WHERE id < 50; DELETE FROM late WHERE id BETWEEN 60 AND 70;
             UPDATE late SET id = id + 10000 WHERE id BETWEEN 80 AND 90",
        )?;
        wait_until_read(pair)?;
        assert_eq!(pair.table_state("late")?.as_deref(), Some("d"), "the copy was too fast for this test");
        control.clear()?;
        wait_for_letter(pair, "late", "sr")?;
        other.execute("INSERT INTO late VALUES (3000, 'last'); COMMIT")?;
        pair.wait_and_compare(&["item", "late"])
    });
}

#[test]
fn a_table_that_is_copied_again_misses_nothing_of_open_transactions() {
    on_a_pair(|pair| {
        items(pair)?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_add_table('{mirror}', 'late')"))?;
        pair.wait_and_compare(&["item", "late"])?;
        for round in 0..3 {
            let mut other = pair.source.another_session()?;
            pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'late')"))?;
            other.execute(&format!("BEGIN; UPDATE late SET v = 'round {round}' WHERE id < 100"))?;
            wait_until_read(pair)?;
            other.execute(&format!("INSERT INTO late VALUES ({round} + 5000, 'new'); COMMIT"))?;
            pair.wait_and_compare(&["item", "late"])?;
        }
        Ok(())
    });
}
