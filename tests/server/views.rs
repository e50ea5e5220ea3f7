//! What an administrator looks at.

use std::collections::BTreeSet;

use crate::harness::{Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

const VIEWS: &[(&str, &str)] = &[
    (
        "dbmazz_stat_mirror",
        "mirror state pid server slot_name confirmed_lsn received_lsn lag_bytes lag tables rows_per_second rows_total \
         bytes_total loads_total queued_bytes last_error last_error_at started_at",
    ),
    (
        "dbmazz_stat_table",
        "mirror relation target state snapshot_lsn inserts updates deletes truncates rows_loaded bytes_loaded \
         last_load_at last_error rejected",
    ),
    (
        "dbmazz_progress_snapshot",
        "mirror relation chunks_total chunks_done rows_done bytes_done bytes_total rows_per_second eta",
    ),
    ("dbmazz_event", "at mirror relation severity message detail hint"),
    ("dbmazz_rejected_row", "mirror relation lsn key reason row"),
];

/// Columns whose type is promised.
const TYPES: &[(&str, &str, &str)] = &[
    ("dbmazz_stat_mirror", "mirror", "text"),
    ("dbmazz_stat_mirror", "state", "text"),
    ("dbmazz_stat_mirror", "confirmed_lsn", "pg_lsn"),
    ("dbmazz_stat_mirror", "lag", "interval"),
    ("dbmazz_stat_mirror", "started_at", "timestamp with time zone"),
    ("dbmazz_stat_table", "relation", "regclass"),
    ("dbmazz_stat_table", "state", "\"char\""),
    ("dbmazz_stat_table", "snapshot_lsn", "pg_lsn"),
    ("dbmazz_rejected_row", "row", "jsonb"),
];

fn mirrored_items(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item SELECT generate_series(1, 10)",
    )?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

#[test]
fn every_promised_column_is_there() {
    on_a_pair(|pair| {
        for (view, columns) in VIEWS {
            let list = columns.split(' ').collect::<Vec<_>>().join(", ");
            pair.source.execute(&format!("SELECT {list} FROM {view} LIMIT 0"))?;
        }
        for (view, column, expected) in TYPES {
            let found = pair.source.value(&format!(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
                 WHERE attrelid = '{view}'::regclass AND attname = '{column}'"
            ))?;
            assert_eq!(found, *expected, "{view}.{column}");
        }
        pair.source.execute(
            "SELECT mirror, confirmed_lsn, system_identifier, timeline, database_oid, incarnation, label_number, confirmed_at
             FROM dbmazz.checkpoint",
        )
    });
}

#[test]
fn stat_mirror_tells_what_the_mirror_does() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.wait_for_state("streaming")?;
        assert_eq!(pair.stat("server")?.as_deref(), Some("starrocks"));
        assert_eq!(pair.stat("slot_name")?, Some(format!("dbmazz_{}", pair.mirror())));
        assert_eq!(pair.stat("tables")?.as_deref(), Some("1"));
        assert_eq!(pair.stat("last_error")?, None);
        let facts = "pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'dbmazz mirror')
                     AND lag_bytes >= 0 AND started_at <= now() AND received_lsn >= confirmed_lsn";
        assert_eq!(pair.stat(facts)?.as_deref(), Some("t"), "{}", pair.views()?);
        Ok(())
    });
}

#[test]
fn stat_table_counts_changes_and_rows() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.source.execute(
            "INSERT INTO item VALUES (11), (12); UPDATE item SET v = 'x' WHERE id <= 3; DELETE FROM item WHERE id = 12",
        )?;
        pair.wait_and_compare(&["item"])?;
        let target = format!("{}.item", pair.target.database());
        let counts = format!(
            "SELECT inserts, updates, deletes, truncates, target, state FROM dbmazz_stat_table WHERE mirror = '{}'",
            pair.mirror()
        );
        let expected = vec![["2", "3", "1", "0", &target, "r"].map(|value| Some(value.to_owned())).to_vec()];
        // They are written with the next checkpoint, which may come after the rows are visible.
        wait_until("changes counted", PATIENCE, || Ok(pair.source.rows(&counts)? == expected))
    });
}

/// What `pg_stat_activity` calls our processes at the moment, without those of other tests.
fn processes(pair: &mut Pair) -> Outcome<BTreeSet<String>> {
    let rows = pair.source.rows(
        "SELECT DISTINCT backend_type FROM pg_stat_activity
         WHERE backend_type LIKE 'dbmazz %' AND (datname = current_database() OR datname IS NULL)",
    )?;
    Ok(rows.into_iter().flatten().flatten().collect())
}

#[test]
fn processes_are_named_after_what_they_do() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("names of processes") else { return Ok(()) };
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item SELECT generate_series(1, 10)",
        )?;
        control.set(&Fault::lasting("hang").on_table("item"))?;
        pair.start_mirror(&["item"])?;
        let while_copying = ["dbmazz launcher", "dbmazz mirror", "dbmazz snapshot", "dbmazz snapshot holder"];
        let while_copying = BTreeSet::from(while_copying.map(str::to_owned));
        wait_until("all processes of a copy", PATIENCE, || Ok(processes(pair)? == while_copying))?;
        let doing = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dbmazz snapshot'
             AND datname = current_database() AND query = 'mirror {}: copying chunk 1')",
            pair.mirror()
        );
        wait_until("a process says what it does", PATIENCE, || pair.source.is_true(&doing))?;
        control.clear()?;
        pair.wait_and_compare(&["item"])?;
        let while_streaming = BTreeSet::from(["dbmazz launcher", "dbmazz mirror"].map(str::to_owned));
        wait_until("the mirror's worker alone", PATIENCE, || Ok(processes(pair)? == while_streaming))?;
        let same = "pid = (SELECT pid FROM pg_stat_activity WHERE backend_type = 'dbmazz mirror' AND datname = current_database())";
        assert_eq!(pair.stat(same)?.as_deref(), Some("t"));
        Ok(())
    });
}
