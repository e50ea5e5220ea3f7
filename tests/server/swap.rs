//! A table that is copied again: whoever reads the target sees the old rows until the new ones are complete.

use crate::harness::{Action, Fault, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

fn start(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text); CREATE TABLE still (id int PRIMARY KEY);
         INSERT INTO item SELECT n, 'v' || n FROM generate_series(1, 500) n",
    )?;
    pair.start_mirror(&["item", "still"])?;
    pair.wait_and_compare(&["item", "still"])
}

fn resync(pair: &mut Pair) -> Outcome {
    let mirror = pair.mirror().to_owned();
    pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'item')"))
}

/// Nothing is left of the table that took the target's place.
fn assert_nothing_beside(pair: &mut Pair) -> Outcome {
    assert_eq!(pair.target.tables_beside()?, Vec::<String>::new(), "the table beside is still there");
    assert_eq!(
        pair.source.value("SELECT count(*) FROM dbmazz.mirror_table WHERE copy_table IS NOT NULL")?,
        "0"
    );
    Ok(())
}

/// `change` has the table copied again; while its loads hang the target has the rows from before.
fn readers_see_old_rows_until(change: impl FnOnce(&mut Pair) -> Outcome) {
    on_a_pair(|pair| {
        let Some(control) = pair.control("a copy beside the target") else { return Ok(()) };
        start(pair)?;
        control.set(&Fault::lasting("hang").on_table("dbmazz_copy_of_item*"))?;
        change(pair)?;
        wait_until("the copy is under way", PATIENCE, || {
            pair.source.is_true("SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')")
        })?;
        pair.source.execute("DELETE FROM item WHERE id <= 100; INSERT INTO still VALUES (1)")?;
        wait_until("the other table goes on", PATIENCE, || Ok(pair.target.count("still")? == 1))?;
        assert_eq!(pair.target.count("item")?, 500);
        control.clear()?;
        pair.wait_and_compare(&["item", "still"])?;
        assert_nothing_beside(pair)?;
        pair.source.execute("UPDATE item SET v = '{}' WHERE id % 2 = 0")?;
        pair.wait_and_compare(&["item", "still"])
    });
}

#[test]
fn old_rows_are_there_until_the_table_is_copied_again() {
    readers_see_old_rows_until(resync);
}

#[test]
fn old_rows_are_there_until_the_table_is_copied_with_other_columns() {
    readers_see_old_rows_until(|pair| {
        pair.source.execute(
            "ALTER TABLE item ALTER v TYPE jsonb USING to_jsonb(v); UPDATE item SET v = '{}' WHERE id = 200",
        )
    });
}

/// The columns of the target table, in their order.
fn columns(pair: &mut Pair) -> Outcome<String> {
    let database = pair.target.database().to_owned();
    let rows = pair.target.rows(&format!(
        "SELECT column_name FROM information_schema.columns
         WHERE table_schema = '{database}' AND table_name = 'item' ORDER BY ordinal_position"
    ))?;
    Ok(rows.into_iter().flatten().flatten().collect::<Vec<_>>().join(", "))
}

/// What happens while the table waits for its copy is seen by the copy alone.
fn while_it_waits(pair: &mut Pair, sql: &str) -> Outcome {
    pair.call("dbmazz_pause_mirror")?;
    pair.wait_for_state("paused")?;
    resync(pair)?;
    pair.source.execute(sql)?;
    pair.call("dbmazz_resume_mirror")
}

#[test]
fn a_column_that_goes_while_the_table_waits_for_its_copy_goes_from_the_target() {
    on_a_pair(|pair| {
        start(pair)?;
        pair.source.execute("ALTER TABLE item ADD COLUMN x int; UPDATE item SET x = id")?;
        pair.wait_and_compare(&["item"])?;
        while_it_waits(pair, "ALTER TABLE item DROP COLUMN x")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(columns(pair)?, "id, v");
        pair.source
            .execute("ALTER TABLE item ADD COLUMN x int DEFAULT 7; UPDATE item SET x = 8 WHERE id = 1")?;
        pair.wait_and_compare(&["item"])?;
        assert_nothing_beside(pair)
    });
}

#[test]
fn old_rows_are_there_until_the_table_is_copied_without_a_column() {
    readers_see_old_rows_until(|pair| {
        pair.source.execute("ALTER TABLE item ADD COLUMN x int")?;
        pair.wait()?;
        while_it_waits(pair, "ALTER TABLE item DROP COLUMN x")
    });
}

/// A copy that was given up has left its definition; the target still has the columns from before.
#[test]
fn a_column_that_went_before_a_copy_that_was_given_up_goes_too() {
    on_its_own_cluster(&Settings::default(), |pair| {
        start(pair)?;
        pair.source.execute("ALTER TABLE item ADD COLUMN x int; UPDATE item SET x = id")?;
        pair.wait_and_compare(&["item"])?;
        let armed = pair.source.cluster().arm("copy_load_read", Action::Wait, 0)?;
        while_it_waits(pair, "ALTER TABLE item DROP COLUMN x")?;
        armed.wait_until_reached()?;
        resync(pair)?;
        drop(armed);
        pair.wait_and_compare(&["item", "still"])?;
        assert_eq!(columns(pair)?, "id, v");
        assert_nothing_beside(pair)
    });
}

#[test]
fn a_column_of_the_target_that_has_other_values_is_not_taken_for_a_new_one() {
    on_a_pair(|pair| {
        start(pair)?;
        let table = pair.target.table("item");
        pair.target.execute(&format!("ALTER TABLE {table} ADD COLUMN x INT NULL DEFAULT \"3\""))?;
        pair.source
            .execute("ALTER TABLE item ADD COLUMN x int DEFAULT 7; UPDATE item SET x = 8 WHERE id = 1")?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_table_of_another_maker_is_emptied_and_stays_what_it_is() {
    on_a_pair(|pair| {
        pair.source
            .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'a')")?;
        let (database, table) = (pair.target.database().to_owned(), pair.target.table("item"));
        pair.target.execute(&format!("CREATE DATABASE IF NOT EXISTS `{database}`"))?;
        pair.target.execute(&format!(
            "CREATE TABLE {table} (id INT NOT NULL, v VARCHAR(1048576) NULL, mine INT NULL DEFAULT \"7\")
             PRIMARY KEY (id) COMMENT \"by hand\" DISTRIBUTED BY HASH (id) PROPERTIES (\"replication_num\" = \"1\")"
        ))?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])?;
        resync(pair)?;
        pair.source.execute("INSERT INTO item VALUES (2, 'b')")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.value(&format!("SELECT count(*) FROM {table} WHERE mine = 7"))?, "2");
        Ok(())
    });
}

#[test]
fn a_table_that_leaves_while_it_is_copied_leaves_nothing_behind() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("a copy that nobody wants any more") else { return Ok(()) };
        start(pair)?;
        control.set(&Fault::lasting("hang").on_table("dbmazz_copy_of_item*"))?;
        resync(pair)?;
        wait_until("the table beside is there", PATIENCE, || Ok(!pair.target.tables_beside()?.is_empty()))?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_remove_table('{mirror}', 'item')"))?;
        control.clear()?;
        wait_until("the table beside is gone", PATIENCE, || Ok(pair.target.tables_beside()?.is_empty()))?;
        assert_eq!(pair.target.count("item")?, 500);
        pair.source.execute(&format!("SELECT dbmazz_add_table('{mirror}', 'item')"))?;
        pair.source.execute("DELETE FROM item WHERE id <= 100; INSERT INTO still VALUES (1)")?;
        pair.wait_and_compare(&["item", "still"])?;
        assert_nothing_beside(pair)
    });
}

#[test]
fn a_crash_around_the_swap_leaves_nothing_behind() {
    for (point, action) in [
        ("sync_caught_up", Action::Kill),
        ("sync_swapped", Action::Error),
        ("sync_swapped", Action::Kill),
        ("sync_written_down", Action::Kill),
    ] {
        on_its_own_cluster(&Settings::default(), |pair| {
            start(pair)?;
            let armed = pair.source.cluster().arm(point, action, 0)?;
            resync(pair)?;
            pair.source.execute("UPDATE item SET v = 'meanwhile' WHERE id % 3 = 0")?;
            armed.wait_until_reached()?;
            drop(armed);
            if action == Action::Kill {
                // All sessions end, a moment later.
                wait_until("the server goes down", PATIENCE, || {
                    Ok(pair.source.execute("SELECT 1").is_err())
                })?;
            }
            wait_until("the server is back", PATIENCE, || {
                let deleted = pair.source.execute("DELETE FROM item WHERE id % 5 = 0");
                if deleted.is_err() {
                    let _ = pair.source.reconnect();
                }
                Ok(deleted.is_ok())
            })?;
            pair.wait_and_compare(&["item", "still"])?;
            assert_nothing_beside(pair)
        });
    }
}
