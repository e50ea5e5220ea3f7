//! Columns that come, go and get other names: the target follows in the order of the rows, alone or copied again.

use crate::harness::{Comparison, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

const ITEMS: &str = "CREATE TABLE item (id int PRIMARY KEY, a int, b text, c text);
    INSERT INTO item SELECT n, n, 'b' || n, 'c' FROM generate_series(1, 50) n";

/// How the table gets the new columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Altered,
    CopiedAgain,
}

fn pause(pair: &mut Pair) -> Outcome {
    pair.call("dbmazz_pause_mirror")?;
    pair.wait_for_state("paused")
}

fn assert_way(pair: &mut Pair, way: Way) -> Outcome {
    wait_until("it is written down what became of the table", PATIENCE, || {
        Ok(pair.has_event("has been altered")? || pair.has_event("will be copied again")?)
    })?;
    assert_eq!(pair.has_event("has been altered")?, way == Way::Altered, "altered");
    assert_eq!(pair.has_event("will be copied again")?, way == Way::CopiedAgain, "copied again");
    Ok(())
}

/// The statements happen while the mirror streams, and in another table in one go while it is paused.
fn follows(way: Way, statements: &[&str]) {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        for statement in statements {
            pair.source.execute(statement)?;
            pair.wait()?;
        }
        pair.wait_and_compare(&["item"])?;
        assert_way(pair, way)
    });
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        pause(pair)?;
        for statement in statements {
            pair.source.execute(statement)?;
        }
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item"])?;
        assert_way(pair, way)
    });
}

#[test]
fn columns_follow_without_a_row_that_changes() {
    follows(Way::Altered, &["ALTER TABLE item ADD COLUMN d text DEFAULT 'given'"]);
    follows(Way::Altered, &["ALTER TABLE item DROP COLUMN a", "ALTER TABLE item RENAME b TO bb"]);
    follows(Way::CopiedAgain, &["ALTER TABLE item ADD COLUMN d boolean DEFAULT true"]);
}

#[test]
fn a_table_that_is_altered_and_stays_as_it_was_is_left_alone() {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        pair.source.execute(
            "ALTER TABLE item ALTER a SET NOT NULL, ALTER b SET DEFAULT 'x', ADD CHECK (id > 0), SET (fillfactor = 90);
             ALTER TABLE item ALTER a DROP NOT NULL; BEGIN; ALTER TABLE item ADD COLUMN d int; ROLLBACK;
             INSERT INTO item (id) VALUES (1000)",
        )?;
        pair.wait_and_compare(&["item"])?;
        assert!(!pair.has_event("has been altered|will be copied again")?);
        Ok(())
    });
}

#[test]
fn columns_of_filtered_tables_follow_without_a_row_that_changes() {
    on_a_pair(|pair| {
        if pair.is_before(15, "filtered", "row filters") {
            return Ok(());
        }
        pair.source.execute(&format!("{ITEMS}; CREATE PUBLICATION few FOR TABLE item WHERE (id > 10)"))?;
        pair.start_mirror_with("publication => 'few'", "{}")?;
        pair.wait()?;
        pair.source.execute("ALTER TABLE item ADD COLUMN d text DEFAULT 'given'")?;
        pair.wait()?;
        pair.compare(&Comparison::of("item").rows_where("id > 10"))?;
        pair.source
            .execute("ALTER TABLE item ALTER a SET DEFAULT 1; UPDATE item SET d = 'x' WHERE id = 20")?;
        pair.wait()?;
        pair.compare(&Comparison::of("item").rows_where("id > 10"))
    });
}

#[test]
fn an_added_column_is_added_at_the_target() {
    follows(
        Way::Altered,
        &[
            "UPDATE item SET a = -a WHERE id < 10; DELETE FROM item WHERE id = 20",
            "ALTER TABLE item ADD COLUMN d bigint",
            "INSERT INTO item VALUES (101, 1, 'b', 'c', 9000000000); UPDATE item SET d = id WHERE id = 3",
            "DELETE FROM item WHERE id = 4; INSERT INTO item (id) VALUES (4)",
        ],
    );
}

#[test]
fn rows_that_were_there_have_the_constant_default() {
    follows(
        Way::Altered,
        &[
            "INSERT INTO item (id) VALUES (100)",
            "ALTER TABLE item ADD COLUMN d int NOT NULL DEFAULT 7, ADD COLUMN e text DEFAULT 'it''s \\ e'",
            "INSERT INTO item (id, d, e) VALUES (101, 1, NULL); UPDATE item SET b = 'x' WHERE id = 3",
        ],
    );
}

#[test]
fn a_default_that_differs_by_row_is_copied() {
    follows(
        Way::CopiedAgain,
        &[
            "ALTER TABLE item ADD COLUMN d double precision DEFAULT random()",
            "INSERT INTO item (id) VALUES (101)",
        ],
    );
}

#[test]
fn a_volatile_default_that_was_forgotten_is_copied() {
    follows(
        Way::CopiedAgain,
        &[
            "ALTER TABLE item ADD COLUMN d double precision DEFAULT random(); ALTER TABLE item ALTER d DROP DEFAULT",
            "INSERT INTO item (id) VALUES (101)",
        ],
    );
}

#[test]
fn a_default_that_the_target_cannot_have_is_copied() {
    follows(
        Way::CopiedAgain,
        &[
            "ALTER TABLE item ADD COLUMN d jsonb DEFAULT '{\"a\": [1, 2]}', ADD COLUMN e boolean DEFAULT true",
            "INSERT INTO item (id) VALUES (101)",
        ],
    );
}

#[test]
fn a_dropped_column_is_dropped_at_the_target() {
    follows(
        Way::Altered,
        &[
            "UPDATE item SET b = 'seen' WHERE id < 10",
            "ALTER TABLE item DROP COLUMN b",
            "INSERT INTO item VALUES (101, 1, 'c'); UPDATE item SET c = 'x' WHERE id = 1",
        ],
    );
}

#[test]
fn a_renamed_column_is_renamed_at_the_target() {
    follows(
        Way::Altered,
        &[
            "UPDATE item SET a = 0 WHERE id < 10",
            "ALTER TABLE item RENAME COLUMN a TO \"A new name\"",
            "INSERT INTO item VALUES (101, 1, 'b', 'c'); UPDATE item SET \"A new name\" = 5 WHERE id = 1",
        ],
    );
}

#[test]
fn several_changes_of_one_transaction_with_rows_between_are_followed() {
    follows(
        Way::Altered,
        &["BEGIN; INSERT INTO item VALUES (101, 1, 'one', 'c');
             ALTER TABLE item ADD COLUMN d int DEFAULT 4; UPDATE item SET d = id WHERE id < 5;
             ALTER TABLE item RENAME COLUMN b TO bb; INSERT INTO item (id, bb) VALUES (102, 'two');
             ALTER TABLE item DROP COLUMN a; DELETE FROM item WHERE id = 7; INSERT INTO item (id) VALUES (7);
             ALTER TABLE item DROP COLUMN c; INSERT INTO item VALUES (103, 'three', 3); COMMIT"],
    );
}

#[test]
fn a_change_that_was_rolled_back_did_not_happen() {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        pause(pair)?;
        pair.source.execute(
            "BEGIN; INSERT INTO item VALUES (101, 1, 'before', 'c'); SAVEPOINT s;
             ALTER TABLE item ADD COLUMN d int; ALTER TABLE item DROP COLUMN a; INSERT INTO item (id) VALUES (102);
             ROLLBACK TO s; INSERT INTO item VALUES (103, 1, 'after', 'c'); COMMIT",
        )?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item"])?;
        assert!(!pair.has_event("has been altered|will be copied again")?);
        Ok(())
    });
}

#[test]
fn a_column_that_came_and_went_without_a_row_leaves_no_trace() {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror(&["item"])?;
        pair.source.execute("INSERT INTO item VALUES (101, 1, 'before', 'c')")?;
        pair.wait()?;
        pair.source.execute(
            "ALTER TABLE item ADD COLUMN x int, ADD COLUMN y int; ALTER TABLE item DROP COLUMN x, DROP COLUMN y",
        )?;
        pair.source
            .execute("INSERT INTO item VALUES (102, 1, 'after', 'c'); UPDATE item SET a = 3 WHERE id = 2")?;
        pair.wait_and_compare(&["item"])?;
        assert!(!pair.has_event("will be copied again")?);
        Ok(())
    });
}

#[test]
fn a_column_that_takes_the_name_of_another_is_copied() {
    follows(
        Way::CopiedAgain,
        &[
            "ALTER TABLE item DROP COLUMN a, ADD COLUMN a bigint",
            "INSERT INTO item (id, a) VALUES (101, 9000000000); UPDATE item SET b = 'x' WHERE id = 7",
        ],
    );
}

#[test]
fn a_name_that_is_free_again_is_taken_step_by_step() {
    follows(
        Way::Altered,
        &[
            "BEGIN; ALTER TABLE item DROP COLUMN a; ALTER TABLE item ADD COLUMN a bigint DEFAULT 7; COMMIT",
            "INSERT INTO item (id, a) VALUES (101, 9000000000); UPDATE item SET b = 'x' WHERE id = 7",
        ],
    );
}

#[test]
fn another_type_and_another_key_are_copied() {
    follows(
        Way::CopiedAgain,
        &[
            "ALTER TABLE item ALTER COLUMN a TYPE text USING 'n' || a",
            "UPDATE item SET a = 'six' WHERE id = 6; INSERT INTO item VALUES (101, 'new', 'x', 'c')",
        ],
    );
    follows(
        Way::CopiedAgain,
        &[
            "ALTER TABLE item ALTER a SET NOT NULL, DROP CONSTRAINT item_pkey; ALTER TABLE item ADD PRIMARY KEY (id, a)",
            "INSERT INTO item VALUES (1, 999, 'x', 'c'); DELETE FROM item WHERE id = 2",
        ],
    );
}

#[test]
fn a_wider_type_is_modified_at_the_target() {
    follows(
        Way::Altered,
        &[
            "ALTER TABLE item ADD COLUMN d varchar(3) DEFAULT 'abc', ADD COLUMN n numeric(5,2)",
            "INSERT INTO item VALUES (101, 1, 'b', 'c', 'xyz', 123.45)",
            "ALTER TABLE item ALTER d TYPE varchar(30), ALTER n TYPE numeric(12,2)",
            "INSERT INTO item VALUES (102, 1, 'b', 'c', repeat('ä', 30), 1234567890.12); UPDATE item SET n = 1 WHERE id = 2",
            "ALTER TABLE item ALTER d TYPE text; ALTER TABLE item RENAME d TO dd",
            "INSERT INTO item VALUES (103, 1, 'b', 'c', repeat('z', 5000), NULL); DELETE FROM item WHERE id = 3",
        ],
    );
}

#[test]
fn a_wider_integer_is_modified_at_the_target() {
    follows(
        Way::Altered,
        &[
            "ALTER TABLE item ADD COLUMN s smallint DEFAULT 3",
            "UPDATE item SET a = -a WHERE id < 10",
            "ALTER TABLE item ALTER a TYPE bigint, ALTER s TYPE int",
            "INSERT INTO item VALUES (101, 9000000000, 'b', 'c', 2000000000); UPDATE item SET a = 8999999999 WHERE id = 1",
            "ALTER TABLE item ADD COLUMN later int; INSERT INTO item (id, later) VALUES (102, 5); DELETE FROM item WHERE id = 3",
        ],
    );
    follows(
        Way::Altered,
        &["BEGIN; INSERT INTO item VALUES (101, 1, 'b', 'c'); ALTER TABLE item ALTER a TYPE bigint;
        INSERT INTO item VALUES (102, 9000000000, 'b', 'c'); COMMIT"],
    );
    follows(Way::CopiedAgain, &["ALTER TABLE item ALTER a TYPE bigint USING a * 3"]);
    follows(
        Way::CopiedAgain,
        &[
            "ALTER TABLE item ALTER a TYPE bigint, ADD COLUMN d double precision DEFAULT random()",
            "DELETE FROM item WHERE id = 1",
        ],
    );
}

#[test]
fn constraints_and_defaults_are_no_change_of_the_target() {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        pair.source.execute(
            "ALTER TABLE item ALTER a SET NOT NULL, ALTER b SET DEFAULT 'given', ADD CHECK (a < 1000000);
             INSERT INTO item (id, a) VALUES (101, 1); ALTER TABLE item ALTER a DROP NOT NULL, ALTER b DROP DEFAULT;
             INSERT INTO item (id) VALUES (102); CREATE INDEX ON item (b); UPDATE item SET c = 'x' WHERE id = 1",
        )?;
        pair.wait_and_compare(&["item"])?;
        assert!(!pair.has_event("has been altered|will be copied again")?);
        Ok(())
    });
}

#[test]
fn values_that_a_rewrite_gave_are_copied() {
    follows(
        Way::CopiedAgain,
        &[
            "UPDATE item SET a = 3 WHERE id < 5",
            "ALTER TABLE item ALTER COLUMN a TYPE int USING a * 2",
            "INSERT INTO item VALUES (101, 1, 'b', 'c')",
        ],
    );
    follows(Way::CopiedAgain, &["ALTER TABLE item ALTER COLUMN a TYPE int USING a * 2"]);
}

#[test]
fn a_rewrite_that_changes_no_value_is_passed_over() {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror(&["item"])?;
        pair.source.execute("INSERT INTO item VALUES (101, 1, 'before', 'c')")?;
        pair.wait()?;
        pair.source.execute("VACUUM FULL item")?;
        pair.source.execute("INSERT INTO item VALUES (102, 1, 'after', 'c')")?;
        pair.wait()?;
        pair.source
            .execute("ALTER TABLE item ADD COLUMN d int DEFAULT 5; INSERT INTO item (id) VALUES (103)")?;
        pair.wait_and_compare(&["item"])?;
        assert_way(pair, Way::Altered)
    });
}

#[test]
fn columns_are_left_as_they_were_when_changes_are_ignored() {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"on_ddl": "ignore"}"#)?;
        pair.wait()?;
        pair.source.execute(
            "ALTER TABLE item ADD COLUMN d int DEFAULT 3; ALTER TABLE item DROP COLUMN b; ALTER TABLE item RENAME a TO aa",
        )?;
        pair.source
            .execute("INSERT INTO item VALUES (101, 1, 'c', 4); UPDATE item SET aa = 5 WHERE id = 2")?;
        pair.wait()?;
        let item = pair.target.table("item");
        let rows = pair
            .target
            .rows(&format!("SELECT id, a, b, c FROM {item} WHERE id IN (1, 2, 101) ORDER BY id"))?;
        let row = |row: [Option<&str>; 4]| row.map(|value| value.map(str::to_owned)).to_vec();
        let expected = [
            row([Some("1"), Some("1"), Some("b1"), Some("c")]),
            row([Some("2"), Some("5"), None, Some("c")]),
            row([Some("101"), Some("1"), None, Some("c")]),
        ];
        assert_eq!(rows, expected);
        Ok(())
    });
}

#[test]
fn a_change_is_an_error_where_it_is_meant_to_be() {
    on_a_pair(|pair| {
        pair.source.execute(ITEMS)?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"on_ddl": "error"}"#)?;
        pair.wait()?;
        let expected = pair.source.rows("SELECT id, a, b, c FROM item ORDER BY id")?;
        pair.source.execute("ALTER TABLE item ADD COLUMN d int; INSERT INTO item (id) VALUES (101)")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("item")?.as_deref() == Some("e"))
        })?;
        let item = pair.target.table("item");
        assert_eq!(pair.target.rows(&format!("SELECT id, a, b, c FROM {item} ORDER BY id"))?, expected);
        Ok(())
    });
}

/// The log is read again from before all of it, into a target that has been altered already.
#[test]
fn rows_of_earlier_definitions_are_read_again_into_the_altered_target() {
    use crate::harness::{Action, Cluster, Settings};
    use std::sync::Arc;
    let cluster =
        Arc::new(Cluster::start(&Settings::default()).unwrap_or_else(|failure| panic!("{failure}")));
    crate::run_on(&cluster, |pair| {
        pair.source.execute(ITEMS)?;
        pair.source.execute(
            "ALTER TABLE item ALTER c SET STORAGE EXTERNAL; UPDATE item SET c = repeat('c', 3000)",
        )?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"batch_max_rows": 3}"#)?;
        pair.wait()?;
        pause(pair)?;
        let armed = cluster.arm("stream_transaction_decoded", Action::Error, 0)?;
        pair.source.execute(
            "BEGIN; UPDATE item SET a = 1000 WHERE id <= 5; DELETE FROM item WHERE id BETWEEN 6 AND 8;
             INSERT INTO item VALUES (6, 6, 'again', 'c'), (7, 7, 'again', 'c');
             ALTER TABLE item ADD COLUMN d int DEFAULT 4; UPDATE item SET d = -id WHERE id IN (1, 6);
             ALTER TABLE item RENAME COLUMN a TO aa; UPDATE item SET aa = 2 WHERE id = 2;
             ALTER TABLE item DROP COLUMN b; INSERT INTO item (id, aa) VALUES (8, 8);
             ALTER TABLE item ADD COLUMN b text DEFAULT 'other'; INSERT INTO item (id, b) VALUES (9000, 'own');
             DELETE FROM item WHERE id = 3; COMMIT",
        )?;
        pair.call("dbmazz_resume_mirror")?;
        armed.wait_until_reached()?;
        pair.wait_and_compare(&["item"])?;
        assert!(!pair.has_event("will be copied again")?);
        pair.compare(&Comparison::of("item"))
    });
}
