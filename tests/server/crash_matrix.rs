//! Each failpoint of the extension, and each way in which a process can end there: an ERROR, SIGTERM, SIGKILL, and an
//! immediate stop of the server. Clients write before, meanwhile and afterwards; then both sides are equal.
//!
//! Each case has a database, a mirror and a stand-in of its own. The cases of one test share a cluster, one after the
//! other: most of them restart it. `DBMAZZ_TEST_SEED` repeats the random part of a run, `DBMAZZ_TEST_CASE` runs only the
//! cases whose names contain it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::harness::{
    Action, Cluster, Comparison, Database, Failpoint, Fault, Outcome, Pair, Random, Settings, StopMode,
    wait_until,
};
use crate::loads::assert_loads_are_sound;
use crate::on_its_own_cluster;
use crate::workload::{TABLES, Writers, create_tables, tables_argument};

const PATIENCE: Duration = Duration::from_secs(60);

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

/// Until the slot is there to stay.
const BEFORE_SLOT: &[&str] = &[
    "labels_opened",
    "start_before_target_tables",
    "start_after_target_tables",
    "start_before_slot",
    "start_slot_ephemeral",
];
/// Until rows are under way.
const AFTER_SLOT: &[&str] = &[
    "start_slot_persistent",
    "holder_holding",
    "start_plan_committed",
    "copy_chunk_claimed",
    "copy_load_read",
];
/// Until the first checkpoint.
const COPY: &[&str] = &[
    "copy_load_visible",
    "copy_chunk_all_visible",
    "copy_chunk_done",
    "copy_all_done",
    "copy_first_checkpoint",
];
/// While a copy that lost its snapshot takes another one.
const RESUME: &[&str] = &["resume_snapshot_held", "resume_stock_taken", "resume_plan_committed"];
/// While a table is copied again beside the stream, until it has joined it.
const SYNC: &[&str] = &[
    "sync_plan_committed",
    "sync_copied",
    "sync_near",
    "sync_standing",
    "sync_caught_up",
    "sync_written_down",
    "sync_tables_read",
];
/// Where rows are read that the log does not have whole.
const COMPLETE: &[&str] = &["rows_to_complete", "rows_completed"];
/// From a transaction in the log to the slot's new position.
const STREAM: &[&str] = &[
    "stream_transaction_decoded",
    "stream_load_handed_out",
    "stream_outcome_received",
    "checkpoint_before_commit",
    "checkpoint_committed",
    "slot_confirmed",
];
/// While one transaction fills the memory.
const LARGE_TRANSACTION: &[&str] = &["stream_waits_in_callback"];
/// Around a TRUNCATE of the target.
const TRUNCATE: &[&str] = &["truncate_before", "truncate_after"];
/// While a target is altered.
const ALTER: &[&str] = &["alter_drained", "definition_written", "alter_written_ahead", "alter_done"];
/// Where labels are reserved and settled.
const LABELS: &[&str] = &["labels_reserved", "labels_reserved_by_helper", "labels_settled"];
/// While a mirror that is being paused writes down what it has.
const PAUSE: &[&str] = &["farewell", "farewell_checkpointed"];
/// In a drop, while the slot is there.
const DROP_EARLY: &[&str] = &["drop_worker_stopped"];
/// In a drop, when the slot is gone.
const DROP_LATE: &[&str] = &["drop_slot_dropped"];

/// All failpoints that the extension has.
pub(crate) fn points() -> impl Iterator<Item = &'static str> {
    let ours = [BEFORE_SLOT, AFTER_SLOT, COPY, RESUME, SYNC, COMPLETE, STREAM, LARGE_TRANSACTION];
    let others = [TRUNCATE, ALTER, LABELS, PAUSE, DROP_EARLY, DROP_LATE];
    ours.into_iter().chain(others).flatten().copied()
}

/// How the process at the point ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Blow {
    Error,
    Terminate,
    Kill,
    /// `pg_ctl stop -m immediate` while the process is at the point.
    Stop,
}

const BLOWS: [Blow; 4] = [Blow::Error, Blow::Terminate, Blow::Kill, Blow::Stop];

impl Blow {
    const fn action(self) -> Action {
        match self {
            Self::Error => Action::Error,
            Self::Terminate => Action::Terminate,
            Self::Kill => Action::Kill,
            Self::Stop => Action::Wait,
        }
    }
}

/// One case: a pair, a point of the code and a blow.
struct Case<'a> {
    pair: &'a mut Pair,
    random: &'a mut Random,
    point: &'a str,
    blow: Blow,
}

impl Case<'_> {
    /// Arms the point; it is passed fewer than `most` times before.
    fn arm(&mut self, most: u64) -> Outcome<Failpoint> {
        let passes = self.random.below(most);
        self.pair.source.cluster().arm(self.point, self.blow.action(), passes)
    }

    /// Waits for the blow. Returns when the server takes connections, if it was away.
    fn strike(&mut self, armed: Failpoint) -> Outcome {
        armed.wait_until_reached()?;
        match self.blow {
            Blow::Error | Blow::Terminate => Ok(()),
            Blow::Kill => {
                // The postmaster ends every session, and only when ours is gone has it noticed.
                wait_until("the postmaster has noticed", PATIENCE, || {
                    Ok(self.pair.source.value("SELECT 1").is_err())
                })?;
                wait_until("the server is back", PATIENCE, || {
                    Ok(self.pair.source.reconnect().and_then(|()| self.pair.source.value("SELECT 1")).is_ok())
                })
            }
            Blow::Stop => {
                self.pair.source.cluster().stop(StopMode::Immediate)?;
                drop(armed);
                self.pair.source.cluster().start_again()?;
                self.pair.source.reconnect()
            }
        }
    }

    fn writers(&mut self) -> Writers {
        Writers::start(&self.pair.source, self.random, 1)
    }

    /// A mirror that streams already.
    fn streaming(&mut self, options: &str) -> Outcome {
        create_tables(self.pair, 300)?;
        self.pair.start_mirror_with(&tables_argument(), options)?;
        self.pair.wait()
    }

    /// The clients write on for a while; then both sides must be equal.
    fn settle(&mut self, writers: Writers) -> Outcome {
        writers.wait_for(20)?;
        writers.stop()?;
        self.pair.wait_and_compare(&TABLES)?;
        assert_loads_are_sound(self.pair)
    }
}

/// Runs the scene for each point and blow.
fn at_each(test: &str, points: &[&str], scene: fn(&mut Case<'_>) -> Outcome) {
    let mut random = Random::announced(test);
    let only = std::env::var("DBMAZZ_TEST_CASE").unwrap_or_default();
    let settings = Settings::default().set("deadlock_timeout", "50ms");
    let cluster = Cluster::start(&settings).map(Arc::new).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(
        cluster.log().contains("has been built with failpoints"),
        "the extension has no failpoints: run make test-server, which builds it with them"
    );
    for point in points {
        for blow in BLOWS {
            let name = format!("{point}, {blow:?}");
            if !name.contains(&only) {
                continue;
            }
            println!("{test}: {name}");
            let mut pair = Pair::new(&cluster).unwrap_or_else(|failure| panic!("{name}: {failure}"));
            let database = pair.source.name().to_owned();
            let outcome = scene(&mut Case { pair: &mut pair, random: &mut random, point, blow });
            if let Err(failure) = outcome {
                panic!("{name}: {failure}");
            }
            drop(pair);
            drop_database(&cluster, &database).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        }
    }
}

/// At each start the launcher looks into every database.
fn drop_database(cluster: &Arc<Cluster>, name: &str) -> Outcome {
    Database::connect(cluster, "postgres")?.execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
}

/// The blow falls during the start or the copy.
fn starting(case: &mut Case<'_>) -> Outcome {
    create_tables(case.pair, 12_000)?;
    let writers = case.writers();
    let is_of_copy = case.point.starts_with("copy_load") || case.point.starts_with("copy_chunk");
    let armed = case.arm(if is_of_copy { 3 } else { 1 })?;
    case.pair.start_mirror_with(&tables_argument(), SMALL)?;
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
        case.pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'leaf')"))?;
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
        case.pair.source.execute("UPDATE moved SET id = id + 1000, v = 'w' WHERE id % 2 = 0")?;
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

#[test]
fn a_blow_around_a_truncate_loses_nothing() {
    at_each("truncate", TRUNCATE, |case| {
        case.streaming(TINY)?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        case.pair.source.execute("TRUNCATE word")?;
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
fn a_blow_while_labels_are_reserved_or_settled_loses_nothing() {
    at_each("labels", LABELS, |case| {
        case.streaming(SINGLE)?;
        let writers = case.writers();
        let armed = case.arm(1)?;
        match case.point {
            "labels_reserved" => many_rows(case.pair, 600)?,
            "labels_reserved_by_helper" => many_rows(case.pair, 1500)?,
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
        let small = r#"{"batch_max_rows": 1, "memory_limit": "1MB"}"#;
        pair.start_mirror_with(&tables_argument(), small)?;
        pair.wait()?;
        let armed = pair.source.cluster().arm("labels_reserved_by_helper", Action::Wait, 0)?;
        // More labels than are reserved at a time, within a transaction that does not fit into the memory.
        pair.source.execute(
            "INSERT INTO ledger (amount, memo) SELECT n, repeat('m', 1000) FROM generate_series(1, 3500) n",
        )?;
        armed.wait_until_reached()?;
        // Numbers 1001 to 2000, and the table says which is the first that no label has.
        let reserved = "SELECT max(reserved_until) FROM dbmazz.incarnation";
        assert_eq!(pair.source.value(reserved)?, "2001");
        drop(armed);
        pair.wait_and_compare(&TABLES)
    });
}

/// One transaction with more rows than labels are reserved at a time, or more than half.
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

/// The names in the sources: each must be struck here.
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
fn every_failpoint_of_the_sources_is_struck() -> Outcome {
    let mut found = BTreeSet::new();
    points_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join("postgres"), &mut found)?;
    let struck: BTreeSet<String> = points().map(str::to_owned).collect();
    assert_eq!(found, struck);
    Ok(())
}
