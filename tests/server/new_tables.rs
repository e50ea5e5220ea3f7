//! `new_tables` = `add`: tables that are created later join a mirror of all tables by themselves.

use crate::harness::{Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

const ADD: &str = r#"{"new_tables": "add"}"#;

fn start(pair: &mut Pair, options: &str) -> Outcome {
    pair.source
        .execute("CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first VALUES (1, 'a')")?;
    pair.start_mirror_with("", options)?;
    pair.wait_and_compare(&["first"])
}

fn has(pair: &mut Pair, table: &str) -> Outcome<bool> {
    Ok(pair.table_state(table)?.is_some())
}

#[test]
fn tables_created_later_join_with_all_of_their_rows() {
    on_a_pair(|pair| {
        start(pair, ADD)?;
        pair.source.execute(
            "CREATE TABLE second (id int PRIMARY KEY, v text); INSERT INTO second SELECT n, 'n' FROM generate_series(1, 500) n",
        )?;
        pair.source.execute(
            "BEGIN; CREATE TABLE third AS SELECT n AS id, 'v' || n AS v FROM generate_series(1, 300) n;
             ALTER TABLE third ADD PRIMARY KEY (id); UPDATE third SET v = 'x' WHERE id < 10; COMMIT;
             DELETE FROM third WHERE id > 290; SELECT * INTO fourth FROM third; ALTER TABLE fourth ADD PRIMARY KEY (id);
             CREATE SCHEMA s CREATE TABLE fifth (id int PRIMARY KEY); INSERT INTO s.fifth VALUES (1)",
        )?;
        pair.source
            .execute("UPDATE second SET v = 'later' WHERE id % 2 = 0; INSERT INTO first VALUES (2, 'b')")?;
        pair.wait_and_compare(&["first", "second", "third", "fourth", "s.fifth"])?;
        pair.source.execute(
            "DELETE FROM second WHERE id = 1; UPDATE third SET v = 'z'; INSERT INTO fourth VALUES (0, '')",
        )?;
        pair.wait_and_compare(&["first", "second", "third", "fourth", "s.fifth"])
    });
}

#[test]
fn tables_created_while_the_mirror_is_paused_join_too() {
    on_a_pair(|pair| {
        start(pair, ADD)?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        pair.source.execute(
            "CREATE TABLE second (id int PRIMARY KEY, v text); INSERT INTO second VALUES (1, 'a')",
        )?;
        pair.source
            .execute("CREATE TABLE gone (id int PRIMARY KEY); DROP TABLE gone; UPDATE second SET v = 'b'")?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["first", "second"])?;
        wait_until("the other one has left", PATIENCE, || {
            pair.source.is_true("SELECT count(*) = 2 FROM dbmazz.mirror_table")
        })?;
        assert!(!pair.has_event("put into error")?);
        Ok(())
    });
}

#[test]
fn tables_that_were_rolled_back_do_not_join() {
    on_a_pair(|pair| {
        start(pair, ADD)?;
        pair.source.execute(
            "BEGIN; SAVEPOINT s; CREATE TABLE never (id int PRIMARY KEY); ROLLBACK TO s;
             CREATE TABLE second (id int PRIMARY KEY); INSERT INTO second VALUES (1); COMMIT;
             CREATE TEMP TABLE passing (id int PRIMARY KEY); CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)",
        )?;
        pair.wait_and_compare(&["first", "second"])?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz.mirror_table")?, "2");
        Ok(())
    });
}

#[test]
fn a_table_of_a_prepared_transaction_joins_when_that_is_committed() {
    on_a_pair(|pair| {
        start(pair, ADD)?;
        let name = pair.source.name().to_owned();
        pair.source.execute(&format!(
            "BEGIN; CREATE TABLE second (id int PRIMARY KEY); INSERT INTO second VALUES (1);
             PREPARE TRANSACTION 'new_{name}'"
        ))?;
        pair.source.execute("INSERT INTO first VALUES (2, 'b')")?;
        pair.wait_and_compare(&["first"])?;
        pair.source.execute(&format!("COMMIT PREPARED 'new_{name}'"))?;
        pair.wait_and_compare(&["first", "second"])
    });
}

#[test]
fn a_new_table_takes_the_place_of_a_dropped_one_of_its_name() {
    on_a_pair(|pair| {
        start(pair, ADD)?;
        pair.source.execute(
            "BEGIN; INSERT INTO first VALUES (2, 'last of the old'); DROP TABLE first;
             CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first VALUES (7, 'new'); COMMIT;
             INSERT INTO first VALUES (8, 'newer')",
        )?;
        pair.wait_and_compare(&["first"])?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz.mirror_table")?, "1");
        Ok(())
    });
}

#[test]
fn a_table_without_a_key_joins_and_is_appended() {
    on_a_pair(|pair| {
        start(pair, ADD)?;
        pair.source.execute("CREATE TABLE entry (v int); INSERT INTO entry VALUES (1), (1)")?;
        pair.wait()?;
        assert_eq!(pair.target.count("entry")?, 2);
        pair.source.execute("INSERT INTO entry VALUES (2)")?;
        pair.wait()?;
        assert_eq!(pair.target.count("entry")?, 3);
        Ok(())
    });
}

#[test]
fn a_new_table_whose_target_is_taken_does_not_join_and_an_event_says_so() {
    on_a_pair(|pair| {
        start(pair, ADD)?;
        pair.source.execute("CREATE SCHEMA s; CREATE TABLE s.first (id int PRIMARY KEY)")?;
        pair.source.execute("CREATE TABLE unfit (id float8 PRIMARY KEY)")?;
        assert!(!has(pair, "s.first")? && !has(pair, "unfit")?);
        assert!(pair.has_event("does not join the mirror.*same target")?);
        assert!(pair.has_event("does not join the mirror.*\"unfit\"|does not join.*public.unfit")?);
        pair.source.execute("INSERT INTO first VALUES (2, 'b')")?;
        pair.wait_and_compare(&["first"])
    });
}

#[test]
fn new_tables_are_ignored_unless_a_mirror_of_all_tables_wants_them() {
    on_a_pair(|pair| {
        start(pair, "{}")?;
        pair.source.execute("CREATE TABLE second (id int PRIMARY KEY)")?;
        assert!(!has(pair, "second")?);
        pair.wait_and_compare(&["first"])
    });
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE first (id int PRIMARY KEY, v text)")?;
        pair.start_mirror_with("tables => ARRAY['first']::regclass[]", ADD)?;
        pair.wait()?;
        pair.source.execute("CREATE TABLE second (id int PRIMARY KEY)")?;
        assert!(!has(pair, "second")?);
        pair.wait_and_compare(&["first"])
    });
}
