//! DDL within a backlog, exactly: what was written before it arrives as it was, the table stops at the first row of the
//! new form, and rows follow the relation that they belong to, whatever its name or its partitioned table are by then.

use crate::harness::{Comparison, Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

const ROWS: &str = "SELECT id, a, b FROM item ORDER BY id";

fn create_and_mirror(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, a int, b text);
         CREATE TABLE still (id int PRIMARY KEY, v text);
         INSERT INTO item SELECT n, n, 'b' || n FROM generate_series(1, 50) n;
         INSERT INTO still SELECT n, 'v' FROM generate_series(1, 50) n",
    )?;
    let tables = "tables => ARRAY['item', 'still']::regclass[]";
    pair.start_mirror_with(tables, r#"{"on_ddl": "error"}"#)?;
    pair.wait_and_compare(&["item", "still"])
}

fn pause(pair: &mut Pair) -> Outcome {
    pair.call("dbmazz_pause_mirror")?;
    pair.wait_for_state("paused")
}

fn rows_at_the_target(pair: &mut Pair) -> Outcome<Vec<Vec<Option<String>>>> {
    let item = pair.target.table("item");
    pair.target.rows(&format!("SELECT id, a, b FROM {item} ORDER BY id"))
}

/// Says no more than where they differ.
fn assert_same_rows(found: &[Vec<Option<String>>], expected: &[Vec<Option<String>>]) {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!(differs.map(|at| (&found[at], &expected[at])), None, "row by row, found and expected");
    assert_eq!(found.len(), expected.len());
}

fn changes_before(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "UPDATE item SET a = -a, b = b || '!' WHERE id <= 20; DELETE FROM item WHERE id BETWEEN 30 AND 35;
         INSERT INTO item SELECT n, n, 'new' || n FROM generate_series(60, 80) n;
         UPDATE item SET id = 1000 WHERE id = 40; INSERT INTO still VALUES (100, 'before')",
    )
}

/// Everything before `ddl` arrives exactly, nothing of `after` does, and the other table goes on.
fn stops_exactly_at(ddl: &str, after: &str) {
    on_a_pair(|pair| {
        create_and_mirror(pair)?;
        pause(pair)?;
        changes_before(pair)?;
        let expected = pair.source.rows(ROWS)?;
        pair.source.execute(ddl)?;
        pair.source.execute("INSERT INTO still VALUES (101, 'between')")?;
        pair.source.execute(after)?;
        pair.source.execute("INSERT INTO still VALUES (102, 'after')")?;
        pair.call("dbmazz_resume_mirror")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("item")?.as_deref() == Some("e"))
        })?;
        wait_until("the other table goes on", PATIENCE, || Ok(pair.target.count("still")? == 53))?;
        wait_until("what came before is there", PATIENCE, || Ok(rows_at_the_target(pair)? == expected)).ok();
        assert_same_rows(&rows_at_the_target(pair)?, &expected);
        pair.compare(&Comparison::of("still"))
    });
}

#[test]
fn a_changed_type_stops_the_table_at_the_first_row_of_the_new_form() {
    stops_exactly_at(
        "ALTER TABLE item ALTER COLUMN a TYPE text USING 'n' || a",
        "UPDATE item SET b = 'never seen' WHERE id = 1; INSERT INTO item VALUES (500, 'x', 'never seen')",
    );
}

#[test]
fn an_added_column_stops_the_table_at_the_first_row_of_the_new_form() {
    stops_exactly_at(
        "ALTER TABLE item ADD COLUMN c text DEFAULT 'given'",
        "DELETE FROM item WHERE id = 1; INSERT INTO item VALUES (500, 1, 'never seen', 'c')",
    );
}

#[test]
fn a_dropped_column_stops_the_table_at_the_first_row_of_the_new_form() {
    stops_exactly_at("ALTER TABLE item DROP COLUMN a", "UPDATE item SET b = 'never seen' WHERE id = 1");
}

#[test]
fn ddl_and_rows_of_one_transaction_keep_their_order() {
    on_a_pair(|pair| {
        create_and_mirror(pair)?;
        pause(pair)?;
        changes_before(pair)?;
        pair.source.execute(
            "BEGIN; UPDATE item SET b = 'own' WHERE id = 2; INSERT INTO item VALUES (90, 9, 'own')",
        )?;
        let expected = pair.source.rows(ROWS)?;
        pair.source.execute(
            "ALTER TABLE item ADD COLUMN c int; UPDATE item SET b = 'never seen' WHERE id = 3; COMMIT;
             INSERT INTO still VALUES (101, 'after')",
        )?;
        pair.call("dbmazz_resume_mirror")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("item")?.as_deref() == Some("e"))
        })?;
        wait_until("the other table goes on", PATIENCE, || Ok(pair.target.count("still")? == 52))?;
        wait_until("what came before is there", PATIENCE, || Ok(rows_at_the_target(pair)? == expected)).ok();
        assert_same_rows(&rows_at_the_target(pair)?, &expected);
        Ok(())
    });
}

/// The worker lives all the time: it looks for a mended definition every three seconds while the target is away, and it
/// writes checkpoints between the records of the backlog.
#[test]
fn what_the_worker_does_for_itself_changes_nothing_of_what_it_decodes() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("periodic jobs within a backlog") else { return Ok(()) };
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, a int, b text); CREATE TABLE still (id int PRIMARY KEY, v text);
             CREATE TABLE bulk (id int PRIMARY KEY, v text)",
        )?;
        let tables = "tables => ARRAY['item', 'still', 'bulk']::regclass[]";
        pair.start_mirror_with(
            tables,
            r#"{"memory_limit": "1MB", "batch_max_rows": 500, "on_ddl": "error"}"#,
        )?;
        pair.wait()?;
        control.set(&Fault::lasting("no_backend"))?;
        // Several transactions that together are more than memory takes: the worker stands within one of them.
        for n in 0..6 {
            pair.source.execute(&format!(
                "INSERT INTO bulk SELECT {n} * 10000 + i, repeat('v', 40) FROM generate_series(1, 8000) i;
                 INSERT INTO item SELECT {n} * 100 + i, i, 'b' FROM generate_series(1, 50) i;
                 INSERT INTO still VALUES ({n}, 'v')"
            ))?;
        }
        pair.source.execute("UPDATE item SET a = -a WHERE id % 3 = 0; DELETE FROM item WHERE id % 7 = 0")?;
        let expected = pair.source.rows(ROWS)?;
        pair.source.execute(
            "ALTER TABLE item ALTER COLUMN a TYPE text USING 'n' || a; ALTER TABLE item ADD COLUMN c int",
        )?;
        pair.source.execute("UPDATE item SET b = 'never seen'; INSERT INTO still VALUES (100, 'after')")?;
        wait_until("the target has been away for longer than the worker's patience", PATIENCE, || {
            pair.source.is_true(&format!(
                "SELECT state = 'retrying' AND clock_timestamp() - last_error_at > '0 s'
                     AND EXISTS (SELECT FROM dbmazz_event WHERE mirror = '{0}' AND at < now() - interval '7 s'
                                 AND message ~ 'streams from')
                 FROM dbmazz_stat_mirror WHERE mirror = '{0}'",
                pair.mirror()
            ))
        })?;
        control.clear()?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("item")?.as_deref() == Some("e"))
        })?;
        wait_until("the others go on", PATIENCE, || {
            Ok(pair.target.count("still")? == 7 && pair.target.count("bulk")? == 48_000)
        })?;
        wait_until("what came before is there", PATIENCE, || Ok(rows_at_the_target(pair)? == expected)).ok();
        assert_same_rows(&rows_at_the_target(pair)?, &expected);
        pair.compare(&Comparison::of("still"))?;
        pair.compare(&Comparison::of("bulk"))
    });
}

/// Holds changes back while `ddl` happens between them, and compares afterwards.
fn stays_in_step(setup: &str, tables: &[&str], backlog: &[&str], pairs: &[(&str, &str)]) {
    on_a_pair(|pair| {
        pair.source.execute(setup)?;
        pair.start_mirror(tables)?;
        pair.wait()?;
        pause(pair)?;
        for statement in backlog {
            pair.source.execute(statement)?;
        }
        pair.call("dbmazz_resume_mirror")?;
        pair.wait()?;
        pairs
            .iter()
            .try_for_each(|(source, target)| pair.compare(&Comparison::of(source).with_target(target)))
    });
}

const TWO: &str = "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT n, 'a' FROM generate_series(1, 20) n;
                   CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT n, 'b' FROM generate_series(1, 30) n";

#[test]
fn rows_follow_a_table_that_was_renamed() {
    stays_in_step(
        TWO,
        &["a"],
        &[
            "INSERT INTO a VALUES (100, 'before')",
            "ALTER TABLE a RENAME TO other_name",
            "INSERT INTO other_name VALUES (101, 'after'); UPDATE other_name SET v = 'x' WHERE id = 5",
        ],
        &[("other_name", "a")],
    );
}

#[test]
fn rows_follow_a_table_into_another_schema() {
    stays_in_step(
        TWO,
        &["a"],
        &[
            "CREATE SCHEMA elsewhere; INSERT INTO a VALUES (100, 'before')",
            "ALTER TABLE a SET SCHEMA elsewhere",
            "INSERT INTO elsewhere.a VALUES (101, 'after'); DELETE FROM elsewhere.a WHERE id = 5",
        ],
        &[("elsewhere.a", "a")],
    );
}

#[test]
fn rows_follow_two_tables_whose_names_were_swapped() {
    stays_in_step(
        TWO,
        &["a", "b"],
        &[
            "INSERT INTO a VALUES (100, 'first a'); INSERT INTO b VALUES (200, 'first b')",
            "BEGIN; ALTER TABLE a RENAME TO tmp; ALTER TABLE b RENAME TO a; ALTER TABLE tmp RENAME TO b; COMMIT",
            "INSERT INTO a VALUES (201, 'first b'); INSERT INTO b VALUES (101, 'first a'); DELETE FROM a WHERE id = 7",
        ],
        &[("a", "b"), ("b", "a")],
    );
}

#[test]
fn rows_of_another_table_that_took_the_name_stay_away() {
    stays_in_step(
        TWO,
        &["a"],
        &[
            "INSERT INTO a VALUES (100, 'mirrored')",
            "BEGIN; ALTER TABLE a RENAME TO a_old; ALTER TABLE b RENAME TO a; COMMIT",
            "INSERT INTO a VALUES (300, 'not mirrored'); INSERT INTO a_old VALUES (101, 'mirrored')",
        ],
        &[("a_old", "a")],
    );
}

#[test]
fn a_table_made_anew_under_the_name_of_a_dropped_one_is_not_taken_for_it() {
    on_a_pair(|pair| {
        pair.source.execute(TWO)?;
        pair.start_mirror(&["a", "b"])?;
        pair.wait_and_compare(&["a", "b"])?;
        pause(pair)?;
        pair.source.execute("INSERT INTO a VALUES (100, 'last words')")?;
        let expected = pair.source.rows("SELECT id, v FROM a ORDER BY id")?;
        pair.source.execute(
            "DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'other')",
        )?;
        pair.source.execute("INSERT INTO b VALUES (100, 'after')")?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["b"])?;
        pair.source.execute("INSERT INTO a VALUES (2, 'other'); INSERT INTO b VALUES (101, 'after')")?;
        pair.wait_and_compare(&["b"])?;
        let a = pair.target.table("a");
        assert_eq!(pair.target.rows(&format!("SELECT id, v FROM {a} ORDER BY id"))?, expected);
        Ok(())
    });
}

#[test]
fn a_leaf_stays_in_step_while_it_is_attached_and_detached() {
    stays_in_step(
        // The leaf has its columns in another order than the table that it joins.
        "CREATE TABLE whole (id int, region int, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE leaf (v text, region int NOT NULL, id int NOT NULL, PRIMARY KEY (id, region));
         CREATE TABLE other PARTITION OF whole FOR VALUES IN (2);
         INSERT INTO leaf SELECT 'v', 1, n FROM generate_series(1, 20) n",
        &["leaf", "other"],
        &[
            "INSERT INTO leaf VALUES ('before', 1, 100)",
            "ALTER TABLE whole ATTACH PARTITION leaf FOR VALUES IN (1)",
            "INSERT INTO whole VALUES (101, 1, 'through the whole'), (102, 2, 'other'); UPDATE whole SET v = 'x' WHERE id = 3",
            "UPDATE whole SET region = 2 WHERE id = 4",
            "ALTER TABLE whole DETACH PARTITION leaf",
            "INSERT INTO leaf VALUES ('alone again', 1, 103); DELETE FROM leaf WHERE id = 5",
        ],
        &[("leaf", "leaf"), ("other", "other")],
    );
}

#[test]
fn rewrites_and_indexes_within_a_backlog_change_nothing() {
    stays_in_step(
        "CREATE TABLE a (id int PRIMARY KEY, v text, big text); ALTER TABLE a ALTER big SET STORAGE EXTERNAL;
         INSERT INTO a SELECT n, 'v', repeat('big' || n, 2000) FROM generate_series(1, 30) n",
        &["a"],
        &[
            "UPDATE a SET v = 'before' WHERE id <= 5",
            "VACUUM FULL a",
            "UPDATE a SET v = 'after the first rewrite' WHERE id <= 10; DELETE FROM a WHERE id = 30",
            "CLUSTER a USING a_pkey",
            "CREATE INDEX ON a (v); REINDEX TABLE a",
            "UPDATE a SET v = 'after the second' WHERE id BETWEEN 5 AND 15; UPDATE a SET big = repeat('new', 3000) WHERE id = 7",
            "ALTER TABLE a ALTER big SET STORAGE MAIN; ALTER TABLE a SET (fillfactor = 50); ANALYZE a",
            "INSERT INTO a VALUES (100, 'last', repeat('x', 5000)); UPDATE a SET v = 'y' WHERE id = 100",
        ],
        &[("a", "a")],
    );
}

#[test]
fn another_replica_identity_within_a_backlog_keeps_the_key() {
    stays_in_step(
        "CREATE TABLE a (id int PRIMARY KEY, v text, u int NOT NULL UNIQUE);
         INSERT INTO a SELECT n, 'v', n FROM generate_series(1, 30) n",
        &["a"],
        &[
            "UPDATE a SET v = 'default' WHERE id = 1; DELETE FROM a WHERE id = 2; UPDATE a SET id = 1001 WHERE id = 3",
            "ALTER TABLE a REPLICA IDENTITY FULL",
            "UPDATE a SET v = 'full' WHERE id = 11; DELETE FROM a WHERE id = 12; UPDATE a SET id = 1011 WHERE id = 13",
            "ALTER TABLE a REPLICA IDENTITY DEFAULT",
            "UPDATE a SET v = 'again' WHERE id = 21; DELETE FROM a WHERE id = 22; UPDATE a SET id = 1021 WHERE id = 23",
        ],
        &[("a", "a")],
    );
}

#[test]
fn rewrites_while_it_streams_change_nothing() {
    on_a_pair(|pair| {
        create_and_mirror(pair)?;
        for (n, ddl) in
            ["VACUUM FULL item", "CLUSTER item USING item_pkey", "REINDEX TABLE item", "VACUUM item"]
                .iter()
                .enumerate()
        {
            pair.source.execute(&format!("UPDATE item SET a = a + 1 WHERE id % 5 = {n}"))?;
            pair.source.execute(ddl)?;
            pair.source.execute(&format!(
                "INSERT INTO item VALUES (200 + {n}, 1, 'x'); DELETE FROM item WHERE id = 10 + {n}"
            ))?;
            pair.wait_and_compare(&["item", "still"])?;
        }
        Ok(())
    });
}
