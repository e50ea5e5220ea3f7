//! `metadata_columns`: which commit each row of the target is as of.

use crate::harness::{Outcome, PATIENCE, Pair};
use crate::on_a_pair;

const METADATA: &str = r#"{"metadata_columns": true}"#;

/// Position and time at the source, before or after something.
#[derive(Clone, Debug)]
struct Moment {
    lsn: i64,
    time: String,
}

fn now(pair: &mut Pair) -> Outcome<Moment> {
    let lsn = pair.source.value("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")?;
    let time = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')";
    Ok(Moment { lsn: lsn.parse().unwrap_or_default(), time: pair.source.value(time)? })
}

/// Position and time of the rows for which `filter` holds, each of them once.
fn stamps(pair: &mut Pair, table: &str, filter: &str) -> Outcome<Vec<(i64, Option<String>)>> {
    let sql = format!(
        "SELECT DISTINCT dbmazz_lsn, dbmazz_committed_at FROM {} WHERE {filter} ORDER BY 1",
        pair.target.table(table)
    );
    let rows = pair.target.rows(&sql)?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let mut cells = row.into_iter();
            let lsn = cells.next().flatten().and_then(|text| text.parse().ok()).unwrap_or_default();
            (lsn, cells.next().flatten())
        })
        .collect())
}

/// Runs a transaction, and looks whether the rows that it changed say so, all alike.
fn changes(pair: &mut Pair, sql: &str, filter: &str) -> Outcome<i64> {
    let before = now(pair)?;
    pair.source.execute(sql)?;
    let after = now(pair)?;
    pair.wait()?;
    let stamps = stamps(pair, "item", filter)?;
    let [(lsn, Some(time))] = stamps.as_slice() else { panic!("rows of one commit have {stamps:?}") };
    assert!((before.lsn..=after.lsn).contains(lsn), "{before:?} {lsn} {after:?}");
    // Both are text of the same form, but for zeros at the end.
    let time = format!("{time:0<26}").replace(".000000000", ".0");
    assert!(before.time[..19] <= time[..19] && time[..19] <= after.time[..19], "{before:?} {time} {after:?}");
    Ok(*lsn)
}

fn create_items(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text, big text);
         ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
         INSERT INTO item SELECT n, 'v' || n, repeat('b', 3000) FROM generate_series(1, 50) n",
    )
}

#[test]
fn rows_say_which_commit_they_are_as_of() {
    on_a_pair(|pair| {
        create_items(pair)?;
        let before = now(pair)?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", METADATA)?;
        pair.wait_and_compare(&["item"])?;
        let after = now(pair)?;
        let copied = stamps(pair, "item", "id > 0")?;
        let [(snapshot, None)] = copied.as_slice() else { panic!("copied rows have {copied:?}") };
        assert!((before.lsn..=after.lsn).contains(snapshot), "{before:?} {snapshot} {after:?}");
        let first = changes(pair, "INSERT INTO item VALUES (100, 'a', 'b'), (101, 'a', 'b')", "id >= 100")?;
        // Large values that are not in the log, and one that the source has to give.
        let second = changes(pair, "UPDATE item SET v = 'u' WHERE id <= 3", "v = 'u'")?;
        let third = changes(pair, "UPDATE item SET id = 200 WHERE id = 4", "id = 200")?;
        let last = changes(
            pair,
            "BEGIN; INSERT INTO item VALUES (300, 'z', ''); UPDATE item SET v = 'z' WHERE id IN (5, 300); COMMIT",
            "v = 'z'",
        )?;
        assert!(*snapshot < first && first < second && second < third && third < last);
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn marked_rows_say_which_commit_deleted_them() {
    on_a_pair(|pair| {
        create_items(pair)?;
        pair.start_mirror_with(
            "tables => ARRAY['item']::regclass[]",
            r#"{"metadata_columns": true, "on_delete": "mark"}"#,
        )?;
        pair.wait()?;
        changes(pair, "DELETE FROM item WHERE id <= 5", "dbmazz_deleted")?;
        changes(
            pair,
            "BEGIN; INSERT INTO item VALUES (100, 'a', 'b'); DELETE FROM item WHERE id = 100; COMMIT",
            "id = 100",
        )?;
        changes(pair, "INSERT INTO item VALUES (100, 'a', 'b')", "id = 100 AND NOT dbmazz_deleted")?;
        Ok(())
    });
}

#[test]
fn rows_without_a_key_have_the_position_in_their_key() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (v text); INSERT INTO item VALUES ('copied')")?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", METADATA)?;
        pair.wait()?;
        changes(pair, "INSERT INTO item VALUES ('a'), ('b')", "dbmazz_lsn > 0")?;
        assert_eq!(pair.target.count("item")?, 3);
        Ok(())
    });
}

#[test]
fn rows_copied_again_say_so() {
    on_a_pair(|pair| {
        create_items(pair)?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", METADATA)?;
        pair.wait()?;
        changes(pair, "UPDATE item SET v = 'u' WHERE id <= 3", "v = 'u'")?;
        let before = now(pair)?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'item')"))?;
        pair.wait_and_compare(&["item"])?;
        let copied = stamps(pair, "item", "id > 0")?;
        let [(snapshot, None)] = copied.as_slice() else { panic!("copied rows have {copied:?}") };
        assert!(*snapshot >= before.lsn);
        Ok(())
    });
}

#[test]
fn a_target_without_the_columns_is_not_taken_for_one_that_fits() {
    on_a_pair(|pair| {
        create_items(pair)?;
        let table = pair.target.table("item");
        let database = pair.target.database().to_owned();
        pair.target.execute(&format!("CREATE DATABASE IF NOT EXISTS `{database}`"))?;
        pair.target.execute(&format!(
            "CREATE TABLE {table} (id INT NOT NULL, v VARCHAR(1048576) NULL, big VARCHAR(1048576) NULL)
             PRIMARY KEY (id) DISTRIBUTED BY HASH (id) PROPERTIES (\"replication_num\" = \"1\")"
        ))?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", METADATA)?;
        crate::harness::wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("item")?.as_deref() == Some("e"))
        })?;
        let error = pair.source.value("SELECT last_error FROM dbmazz_stat_table")?;
        assert!(error.contains("no column \"dbmazz_lsn\""), "{error}");
        Ok(())
    });
}

#[test]
fn a_column_with_the_name_of_one_that_is_added_puts_only_its_table_into_error() {
    on_a_pair(|pair| {
        create_items(pair)?;
        pair.source.execute("CREATE TABLE other (id int PRIMARY KEY)")?;
        pair.start_mirror_with("tables => ARRAY['item', 'other']::regclass[]", METADATA)?;
        pair.wait()?;
        pair.source.execute("ALTER TABLE item ADD COLUMN dbmazz_lsn int; INSERT INTO item VALUES (100)")?;
        crate::harness::wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("item")?.as_deref() == Some("e"))
        })?;
        pair.source.execute("INSERT INTO other VALUES (1)")?;
        crate::harness::wait_until("the other goes on", PATIENCE, || Ok(pair.target.count("other")? == 1))
    });
}
