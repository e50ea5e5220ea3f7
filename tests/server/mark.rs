//! `on_delete` = `mark`: deleted rows stay at the target, with the values that they had last, and are marked.
//!
//! What the target must have is kept at the source by triggers: `<table>_gone` has the rows that were deleted, or moved to
//! another key, and are not there again.

use crate::harness::{Action, Comparison, Outcome, Pair, Random, Settings};
use crate::random_changes::{create_tables, interrupt, transaction};
use crate::{on_a_pair, on_its_own_cluster};

const MARK: &str = r#"{"on_delete": "mark"}"#;

/// Keeps the rows of a table that are gone. `key` is the condition by which `old` and `new` rows are told from others.
fn keep_what_is_gone(pair: &mut Pair, table: &str, key: &[&str]) -> Outcome {
    let same = |row: &str| {
        let columns: Vec<String> = key.iter().map(|column| format!("g.{column} = {row}.{column}")).collect();
        columns.join(" AND ")
    };
    let (same_as_old, same_as_new) = (same("OLD"), same("NEW"));
    let moved: Vec<String> = key.iter().map(|column| format!("OLD.{column} <> NEW.{column}")).collect();
    let moved = moved.join(" OR ");
    pair.source.execute(&format!(
        "CREATE TABLE {table}_gone (LIKE {table} INCLUDING ALL);
         CREATE FUNCTION keep_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF TG_OP = 'TRUNCATE' THEN DELETE FROM {table}_gone; RETURN NULL; END IF;
             IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND ({moved}) THEN
                 DELETE FROM {table}_gone g WHERE {same_as_old};
                 INSERT INTO {table}_gone SELECT (OLD).*;
             END IF;
             IF TG_OP <> 'DELETE' THEN DELETE FROM {table}_gone g WHERE {same_as_new}; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION keep_{table}();
         CREATE TRIGGER empty AFTER TRUNCATE ON {table} EXECUTE FUNCTION keep_{table}()"
    ))
}

fn compare(pair: &mut Pair, table: &str) -> Outcome {
    pair.compare(&Comparison::of(table).target_where("NOT dbmazz_deleted"))?;
    let gone = format!("{table}_gone");
    pair.compare(&Comparison::of(&gone).with_target(table).target_where("dbmazz_deleted"))
}

fn create_items(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text, big text);
         ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
         INSERT INTO item SELECT n, 'v' || n, repeat('b', 3000) FROM generate_series(1, 50) n",
    )?;
    keep_what_is_gone(pair, "item", &["id"])
}

fn start(pair: &mut Pair, options: &str) -> Outcome {
    pair.start_mirror_with("tables => ARRAY['item']::regclass[]", options)?;
    pair.wait()
}

/// Each statement in a batch of its own, and in another mirror all of them in one.
fn leaves_what_is_gone_marked(setup: &str, statements: &[&str]) {
    for is_one_batch in [false, true] {
        on_a_pair(|pair| {
            create_items(pair)?;
            pair.source.execute(setup)?;
            start(pair, MARK)?;
            if is_one_batch {
                pair.source.execute(&statements.join("; "))?;
            } else {
                for statement in statements {
                    pair.source.execute(statement)?;
                    pair.wait()?;
                    compare(pair, "item")?;
                }
            }
            pair.wait()?;
            compare(pair, "item")
        });
    }
}

const CHANGES: &[&str] = &[
    "DELETE FROM item WHERE id <= 5",
    "INSERT INTO item VALUES (100, 'short-lived', repeat('x', 5000)); DELETE FROM item WHERE id = 100",
    "INSERT INTO item VALUES (1, 'again', NULL), (2, 'again', repeat('again', 900))",
    "UPDATE item SET v = 'with large value unchanged' WHERE id = 10; DELETE FROM item WHERE id = 10",
    "UPDATE item SET v = 'twice' WHERE id = 2; DELETE FROM item WHERE id = 2; INSERT INTO item VALUES (2, NULL, 'third')",
    "UPDATE item SET id = 200, big = big || 'x' WHERE id = 20; UPDATE item SET id = 201, big = 'b' WHERE id = 21",
    "UPDATE item SET id = 202 WHERE id = 22",
    "DELETE FROM item WHERE id IN (200, 201); INSERT INTO item VALUES (20, 'back', 'b')",
    "DELETE FROM item WHERE id = 30; INSERT INTO item VALUES (30, 'a', 'b'); DELETE FROM item WHERE id = 30",
];

#[test]
fn deleted_rows_keep_their_values_and_are_marked() {
    leaves_what_is_gone_marked("", CHANGES);
}

#[test]
fn deleted_rows_are_marked_when_the_log_has_them_whole() {
    leaves_what_is_gone_marked("ALTER TABLE item REPLICA IDENTITY FULL", CHANGES);
}

#[test]
fn truncate_empties_the_target_of_marked_rows_too() {
    on_a_pair(|pair| {
        create_items(pair)?;
        start(pair, MARK)?;
        pair.source.execute("DELETE FROM item WHERE id < 20")?;
        pair.wait()?;
        assert_eq!(pair.target.count("item")?, 50);
        pair.source.execute("BEGIN; TRUNCATE item; INSERT INTO item VALUES (7, 'new', NULL); COMMIT")?;
        pair.wait()?;
        assert_eq!(pair.target.count("item")?, 1);
        compare(pair, "item")
    });
}

#[test]
fn marks_survive_a_replay() {
    on_its_own_cluster(&Settings::default(), |pair| {
        create_items(pair)?;
        start(pair, r#"{"on_delete": "mark", "batch_max_rows": 3}"#)?;
        let checkpoint = pair.source.cluster().arm("checkpoint_before_commit", Action::Error, 0)?;
        for statement in CHANGES {
            pair.source.execute(statement)?;
        }
        checkpoint.wait_until_reached()?;
        drop(checkpoint);
        pair.wait()?;
        compare(pair, "item")
    });
}

#[test]
fn rows_of_a_filtered_table_are_marked() {
    on_a_pair(|pair| {
        if pair.is_before(15, "marks behind a filter", "a row filter") {
            return Ok(());
        }
        create_items(pair)?;
        pair.source.execute("CREATE PUBLICATION p FOR TABLE item WHERE (id < 1000)")?;
        pair.start_mirror_with("publication => 'p'", r#"{"on_delete": "mark", "metadata_columns": true}"#)?;
        pair.wait()?;
        for statement in CHANGES {
            pair.source.execute(statement)?;
        }
        pair.wait()?;
        compare(pair, "item")?;
        let stamped = "SELECT count(*) FROM (SELECT dbmazz_lsn FROM item
                       WHERE dbmazz_lsn IS NULL OR dbmazz_lsn <= 0) AS t";
        let stamped = stamped.replace("FROM item", &format!("FROM {}", pair.target.table("item")));
        assert_eq!(pair.target.value(&stamped)?, "0");
        Ok(())
    });
}

#[test]
fn both_sides_are_equal_after_any_changes_with_marks() {
    on_a_pair(|pair| {
        let mut random = Random::announced("random changes with marks");
        create_tables(pair)?;
        keep_what_is_gone(pair, "leaf", &["id", "part"])?;
        keep_what_is_gone(pair, "word", &["id"])?;
        pair.start_mirror_with(
            "tables => ARRAY['leaf', 'word']::regclass[]",
            r#"{"batch_max_rows": 7, "on_delete": "mark", "metadata_columns": true}"#,
        )?;
        pair.wait()?;
        for _ in 0..6 {
            for _ in 0..40 {
                let sql = transaction(&mut random);
                pair.source.execute(&sql)?;
            }
            interrupt(pair, &mut random)?;
            pair.wait()?;
            compare(pair, "leaf")?;
            compare(pair, "word")?;
        }
        Ok(())
    });
}

#[test]
fn a_table_copied_again_has_no_marked_rows() {
    on_a_pair(|pair| {
        create_items(pair)?;
        start(pair, MARK)?;
        pair.source.execute("DELETE FROM item WHERE id < 20")?;
        pair.wait()?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'item')"))?;
        pair.wait()?;
        assert_eq!(pair.target.count("item")?, 31);
        pair.source.execute("DELETE FROM item WHERE id = 40; DELETE FROM item_gone WHERE id < 20")?;
        pair.wait()?;
        compare(pair, "item")
    });
}

#[test]
fn a_column_with_the_name_of_the_mark_is_refused_before_the_start() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY, \"DBMAZZ_deleted\" boolean)")?;
        let sql = pair.start_statement("tables => ARRAY['item']::regclass[]", MARK);
        let refused = pair.source.error_of(&sql)?;
        assert!(refused.message().contains("has the name of one that the mirror adds"), "{refused}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("RENAME COLUMN")), "{refused}");
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])
    });
}
