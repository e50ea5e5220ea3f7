//! Tables without a key: rows are appended, each once, and what cannot be addressed is loud.

use crate::harness::{Comparison, Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

const SMALL: &str = r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 500, "snapshot_workers": 2}"#;

/// Rows that are equal to others, so that only their number tells whether one was lost or doubled.
fn create(pair: &mut Pair, rows: u32) -> Outcome {
    pair.source.execute(&format!(
        "CREATE TABLE entry (v int, memo text);
         INSERT INTO entry SELECT n % 10, repeat('m', 150) FROM generate_series(1, {rows}) n"
    ))
}

/// How often each row is there, on both sides.
fn compare(pair: &mut Pair) -> Outcome {
    let source = "SELECT v::text, length(memo)::text, count(*)::text FROM entry GROUP BY v, memo";
    let target =
        format!("SELECT v, char_length(memo), count(*) FROM {} GROUP BY v, memo", pair.target.table("entry"));
    let (mut source, mut target) = (pair.source.rows(source)?, pair.target.rows(&target)?);
    source.sort();
    target.sort();
    assert_eq!(source, target);
    Ok(())
}

fn insert(pair: &mut Pair, rows: u32, marker: u32) -> Outcome {
    pair.source.execute(&format!(
        "BEGIN; INSERT INTO entry SELECT {marker}, 'x' FROM generate_series(1, {rows}); SAVEPOINT s;
         INSERT INTO entry VALUES ({marker}, 'undone'); ROLLBACK TO s; INSERT INTO entry VALUES ({marker}, NULL); COMMIT"
    ))
}

#[test]
fn rows_without_a_key_arrive_each_once() {
    on_a_pair(|pair| {
        create(pair, 3000)?;
        pair.start_mirror_with("tables => ARRAY['entry']::regclass[]", SMALL)?;
        for marker in 100..110 {
            insert(pair, 50, marker)?;
        }
        pair.wait()?;
        compare(pair)?;
        insert(pair, 2000, 200)?;
        pair.wait()?;
        compare(pair)
    });
}

#[test]
fn rows_without_a_key_are_not_doubled_by_a_replay() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("replay") else { return Ok(()) };
        create(pair, 100)?;
        pair.start_mirror_with("tables => ARRAY['entry']::regclass[]", SMALL)?;
        pair.wait()?;
        // Loads get through, and the worker does not hear of it: the next one reads the same log again.
        control.set(&Fault::lasting("hang").with("after_commit"))?;
        insert(pair, 1200, 7)?;
        wait_until("rows have arrived", PATIENCE, || Ok(control.rows_received()? > 100))?;
        pair.source.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{}'",
            pair.mirror()
        ))?;
        control.clear()?;
        pair.wait()?;
        compare(pair)
    });
}

#[test]
fn an_interrupted_copy_of_rows_without_a_key_begins_anew() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("interrupted copy") else { return Ok(()) };
        create(pair, 40_000)?;
        control.set(&Fault::lasting("delay_answer").with(20))?;
        pair.start_mirror_with("tables => ARRAY['entry']::regclass[]", SMALL)?;
        let done = "SELECT count(*) >= 2 FROM dbmazz.snapshot_chunk WHERE state = 'r'";
        wait_until("some chunks are done", PATIENCE, || pair.source.is_true(done))?;
        insert(pair, 1000, 300)?;
        pair.source.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE backend_type = 'dbmazz snapshot holder' AND datname = current_database()",
        )?;
        insert(pair, 1000, 301)?;
        control.clear()?;
        pair.wait()?;
        compare(pair)
    });
}

#[test]
fn an_update_without_a_key_stops_the_table_and_not_the_application() {
    on_a_pair(|pair| {
        create(pair, 100)?;
        pair.source
            .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'a')")?;
        pair.start_mirror(&["entry", "item"])?;
        pair.wait()?;
        pair.source.execute("UPDATE entry SET memo = 'changed' WHERE v = 1; UPDATE item SET v = 'b'")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("entry")?.as_deref() == Some("e"))
        })?;
        let reason = "SELECT last_error FROM dbmazz_stat_table WHERE relation = 'entry'::regclass";
        assert!(pair.source.value(reason)?.contains("no key"));
        wait_until("the other table goes on", PATIENCE, || {
            Ok(pair.compare(&Comparison::of("item")).is_ok())
        })?;
        // With a key it can be copied again, into a table that has one too.
        pair.source.execute("ALTER TABLE entry ADD COLUMN id serial PRIMARY KEY")?;
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{}', 'entry')", pair.mirror()))?;
        pair.source.execute("DELETE FROM entry WHERE v = 2")?;
        pair.wait_and_compare(&["entry", "item"])
    });
}

#[test]
fn replica_identity_nothing_is_appended_to() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE entry (v int PRIMARY KEY, memo text); ALTER TABLE entry REPLICA IDENTITY NOTHING;
             INSERT INTO entry SELECT n, 'm' FROM generate_series(1, 100) n",
        )?;
        pair.start_mirror(&["entry"])?;
        pair.source.execute("INSERT INTO entry SELECT n, 'n' FROM generate_series(101, 200) n")?;
        pair.wait()?;
        compare(pair)
    });
}
