//! Partitioned tables: one target table for the rows of all partitions, whatever becomes of those.

use crate::harness::{Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

/// Partitions of two levels, one of which has its columns in another order and has lost some.
const SALES: &str = "CREATE TABLE sale (id int, region text, day int, note text, body text, PRIMARY KEY (id, region, day))
        PARTITION BY LIST (region);
    CREATE TABLE sale_north PARTITION OF sale FOR VALUES IN ('north') PARTITION BY RANGE (day);
    CREATE TABLE sale_north_1 PARTITION OF sale_north FOR VALUES FROM (0) TO (100);
    CREATE TABLE sale_north_2 (gone int, note text, day int NOT NULL, region text NOT NULL, body text, gone_too text,
        id int NOT NULL);
    ALTER TABLE sale_north_2 DROP COLUMN gone, DROP COLUMN gone_too;
    ALTER TABLE sale_north ATTACH PARTITION sale_north_2 FOR VALUES FROM (100) TO (200);
    CREATE TABLE sale_south PARTITION OF sale FOR VALUES IN ('south');
    CREATE TABLE sale_rest PARTITION OF sale DEFAULT;
    ALTER TABLE sale_south ALTER body SET STORAGE EXTERNAL;
    ALTER TABLE sale_north_1 ALTER body SET STORAGE EXTERNAL;
    ALTER TABLE sale_north_2 ALTER body SET STORAGE EXTERNAL;
    INSERT INTO sale SELECT n, (ARRAY['north', 'south', 'east'])[n % 3 + 1], n % 200, 'note ' || n,
        CASE WHEN n % 20 < 3 THEN repeat('body ' || n, 700) END FROM generate_series(1, 600) n";

/// Changes of every kind, in all partitions and across them.
const CHANGES: &str = "UPDATE sale SET note = note || '!' WHERE id % 7 = 0;
    DELETE FROM sale WHERE id % 11 = 0;
    UPDATE sale SET region = 'south' WHERE region = 'north' AND id % 5 = 0;
    UPDATE sale SET day = day + 100 WHERE region = 'north' AND day < 100 AND id % 4 = 0;
    UPDATE sale SET id = id + 10000 WHERE id % 13 = 0;
    INSERT INTO sale SELECT n, (ARRAY['north', 'south', 'west'])[n % 3 + 1], n % 200, 'new', repeat('new ' || n, 700)
        FROM generate_series(2001, 2100) n";

fn create(pair: &mut Pair) -> Outcome {
    pair.source.execute(SALES)
}

fn resync(pair: &mut Pair) -> Outcome {
    let mirror = pair.mirror().to_owned();
    pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'sale')"))
}

fn pause(pair: &mut Pair) -> Outcome {
    pair.call("dbmazz_pause_mirror")?;
    pair.wait_for_state("paused")
}

#[test]
fn rows_of_all_partitions_go_into_one_table() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["sale"])?;
        pair.wait_and_compare(&["sale"])?;
        assert_eq!(pair.stat("tables")?.as_deref(), Some("1"));
        assert!(!pair.target.has("sale_south")?, "a partition has a table of its own");
        pair.source.execute(CHANGES)?;
        pair.wait_and_compare(&["sale"])?;
        assert!(!pair.has_event("copied again")?, "the stream has brought all of it");
        Ok(())
    });
}

#[test]
fn all_tables_are_partitioned_tables_and_no_partitions() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute("CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (1)")?;
        pair.start_mirror_with("", "{}")?;
        pair.source.execute(CHANGES)?;
        pair.wait_and_compare(&["sale", "plain"])?;
        assert_eq!(pair.stat("tables")?.as_deref(), Some("2"));
        Ok(())
    });
}

#[test]
fn rows_move_between_partitions_with_what_the_log_does_not_have() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute(
            "BEGIN;
             UPDATE sale SET region = 'south' WHERE region = 'north' AND body IS NOT NULL;
             UPDATE sale SET note = 'moved' WHERE region = 'south' AND body IS NOT NULL;
             UPDATE sale SET region = 'north', id = id + 20000 WHERE region = 'south' AND id % 2 = 0;
             SAVEPOINT s; UPDATE sale SET region = 'nowhere'; ROLLBACK TO s;
             UPDATE sale SET note = 'kept' WHERE id % 3 = 0;
             COMMIT",
        )?;
        pair.wait_and_compare(&["sale"])?;
        pair.source.execute("UPDATE sale SET id = id + 50000, note = NULL WHERE body IS NOT NULL")?;
        pair.wait_and_compare(&["sale"])
    });
}

#[test]
fn whole_old_rows_of_some_partitions_are_understood() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute(
            "ALTER TABLE sale_north_2 REPLICA IDENTITY FULL; ALTER TABLE sale_rest REPLICA IDENTITY FULL",
        )?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute(CHANGES)?;
        pair.wait_and_compare(&["sale"])
    });
}

#[test]
fn a_partition_with_another_identity_is_refused_and_stops_the_table() {
    on_a_pair(|pair| {
        create(pair)?;
        let other = "CREATE UNIQUE INDEX other ON sale_south (id); ALTER TABLE sale_south REPLICA IDENTITY USING INDEX other";
        pair.source.execute(other)?;
        let start = pair.start_statement("tables => ARRAY['sale']::regclass[]", "{}");
        let error = pair.source.error_of(&start)?;
        assert!(error.message().contains("replica identity of partition"), "{error}");
        pair.source.execute("ALTER TABLE sale_south REPLICA IDENTITY DEFAULT")?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute(
            "ALTER TABLE sale_south REPLICA IDENTITY NOTHING; INSERT INTO sale VALUES (7000, 'south', 1)",
        )?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("sale")?.as_deref() == Some("e"))
        })?;
        assert!(pair.has_event("sale_south.* has no replica identity")?);
        pair.source.execute("ALTER TABLE sale_south REPLICA IDENTITY DEFAULT")?;
        resync(pair)?;
        pair.wait_and_compare(&["sale"])
    });
}

#[test]
fn a_partition_whose_rows_are_not_in_the_log_is_refused() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
             CREATE TABLE event (id int, day int) PARTITION BY LIST (day);
             CREATE FOREIGN TABLE event_1 PARTITION OF event FOR VALUES IN (1) SERVER far;
             CREATE TABLE log (day int, line text) PARTITION BY LIST (day);
             CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1)",
        )?;
        let start = pair.start_statement("tables => ARRAY['event']::regclass[]", "{}");
        let error = pair.source.error_of(&start)?;
        assert!(error.message().contains("event_1") && error.message().contains("foreign table"), "{error}");
        pair.start_mirror_with("", "{}")?;
        pair.wait_and_compare(&["sale"])?;
        pair.source.execute(
            "CREATE FOREIGN TABLE log_far PARTITION OF log FOR VALUES IN (2) SERVER far;
             INSERT INTO log VALUES (1, 'line')",
        )?;
        wait_until("the table is in error", PATIENCE, || Ok(pair.table_state("log")?.as_deref() == Some("e")))
    });
}

#[test]
fn a_partition_that_is_created_is_followed_at_once() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute(
            "CREATE TABLE sale_west PARTITION OF sale FOR VALUES IN ('west');
             INSERT INTO sale SELECT n, 'west', 1, 'w' FROM generate_series(1, 50) n;
             BEGIN; SAVEPOINT s;
             CREATE TABLE sale_up PARTITION OF sale FOR VALUES IN ('up');
             INSERT INTO sale SELECT n, 'up', 1, 'u' FROM generate_series(1, 50) n;
             RELEASE s; UPDATE sale SET note = 'up there' WHERE region = 'up' AND id % 2 = 0; COMMIT;
             BEGIN; SAVEPOINT s; CREATE TABLE sale_no PARTITION OF sale FOR VALUES IN ('no');
             INSERT INTO sale VALUES (1, 'no', 1); ROLLBACK TO s; COMMIT;
             UPDATE sale SET region = 'west' WHERE region = 'up' AND id > 60",
        )?;
        pair.wait_and_compare(&["sale"])?;
        assert!(!pair.has_event("copied again")?, "nothing had to be copied");
        Ok(())
    });
}

/// The statements change what the table holds without changes of its rows; before and after them rows change.
fn is_copied_after(statements: &[&str]) {
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute("CREATE TABLE loose (LIKE sale); INSERT INTO loose SELECT n, 'loose', n, 'l' FROM generate_series(1, 90) n")?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute(CHANGES)?;
        for statement in statements {
            pair.source.execute(statement)?;
        }
        pair.wait_and_compare(&["sale"])?;
        assert!(pair.has_event("copied again")?, "the table was copied again");
        pair.source.execute("UPDATE sale SET note = 'later'; DELETE FROM sale WHERE id % 3 = 0")?;
        pair.wait_and_compare(&["sale"])
    });
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute("CREATE TABLE loose (LIKE sale); INSERT INTO loose SELECT n, 'loose', n, 'l' FROM generate_series(1, 90) n")?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pause(pair)?;
        for statement in statements {
            pair.source.execute(statement)?;
        }
        pair.source.execute(CHANGES)?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["sale"])
    });
}

#[test]
fn an_attached_table_brings_its_rows() {
    is_copied_after(&[
        "ALTER TABLE sale ATTACH PARTITION loose FOR VALUES IN ('loose')",
        "UPDATE sale SET note = 'attached' WHERE region = 'loose' AND id % 2 = 0; DELETE FROM sale WHERE id % 9 = 0",
    ]);
}

#[test]
fn a_table_that_is_filled_and_attached_at_once_brings_its_rows() {
    is_copied_after(&[
        "BEGIN; CREATE TABLE quick (LIKE sale); INSERT INTO quick SELECT n, 'quick', n, 'q' FROM generate_series(1, 30) n;
         ALTER TABLE sale ATTACH PARTITION quick FOR VALUES IN ('quick'); COMMIT",
    ]);
}

#[test]
fn a_partitioned_table_that_is_attached_brings_the_rows_of_its_partitions() {
    is_copied_after(&[
        "CREATE TABLE deep (LIKE sale) PARTITION BY RANGE (day);
         CREATE TABLE deep_1 PARTITION OF deep FOR VALUES FROM (0) TO (100);
         INSERT INTO deep SELECT n, 'deep', n, 'd' FROM generate_series(1, 40) n",
        "ALTER TABLE sale ATTACH PARTITION deep FOR VALUES IN ('deep')",
        "UPDATE sale SET note = 'attached' WHERE region = 'deep'",
    ]);
}

/// The rows of such a partition are in no log: without a copy they would be missing for good.
#[test]
fn an_attached_table_brings_its_rows_also_where_nothing_was_copied_at_the_start() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute("CREATE TABLE loose (LIKE sale); INSERT INTO loose SELECT n, 'loose', n, 'l' FROM generate_series(1, 90) n")?;
        pair.start_mirror_with("tables => ARRAY['sale']::regclass[], snapshot => false", "{}")?;
        pair.wait()?;
        pair.source.execute("INSERT INTO sale VALUES (7000, 'south', 1)")?;
        pair.wait()?;
        assert_eq!(pair.target.count("sale")?, 1, "what was there is not copied");
        pair.source.execute("ALTER TABLE sale ATTACH PARTITION loose FOR VALUES IN ('loose')")?;
        pair.wait_and_compare(&["sale"])?;
        assert!(pair.has_event("copied again: partition .*loose.* has been attached")?);
        pair.source
            .execute("ALTER TABLE sale DETACH PARTITION sale_south; UPDATE sale SET note = 'later'")?;
        pair.wait_and_compare(&["sale"])
    });
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute("CREATE TABLE loose (LIKE sale); INSERT INTO loose VALUES (1, 'loose', 1)")?;
        let arguments = "tables => ARRAY['sale']::regclass[], snapshot => false";
        pair.start_mirror_with(arguments, r#"{"on_ddl": "ignore"}"#)?;
        pair.wait()?;
        pair.source.execute("ALTER TABLE sale ATTACH PARTITION loose FOR VALUES IN ('loose')")?;
        pair.source.execute("INSERT INTO sale VALUES (2, 'loose', 1)")?;
        pair.wait()?;
        assert_eq!(pair.target.count("sale")?, 1, "only what changes is mirrored");
        Ok(())
    });
}

#[test]
fn a_detached_partition_takes_its_rows_with_it() {
    is_copied_after(&[
        "ALTER TABLE sale DETACH PARTITION sale_south",
        "UPDATE sale_south SET note = 'alone'; DELETE FROM sale WHERE id % 9 = 0",
    ]);
}

#[test]
fn a_partition_that_is_detached_concurrently_takes_its_rows_with_it() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute("DROP TABLE sale_rest")?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute("ALTER TABLE sale DETACH PARTITION sale_south CONCURRENTLY")?;
        pair.source.execute("UPDATE sale_south SET note = 'alone'; UPDATE sale SET note = 'still here'")?;
        pair.wait_and_compare(&["sale"])
    });
}

#[test]
fn a_dropped_partition_takes_its_rows_with_it() {
    is_copied_after(&["DROP TABLE sale_south", "INSERT INTO sale VALUES (1, 'south', 1, 'in the rest')"]);
}

#[test]
fn a_detached_partition_that_comes_back_has_what_it_has_by_then() {
    is_copied_after(&[
        "ALTER TABLE sale DETACH PARTITION sale_south",
        "DELETE FROM sale_south WHERE id % 2 = 0; UPDATE sale_south SET note = 'alone'",
        "ALTER TABLE sale ATTACH PARTITION sale_south FOR VALUES IN ('south')",
    ]);
}

#[test]
fn a_partition_that_is_changed_while_it_is_detached_for_a_moment_is_copied() {
    is_copied_after(&["BEGIN; ALTER TABLE sale DETACH PARTITION sale_south; UPDATE sale_south SET note = 'alone';
         DELETE FROM sale_south WHERE id % 2 = 0; ALTER TABLE sale ATTACH PARTITION sale_south FOR VALUES IN ('south'); COMMIT"]);
}

#[test]
fn a_truncated_partition_takes_its_rows_with_it() {
    is_copied_after(&["TRUNCATE sale_south", "INSERT INTO sale VALUES (1, 'south', 1, 'after')"]);
}

#[test]
fn a_truncated_table_is_emptied_in_order() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute(
            "UPDATE sale SET note = 'before'; TRUNCATE sale; INSERT INTO sale VALUES (1, 'south', 1), (2, 'north', 2)",
        )?;
        pair.wait_and_compare(&["sale"])?;
        pair.source.execute(
            "TRUNCATE sale_north, sale_south, sale_rest; INSERT INTO sale VALUES (1, 'south', 3), (2, 'north', 4)",
        )?;
        pair.wait_and_compare(&["sale"])?;
        assert!(!pair.has_event("copied again")?, "nothing had to be copied");
        Ok(())
    });
}

#[test]
fn statements_are_ignored_or_refused_as_the_options_say() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror_with(
            "tables => ARRAY['sale']::regclass[]",
            r#"{"on_ddl": "ignore", "on_truncate": "ignore"}"#,
        )?;
        pair.wait()?;
        pair.source.execute(
            "TRUNCATE sale_south; ALTER TABLE sale DETACH PARTITION sale_rest;
             UPDATE sale SET note = 'later' WHERE region = 'north'",
        )?;
        pair.wait()?;
        assert_eq!(pair.target.count("sale")?, 600);
        assert_eq!(pair.table_state("sale")?.as_deref(), Some("r"));
        Ok(())
    });
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror_with("tables => ARRAY['sale']::regclass[]", r#"{"on_ddl": "error"}"#)?;
        pair.wait()?;
        pair.source.execute("ALTER TABLE sale DETACH PARTITION sale_rest")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("sale")?.as_deref() == Some("e"))
        })?;
        assert!(pair.has_event("sale_rest.* has been detached")?);
        Ok(())
    });
}

#[test]
fn columns_of_a_partitioned_table_are_followed() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["sale"])?;
        pair.wait()?;
        pair.source.execute(
            "UPDATE sale SET note = 'before' WHERE id % 2 = 0;
             ALTER TABLE sale ADD COLUMN extra int DEFAULT 7, ADD COLUMN other text;
             UPDATE sale SET extra = id WHERE id % 3 = 0",
        )?;
        pair.wait_and_compare(&["sale"])?;
        assert!(pair.has_event("has been altered")? && !pair.has_event("copied again")?, "it was altered");
        pair.source.execute(
            "ALTER TABLE sale RENAME COLUMN note TO remark; ALTER TABLE sale DROP COLUMN other;
             UPDATE sale SET remark = 'after' WHERE id % 5 = 0;
             ALTER TABLE sale ADD COLUMN dice double precision DEFAULT random();
             ALTER TABLE sale ALTER COLUMN extra TYPE text USING 'x' || extra;
             INSERT INTO sale (id, region, day) VALUES (9000, 'north', 150)",
        )?;
        pair.wait_and_compare(&["sale"])
    });
}

#[test]
fn a_table_without_a_key_is_appended_to_by_all_partitions() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE log (day int, line text) PARTITION BY LIST (day);
             CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1);
             CREATE TABLE log_2 (line text, day int); ALTER TABLE log ATTACH PARTITION log_2 FOR VALUES IN (2);
             INSERT INTO log SELECT n % 2 + 1, 'line ' || n FROM generate_series(1, 100) n",
        )?;
        pair.start_mirror(&["log"])?;
        pair.wait()?;
        pair.source
            .execute("INSERT INTO log SELECT n % 2 + 1, 'line ' || n FROM generate_series(1, 100) n")?;
        pair.wait_and_compare(&["log"])
    });
}

#[test]
fn a_key_that_only_the_partitions_have_is_the_key() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int, day int, v text) PARTITION BY RANGE (day);
             CREATE TABLE item_1 PARTITION OF item (PRIMARY KEY (id, day)) FOR VALUES FROM (0) TO (10);
             CREATE TABLE item_2 (v text, day int, id int, PRIMARY KEY (id, day));
             ALTER TABLE item ATTACH PARTITION item_2 FOR VALUES FROM (10) TO (20);
             INSERT INTO item SELECT n, n % 20, 'v' FROM generate_series(1, 100) n",
        )?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])?;
        pair.source.execute(
            "UPDATE item SET v = 'x' WHERE id % 2 = 0; DELETE FROM item WHERE id % 5 = 0; UPDATE item SET day = (day + 10) % 20",
        )?;
        pair.wait_and_compare(&["item"])?;
        assert!(!pair.has_event("copied again")?);
        pair.source.execute(
            "CREATE TABLE item_3 PARTITION OF item FOR VALUES FROM (20) TO (30); INSERT INTO item VALUES (1, 21)",
        )?;
        wait_until(
            "the table is in error",
            PATIENCE,
            || Ok(pair.table_state("item")?.as_deref() == Some("e")),
        )
    });
}

#[test]
fn a_table_without_partitions_waits_for_them() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'item')"))?;
        pair.wait_and_compare(&["item"])?;
        pair.source.execute(
            "CREATE TABLE item_1 PARTITION OF item FOR VALUES FROM (0) TO (1000);
             INSERT INTO item SELECT n, 'v' FROM generate_series(1, 100) n",
        )?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_mirrored_table_that_is_attached_leaves_its_rows_to_the_root() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.source.execute("CREATE TABLE loose (LIKE sale, PRIMARY KEY (id, region, day)); INSERT INTO loose VALUES (1, 'loose', 1)")?;
        pair.start_mirror(&["sale", "loose"])?;
        pair.wait_and_compare(&["sale", "loose"])?;
        pair.source.execute(
            "ALTER TABLE sale ATTACH PARTITION loose FOR VALUES IN ('loose'); INSERT INTO sale VALUES (2, 'loose', 1)",
        )?;
        wait_until("the partition is in error", PATIENCE, || {
            Ok(pair.table_state("loose")?.as_deref() == Some("e"))
        })?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_remove_table('{mirror}', 'loose')"))?;
        pair.wait_and_compare(&["sale"])
    });
}
