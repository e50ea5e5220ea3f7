//! A copy that is interrupted, or whose table changes under it: what is done counts, and both sides are equal at the end.

use crate::harness::{Control, Fault, Outcome, PATIENCE, Pair, Settings, StopMode, wait_for, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

/// One worker, some ten chunks, and loads that are small against a chunk.
const SMALL: &str = r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 500, "snapshot_workers": 1}"#;

fn create_items(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text, filler text);
         INSERT INTO item SELECT n, 'v' || n, repeat('f', 180) FROM generate_series(1, 40000) n",
    )
}

/// The same with loads of so few rows that a small table takes long as well.
const TINY: &str = r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 20, "snapshot_workers": 1}"#;

/// Starts the copy of a table with a slow target, and stops it when `chunks` are done: from then on no load is answered.
fn copy_some(
    pair: &mut Pair,
    control: Control,
    table: &str,
    chunks: usize,
    options: &str,
) -> Outcome<Vec<String>> {
    control.set(&Fault::lasting("delay_answer").on_table(table).with(50))?;
    pair.start_mirror_with(&format!("tables => ARRAY['{table}']::regclass[]"), options)?;
    wait_until("some chunks are done", PATIENCE, || Ok(done_chunks(pair, table)?.len() >= chunks))?;
    control.set(&Fault::lasting("hang").on_table(table))?;
    // A load may have been answered in between.
    let done = done_chunks(pair, table)?;
    let copying = "SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')";
    wait_until("a chunk is being copied", PATIENCE, || pair.source.is_true(copying))?;
    Ok(done)
}

/// Finished chunks, and when they were finished.
fn done_chunks(pair: &mut Pair, table: &str) -> Outcome<Vec<String>> {
    let sql = format!(
        "SELECT chunk || ' at ' || done_at FROM dbmazz.snapshot_chunk
         WHERE relid = '{table}'::regclass AND state = 'r' ORDER BY chunk"
    );
    Ok(pair.source.rows(&sql)?.into_iter().map(|row| row.into_iter().flatten().collect()).collect())
}

/// Ends the process that holds the snapshot, and waits until another one does.
fn lose_the_snapshot(pair: &mut Pair) -> Outcome {
    let holder = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'dbmazz snapshot holder'
                  AND datname = current_database()";
    let before = pair.source.value(holder)?;
    pair.source.execute(&format!("SELECT pg_terminate_backend({before})"))?;
    wait_until("another snapshot is held", PATIENCE, || {
        Ok(pair.source.value_or_null(holder)?.is_some_and(|now| now != before))
    })
}

fn finish(pair: &mut Pair, control: Control, table: &str) -> Outcome {
    control.clear()?;
    pair.wait_and_compare(&[table])?;
    assert_eq!(pair.table_state(table)?.as_deref(), Some("r"));
    Ok(())
}

#[test]
fn chunks_that_are_done_are_not_read_again_when_the_snapshot_is_lost() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("lost snapshot") else { return Ok(()) };
        create_items(pair)?;
        let before = copy_some(pair, control, "item", 3, SMALL)?;
        pair.source
            .execute("UPDATE item SET v = 'changed' WHERE id % 7 = 0; DELETE FROM item WHERE id % 11 = 0")?;
        lose_the_snapshot(pair)?;
        let after = done_chunks(pair, "item")?;
        assert!(before.iter().all(|chunk| after.contains(chunk)), "{before:?} became {after:?}");
        finish(pair, control, "item")
    });
}

#[test]
fn chunks_that_are_done_count_after_an_immediate_stop() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let Some(control) = pair.control("copy over a restart") else { return Ok(()) };
        create_items(pair)?;
        let before = copy_some(pair, control, "item", 3, SMALL)?;
        pair.source.cluster().restart(StopMode::Immediate)?;
        wait_for("the server is back", PATIENCE, || {
            Ok(pair.source.reconnect().and_then(|()| pair.source.value("SELECT 1")).ok())
        })?;
        pair.source
            .execute("UPDATE item SET v = 'changed' WHERE id % 7 = 0; DELETE FROM item WHERE id % 11 = 0")?;
        let copying = "SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')
                       AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dbmazz snapshot')";
        wait_until("the copy goes on", PATIENCE, || pair.source.is_true(copying))?;
        let after = done_chunks(pair, "item")?;
        assert!(before.iter().all(|chunk| after.contains(chunk)), "{before:?} became {after:?}");
        finish(pair, control, "item")
    });
}

/// The row is in no chunk: it was read neither where it had been nor where it went. The UPDATE that moved it does not have
/// its large value.
#[test]
fn a_row_that_moved_into_a_finished_chunk_keeps_its_large_value() {
    // Slots that other tests create would keep VACUUM from making room.
    on_its_own_cluster(&Settings::default(), |pair| {
        let Some(control) = pair.control("moved row") else { return Ok(()) };
        pair.source.execute(
            "CREATE TABLE document (id int PRIMARY KEY, title text, filler text, body text)
                 WITH (autovacuum_enabled = off);
             ALTER TABLE document ALTER body SET STORAGE EXTERNAL;
             INSERT INTO document SELECT n, 't', repeat('f', 1800), CASE WHEN n > 2900 THEN repeat('body ' || n, 600) END
             FROM generate_series(1, 3000) n;
             DELETE FROM document WHERE id <= 300 AND id % 2 = 0",
        )?;
        pair.source.execute("VACUUM document")?;
        copy_some(pair, control, "document", 2, TINY)?;
        pair.source
            .execute("UPDATE document SET title = 'moved', filler = repeat('g', 1800) WHERE id > 2900")?;
        let moved = "SELECT count(*) > 50 FROM document WHERE id > 2900 AND ctid < '(100,0)'";
        assert!(pair.source.is_true(moved)?, "the rows did not move into the first chunk");
        lose_the_snapshot(pair)?;
        finish(pair, control, "document")
    });
}

/// Copies some chunks, changes the table by `statement`, and goes on.
fn changes_under_the_copy(statement: &str) {
    on_a_pair(|pair| {
        let Some(control) = pair.control(statement) else { return Ok(()) };
        create_items(pair)?;
        copy_some(pair, control, "item", 2, SMALL)?;
        pair.source
            .execute("UPDATE item SET v = 'before' WHERE id % 5 = 0; DELETE FROM item WHERE id % 6 = 0")?;
        // Not while a load waits for its answer is the table locked: no DDL waits for the target.
        pair.source.execute("SET statement_timeout = '20s'")?;
        pair.source.execute(statement)?;
        pair.source.execute(
            "UPDATE item SET v = 'after' WHERE id % 7 = 0; INSERT INTO item (id, v) VALUES (50000, 'x')",
        )?;
        finish(pair, control, "item")
    });
}

#[test]
fn vacuum_full_under_the_copy_loses_nothing() {
    changes_under_the_copy("VACUUM FULL item");
}

#[test]
fn cluster_under_the_copy_loses_nothing() {
    changes_under_the_copy("CLUSTER item USING item_pkey");
}

#[test]
fn truncate_under_the_copy_leaves_nothing_behind() {
    changes_under_the_copy("TRUNCATE item");
}

#[test]
fn a_rewriting_change_of_a_type_under_the_copy_is_followed() {
    changes_under_the_copy("ALTER TABLE item ALTER filler TYPE bytea USING filler::bytea");
}

#[test]
fn a_column_added_under_the_copy_is_followed() {
    changes_under_the_copy("ALTER TABLE item ADD COLUMN extra int DEFAULT 7");
}

#[test]
fn a_column_dropped_under_the_copy_is_followed() {
    changes_under_the_copy("ALTER TABLE item DROP COLUMN filler");
}

#[test]
fn a_table_dropped_under_the_copy_does_not_stop_the_others() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("dropped table") else { return Ok(()) };
        create_items(pair)?;
        pair.source.execute(
            "CREATE TABLE other AS SELECT * FROM item LIMIT 1000; ALTER TABLE other ADD PRIMARY KEY (id)",
        )?;
        control.set(&Fault::lasting("delay_answer").with(20))?;
        pair.start_mirror_with("tables => ARRAY['item', 'other']::regclass[]", SMALL)?;
        wait_until("a chunk is done", PATIENCE, || Ok(!done_chunks(pair, "item")?.is_empty()))?;
        pair.source.execute("DROP TABLE item")?;
        control.clear()?;
        pair.wait_for_state("streaming")?;
        pair.source.execute("UPDATE other SET v = 'changed'")?;
        wait_until("the other table is in step", PATIENCE, || {
            Ok(pair.target.count("other")? == 1000 && pair.table_state("other")?.as_deref() == Some("r"))
        })
    });
}

/// Chunks of blocks that have next to nothing in them, and a heap that is small beside its large values.
#[test]
fn bloated_and_toast_heavy_tables_are_copied_in_chunks() {
    on_a_pair(|pair| {
        create_items(pair)?;
        pair.source.execute(
            "DELETE FROM item WHERE id % 20 <> 0;
             CREATE TABLE document (id int PRIMARY KEY, body text);
             ALTER TABLE document ALTER body SET STORAGE EXTERNAL;
             INSERT INTO document SELECT n, repeat('body ' || n, 30000) FROM generate_series(1, 200) n",
        )?;
        let Some(control) = pair.control("chunks") else { return Ok(()) };
        control.set(&Fault::lasting("hang"))?;
        pair.start_mirror_with("tables => ARRAY['item', 'document']::regclass[]", SMALL)?;
        let chunks = "SELECT count(*) FROM dbmazz.snapshot_chunk WHERE relid = 'document'::regclass";
        wait_until("the chunks are planned", PATIENCE, || Ok(pair.source.value(chunks)? != "0"))?;
        // A few blocks of heap, and each a chunk, since the large values weigh in.
        let blocks = pair.source.value("SELECT pg_relation_size('document') / 8192")?;
        assert_eq!(pair.source.value(chunks)?, blocks);
        finish(pair, control, "document")?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_table_of_an_access_method_that_works_like_heap_is_copied() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler")?;
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text) USING heap2;
             INSERT INTO item SELECT n, 'v' FROM generate_series(1, 1000) n",
        )?;
        pair.start_mirror(&["item"])?;
        pair.source.execute("UPDATE item SET v = 'w' WHERE id % 2 = 0")?;
        pair.wait_and_compare(&["item"])
    });
}

/// The list of tables may change while the first copy is being made.
#[test]
fn tables_come_go_and_are_copied_again_during_the_first_copy() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("list of tables") else { return Ok(()) };
        create_items(pair)?;
        for table in ["added", "removed"] {
            pair.source.execute(&format!(
                "CREATE TABLE {table} AS SELECT * FROM item LIMIT 1000; ALTER TABLE {table} ADD PRIMARY KEY (id)"
            ))?;
        }
        control.set(&Fault::lasting("delay_answer").on_table("item").with(20))?;
        pair.start_mirror_with("tables => ARRAY['item', 'removed']::regclass[]", SMALL)?;
        wait_until("some chunks are done", PATIENCE, || Ok(done_chunks(pair, "item")?.len() >= 2))?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!(
            "SELECT dbmazz_add_table('{mirror}', 'added'), dbmazz_remove_table('{mirror}', 'removed'),
                    dbmazz_resync_table('{mirror}', 'item')"
        ))?;
        pair.source
            .execute("UPDATE item SET v = 'x' WHERE id % 3 = 0; DELETE FROM added WHERE id % 3 = 0")?;
        finish(pair, control, "item")?;
        pair.wait_and_compare(&["added"])?;
        assert_eq!(pair.table_state("removed")?, None);
        Ok(())
    });
}

#[test]
fn two_thousand_small_tables_are_copied() {
    on_a_pair(|pair| {
        let tables = 2000;
        pair.source.execute(&format!(
            "DO $$ BEGIN FOR n IN 1..{tables} LOOP
                 EXECUTE format('CREATE TABLE small_%s (id int PRIMARY KEY, v text)', n);
                 EXECUTE format('INSERT INTO small_%s VALUES (1, ''a''), (%s, ''b'')', n, n + 1);
                 IF n % 100 = 0 THEN COMMIT; END IF;
             END LOOP; END $$"
        ))?;
        pair.start_mirror_with("", "{}")?;
        let done = "SELECT count(*) FROM dbmazz_stat_table WHERE state = 'r'";
        wait_until(
            "all tables are in step",
            PATIENCE,
            || Ok(pair.source.value(done)? == tables.to_string()),
        )?;
        pair.wait_and_compare(&["small_1", "small_1000", "small_2000"])
    });
}
