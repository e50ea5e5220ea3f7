//! A backlog is decoded with the catalogs of its time, while the worker's own transactions see those of today. Whatever
//! DDL lies between, the outcome is right or loud, never a wrong value.

use crate::harness::{Action, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

/// Holds changes back, lets `ddl` happen among them, and lets them go.
fn with_a_backlog(pair: &mut Pair, ddl: &[&str]) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, a int, b text, c numeric(8,2));
         CREATE TABLE still (id int PRIMARY KEY, v text);
         INSERT INTO item SELECT n, n, 'b' || n, n / 4.0 FROM generate_series(1, 200) n",
    )?;
    pair.start_mirror(&["item", "still"])?;
    pair.wait_and_compare(&["item", "still"])?;
    pair.call("dbmazz_pause_mirror")?;
    pair.wait_for_state("paused")?;
    pair.source.execute(
        "UPDATE item SET a = a + 1, b = b || '!' WHERE id <= 100; INSERT INTO still VALUES (1, 'before')",
    )?;
    for statement in ddl {
        pair.source.execute(statement)?;
        pair.source.execute("INSERT INTO still SELECT max(id) + 1, 'between' FROM still")?;
    }
    pair.call("dbmazz_resume_mirror")
}

/// The untouched table must be right; the other one right, or in `e` with a reason.
fn right_or_loud(ddl: &[&str]) {
    on_a_pair(|pair| {
        with_a_backlog(pair, ddl)?;
        let mut loud = false;
        wait_until("in step, or an error", PATIENCE, || {
            loud = pair.table_state("item")?.as_deref() == Some("e");
            let wait = format!("SELECT dbmazz_wait_mirror('{}', timeout => '1 s')", pair.mirror());
            Ok(loud || pair.source.is_true(&wait)?)
        })?;
        if loud {
            let reason = pair
                .source
                .value("SELECT last_error FROM dbmazz_stat_table WHERE relation = 'item'::regclass")?;
            assert!(reason.len() > 10, "{reason}");
            let rows = pair.source.value("SELECT count(*) FROM still")?;
            return wait_until("the other table goes on", PATIENCE, || {
                Ok(pair.target.count("still")?.to_string() == rows)
            });
        }
        pair.wait_and_compare(&["item", "still"])
    });
}

#[test]
fn a_column_added_within_a_backlog() {
    right_or_loud(&[
        "ALTER TABLE item ADD COLUMN d text DEFAULT 'given'",
        "INSERT INTO item VALUES (301, 1, 'x', 1, 'own'); UPDATE item SET d = 'set' WHERE id < 10",
    ]);
}

#[test]
fn a_column_with_a_volatile_default_added_within_a_backlog() {
    right_or_loud(&[
        "ALTER TABLE item ADD COLUMN d double precision DEFAULT random()",
        "INSERT INTO item (id, a) VALUES (301, 1)",
    ]);
}

#[test]
fn a_type_changed_within_a_backlog() {
    right_or_loud(&[
        "UPDATE item SET a = 5 WHERE id = 5",
        "ALTER TABLE item ALTER COLUMN a TYPE text USING 'n' || a",
        "UPDATE item SET a = 'six' WHERE id = 6; INSERT INTO item VALUES (301, 'new', 'x', 1)",
    ]);
}

#[test]
fn a_column_dropped_within_a_backlog() {
    right_or_loud(&[
        "ALTER TABLE item DROP COLUMN b",
        "INSERT INTO item VALUES (301, 1, 2); UPDATE item SET a = 0 WHERE id = 1",
    ]);
}

#[test]
fn a_column_dropped_and_added_under_its_name_within_a_backlog() {
    right_or_loud(&[
        "ALTER TABLE item DROP COLUMN a",
        "ALTER TABLE item ADD COLUMN a bigint",
        "INSERT INTO item (id, a) VALUES (301, 9000000000); UPDATE item SET a = 7 WHERE id = 7",
    ]);
}

#[test]
fn two_columns_whose_names_are_swapped_within_a_backlog() {
    right_or_loud(&[
        "ALTER TABLE item ADD COLUMN d int; UPDATE item SET d = -a",
        "ALTER TABLE item RENAME COLUMN a TO tmp; ALTER TABLE item RENAME COLUMN d TO a; ALTER TABLE item RENAME COLUMN tmp TO d",
        "INSERT INTO item (id, a, d) VALUES (301, 1, 2); UPDATE item SET a = 100 WHERE id = 8",
    ]);
}

#[test]
fn a_rename_within_a_transaction_that_is_rolled_back() {
    right_or_loud(&[
        "BEGIN; ALTER TABLE item RENAME COLUMN a TO z; INSERT INTO item VALUES (301, 1, 'x', 1); ROLLBACK",
        "INSERT INTO item VALUES (302, 2, 'y', 2)",
    ]);
}

#[test]
fn a_new_key_within_a_backlog() {
    right_or_loud(&[
        "UPDATE item SET a = id; ALTER TABLE item ALTER a SET NOT NULL; ALTER TABLE item DROP CONSTRAINT item_pkey",
        "ALTER TABLE item ADD PRIMARY KEY (id, a)",
        "INSERT INTO item VALUES (1, 999, 'x', 1); DELETE FROM item WHERE id = 2",
    ]);
}

#[test]
fn an_addition_while_the_mirror_streams() {
    on_a_pair(|pair| {
        pair.source
            .execute("CREATE TABLE item (id int PRIMARY KEY, a int); INSERT INTO item VALUES (1, 1)")?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])?;
        pair.source.execute("ALTER TABLE item ADD COLUMN b text; INSERT INTO item VALUES (2, 2, 'two')")?;
        wait_until("right or loud", PATIENCE, || {
            let wait = format!("SELECT dbmazz_wait_mirror('{}', timeout => '1 s')", pair.mirror());
            Ok(pair.table_state("item")?.as_deref() == Some("e") || pair.source.is_true(&wait)?)
        })?;
        if pair.table_state("item")?.as_deref() == Some("e") {
            let reason =
                "SELECT length(last_error) > 10 FROM dbmazz_stat_table WHERE relation = 'item'::regclass";
            assert!(pair.source.is_true(reason)?);
            return Ok(());
        }
        pair.wait_and_compare(&["item"])
    });
}

/// Somebody else's DDL invalidates relations at any moment: also between a look at the columns of a change and the change itself.
#[test]
fn a_change_whose_columns_are_invalidated_while_they_are_looked_at_is_not_lost() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text); CREATE TABLE other (id int);
             CREATE TABLE parted (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
             CREATE TABLE parted_0 PARTITION OF parted DEFAULT",
        )?;
        pair.start_mirror(&["item", "parted"])?;
        pair.wait_and_compare(&["item", "parted"])?;
        for (number, table) in ["item", "parted"].into_iter().enumerate() {
            // Forgets what was seen of the columns so far.
            pair.source.execute(&format!("ALTER TABLE other ADD COLUMN a{number} int"))?;
            let looks = pair.source.cluster().arm("columns_about_to_be_looked_at", Action::Wait, 0)?;
            pair.source.execute(&format!("INSERT INTO {table} VALUES (1, 1)"))?;
            looks.wait_until_reached()?;
            pair.source.execute(&format!("ALTER TABLE other ADD COLUMN b{number} int"))?;
            drop(looks);
            pair.wait_and_compare(&["item", "parted"])?;
        }
        Ok(())
    });
}
