//! Exports beside clients that write: the state at one position of the log, and no other.

use std::time::Instant;

use dbmazz::export::manifest::Manifest;

use super::{export, import, place};
use crate::harness::{Database, Outcome, PATIENCE, Pair, Pgbench, wait_until};
use crate::on_a_pair;

const TABLES: [&str; 4] = ["pgbench_history", "pgbench_accounts", "pgbench_tellers", "pgbench_branches"];

#[test]
fn an_export_under_load_is_the_state_at_its_position() {
    on_a_pair(|pair| {
        Pgbench::initialize(&pair.source, 1)?;
        let slot = format!("check_{}", pair.source.name());
        pair.source
            .execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"))?;
        for round in 0..3 {
            let manifest = export_beside_pgbench(pair, round)?;
            assert!(manifest.consistent);
            let mut imported = import(pair, &place_of(pair, round))?;
            assert_eq!(
                history_in_log(pair, &slot, &manifest.snapshot_lsn)?,
                history_in_table(&mut imported)?,
                "the export is not the state at {}",
                manifest.snapshot_lsn
            );
            assert_balances_follow_from_history(&mut imported)?;
        }
        pair.source.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"))
    });
}

fn place_of(pair: &Pair, round: u32) -> std::path::PathBuf {
    let name = format!("{}_load_{round}", pair.source.name());
    pair.source.cluster().directory().join(name).join("export")
}

/// Starts when pgbench writes, and ends before it.
fn export_beside_pgbench(pair: &mut Pair, round: u32) -> Outcome<Manifest> {
    const COUNT: &str = "SELECT count(*) FROM pgbench_history";
    let number = |text: String| text.parse::<f64>().unwrap_or_default();
    let before = number(pair.source.value(COUNT)?);
    let began = Instant::now();
    let mut writing = Pgbench::write(pair.source.cluster(), pair.source.name(), 6)?;
    wait_until("pgbench writes", PATIENCE, || Ok(number(pair.source.value(COUNT)?) > before + 100.0))?;
    let directory = place(pair, &format!("load_{round}"))?;
    let manifest = export(pair, &directory, &TABLES, r#"{"chunk_size": "1MB", "workers": 2}"#)?;
    assert!(writing.is_running()?, "the export took longer than pgbench");
    writing.succeed()?;
    let transactions = number(pair.source.value(COUNT)?) - before;
    println!("{:.0} transactions/s", transactions / began.elapsed().as_secs_f64());
    Ok(manifest)
}

/// What the log has of the rows that were inserted by transactions that committed before a position. Every transaction of
/// pgbench inserts one.
fn history_in_log(pair: &mut Pair, slot: &str, position: &str) -> Outcome<String> {
    pair.source.value(&format!(
        "SELECT count(*) || ' ' || md5(string_agg(line, '' ORDER BY line COLLATE \"C\"))
         FROM (SELECT max(data) FILTER (WHERE data LIKE 'table public.pgbench_history: INSERT%') AS line,
                   max(lsn) FILTER (WHERE data LIKE 'COMMIT%') AS commit
               FROM pg_logical_slot_peek_changes('{slot}', NULL, NULL) GROUP BY xid) t
         WHERE line IS NOT NULL AND commit <= '{position}'"
    ))
}

/// The same of the rows of a table.
fn history_in_table(database: &mut Database) -> Outcome<String> {
    database.value(
        "SELECT count(*) || ' ' || md5(string_agg(line, '' ORDER BY line COLLATE \"C\"))
         FROM (SELECT format('table public.pgbench_history: INSERT: tid[integer]:%s bid[integer]:%s aid[integer]:%s '
                   'delta[integer]:%s mtime[timestamp without time zone]:''%s'' filler[character]:null',
                   tid, bid, aid, delta, mtime) AS line
               FROM pgbench_history) t",
    )
}

/// All began at zero.
fn assert_balances_follow_from_history(database: &mut Database) -> Outcome {
    for (table, key, balance) in [
        ("pgbench_accounts", "aid", "abalance"),
        ("pgbench_tellers", "tid", "tbalance"),
        ("pgbench_branches", "bid", "bbalance"),
    ] {
        let wrong = database.value(&format!(
            "SELECT count(*) FROM {table} LEFT JOIN (SELECT {key}, sum(delta) FROM pgbench_history GROUP BY 1) h USING ({key})
             WHERE {balance} <> coalesce(sum, 0)"
        ))?;
        assert_eq!(wrong, "0", "rows of {table} are not of the position of its history");
    }
    Ok(())
}
