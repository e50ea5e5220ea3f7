//! Each failpoint of the extension, and each way in which a process can end there: an ERROR, SIGTERM, SIGKILL, and an
//! immediate stop of the server. Clients write before, meanwhile and afterwards; then both sides are equal.
//!
//! Each case has a database, a mirror and a stand-in of its own. The cases of one test share a cluster, one after the
//! other: most of them restart it. `DBMAZZ_TEST_SEED` repeats the random part of a run, `DBMAZZ_TEST_CASE` runs only the
//! cases whose names contain it.

mod case;
mod points;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use self::case::{Case, at_each};
pub(crate) use self::points::points;
use self::points::*;
use crate::harness::{Action, Comparison, Failpoint, Fault, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::on_its_own_cluster;
use crate::workload::{TABLES, create_tables, tables_argument};

/// Small chunks and loads, so that each point is passed often.
const SMALL: &str = r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 1500, "snapshot_workers": 2}"#;
const TINY: &str = r#"{"batch_max_rows": 7}"#;
/// A memory so small that one transaction fills it.
const CROWDED: &str = r#"{"batch_max_rows": 2000, "memory_limit": "1MB"}"#;
/// It fills that memory several times.
const LARGE: &str = "BEGIN;
    INSERT INTO ledger (amount, memo) SELECT n, repeat('large', 20) FROM generate_series(1, 30000) n;
    UPDATE ledger SET amount = -amount WHERE memo LIKE 'large%' AND amount > 15000; COMMIT";
/// Each row has a label.
const SINGLE: &str = r#"{"batch_max_rows": 1}"#;
const SINGLE_CROWDED: &str = r#"{"batch_max_rows": 1, "memory_limit": "1MB"}"#;

/// The blow falls during the start or the copy.
fn starting(case: &mut Case<'_>) -> Outcome {
    // The ledger alone, which nobody empties, makes more chunks than may pass.
    create_tables(case.pair, 24_000)?;
    let writers = case.writers();
    let is_of_copy = case.point.starts_with("copy_load") || case.point.starts_with("copy_chunk");
    let armed = case.arm(if is_of_copy { 3 } else { 1 })?;
    case.start(&tables_argument(), SMALL)?;
    case.strike(armed)?;
    case.settle(writers)
}

#[test]
fn a_blow_before_the_slot_loses_nothing() {
    at_each("start before the slot", BEFORE_SLOT, starting);
}

#[test]
fn a_blow_between_slot_and_copy_loses_nothing() {
    at_each("start after the slot", AFTER_SLOT, starting);
}

#[test]
fn a_blow_during_the_copy_loses_nothing() {
    at_each("copy", COPY, starting);
}

#[test]
fn a_blow_while_a_copy_is_taken_up_again_loses_nothing() {
    at_each("resumed copy", RESUME, |case| {
        let Some(control) = case.pair.control(case.point) else { return Ok(()) };
        create_tables(case.pair, 12_000)?;
        let writers = case.writers();
        control.set(&Fault::lasting("delay_answer").with(30))?;
        case.pair.start_mirror_with(&tables_argument(), SMALL)?;
        let done = "SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'r')";
        wait_until("a chunk is done", PATIENCE, || case.pair.source.is_true(done))?;
        let armed = case.arm(1)?;
        terminate(case.pair, "dbmazz snapshot holder")?;
        case.strike(armed)?;
        control.clear()?;
        case.settle(writers)
    });
}

#[test]
fn a_blow_while_a_table_joins_the_stream_loses_nothing() {
    at_each("table sync", SYNC, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        let mirror = case.pair.mirror().to_owned();
        case.provoke(&format!("SELECT dbmazz_resync_table('{mirror}', 'leaf')"))?;
        case.strike(armed)?;
        case.settle(writers)
    });
}

#[test]
fn a_blow_while_rows_are_read_from_the_source_loses_nothing() {
    at_each("incomplete rows", COMPLETE, |case| {
        case.streaming(TINY)?;
        case.pair.source.execute(
            "CREATE TABLE moved (id int PRIMARY KEY, v text, body text);
             ALTER TABLE moved ALTER body SET STORAGE EXTERNAL;
             INSERT INTO moved SELECT n, 'v', repeat('body ' || n, 600) FROM generate_series(1, 100) n",
        )?;
        let mirror = case.pair.mirror().to_owned();
        case.pair.source.execute(&format!("SELECT dbmazz_add_table('{mirror}', 'moved')"))?;
        case.pair.wait()?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        case.provoke("UPDATE moved SET id = id + 1000, v = 'w' WHERE id % 2 = 0")?;
        case.strike(armed)?;
        case.settle(writers)?;
        case.pair.compare(&Comparison::of("moved"))
    });
}

/// Ends a process of this kind.
fn terminate(pair: &mut Pair, backend_type: &str) -> Outcome {
    pair.source.execute(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE backend_type = '{backend_type}' AND datname = current_database()"
    ))
}

#[test]
fn a_blow_while_streaming_loses_nothing() {
    at_each("stream", STREAM, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        let is_of_checkpoint = case.point.starts_with("checkpoint") || case.point.starts_with("slot");
        let armed = case.arm(if is_of_checkpoint { 2 } else { 20 })?;
        case.strike(armed)?;
        case.settle(writers)
    });
}

#[test]
fn a_blow_within_a_large_transaction_loses_nothing() {
    at_each("large transaction", LARGE_TRANSACTION, |case| {
        case.streaming(CROWDED)?;
        let writers = case.writers();
        let armed = case.arm(5)?;
        // In a session of its own: the blow may take it away.
        let large = elsewhere(case, LARGE.to_owned())?;
        case.strike(armed)?;
        // It committed, or it did not: the source knows.
        let _ = large.join();
        case.settle(writers)
    });
}

/// The table that has a bad row is in error afterwards, and has all others.
fn one_is_rejected(case: &mut Case<'_>, rows: u64) -> Outcome {
    wait_until("the bad row is found", PATIENCE, || {
        Ok(case.pair.table_state("narrow")?.as_deref() == Some("e"))
    })?;
    let rejected = "SELECT string_agg(\"row\"->>'id', ',') FROM dbmazz_rejected_row";
    assert_eq!(case.pair.source.value(rejected)?, "777");
    wait_until("the other rows are there", PATIENCE, || Ok(case.pair.target.count("narrow")? == rows))
}

const NARROW: &str = r#"{"column_map": {"public.narrow.v": "VARCHAR(8)"}}"#;
const NARROW_ROWS: &str = "INSERT INTO narrow
    SELECT n, CASE n WHEN 777 THEN 'much too long' ELSE 'fits' END FROM generate_series(1, 1000) n";

#[test]
fn a_blow_while_a_load_goes_in_parts_loses_nothing() {
    at_each("bisection", BISECTION, |case| {
        case.pair.source.execute("CREATE TABLE narrow (id int PRIMARY KEY, v text)")?;
        create_tables(case.pair, 300)?;
        let tables = tables_argument().replace("ARRAY[", "ARRAY['narrow', ");
        case.pair.start_mirror_with(&tables, NARROW)?;
        case.pair.wait()?;
        let armed = case.arm(3)?;
        case.provoke(NARROW_ROWS)?;
        case.strike(armed)?;
        one_is_rejected(case, 999)
    });
}

#[test]
fn a_blow_while_a_load_of_the_copy_goes_in_parts_loses_nothing() {
    at_each("bisection of the copy", COPY_BISECTION, |case| {
        case.pair.source.execute("CREATE TABLE narrow (id int PRIMARY KEY, v text)")?;
        case.pair.source.execute(NARROW_ROWS)?;
        let is_early = case.point == "copy_load_cut";
        let armed = case.arm(if is_early { 3 } else { 1 })?;
        case.start("tables => ARRAY['narrow']::regclass[]", NARROW)?;
        case.strike(armed)?;
        one_is_rejected(case, 999)
    });
}

#[test]
fn a_blow_while_rejected_rows_are_tried_again_loses_nothing() {
    at_each("retry of rejected rows", RETRY, |case| {
        case.pair.source.execute("CREATE TABLE narrow (id int PRIMARY KEY, v text)")?;
        let options = NARROW.replacen('{', r#"{"on_reject": "continue", "#, 1);
        case.pair.start_mirror_with("tables => ARRAY['narrow']::regclass[]", &options)?;
        case.pair.source.execute(NARROW_ROWS)?;
        case.pair.wait()?;
        let target = case.pair.target.table("narrow");
        case.pair.target.execute(&format!("ALTER TABLE {target} MODIFY COLUMN v VARCHAR(100)"))?;
        let armed = case.arm(1)?;
        let retry = format!("SELECT dbmazz_retry_rejected('{}')", case.pair.mirror());
        let retrying = elsewhere(case, retry.clone())?;
        case.strike(armed)?;
        let _ = retrying.join();
        let none_is_left = "SELECT NOT EXISTS (SELECT FROM dbmazz_rejected_row)";
        wait_until("the row is taken", PATIENCE, || {
            // The mirror may be about to start.
            let _ = case.pair.source.execute(&retry);
            case.pair.source.is_true(none_is_left)
        })?;
        case.pair.wait_and_compare(&["narrow"])
    });
}

#[test]
fn a_blow_around_a_truncate_loses_nothing() {
    at_each("truncate", TRUNCATE, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        case.provoke("TRUNCATE word")?;
        case.strike(armed)?;
        case.settle(writers)
    });
}

/// Columns come, go and get other names while rows are written under their old ones; the rows of the last seconds are read
/// again after the blow.
#[test]
fn a_blow_while_a_target_is_altered_loses_nothing() {
    at_each("alter", ALTER, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        let armed = case.arm(2)?;
        // A blow may take the session along before its last statement; the source knows.
        let _ = case.pair.source.execute(
            "INSERT INTO ledger (amount, memo) SELECT n, 'before' FROM generate_series(1, 20) n;
             BEGIN; UPDATE ledger SET amount = 1 WHERE memo = 'before'; ALTER TABLE ledger ADD COLUMN extra int DEFAULT 7;
             DELETE FROM ledger WHERE amount = 1 AND id % 3 = 0; INSERT INTO ledger (memo, extra) VALUES ('own', 1);
             ALTER TABLE ledger RENAME COLUMN extra TO more; UPDATE ledger SET more = id WHERE memo = 'before' AND id % 2 = 0;
             COMMIT;
             ALTER TABLE ledger DROP COLUMN more, ADD COLUMN note text;
             INSERT INTO ledger (memo, note) VALUES ('last', 'note'); ALTER TABLE ledger ADD COLUMN more int DEFAULT 9;
             UPDATE ledger SET note = 'x' WHERE memo = 'own'",
        );
        case.strike(armed)?;
        case.settle(writers)
    });
}

#[test]
fn a_blow_while_a_publication_is_followed_loses_nothing() {
    at_each("publication", PUBLICATION, |case| {
        create_tables(case.pair, 300)?;
        case.pair.source.execute(&format!(
            "CREATE PUBLICATION followed FOR TABLE {};
             CREATE TABLE late (id int PRIMARY KEY, v text);
             INSERT INTO late SELECT n, 'v' FROM generate_series(1, 100) n",
            TABLES.join(", ")
        ))?;
        case.pair.start_mirror_with("publication => 'followed'", TINY)?;
        case.pair.wait()?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        case.provoke("ALTER PUBLICATION followed ADD TABLE late")?;
        case.strike(armed)?;
        case.pair.source.execute("UPDATE late SET v = 'w' WHERE id % 2 = 0")?;
        case.settle(writers)?;
        case.pair.wait_and_compare(&["late"])
    });
}

#[test]
fn a_blow_while_labels_are_reserved_or_settled_loses_nothing() {
    at_each("labels", LABELS, |case| {
        case.streaming(if case.point == "labels_reserved_by_helper" { SINGLE_CROWDED } else { SINGLE })?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        match case.point {
            "labels_reserved" => many_rows(case.pair, 1100)?,
            "labels_reserved_by_helper" => rows_that_use_up_labels(case.pair)?,
            _ => case.pair.source.execute(&format!(
                "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{}'",
                case.pair.mirror()
            ))?,
        }
        case.strike(armed)?;
        case.settle(writers)
    });
}

#[test]
fn a_helper_reserves_every_label_that_it_gives_away() {
    on_its_own_cluster(&Settings::default(), |pair| {
        create_tables(pair, 300)?;
        pair.start_mirror_with(&tables_argument(), SINGLE_CROWDED)?;
        pair.wait()?;
        let armed = pair.source.cluster().arm("labels_reserved_by_helper", Action::Wait, 0)?;
        rows_that_use_up_labels(pair)?;
        armed.wait_until_reached()?;
        // Numbers 1001 to 2000, and the table says which is the first that no label has.
        let reserved = "SELECT max(reserved_until) FROM dbmazz.incarnation";
        assert_eq!(pair.source.value(reserved)?, "2001");
        drop(armed);
        pair.wait_and_compare(&TABLES)
    });
}

/// One transaction that does not fit into [`SINGLE_CROWDED`]'s memory, and needs more labels than are reserved at a time while
/// the worker waits within it.
fn rows_that_use_up_labels(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "INSERT INTO ledger (amount, memo) SELECT n, repeat('m', 1000) FROM generate_series(1, 3500) n",
    )
}

/// One transaction with so many rows that more labels must be reserved, however many there still are.
fn many_rows(pair: &mut Pair, count: u32) -> Outcome {
    pair.source.execute(&format!(
        "INSERT INTO ledger (amount, memo) SELECT n, 'many' FROM generate_series(1, {count}) n"
    ))
}

#[test]
fn a_blow_while_a_mirror_is_paused_loses_nothing() {
    at_each("pause", PAUSE, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        writers.wait_for(20)?;
        let armed = case.arm(1)?;
        pause_until_reached(case.pair, &armed)?;
        case.strike(armed)?;
        writers.wait_for(20)?;
        case.pair.call("dbmazz_resume_mirror")?;
        case.settle(writers)
    });
}

/// A worker that is within a callback at that moment ends without a farewell; then the mirror is paused once more.
fn pause_until_reached(pair: &mut Pair, armed: &Failpoint) -> Outcome {
    wait_until("a mirror says farewell", PATIENCE, || {
        if let Err(failure) = pair.call("dbmazz_pause_mirror") {
            // The blow may take our session along at once.
            return if armed.is_reached() { Ok(true) } else { Err(failure) };
        }
        let running =
            format!("SELECT pid IS NOT NULL FROM dbmazz_stat_mirror WHERE mirror = '{}'", pair.mirror());
        wait_until("the point is reached, or the worker is gone", PATIENCE, || {
            match pair.source.is_true(&running) {
                Ok(running) => Ok(armed.is_reached() || !running),
                // The blow has taken our session along.
                Err(_) if armed.is_reached() => Ok(true),
                Err(failure) => Err(failure),
            }
        })?;
        if !armed.is_reached() {
            pair.call("dbmazz_resume_mirror")?;
            pair.wait_for_state("streaming")?;
        }
        Ok(armed.is_reached())
    })
}

/// Runs a statement in another session, which the blow may take away.
fn elsewhere(case: &mut Case<'_>, sql: String) -> Outcome<thread::JoinHandle<Outcome>> {
    let mut session = case.pair.source.another_session()?;
    Ok(thread::spawn(move || session.execute(&sql)))
}

fn drop_elsewhere(case: &mut Case<'_>) -> Outcome<thread::JoinHandle<Outcome>> {
    let sql = format!("SELECT dbmazz_drop_mirror('{}')", case.pair.mirror());
    elsewhere(case, sql)
}

#[test]
fn a_drop_that_fails_before_the_slot_is_gone_changes_nothing() {
    at_each("drop", DROP_EARLY, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        let dropping = drop_elsewhere(case)?;
        case.strike(armed)?;
        let dropped = dropping.join();
        assert!(matches!(dropped, Ok(Err(_))), "the drop should have failed: {dropped:?}");
        case.settle(writers)
    });
}

#[test]
fn a_drop_that_fails_after_the_slot_is_gone_is_no_silent_gap() {
    at_each("drop", DROP_LATE, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        let dropping = drop_elsewhere(case)?;
        case.strike(armed)?;
        let dropped = dropping.join();
        assert!(matches!(dropped, Ok(Err(_))), "the drop should have failed: {dropped:?}");
        case.pair.wait_for_state("needs_resync")?;
        case.pair.call("dbmazz_drop_mirror")?;
        case.pair.start_mirror_with(&tables_argument(), TINY)?;
        case.settle(writers)
    });
}

/// The names in the sources: each must be in one of the lists.
fn points_in(directory: &Path, found: &mut BTreeSet<String>) -> Outcome {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            points_in(&path, found)?;
            continue;
        }
        let source = fs::read_to_string(&path)?;
        let names = source.split("failpoint::hit(\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(names.map(str::to_owned));
    }
    Ok(())
}

#[test]
fn every_failpoint_of_the_sources_is_listed() -> Outcome {
    let mut found = BTreeSet::new();
    points_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join("postgres"), &mut found)?;
    let listed = points().chain(crate::export::points::points()).chain(ELSEWHERE.iter().copied());
    assert_eq!(found, listed.map(str::to_owned).collect::<BTreeSet<_>>());
    Ok(())
}
