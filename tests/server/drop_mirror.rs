//! `dbmazz_drop_mirror` in every state of a mirror: within moments nothing is left of it on either side.

mod locks;

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Control, Database, Fault, Outcome, PATIENCE, Pair, Proxy, Settings, StarRocks, Traffic, wait_for,
    wait_until,
};
use crate::{on_a_pair, on_its_own_cluster, shared_cluster};

/// How long a drop may take, whatever the mirror is doing.
const MOMENTS: Duration = Duration::from_secs(5);

const ITEM: &str = "CREATE TABLE item (id int PRIMARY KEY, v text)";

fn mirrored_items(pair: &mut Pair) -> Outcome {
    pair.source.execute(&format!("{ITEM}; INSERT INTO item VALUES (1, 'one')"))?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

/// What there is of a mirror besides its events, in words; nothing when it is gone.
fn remains(pair: &mut Pair) -> Outcome<Option<String>> {
    let (mirror, database) = (pair.mirror().to_owned(), pair.source.name().to_owned());
    let tables = [
        "mirror",
        "mirror_table",
        "checkpoint",
        "incarnation",
        "snapshot_chunk",
        "rejected_row",
        "abandoned_copy",
    ];
    let rows = tables.map(|table| {
        format!("SELECT 'row in {table}' FROM dbmazz.{table} WHERE mirror = '{mirror}' UNION ALL ")
    });
    pair.source.value_or_null(&format!(
        "SELECT string_agg(what, ', ') FROM ({}
             SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = '{database}'
             UNION ALL SELECT backend_type || ' ' || pid FROM pg_stat_activity
                       WHERE datname = '{database}' AND backend_type ~ '^dbmazz '
             UNION ALL SELECT 'row in ' || v FROM (SELECT 'dbmazz_stat_mirror' FROM dbmazz_stat_mirror
                       UNION ALL SELECT 'dbmazz_stat_table' FROM dbmazz_stat_table) AS seen (v)) AS t (what)",
        rows.concat()
    ))
}

/// Drops the mirror: fast, and nothing is left as soon as the transaction has ended.
fn drop_leaves_nothing(pair: &mut Pair) -> Outcome {
    let began = Instant::now();
    pair.call("dbmazz_drop_mirror")?;
    let took = began.elapsed();
    assert!(took < MOMENTS, "the drop took {took:?}");
    assert_eq!(remains(pair)?, None);
    Ok(())
}

/// The same while the target does not answer: the numbers of its last loads stay, for the next mirror of the name.
fn drop_leaves_only_open_questions(pair: &mut Pair) -> Outcome {
    let began = Instant::now();
    pair.call("dbmazz_drop_mirror")?;
    let took = began.elapsed();
    assert!(took < MOMENTS, "the drop took {took:?}");
    let left = remains(pair)?.unwrap_or_default();
    assert!(left.split(", ").all(|what| what == "row in incarnation"), "{left}");
    Ok(())
}

/// What was in flight at the target has come to its end, and stays there.
fn nothing_moves_at_the_target(pair: &mut Pair, control: Control) -> Outcome {
    let before = pair.target.count("item")?;
    control.clear()?;
    wait_until("no load is open at the target", PATIENCE, || {
        let labels = control.labels()?;
        let open = labels["transactions"].as_array().into_iter().flatten();
        Ok(!open.into_iter().any(|it| ["PREPARE", "COMMITTED"].contains(&it["state"].as_str().unwrap_or(""))))
    })?;
    assert_eq!(pair.target.count("item")?, before, "rows came after the drop");
    Ok(())
}

/// The name and the tables can be used again at once.
fn can_be_started_again(pair: &mut Pair) -> Outcome {
    pair.start_mirror(&["item"])?;
    pair.source.execute("INSERT INTO item SELECT coalesce(max(id), 0) + 1, 'again' FROM item")?;
    pair.wait_and_compare(&["item"])
}

/// A pair whose target is reached through proxies that can be told to let nothing through.
fn behind_proxies(test: impl FnOnce(&mut Pair, &dyn Fn(Traffic)) -> Outcome) {
    let run = || -> Outcome {
        let mut pair = Pair::without_server(&shared_cluster(), StarRocks::start()?)?;
        let fe = Proxy::to(pair.starrocks.fe_port())?;
        let sql = Proxy::to(pair.starrocks.sql_port())?;
        let options = pair.server_options_through(fe.port(), sql.port());
        pair.create_server("starrocks", &options)?;
        let set = |traffic| {
            fe.set(traffic);
            sql.set(traffic);
        };
        if let Err(failure) = test(&mut pair, &set) {
            panic!("{failure}");
        }
        Ok(())
    };
    if let Err(failure) = run() {
        panic!("{failure}");
    }
}

#[test]
fn while_it_starts_and_the_target_hangs() {
    behind_proxies(|pair, set| {
        pair.source.execute(&format!("{ITEM}; INSERT INTO item VALUES (1, 'one'); BEGIN"))?;
        pair.start_mirror(&["item"])?;
        set(Traffic::Swallowed);
        pair.source.execute("COMMIT")?;
        wait_until("a worker", PATIENCE, || Ok(pair.stat("pid")?.is_some()))?;
        drop_leaves_only_open_questions(pair)?;
        set(Traffic::Flowing);
        can_be_started_again(pair)
    });
}

#[test]
fn while_the_slot_waits_for_an_old_transaction() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(&format!("{ITEM}; INSERT INTO item VALUES (1, 'one')"))?;
        let mut other = pair.source.another_session()?;
        other.execute("BEGIN; INSERT INTO item VALUES (2, 'open for long')")?;
        let pid = other.value("SELECT pg_backend_pid()")?;
        pair.start_mirror(&["item"])?;
        wait_until("the start waits", PATIENCE, || Ok(pair.views()?.contains(&pid)))?;
        drop_leaves_nothing(pair)?;
        other.execute("COMMIT")?;
        can_be_started_again(pair)
    });
}

#[test]
fn while_it_copies() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("drop during the copy") else { return Ok(()) };
        pair.source
            .execute(&format!("{ITEM}; INSERT INTO item SELECT n, 'v' FROM generate_series(1, 5000) n"))?;
        control.set(&Fault::lasting("hang").on_table("item"))?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"batch_max_rows": 500}"#)?;
        pair.wait_for_state("snapshot")?;
        a_load_hangs(control)?;
        drop_leaves_nothing(pair)?;
        nothing_moves_at_the_target(pair, control)?;
        can_be_started_again(pair)
    });
}

/// A load has reached the target and gets no answer.
fn a_load_hangs(control: Control) -> Outcome {
    wait_until("a load hangs", PATIENCE, || Ok(control.labels()?.to_string().contains("PREPARE")))
}

/// A table that is copied again, into one beside its target, of which a load hangs.
fn copied_beside(pair: &mut Pair, control: Control) -> Outcome {
    mirrored_items(pair)?;
    control.set(&Fault::lasting("hang").on_table("dbmazz_copy_of_item*"))?;
    let mirror = pair.mirror().to_owned();
    pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'item')"))?;
    a_load_hangs(control)?;
    assert_eq!(pair.target.tables_beside()?.len(), 1);
    Ok(())
}

#[test]
fn while_it_copies_a_table_beside_its_target() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("drop during a copy beside") else { return Ok(()) };
        copied_beside(pair, control)?;
        drop_leaves_nothing(pair)?;
        assert_eq!(pair.target.tables_beside()?, Vec::<String>::new());
        nothing_moves_at_the_target(pair, control)?;
        can_be_started_again(pair)
    });
}

/// What it does not know to be its own it leaves alone, and what it cannot reach it names.
#[test]
fn while_it_copies_a_table_beside_a_target_that_is_not_its_own_any_more() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("drop with a lost claim") else { return Ok(()) };
        copied_beside(pair, control)?;
        pair.call("dbmazz_pause_mirror")?;
        wait_until("the mirror has ended", PATIENCE, || Ok(pair.stat("pid")?.is_none()))?;
        let owner = pair.target.table("dbmazz_owner");
        let mirror = pair.mirror().to_owned();
        pair.target.execute(&format!(
            "INSERT INTO {owner} (mirror, incarnation, server, commit_lsn) VALUES ('{mirror}', '00000000000000aa', \
             '1/1', '0/1')"
        ))?;
        pair.call("dbmazz_drop_mirror")?;
        assert_eq!(pair.target.tables_beside()?.len(), 1, "it is another server's");
        Ok(())
    });
}

#[test]
fn while_it_copies_a_table_beside_a_target_that_is_away() {
    behind_proxies(|pair, set| {
        let Some(control) = pair.control("drop during a copy beside") else { return Ok(()) };
        copied_beside(pair, control)?;
        let beside = pair.target.tables_beside()?.concat();
        set(Traffic::Cut);
        drop_leaves_only_open_questions(pair)?;
        let told = format!("SELECT EXISTS (SELECT FROM dbmazz_event WHERE detail ~ '{beside}')");
        assert!(pair.source.is_true(&told)?, "nobody was told of the table");
        control.clear()?;
        set(Traffic::Flowing);
        can_be_started_again(pair)
    });
}

#[test]
fn while_it_streams() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        drop_leaves_nothing(pair)?;
        can_be_started_again(pair)
    });
}

#[test]
fn while_a_load_of_the_stream_hangs() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("drop with a hanging load") else { return Ok(()) };
        mirrored_items(pair)?;
        control.set(&Fault::lasting("hang").on_table("item"))?;
        pair.source.execute("INSERT INTO item SELECT n, 'v' FROM generate_series(2, 50) n")?;
        a_load_hangs(control)?;
        drop_leaves_nothing(pair)?;
        nothing_moves_at_the_target(pair, control)?;
        can_be_started_again(pair)
    });
}

/// Then no label can be used up either.
#[test]
fn while_every_load_hangs() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("drop while the target hangs") else { return Ok(()) };
        mirrored_items(pair)?;
        control.set(&Fault::lasting("hang"))?;
        pair.source.execute("INSERT INTO item SELECT n, 'v' FROM generate_series(2, 50) n")?;
        a_load_hangs(control)?;
        drop_leaves_only_open_questions(pair)?;
        nothing_moves_at_the_target(pair, control)?;
        can_be_started_again(pair)
    });
}

#[test]
fn while_it_retries() {
    behind_proxies(|pair, set| {
        mirrored_items(pair)?;
        set(Traffic::Cut);
        pair.source.execute("INSERT INTO item VALUES (2, 'two')")?;
        pair.wait_for_state("retrying")?;
        drop_leaves_only_open_questions(pair)?;
        set(Traffic::Flowing);
        can_be_started_again(pair)
    });
}

#[test]
fn a_load_that_outlives_the_drop_does_not_come_on_top_of_the_next_copy() {
    behind_proxies(|pair, set| {
        let Some(control) = pair.control("load that outlives the drop") else { return Ok(()) };
        mirrored_items(pair)?;
        control.set(&Fault::once("hang"))?;
        pair.source.execute("INSERT INTO item SELECT n, 'old' FROM generate_series(2, 50) n")?;
        a_load_hangs(control)?;
        // Nobody can be asked while the mirror is dropped; what hangs is still there afterwards.
        set(Traffic::Cut);
        drop_leaves_only_open_questions(pair)?;
        set(Traffic::Flowing);
        pair.source.execute("DELETE FROM item WHERE id > 1")?;
        pair.start_mirror(&["item"])?;
        wait_until("the label of before is settled", PATIENCE, || {
            Ok(!control.labels()?.to_string().contains("PREPARE"))
        })?;
        control.clear()?;
        can_stay_in_step(pair)
    });
}

fn can_stay_in_step(pair: &mut Pair) -> Outcome {
    pair.wait_and_compare(&["item"])?;
    pair.source.execute("INSERT INTO item VALUES (1000, 'new')")?;
    pair.wait_and_compare(&["item"])
}

#[test]
fn a_transaction_that_sees_the_past_cannot_drop_a_mirror() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        let drop = format!("SELECT dbmazz_drop_mirror('{}')", pair.mirror());
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            let error = pair.source.error_of(&format!("BEGIN ISOLATION LEVEL {level}; {drop}"))?;
            assert_eq!(error.code().code(), "55000", "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains("READ COMMITTED")), "{error:?}");
            pair.source.execute("ROLLBACK")?;
        }
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn while_it_is_paused() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        drop_leaves_nothing(pair)?;
        can_be_started_again(pair)
    });
}

#[test]
fn while_it_is_in_error() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        pair.source.execute("DROP SERVER starrocks CASCADE")?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_for_state("error")?;
        drop_leaves_nothing(pair)?;
        let options = pair.server_options();
        pair.create_server("starrocks", &options)?;
        can_be_started_again(pair)
    });
}

#[test]
fn when_it_needs_to_be_copied_again() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        let slot = format!("dbmazz_{}", pair.mirror());
        wait_until("the slot is free", PATIENCE, || {
            pair.source
                .is_true(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'"))
        })?;
        pair.source.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"))?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_for_state("needs_resync")?;
        drop_leaves_nothing(pair)?;
        can_be_started_again(pair)
    });
}

#[test]
fn while_it_waits_within_a_long_transaction() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("drop within a transaction") else { return Ok(()) };
        pair.source.execute(ITEM)?;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"memory_limit": "1MB"}"#)?;
        pair.wait()?;
        control.set(&Fault::lasting("hang").on_table("item"))?;
        pair.source
            .execute("INSERT INTO item SELECT n, repeat('v', 50) FROM generate_series(1, 100000) n")?;
        wait_until("memory is full", PATIENCE, || {
            pair.stat("queued_bytes > 600000").map(|full| full.as_deref() == Some("t"))
        })?;
        drop_leaves_nothing(pair)?;
        nothing_moves_at_the_target(pair, control)?;
        can_be_started_again(pair)
    });
}

#[test]
fn while_pgbench_writes() {
    on_its_own_cluster(&Settings::default(), |pair| {
        crate::harness::Pgbench::initialize(&pair.source, 1)?;
        let _writing = crate::harness::Pgbench::write(pair.source.cluster(), pair.source.name(), 20)?;
        for _ in 0..3 {
            pair.start_mirror(&["pgbench_accounts", "pgbench_tellers"])?;
            pair.wait()?;
            drop_leaves_nothing(pair)?;
        }
        Ok(())
    });
}

#[test]
fn a_drop_that_is_rolled_back_leaves_the_mirror_running() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        let worker = pair.stat("pid")?;
        let drop = format!("SELECT dbmazz_drop_mirror('{}')", pair.mirror());
        for statement in [
            format!("BEGIN; {drop}; ROLLBACK"),
            format!("BEGIN; SAVEPOINT s; {drop}; ROLLBACK TO s; COMMIT"),
            format!("BEGIN; {drop}; SELECT 1 / 0; COMMIT"),
        ] {
            let _ = pair.source.execute(&statement);
            pair.source.execute("ROLLBACK; INSERT INTO item SELECT max(id) + 1, 'more' FROM item")?;
            pair.wait_and_compare(&["item"])?;
        }
        assert_eq!(pair.stat("pid")?, worker, "it is the same worker");
        Ok(())
    });
}

#[test]
fn a_second_drop_of_the_same_moment_finds_nothing_to_drop() {
    on_a_pair(|pair| {
        for if_exists in ["false", "true"] {
            if !pair.source.is_true("SELECT to_regclass('item') IS NOT NULL")? {
                pair.source.execute(ITEM)?;
            }
            pair.start_mirror(&["item"])?;
            pair.wait()?;
            let drop = format!("SELECT dbmazz_drop_mirror('{}', {if_exists})", pair.mirror());
            let mut other = pair.source.another_session()?;
            pair.source.execute(&format!("BEGIN; {drop}"))?;
            let second = thread::spawn(move || match if_exists {
                "true" => other.execute(&drop).map(|()| None),
                _ => other.error_of(&drop).map(|error| Some(error.code().code().to_owned())),
            });
            wait_for("the second one waits for the first", PATIENCE, || {
                let waits =
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')";
                Ok(pair.source.is_true(waits)?.then_some(()))
            })?;
            pair.source.execute("COMMIT")?;
            let outcome = second.join().unwrap_or_else(|_| panic!("the second session"))?;
            let expected = (if_exists == "false").then(|| "42704".to_owned());
            assert_eq!(outcome, expected);
            assert_eq!(remains(pair)?, None);
        }
        Ok(())
    });
}

#[test]
fn whoever_starts_the_name_while_it_is_being_dropped_gets_it_or_an_error() {
    on_a_pair(|pair| {
        pair.source.execute(&format!("{ITEM}; INSERT INTO item VALUES (1, 'one')"))?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        for _ in 0..6 {
            pair.source.execute(&format!("SELECT dbmazz_drop_mirror('{}', true)", pair.mirror()))?;
            pair.start_mirror(&["item"])?;
            let mut other = Database::connect(pair.source.cluster(), pair.source.name())?;
            let start = start.clone();
            let racer = thread::spawn(move || other.execute(&start));
            pair.call("dbmazz_drop_mirror")?;
            let started = racer.join().unwrap_or_else(|_| panic!("the other session")).is_ok();
            if started {
                pair.source.execute("INSERT INTO item SELECT max(id) + 1, 'race' FROM item")?;
                pair.wait_and_compare(&["item"])?;
            } else {
                assert_eq!(remains(pair)?, None);
            }
        }
        Ok(())
    });
}
