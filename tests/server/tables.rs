//! Tables join a running mirror, leave it, and are copied again, while the others stream on.

use crate::harness::{Comparison, Fault, Outcome, PATIENCE, Pair, Pgbench, wait_until};
use crate::on_a_pair;

fn create(pair: &mut Pair, table: &str, rows: u32) -> Outcome {
    pair.source.execute(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, v text, body text);
         ALTER TABLE {table} ALTER body SET STORAGE EXTERNAL;
         INSERT INTO {table} SELECT n, 'v' || n, CASE WHEN n % 100 = 0 THEN repeat('body ' || n, 600) END
         FROM generate_series(1, {rows}) n"
    ))
}

fn call(pair: &mut Pair, function: &str, table: &str) -> Outcome {
    let sql = format!("SELECT dbmazz_{function}_table('{}', '{table}')", pair.mirror());
    pair.source.execute(&sql)
}

/// The process that streams.
#[test]
fn a_table_joins_while_others_stream() {
    on_a_pair(|pair| {
        create(pair, "first", 1000)?;
        create(pair, "second", 20_000)?;
        pair.start_mirror(&["first"])?;
        pair.wait()?;
        let mut open = pair.source.another_session()?;
        open.execute("BEGIN; UPDATE second SET v = 'open before' WHERE id % 10 = 1")?;
        call(pair, "add", "second")?;
        pair.source.execute("UPDATE first SET v = 'meanwhile' WHERE id % 3 = 0")?;
        wait_until("the first table streams on", PATIENCE, || {
            Ok(pair.compare(&Comparison::of("first")).is_ok())
        })?;
        open.execute("COMMIT")?;
        pair.source.execute("UPDATE second SET v = 'later', id = id + 100000 WHERE id % 10 = 2")?;
        pair.source.execute("DELETE FROM second WHERE id % 10 = 3")?;
        pair.wait_and_compare(&["first", "second"])?;
        assert_eq!(pair.table_state("second")?.as_deref(), Some("r"));
        Ok(())
    });
}

#[test]
fn tables_are_copied_again_under_load() {
    on_a_pair(|pair| {
        Pgbench::initialize(&pair.source, 1)?;
        let tables = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers"];
        pair.start_mirror(&tables)?;
        pair.wait()?;
        let writing = Pgbench::write(pair.source.cluster(), pair.source.name(), 8)?;
        call(pair, "resync", "pgbench_accounts")?;
        call(pair, "resync", "pgbench_tellers")?;
        wait_until("they are copied", PATIENCE, || {
            let states = (pair.table_state("pgbench_accounts")?, pair.table_state("pgbench_tellers")?);
            Ok(states == (Some("r".to_owned()), Some("r".to_owned())))
        })?;
        call(pair, "resync", "pgbench_branches")?;
        writing.succeed()?;
        pair.wait_and_compare(&tables)
    });
}

#[test]
fn a_table_in_error_is_copied_again_with_its_new_columns() {
    on_a_pair(|pair| {
        create(pair, "first", 500)?;
        create(pair, "second", 500)?;
        let tables = "tables => ARRAY['first', 'second']::regclass[]";
        pair.start_mirror_with(tables, r#"{"on_ddl": "error"}"#)?;
        pair.wait()?;
        pair.source.execute("ALTER TABLE second DROP COLUMN body, ADD COLUMN extra int DEFAULT 5")?;
        pair.source.execute("UPDATE second SET v = 'altered' WHERE id = 1")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("second")?.as_deref() == Some("e"))
        })?;
        call(pair, "resync", "second")?;
        pair.source.execute("UPDATE second SET extra = id WHERE id % 2 = 0; UPDATE first SET v = 'x'")?;
        pair.wait_and_compare(&["first", "second"])
    });
}

#[test]
fn a_table_that_leaves_gets_no_changes_and_may_come_back() {
    on_a_pair(|pair| {
        create(pair, "first", 500)?;
        create(pair, "second", 500)?;
        pair.start_mirror(&["first", "second"])?;
        pair.wait()?;
        call(pair, "remove", "second")?;
        assert_eq!(pair.table_state("second")?, None);
        pair.source.execute("DELETE FROM second WHERE id <= 100; UPDATE first SET v = 'x'")?;
        pair.wait_and_compare(&["first"])?;
        assert_eq!(pair.target.count("second")?, 500);
        call(pair, "add", "second")?;
        pair.wait_and_compare(&["first", "second"])
    });
}

#[test]
fn a_table_may_be_added_removed_and_added_at_once() {
    on_a_pair(|pair| {
        create(pair, "first", 100)?;
        create(pair, "second", 30_000)?;
        pair.start_mirror(&["first"])?;
        pair.wait()?;
        for _ in 0..3 {
            call(pair, "add", "second")?;
            call(pair, "resync", "second")?;
            call(pair, "remove", "second")?;
            pair.source.execute("UPDATE second SET v = v || '.' WHERE id % 50 = 0")?;
        }
        call(pair, "add", "second")?;
        pair.source.execute("DELETE FROM second WHERE id % 7 = 0")?;
        pair.wait_and_compare(&["first", "second"])
    });
}

/// Whoever of the processes of a copy beside the stream ends: it is begun anew, and the stream goes on.
fn survives_the_end_of(process: &str) {
    on_a_pair(|pair| {
        let Some(control) = pair.control(process) else { return Ok(()) };
        create(pair, "first", 100)?;
        create(pair, "second", 20_000)?;
        pair.start_mirror(&["first"])?;
        pair.wait()?;
        control.set(&Fault::lasting("hang").on_table("second"))?;
        call(pair, "add", "second")?;
        let pid = format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = '{process}' AND datname = current_database() LIMIT 1"
        );
        let copying = "SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')";
        wait_until("the table is being copied", PATIENCE, || pair.source.is_true(copying))?;
        let pid = pair.source.value(&pid)?;
        pair.source.execute(&format!("SELECT pg_terminate_backend({pid})"))?;
        pair.source.execute("UPDATE second SET v = 'x' WHERE id % 9 = 0; UPDATE first SET v = 'y'")?;
        control.clear()?;
        pair.wait_and_compare(&["first", "second"])
    });
}

#[test]
fn the_end_of_the_table_sync_is_survived() {
    survives_the_end_of("dbmazz table sync");
}

#[test]
fn the_end_of_its_holder_is_survived() {
    survives_the_end_of("dbmazz snapshot holder");
}

#[test]
fn the_end_of_its_snapshot_worker_is_survived() {
    survives_the_end_of("dbmazz snapshot");
}

#[test]
fn the_end_of_the_mirror_worker_beside_a_copy_is_survived() {
    survives_the_end_of("dbmazz mirror");
}

#[test]
fn a_paused_mirror_takes_its_new_table_in_when_it_goes_on() {
    on_a_pair(|pair| {
        create(pair, "first", 100)?;
        create(pair, "second", 1000)?;
        pair.start_mirror(&["first"])?;
        pair.wait()?;
        pair.call("dbmazz_pause_mirror")?;
        call(pair, "add", "second")?;
        pair.source.execute("UPDATE first SET v = 'x'; UPDATE second SET v = 'y' WHERE id % 2 = 0")?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["first", "second"])
    });
}

#[test]
fn a_table_that_is_added_and_rolled_back_is_not_there() {
    on_a_pair(|pair| {
        create(pair, "first", 100)?;
        create(pair, "second", 100)?;
        pair.start_mirror(&["first"])?;
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("BEGIN; SELECT dbmazz_add_table('{mirror}', 'second'); ROLLBACK"))?;
        assert_eq!(pair.table_state("second")?, None);
        pair.wait_and_compare(&["first"])
    });
}

#[test]
fn what_cannot_join_is_refused_with_the_way_out() {
    on_a_pair(|pair| {
        create(pair, "first", 10)?;
        pair.source.execute("CREATE UNLOGGED TABLE light (id int PRIMARY KEY); CREATE SCHEMA other; CREATE TABLE other.first (id int PRIMARY KEY)")?;
        pair.start_mirror(&["first"])?;
        let twice = call(pair, "add", "first").map_err(|failure| failure.message().to_owned());
        assert!(
            twice.is_err_and(|text| text.contains("already has") && text.contains("dbmazz_resync_table"))
        );
        let light = call(pair, "add", "light").map_err(|failure| failure.message().to_owned());
        assert!(light.is_err_and(|text| text.contains("unlogged")));
        let clash = call(pair, "add", "other.first").map_err(|failure| failure.message().to_owned());
        assert!(clash.is_err_and(|text| text.contains("same target")));
        let unknown = call(pair, "remove", "light").map_err(|failure| failure.message().to_owned());
        assert!(unknown.is_err_and(|text| text.contains("does not have")));
        pair.wait_and_compare(&["first"])
    });
}

#[test]
fn a_filtered_table_joins_its_publication_first() {
    on_a_pair(|pair| {
        if pair.is_before(15, "filtered table", "row filters") {
            return Ok(());
        }
        create(pair, "first", 100)?;
        create(pair, "second", 100)?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE first")?;
        pair.start_mirror_with("publication => 'shop'", "{}")?;
        pair.wait()?;
        let early = call(pair, "add", "second").map_err(|failure| failure.message().to_owned());
        assert!(early.is_err_and(|text| text.contains("ALTER PUBLICATION")));
        pair.source.execute("ALTER PUBLICATION shop ADD TABLE second (id, v) WHERE (id <= 50)")?;
        call(pair, "add", "second")?;
        pair.source
            .execute("UPDATE second SET v = 'x' WHERE id % 5 = 0; UPDATE first SET v = 'y' WHERE id = 1")?;
        pair.wait_and_compare(&["first"])?;
        assert_eq!(pair.target.count("second")?, 50);
        let sql = format!("SELECT count(*) FROM {} WHERE v = 'x'", pair.target.table("second"));
        let rows = pair.target.value(&sql)?;
        assert_eq!(rows, "10");
        Ok(())
    });
}
