//! The replication slot: it follows the checkpoint, and it lets go of what nobody needs.

use crate::harness::{Database, Fault, Outcome, PATIENCE, Pair, Pgbench, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

/// One position of the slot.
fn of_slot(pair: &mut Pair, column: &str) -> Outcome<String> {
    let sql =
        format!("SELECT {column} FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'", pair.mirror());
    pair.source.value(&sql)
}

/// Two statements, the slot first: a checkpoint that is committed between them can only be later.
fn slot_leads(pair: &mut Pair) -> Outcome<bool> {
    let slot = of_slot(pair, "confirmed_flush_lsn")?;
    let mirror = pair.mirror().to_owned();
    pair.source.is_true(&format!(
        "SELECT '{slot}'::pg_lsn > confirmed_lsn FROM dbmazz.checkpoint WHERE mirror = '{mirror}'"
    ))
}

#[test]
fn the_slot_never_leads_the_checkpoint() {
    on_a_pair(|pair| {
        Pgbench::initialize(&pair.source, 1)?;
        pair.start_mirror(&["pgbench_accounts", "pgbench_tellers", "pgbench_branches"])?;
        pair.wait()?;
        if let Some(control) = pair.control("slow loads") {
            control.set(&Fault::lasting("delay_answer").with(30))?;
        }
        let mut writing = Pgbench::write(pair.source.cluster(), pair.source.name(), 6)?;
        let (mut looks, mut positions) = (0, std::collections::BTreeSet::new());
        while writing.is_running()? {
            assert!(!slot_leads(pair)?, "the slot has passed the checkpoint");
            positions.insert(of_slot(pair, "confirmed_flush_lsn")?);
            looks += 1;
        }
        println!("{looks} looks, {} positions of the slot", positions.len());
        assert!(positions.len() > 2, "the slot did not move");
        pair.wait_and_compare(&["pgbench_accounts", "pgbench_tellers", "pgbench_branches"])
    });
}

/// Writes log that belongs to no mirrored table, in several transactions, with the marks from which decoding may begin.
fn write_elsewhere(pair: &mut Pair, times: u32) -> Outcome {
    for _ in 0..times {
        pair.source
            .execute("INSERT INTO busy SELECT n, repeat('x', 1000) FROM generate_series(1, 8000) n")?;
        pair.source.execute("CHECKPOINT")?;
    }
    Ok(())
}

/// The log that the slot keeps, in megabytes, counted from one of its positions.
fn kept_megabytes(pair: &mut Pair, column: &str) -> Outcome<u32> {
    let position = of_slot(pair, column)?;
    Ok(pair
        .source
        .value(&format!("SELECT ((pg_current_wal_lsn() - '{position}') / 1048576)::int"))?
        .parse()?)
}

#[test]
fn a_mirror_with_nothing_to_do_lets_the_log_of_others_go() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE busy (id int, filler text);
             CREATE PUBLICATION quiet FOR TABLE item WHERE (id > 0)",
        )?;
        pair.start_mirror_with("publication => 'quiet'", "{}")?;
        pair.wait()?;
        let first = of_slot(pair, "restart_lsn")?;
        write_elsewhere(pair, 8)?;
        let written = format!("SELECT ((pg_current_wal_lsn() - '{first}') / 1048576)::int");
        assert!(pair.source.value(&written)?.parse::<u32>()? > 60);
        // The checkpoint moves by 16 MB, at most once a second: whoever writes 80 MB in that time is always so far ahead.
        // The position from which decoding would begin again follows a checkpoint later, while others go on writing.
        let follows = |pair: &mut Pair| {
            wait_until("confirmed position follows", PATIENCE, || {
                Ok(kept_megabytes(pair, "confirmed_flush_lsn")? < 20)
            })
        };
        wait_until("log is let go", PATIENCE, || {
            follows(pair)?;
            write_elsewhere(pair, 1)?;
            Ok(kept_megabytes(pair, "restart_lsn")? < 40)
        })?;
        pair.source.execute("INSERT INTO item VALUES (1), (2)")?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn an_idle_mirror_lets_the_log_of_a_busy_database_go_when_that_is_quiet_again() {
    let small = Settings::default().set("max_wal_size", "64MB").set("min_wal_size", "32MB");
    on_its_own_cluster(&small, |pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        let mut neighbour = Database::create(pair.source.cluster())?;
        neighbour.execute("CREATE TABLE busy (filler text)")?;
        // One transaction: the slot cannot let go of its log before it has ended, and nothing is written after that.
        neighbour.execute("INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 120000)")?;
        wait_until("log is let go although nobody writes any more", PATIENCE, || {
            Ok(kept_megabytes(pair, "restart_lsn")? < 16)
        })?;
        pair.source.execute("CHECKPOINT; CHECKPOINT")?;
        let size = "SELECT sum(size) < 100 * 1024 * 1024 FROM pg_ls_waldir()";
        wait_until("files of the log are removed", PATIENCE, || pair.source.is_true(size))?;
        pair.source.execute("INSERT INTO item VALUES (1)")?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_table_in_error_keeps_no_log() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE broken (id int PRIMARY KEY, v text);
             CREATE TABLE busy (id int, filler text)",
        )?;
        let tables = "tables => ARRAY['item', 'broken']::regclass[]";
        pair.start_mirror_with(tables, r#"{"on_ddl": "error"}"#)?;
        pair.wait()?;
        pair.source
            .execute("ALTER TABLE broken ALTER v TYPE int USING 1; INSERT INTO broken VALUES (1, 1)")?;
        wait_until(
            "table is in error",
            PATIENCE,
            || Ok(pair.table_state("broken")?.as_deref() == Some("e")),
        )?;
        pair.source.execute("INSERT INTO broken SELECT n, n FROM generate_series(2, 1000) n")?;
        write_elsewhere(pair, 6)?;
        wait_until("confirmed position follows", PATIENCE, || {
            Ok(kept_megabytes(pair, "confirmed_flush_lsn")? < 20)
        })
    });
}
