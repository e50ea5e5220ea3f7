//! Publications that exist: their filters, lists and operations, for the copy as for the stream; and tables that join and
//! leave them.

mod looks;

use crate::harness::{Comparison, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

fn create(pair: &mut Pair, table: &str) -> Outcome {
    pair.source.execute(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, kind int, v text, secret text);
         INSERT INTO {table} SELECT n, n % 10, 'v' || n, 's' FROM generate_series(1, 300) n"
    ))
}

/// A partitioned table, one partition of which has its columns in another order.
fn create_partitioned(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE sale (id int, kind int, v text, secret text, PRIMARY KEY (id, kind)) PARTITION BY RANGE (kind);
         CREATE TABLE sale_1 PARTITION OF sale FOR VALUES FROM (0) TO (4);
         CREATE TABLE sale_2 (gone int, secret text, v text, kind int NOT NULL, id int NOT NULL);
         ALTER TABLE sale_2 DROP COLUMN gone;
         ALTER TABLE sale ATTACH PARTITION sale_2 FOR VALUES FROM (4) TO (8);
         CREATE TABLE sale_3 PARTITION OF sale DEFAULT;
         INSERT INTO sale SELECT n, n % 10, 'v' || n, 's' FROM generate_series(1, 300) n",
    )
}

fn changes_of(table: &str) -> String {
    format!(
        "UPDATE {table} SET v = v || '!' WHERE id % 3 = 0;
         UPDATE {table} SET kind = (kind + 3) % 10 WHERE id % 4 = 0;
         UPDATE {table} SET id = id + 1000 WHERE id % 7 = 0;
         DELETE FROM {table} WHERE id % 11 = 0;
         INSERT INTO {table} SELECT n, n % 10, 'new', 's' FROM generate_series(2001, 2030) n"
    )
}

fn follow(pair: &mut Pair, publication: &str) -> Outcome {
    pair.start_mirror_with(&format!("publication => '{publication}'"), "{}")
}

fn wait_until_gone(pair: &mut Pair, table: &str) -> Outcome {
    wait_until("the table has left the mirror", PATIENCE, || Ok(pair.table_state(table)?.is_none()))
}

fn wait_until_in_step(pair: &mut Pair, table: &str) -> Outcome {
    wait_until("the table is in step", PATIENCE, || Ok(pair.table_state(table)?.as_deref() == Some("r")))
}

/// Waits until the table has been copied since `before`, what its `snapshot_lsn` was.
fn wait_until_copied_again(pair: &mut Pair, table: &str, before: Option<String>) -> Outcome {
    wait_until("the table has been copied again", PATIENCE, || {
        Ok(pair.table_state(table)?.as_deref() == Some("r") && snapshot_of(pair, table)? != before)
    })
}

fn snapshot_of(pair: &mut Pair, table: &str) -> Outcome<Option<String>> {
    let mirror = pair.mirror().to_owned();
    pair.source.value_or_null(&format!(
        "SELECT snapshot_lsn FROM dbmazz_stat_table WHERE mirror = '{mirror}' AND relation = '{table}'::regclass"
    ))
}

fn compare_where(pair: &mut Pair, table: &str, filter: &str) -> Outcome {
    pair.wait()?;
    pair.compare(&Comparison::of(table).rows_where(filter))
}

#[test]
fn rows_come_and_go_with_the_row_filter() {
    on_a_pair(|pair| {
        if pair.is_before(15, "row filter", "row filters") {
            return Ok(());
        }
        create(pair, "item")?;
        pair.source.execute(
            "ALTER TABLE item REPLICA IDENTITY FULL; CREATE PUBLICATION shop FOR TABLE item WHERE (kind < 5)",
        )?;
        follow(pair, "shop")?;
        compare_where(pair, "item", "kind < 5")?;
        pair.source.execute(&changes_of("item"))?;
        compare_where(pair, "item", "kind < 5")
    });
}

#[test]
fn inserts_alone_are_kept_whatever_happens_to_the_rows() {
    on_a_pair(|pair| {
        create(pair, "item")?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE item WITH (publish = 'insert')")?;
        follow(pair, "shop")?;
        pair.wait_and_compare(&["item"])?;
        pair.source.execute(
            "DELETE FROM item WHERE id <= 100; INSERT INTO item VALUES (1001, 1, 'new', 's'); TRUNCATE item",
        )?;
        pair.wait()?;
        assert_eq!(pair.target.count("item")?, 301);
        Ok(())
    });
}

#[test]
fn a_published_partitioned_table_is_one_table_either_way() {
    for via_root in ["false", "true"] {
        on_a_pair(|pair| {
            create_partitioned(pair)?;
            pair.source.execute(&format!(
                "CREATE PUBLICATION shop FOR TABLE sale WITH (publish_via_partition_root = {via_root})"
            ))?;
            follow(pair, "shop")?;
            pair.wait_and_compare(&["sale"])?;
            assert_eq!(pair.stat("tables")?.as_deref(), Some("1"));
            pair.source.execute(&changes_of("sale"))?;
            pair.source.execute("CREATE TABLE sale_9 (LIKE sale); INSERT INTO sale_9 VALUES (1, 99, 'attached'); ALTER TABLE sale ATTACH PARTITION sale_9 FOR VALUES FROM (90) TO (100)")?;
            pair.wait_and_compare(&["sale"])?;
            pair.source.execute("UPDATE sale SET v = 'again'; DELETE FROM sale WHERE id % 2 = 0")?;
            pair.wait_and_compare(&["sale"])
        });
    }
}

#[test]
fn filter_and_list_of_a_partitioned_table_hold_for_all_of_its_partitions() {
    on_a_pair(|pair| {
        if pair.is_before(15, "filter of a root", "row filters") {
            return Ok(());
        }
        create_partitioned(pair)?;
        pair.source.execute(
            "CREATE PUBLICATION shop FOR TABLE sale (id, kind, v) WHERE (kind <> 5 AND kind <> 2)
             WITH (publish_via_partition_root = true)",
        )?;
        follow(pair, "shop")?;
        let listed =
            Comparison::of("sale").columns(&["id", "kind", "v"]).rows_where("kind <> 5 AND kind <> 2");
        pair.wait()?;
        pair.compare(&listed)?;
        pair.source.execute(&changes_of("sale"))?;
        pair.wait()?;
        pair.compare(&listed)?;
        pair.source.execute(
            "TRUNCATE sale; INSERT INTO sale SELECT n, n % 10, 'v' || n, 's' FROM generate_series(1, 50) n",
        )?;
        pair.wait()?;
        pair.compare(&listed)
    });
}

/// pgoutput says nothing of such a TRUNCATE.
/// One that is refused because its target is taken keeps nobody from it.
#[test]
fn a_table_without_a_target_does_not_hold_up_the_one_that_has_it() {
    on_a_pair(|pair| {
        if pair.is_before(15, "tables in schemas", "publications of schemas") {
            return Ok(());
        }
        pair.source.execute(
            "CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE TABLE s1.item (id int PRIMARY KEY, v text);
             INSERT INTO s1.item VALUES (1, 'a'); CREATE PUBLICATION shop FOR TABLES IN SCHEMA s1, s2",
        )?;
        follow(pair, "shop")?;
        pair.wait_and_compare(&["s1.item"])?;
        pair.source.execute("CREATE TABLE s2.item (id int PRIMARY KEY, v text)")?;
        wait_until("it is refused", PATIENCE, || Ok(pair.table_state("s2.item")?.as_deref() == Some("e")))?;
        let before = snapshot_of(pair, "s1.item")?;
        pair.source
            .execute("ALTER TABLE s1.item ALTER v TYPE int USING 5; INSERT INTO s1.item VALUES (2, 7)")?;
        wait_until_copied_again(pair, "s1.item", before)?;
        wait_until("its rows are there", PATIENCE, || Ok(pair.target.count("item")? == 2))?;
        pair.compare(&Comparison::of("s1.item"))
    });
}

#[test]
fn a_truncated_partition_of_a_table_that_is_sent_as_its_root_takes_its_rows_with_it() {
    on_a_pair(|pair| {
        if pair.is_before(15, "truncate below a root", "row filters") {
            return Ok(());
        }
        create_partitioned(pair)?;
        pair.source.execute(
            "CREATE PUBLICATION shop FOR TABLE sale (id, kind, v) WHERE (kind <> 5)
             WITH (publish_via_partition_root = true)",
        )?;
        follow(pair, "shop")?;
        let listed = Comparison::of("sale").columns(&["id", "kind", "v"]).rows_where("kind <> 5");
        pair.wait()?;
        pair.compare(&listed)?;
        for truncated in ["sale_1", "sale_2, sale_3", "sale_1, sale_2, sale_3"] {
            pair.source.execute(&format!(
                "UPDATE sale SET v = v || '!'; TRUNCATE {truncated};
                 INSERT INTO sale SELECT n, n % 10, 'again', 's' FROM generate_series(5001, 5050) n"
            ))?;
            pair.wait()?;
            pair.compare(&listed)?;
            pair.source.execute("DELETE FROM sale WHERE id > 5000")?;
            pair.wait()?;
            pair.compare(&listed)?;
        }
        Ok(())
    });
}

#[test]
fn a_truncated_partition_stays_where_no_truncate_is_published() {
    on_a_pair(|pair| {
        create_partitioned(pair)?;
        pair.source.execute(
            "CREATE PUBLICATION shop FOR TABLE sale
             WITH (publish = 'insert, update, delete', publish_via_partition_root = true)",
        )?;
        follow(pair, "shop")?;
        pair.wait_and_compare(&["sale"])?;
        pair.source.execute("TRUNCATE sale_1; INSERT INTO sale VALUES (1001, 1, 'new', 's')")?;
        pair.wait()?;
        assert_eq!(pair.target.count("sale")?, 301);
        assert_eq!(pair.table_state("sale")?.as_deref(), Some("r"));
        Ok(())
    });
}

#[test]
fn partitions_that_are_sent_by_themselves_have_filters_of_their_own() {
    on_a_pair(|pair| {
        if pair.is_before(15, "filter of a partition", "row filters") {
            return Ok(());
        }
        create_partitioned(pair)?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE sale, sale_2 WHERE (id % 2 = 0)")?;
        follow(pair, "shop")?;
        let filter = "kind NOT BETWEEN 4 AND 7 OR id % 2 = 0";
        compare_where(pair, "sale", filter)?;
        assert_eq!(pair.stat("tables")?.as_deref(), Some("1"));
        pair.source.execute(
            "UPDATE sale SET v = v || '!' WHERE id % 3 = 0; UPDATE sale SET id = id + 1000 WHERE id % 7 = 0;
             DELETE FROM sale WHERE id % 11 = 0; INSERT INTO sale SELECT n, n % 10, 'new' FROM generate_series(2001, 2030) n",
        )?;
        compare_where(pair, "sale", filter)?;
        pair.source.execute("ALTER PUBLICATION shop SET TABLE sale, sale_2 (id, kind, v)")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("sale")?.as_deref() == Some("e"))
        })?;
        pair.source.execute("ALTER PUBLICATION shop SET TABLE sale")?;
        wait_until_in_step(pair, "sale")?;
        pair.wait_and_compare(&["sale"])
    });
}

#[test]
fn partitions_alone_have_a_table_each() {
    on_a_pair(|pair| {
        create_partitioned(pair)?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE sale_1, sale_2")?;
        follow(pair, "shop")?;
        pair.source.execute(&changes_of("sale"))?;
        pair.wait_and_compare(&["sale_1", "sale_2"])?;
        assert!(!pair.target.has("sale")?);
        Ok(())
    });
}

#[test]
fn tables_join_and_leave_with_the_publication() {
    on_a_pair(|pair| {
        create(pair, "first")?;
        create(pair, "second")?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE first")?;
        follow(pair, "shop")?;
        pair.wait_and_compare(&["first"])?;
        pair.source.execute("ALTER PUBLICATION shop ADD TABLE second")?;
        pair.source.execute(&changes_of("second"))?;
        wait_until_in_step(pair, "second")?;
        pair.source.execute(&format!("{}; UPDATE second SET v = 'joined'", changes_of("first")))?;
        pair.wait_and_compare(&["first", "second"])?;
        pair.source.execute("ALTER PUBLICATION shop DROP TABLE first")?;
        wait_until_gone(pair, "first")?;
        let left = pair.target.count("first")?;
        pair.source.execute("DELETE FROM first; UPDATE second SET v = 'alone'")?;
        pair.wait_and_compare(&["second"])?;
        assert_eq!(pair.target.count("first")?, left, "a table that has left gets no changes");
        pair.source.execute("ALTER PUBLICATION shop SET TABLE first, second")?;
        wait_until_in_step(pair, "first")?;
        pair.wait_and_compare(&["first", "second"])
    });
}

#[test]
fn tables_of_all_tables_and_of_schemas_join_when_they_are_created() {
    on_a_pair(|pair| {
        create(pair, "first")?;
        pair.source.execute("CREATE PUBLICATION everything FOR ALL TABLES")?;
        follow(pair, "everything")?;
        pair.wait_and_compare(&["first"])?;
        create(pair, "second")?;
        wait_until_in_step(pair, "second")?;
        pair.source.execute("UPDATE second SET v = 'joined'")?;
        pair.wait_and_compare(&["first", "second"])
    });
    on_a_pair(|pair| {
        if pair.is_before(15, "schema", "publications of schemas") {
            return Ok(());
        }
        pair.source.execute("CREATE SCHEMA shop")?;
        create(pair, "shop.first")?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLES IN SCHEMA shop")?;
        follow(pair, "shop")?;
        pair.wait_and_compare(&["shop.first"])?;
        create(pair, "shop.second")?;
        wait_until_in_step(pair, "shop.second")?;
        pair.source.execute("ALTER TABLE shop.first SET SCHEMA public")?;
        let relid = "SELECT count(*) FROM dbmazz_stat_table WHERE relation = 'public.first'::regclass";
        wait_until("the table has left the schema", PATIENCE, || Ok(pair.source.value(relid)? == "0"))?;
        pair.wait_and_compare(&["shop.second"])
    });
}

#[test]
fn other_filters_and_lists_have_the_table_copied_again() {
    on_a_pair(|pair| {
        if pair.is_before(15, "other filter", "row filters") {
            return Ok(());
        }
        create(pair, "item")?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE item WHERE (id <= 100)")?;
        follow(pair, "shop")?;
        compare_where(pair, "item", "id <= 100")?;
        let before = snapshot_of(pair, "item")?;
        pair.source.execute("ALTER PUBLICATION shop SET TABLE item WHERE (id > 50)")?;
        pair.source
            .execute("UPDATE item SET v = 'later' WHERE id % 2 = 0; DELETE FROM item WHERE id % 5 = 0")?;
        wait_until_copied_again(pair, "item", before)?;
        compare_where(pair, "item", "id > 50")?;
        let before = snapshot_of(pair, "item")?;
        pair.source.execute("ALTER PUBLICATION shop SET TABLE item (id, v)")?;
        pair.source.execute("UPDATE item SET v = 'last' WHERE id % 3 = 0")?;
        wait_until_copied_again(pair, "item", before)?;
        pair.wait()?;
        pair.compare(&Comparison::of("item").columns(&["id", "v"]))?;
        let before = snapshot_of(pair, "item")?;
        pair.source.execute("ALTER PUBLICATION shop DROP TABLE item; UPDATE item SET v = 'unseen' WHERE id = 1; ALTER PUBLICATION shop ADD TABLE item (id, v)")?;
        wait_until_copied_again(pair, "item", before)?;
        pair.wait()?;
        pair.compare(&Comparison::of("item").columns(&["id", "v"]))
    });
}

#[test]
fn a_table_that_joins_and_cannot_be_mirrored_says_so() {
    on_a_pair(|pair| {
        create(pair, "first")?;
        pair.source.execute(
            "CREATE SCHEMA other; CREATE TABLE other.first (id int PRIMARY KEY);
             CREATE TABLE odd (d double precision PRIMARY KEY); CREATE PUBLICATION shop FOR TABLE first",
        )?;
        follow(pair, "shop")?;
        pair.wait()?;
        pair.source.execute("ALTER PUBLICATION shop ADD TABLE other.first, odd")?;
        for table in ["other.first", "odd"] {
            wait_until("it is in error", PATIENCE, || Ok(pair.table_state(table)?.as_deref() == Some("e")))?;
        }
        pair.source
            .execute("ALTER PUBLICATION shop DROP TABLE other.first, odd; UPDATE first SET v = 'on'")?;
        wait_until_gone(pair, "odd")?;
        pair.wait_and_compare(&["first"])
    });
}

#[test]
fn a_published_table_is_not_removed_by_hand() {
    on_a_pair(|pair| {
        create(pair, "first")?;
        create(pair, "second")?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE first, second")?;
        follow(pair, "shop")?;
        let mirror = pair.mirror().to_owned();
        let error = pair.source.error_of(&format!("SELECT dbmazz_remove_table('{mirror}', 'second')"))?;
        assert!(error.message().contains("publication"), "{error}");
        pair.wait_and_compare(&["first", "second"])
    });
}

#[test]
fn generated_columns_are_left_out_by_copy_and_stream() {
    on_a_pair(|pair| {
        if pair.is_before(15, "generated columns", "column lists") {
            return Ok(());
        }
        pair.source.execute(
            "CREATE TABLE plain (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text);
             CREATE TABLE listed (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text);
             INSERT INTO plain (id, a, b) SELECT n, n, 'b' FROM generate_series(1, 20) n;
             INSERT INTO listed (id, a, b) SELECT n, n, 'b' FROM generate_series(1, 20) n;
             CREATE PUBLICATION shop FOR TABLE plain, listed (id, a)",
        )?;
        follow(pair, "shop")?;
        pair.source.execute("UPDATE plain SET a = -a WHERE id < 5; UPDATE listed SET a = -a WHERE id < 5")?;
        pair.wait()?;
        pair.compare(&Comparison::of("plain").columns(&["id", "a", "b"]))?;
        pair.compare(&Comparison::of("listed").columns(&["id", "a"]))?;
        let table = pair.target.table("plain");
        assert!(pair.target.rows(&format!("SELECT twice FROM {table}")).is_err());
        Ok(())
    });
}

/// Such an UPDATE comes as an INSERT, and the log does not repeat the large values of the row.
#[test]
fn rows_that_an_update_lets_in_come_with_the_large_values_that_it_left() {
    on_a_pair(|pair| {
        if pair.is_before(15, "rows that a filter lets in", "row filters") {
            return Ok(());
        }
        pair.source.execute(
            "CREATE TABLE item (id int, part int, big text, PRIMARY KEY (id, part));
             ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
             INSERT INTO item SELECT n, n % 2, repeat('v' || n, 3000) FROM generate_series(1, 20) n;
             CREATE PUBLICATION shop FOR TABLE item WHERE (part = 0)",
        )?;
        follow(pair, "shop")?;
        compare_where(pair, "item", "part = 0")?;
        pair.source.execute("UPDATE item SET part = 0 WHERE id < 8")?;
        compare_where(pair, "item", "part = 0")?;
        pair.source.execute(
            "UPDATE item SET part = 1 WHERE id = 2; UPDATE item SET part = 0 WHERE id IN (2, 9);
             BEGIN; UPDATE item SET part = 1 WHERE id IN (4, 6); UPDATE item SET part = 0 WHERE id IN (4, 11); COMMIT;
             BEGIN; UPDATE item SET part = 0 WHERE id = 13; UPDATE item SET big = 'small' WHERE id = 13; COMMIT;
             BEGIN; UPDATE item SET part = 0 WHERE id = 15; DELETE FROM item WHERE id = 15; COMMIT",
        )?;
        compare_where(pair, "item", "part = 0")
    });
}
