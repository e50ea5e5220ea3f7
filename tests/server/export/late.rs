//! Tables that come or go between the call and the snapshot, and after a snapshot that nothing was read under.

use super::slot::{HOLDER, SLOT, drop_slot};
use super::{assert_equal, import, manifest, place, resume, start, wait};
use crate::harness::{Action, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::slot_start::Running;
use crate::{on_a_pair, on_its_own_cluster};

const BEFORE: &str = "
    CREATE TABLE early AS SELECT n FROM generate_series(1, 10) n;
    CREATE TABLE dropped (n int);
    CREATE TABLE parted (n int) PARTITION BY RANGE (n);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    INSERT INTO parted SELECT n FROM generate_series(0, 9) n";
const MEANWHILE: &str = "
    CREATE TABLE late AS SELECT n FROM generate_series(1, 100) n;
    CREATE MATERIALIZED VIEW late_view AS SELECT n FROM late;
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (n);
    CREATE TABLE parted_21 PARTITION OF parted_2 FOR VALUES FROM (10) TO (20);
    INSERT INTO parted SELECT n FROM generate_series(10, 19) n;
    CREATE SEQUENCE late_sequence START 7;
    SELECT nextval('late_sequence');
    SELECT lo_from_bytea(4711, 'late');
    DROP TABLE dropped";
const ALL: &[&str] = &["early", "late", "late_view", "parted_1", "parted_21"];

fn assert_all(pair: &mut Pair, directory: &std::path::Path) -> Outcome {
    assert!(manifest(directory)?.consistent);
    let mut imported = import(pair, directory)?;
    assert_equal(pair, &mut imported, ALL)?;
    assert_eq!(imported.value("SELECT convert_from(lo_get(4711), 'UTF8')")?, "late");
    assert_eq!(imported.value("SELECT nextval('late_sequence')")?, "8");
    assert!(imported.is_true("SELECT to_regclass('dropped') IS NULL")?);
    Ok(())
}

#[test]
fn what_comes_before_the_commit_of_the_call_is_exported() {
    on_a_pair(|pair| {
        pair.source.execute(BEFORE)?;
        let directory = place(pair, "late")?;
        pair.source.execute("BEGIN")?;
        let id = start(pair, &directory, &[], "{}")?;
        pair.source.another_session()?.execute(MEANWHILE)?;
        pair.source.execute("COMMIT")?;
        wait(pair, id)?;
        assert_all(pair, &directory)
    });
}

#[test]
fn partitions_that_come_before_the_snapshot_are_exported() {
    on_a_pair(|pair| {
        pair.source.execute(BEFORE)?;
        let directory = place(pair, "partitions")?;
        pair.source.execute("BEGIN")?;
        let id = start(pair, &directory, &["parted", "dropped"], "{}")?;
        pair.source.another_session()?.execute(MEANWHILE)?;
        pair.source.execute("COMMIT")?;
        wait(pair, id)?;
        let manifest = manifest(&directory)?;
        let names: Vec<_> = manifest.tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["parted_1", "parted_21"]);
        let mut imported = import(pair, &directory)?;
        assert_equal(pair, &mut imported, &["parted_1", "parted_21"])
    });
}

#[test]
fn what_comes_while_the_slot_of_an_export_waits_is_exported() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(BEFORE)?;
        let directory = place(pair, "slot")?;
        let running = Running::begin(pair)?;
        let id = start(pair, &directory, &[], SLOT)?;
        running.holds_up(pair, HOLDER)?;
        pair.source.execute(MEANWHILE)?;
        running.commit()?;
        wait(pair, id)?;
        assert_all(pair, &directory)?;
        drop_slot(pair, id)
    });
}

#[test]
fn a_late_table_that_may_not_be_read_is_an_error() {
    on_a_pair(|pair| {
        let role = format!("role_{}", pair.source.name());
        let directory = place(pair, "unreadable")?;
        pair.source.execute(&format!(
            "CREATE ROLE {role} IN ROLE pg_write_server_files; CREATE TABLE seen (n int);
             GRANT SELECT ON seen TO {role}; BEGIN; SET LOCAL ROLE {role}"
        ))?;
        let id = start(pair, &directory, &[], "{}")?;
        pair.source.another_session()?.execute("CREATE TABLE hidden (n int)")?;
        pair.source.execute("COMMIT")?;
        let waiting = format!("SELECT dbmazz_wait_export({id}, '1 min')");
        let error = pair.source.error_of(&waiting)?;
        assert!(error.message().contains("permission denied for table \"public.hidden\""), "{error}");
        pair.source.execute(&format!("GRANT SELECT ON hidden TO {role}"))?;
        resume(pair, id)?;
        wait(pair, id)?;
        assert!(manifest(&directory)?.consistent);
        pair.source.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
    });
}

/// Nothing was read under the first snapshot: all is of the second one, and the slot begins there.
#[test]
fn an_export_that_had_read_nothing_begins_anew() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(BEFORE)?;
        let directory = place(pair, "anew")?;
        let point = pair.source.cluster().arm("export_planned", Action::Wait, 0)?;
        let id = start(pair, &directory, &[], SLOT)?;
        point.wait_until_reached()?;
        pair.source.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
        drop(point);
        pair.source.execute(MEANWHILE)?;
        pair.source
            .execute("CREATE INDEX late_index ON early (n); CREATE VIEW seen AS SELECT n FROM late")?;
        resume(pair, id)?;
        wait(pair, id)?;
        assert_all(pair, &directory)?;
        let lsn = manifest(&directory)?.snapshot_lsn;
        let slots = "SELECT string_agg(confirmed_flush_lsn::text, ' ') FROM pg_replication_slots";
        assert_eq!(pair.source.value(slots)?, lsn);
        let mut imported = import(pair, &directory)?;
        assert!(
            imported.is_true(
                "SELECT to_regclass('late_index') IS NOT NULL AND to_regclass('seen') IS NOT NULL"
            )?
        );
        drop_slot(pair, id)
    });
}

/// Definitions that are made when the rows are there already are of another moment.
#[test]
fn definitions_of_a_later_snapshot_are_not_consistent() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(BEFORE)?;
        let directory = place(pair, "later")?;
        let id = start(pair, &directory, &[], "{}")?;
        wait(pair, id)?;
        assert!(manifest(&directory)?.consistent);
        pair.source.execute(&format!(
            "UPDATE dbmazz.export SET state = 'failed', post_data = NULL WHERE export_id = {id}"
        ))?;
        resume(pair, id)?;
        wait(pair, id)?;
        assert!(!manifest(&directory)?.consistent);
        Ok(())
    });
}

/// Of a table that is dropped before all of it was written nothing brings the rest back.
#[test]
fn an_export_that_cannot_go_on_says_so() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE large AS SELECT n, repeat('x', 500) AS v FROM generate_series(1, 5000) n;
             CREATE TABLE small AS SELECT n FROM generate_series(1, 10) n",
        )?;
        let directory = place(pair, "hopeless")?;
        let point = pair.source.cluster().arm("export_chunk_claimed", Action::Wait, 1)?;
        let id = start(pair, &directory, &[], r#"{"workers": 1}"#)?;
        point.wait_until_reached()?;
        pair.source.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
        drop(point);
        wait_until("it is over", PATIENCE, || {
            pair.source.is_true("SELECT NOT EXISTS (SELECT FROM dbmazz.live_exports())")
        })?;
        pair.source.execute("DROP TABLE small")?;
        resume(pair, id)?;
        let error = pair.source.error_of(&format!("SELECT dbmazz_wait_export({id}, '1 min')"))?;
        assert!(error.message().contains("\"public.small\" has been dropped"), "{error}");
        assert!(
            error.hint().is_some_and(|hint| !hint.contains("dbmazz_resume_export")),
            "{:?}",
            error.hint()
        );
        Ok(())
    });
}
