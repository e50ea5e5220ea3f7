//! Tables that are dropped, renamed and made again while they are mirrored: in the order of the rows, and without harm to the
//! others.

use crate::harness::{Action, Comparison, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

const TABLES: &str = "CREATE TABLE item (id int PRIMARY KEY, v text);
    INSERT INTO item SELECT n, 'v' || n FROM generate_series(1, 50) n;
    CREATE TABLE still (id int PRIMARY KEY, v text); INSERT INTO still VALUES (1, 'v')";

fn start(pair: &mut Pair, options: &str) -> Outcome {
    pair.source.execute(TABLES)?;
    pair.start_mirror_with("tables => ARRAY['item', 'still']::regclass[]", options)?;
    pair.wait_and_compare(&["item", "still"])
}

fn pause(pair: &mut Pair) -> Outcome {
    pair.call("dbmazz_pause_mirror")?;
    pair.wait_for_state("paused")
}

fn tables(pair: &mut Pair) -> Outcome<String> {
    let mirror = pair.mirror().to_owned();
    pair.source.value(&format!(
        "SELECT coalesce(string_agg(source_name || ' ' || state::text, ', ' ORDER BY source_name), '')
         FROM dbmazz.mirror_table WHERE mirror = '{mirror}'"
    ))
}

/// The table has left the mirror, its target has these rows, and the other table goes on.
fn assert_left(pair: &mut Pair, rows: u64) -> Outcome {
    wait_until("the table has left", PATIENCE, || Ok(tables(pair)? == "public.still r"))?;
    assert_eq!(pair.target.count("item")?, rows);
    pair.source.execute("INSERT INTO still VALUES (100, 'after')")?;
    pair.wait_and_compare(&["still"])?;
    assert_eq!(pair.stat("state")?.as_deref(), Some("streaming"));
    assert!(!pair.has_event("put into error")?);
    assert!(pair.has_event("\"public.item\" has been dropped")?);
    Ok(())
}

#[test]
fn a_dropped_table_leaves_the_mirror_with_all_of_its_rows_at_the_target() {
    on_a_pair(|pair| {
        start(pair, "{}")?;
        pair.source.execute("INSERT INTO item VALUES (100, 'last'); DROP TABLE item")?;
        assert_left(pair, 51)
    });
}

#[test]
fn a_table_dropped_while_the_mirror_is_paused_leaves_it() {
    on_a_pair(|pair| {
        start(pair, "{}")?;
        pause(pair)?;
        pair.source.execute("INSERT INTO item VALUES (100, 'last'); DELETE FROM item WHERE id <= 10")?;
        pair.source.execute("INSERT INTO still VALUES (50, 'x'); DROP TABLE item")?;
        pair.call("dbmazz_resume_mirror")?;
        assert_left(pair, 41)
    });
}

#[test]
fn a_schema_dropped_with_its_tables_takes_them_out() {
    on_a_pair(|pair| {
        start(pair, "{}")?;
        pair.source.execute(
            "CREATE SCHEMA s; ALTER TABLE item SET SCHEMA s; INSERT INTO s.item VALUES (100, 'x')",
        )?;
        pair.wait()?;
        pair.source.execute("DROP SCHEMA s CASCADE")?;
        wait_until("the table has left", PATIENCE, || Ok(tables(pair)? == "public.still r"))?;
        assert_eq!(pair.target.count("item")?, 51);
        Ok(())
    });
}

#[test]
fn drops_that_were_rolled_back_did_not_happen() {
    on_a_pair(|pair| {
        start(pair, "{}")?;
        pause(pair)?;
        pair.source.execute(
            "BEGIN; INSERT INTO item VALUES (100, 'x'); SAVEPOINT s; DROP TABLE item; ROLLBACK TO s;
             SAVEPOINT t; ALTER TABLE item RENAME TO other; ROLLBACK TO t; INSERT INTO item VALUES (101, 'y'); COMMIT;
             BEGIN; DROP TABLE item; ROLLBACK",
        )?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item", "still"])?;
        assert_eq!(tables(pair)?, "public.item r, public.still r");
        assert!(!pair.has_event("dropped|called")?);
        Ok(())
    });
}

#[test]
fn a_table_made_again_under_its_name_is_another_table() {
    on_a_pair(|pair| {
        start(pair, "{}")?;
        pause(pair)?;
        pair.source.execute(
            "BEGIN; INSERT INTO item VALUES (100, 'last of the first'); DROP TABLE item;
             CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'first of the second'); COMMIT;
             INSERT INTO item VALUES (2, 'x')",
        )?;
        pair.call("dbmazz_resume_mirror")?;
        assert_left(pair, 51)?;
        // It can join at any time.
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_add_table('{mirror}', 'item')"))?;
        pair.wait_and_compare(&["item", "still"])
    });
}

#[test]
fn a_table_in_error_that_is_dropped_leaves_the_mirror() {
    on_a_pair(|pair| {
        start(pair, r#"{"on_truncate": "error"}"#)?;
        pair.source.execute("TRUNCATE item")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(pair.table_state("item")?.as_deref() == Some("e"))
        })?;
        pair.source.execute("DROP TABLE item")?;
        wait_until("the table has left", PATIENCE, || Ok(tables(pair)? == "public.still r"))?;
        pair.wait_and_compare(&["still"])
    });
}

#[test]
fn a_drop_and_a_new_name_are_errors_where_they_are_meant_to_be() {
    on_a_pair(|pair| {
        start(pair, r#"{"on_ddl": "error"}"#)?;
        pair.source.execute("INSERT INTO item VALUES (100, 'last'); DROP TABLE item")?;
        wait_until("the table is in error", PATIENCE, || {
            Ok(tables(pair)? == "public.item e, public.still r")
        })?;
        wait_until("its rows are there", PATIENCE, || Ok(pair.target.count("item")? == 51))?;
        pair.source.execute("ALTER TABLE still RENAME TO moved")?;
        wait_until("the other one is in error", PATIENCE, || {
            Ok(tables(pair)? == "public.item e, public.moved e")
        })?;
        assert_eq!(pair.stat("state")?.as_deref(), Some("streaming"));
        Ok(())
    });
}

#[test]
fn renamed_tables_go_on_under_their_new_names() {
    on_a_pair(|pair| {
        pair.source.execute(TABLES)?;
        pair.source.execute("ALTER TABLE item ADD COLUMN n numeric(10,2) DEFAULT 1.5")?;
        // Options mean a table by the name that it had.
        pair.start_mirror_with(
            "tables => ARRAY['item', 'still']::regclass[]",
            r#"{"column_map": {"public.item.n": "DECIMAL(20,4)"}}"#,
        )?;
        pair.wait()?;
        pause(pair)?;
        pair.source.execute(
            "INSERT INTO item VALUES (100, 'before', 2.25); ALTER TABLE item RENAME TO \"Ding an sich\";
             INSERT INTO \"Ding an sich\" VALUES (101, 'between', 3); CREATE SCHEMA \"s s\";
             ALTER TABLE \"Ding an sich\" SET SCHEMA \"s s\"; UPDATE \"s s\".\"Ding an sich\" SET v = 'after' WHERE id = 1;
             ALTER SCHEMA \"s s\" RENAME TO t; DELETE FROM t.\"Ding an sich\" WHERE id = 2",
        )?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait()?;
        pair.compare(&Comparison::of("t.\"Ding an sich\"").with_target("item").columns(&["id", "v"]))?;
        wait_until("it is known by its new name", PATIENCE, || {
            Ok(tables(pair)? == "public.still r, t.Ding an sich r")
        })?;
        let shown = "SELECT relation::text FROM dbmazz_stat_table ORDER BY 1 DESC LIMIT 1";
        assert_eq!(pair.source.value(shown)?, "t.\"Ding an sich\"");
        assert!(!pair.has_event("copied again")?);
        let mirror = pair.mirror().to_owned();
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 't.\"Ding an sich\"')"))?;
        pair.wait()?;
        pair.compare(&Comparison::of("t.\"Ding an sich\"").with_target("item").columns(&["id", "v"]))
    });
}

#[test]
fn a_table_dropped_during_its_copy_stops_nothing() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("dropped during its copy") else { return Ok(()) };
        pair.source.execute(TABLES)?;
        pair.source
            .execute("INSERT INTO item SELECT n, repeat('x', 500) FROM generate_series(1000, 9000) n")?;
        control.set(&crate::harness::Fault::lasting("hang").on_table("item"))?;
        pair.start_mirror_with(
            "tables => ARRAY['item', 'still']::regclass[]",
            r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 500, "snapshot_workers": 1}"#,
        )?;
        wait_until("a load is on its way", PATIENCE, || {
            pair.source.is_true("SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')")
        })?;
        pair.source.execute("DROP TABLE item")?;
        control.clear()?;
        wait_until("the table has left", PATIENCE, || Ok(tables(pair)? == "public.still r"))?;
        pair.source.execute("INSERT INTO still VALUES (100, 'after')")?;
        pair.wait_and_compare(&["still"])?;
        assert!(!pair.has_event("put into error")?);
        Ok(())
    });
}

#[test]
fn what_happened_to_tables_survives_a_crash() {
    for point in ["stream_transaction_decoded", "checkpoint_before_commit", "checkpoint_committed"] {
        on_its_own_cluster(&Settings::default(), |pair| {
            start(pair, "{}")?;
            pause(pair)?;
            pair.source.execute(
                "INSERT INTO item VALUES (100, 'before'); ALTER TABLE still RENAME TO moved;
                 INSERT INTO moved VALUES (100, 'after'); DROP TABLE item; INSERT INTO moved VALUES (101, 'x')",
            )?;
            let armed = pair.source.cluster().arm(point, Action::Kill, 0)?;
            pair.call("dbmazz_resume_mirror")?;
            armed.wait_until_reached()?;
            drop(armed);
            // All sessions end, a moment later.
            wait_until("the server goes down", PATIENCE, || Ok(pair.source.execute("SELECT 1").is_err()))?;
            wait_until("the server is back, and the table has left", PATIENCE, || {
                let listed = tables(pair);
                if listed.is_err() {
                    let _ = pair.source.reconnect();
                }
                Ok(listed.is_ok_and(|listed| listed == "public.moved r"))
            })?;
            assert_eq!(pair.target.count("item")?, 51);
            pair.wait()?;
            pair.compare(&Comparison::of("moved").with_target("still"))
        });
    }
}

#[test]
fn a_failure_to_tell_the_mirrors_is_not_the_users() {
    on_a_pair(|pair| {
        start(pair, "{}")?;
        pair.source.execute("ALTER TABLE dbmazz.mirror_table RENAME COLUMN relid TO broken")?;
        pair.source
            .execute("CREATE TABLE other (id int); ALTER TABLE other ADD COLUMN v text; DROP TABLE other")?;
        pair.source.execute("ALTER TABLE dbmazz.mirror_table RENAME COLUMN broken TO relid")?;
        pair.source.execute("INSERT INTO item VALUES (100, 'x')")?;
        pair.wait_and_compare(&["item", "still"])
    });
}
