//! The row of `dbmazz_owner` at the target: one writer, and a target that went back is noticed.

use crate::harness::{Outcome, PATIENCE, Pair, Proxy, StarRocks, Traffic, wait_until};
use crate::{on_a_pair, shared_cluster};

fn create_item(pair: &mut Pair) -> Outcome {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")
}

fn mirrored_item(pair: &mut Pair) -> Outcome {
    create_item(pair)?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

fn owner(pair: &mut Pair, column: &str) -> Outcome<String> {
    let (table, mirror) = (pair.target.table("dbmazz_owner"), pair.mirror().to_owned());
    pair.target.value(&format!("SELECT {column} FROM {table} WHERE mirror = '{mirror}'"))
}

/// The row, written by somebody else.
fn write_row(pair: &mut Pair, server: &str, incarnation: &str, commit_lsn: &str) -> Outcome {
    let (table, mirror) = (pair.target.table("dbmazz_owner"), pair.mirror().to_owned());
    pair.target.execute(&format!(
        "INSERT INTO {table} (mirror, incarnation, server, commit_lsn) VALUES ('{mirror}', '{incarnation}', '{server}', '{commit_lsn}')"
    ))
}

fn newest_error(pair: &mut Pair) -> Outcome<String> {
    pair.source.value(
        "SELECT concat_ws(' | ', message, detail, hint) FROM dbmazz_event WHERE severity = 'error' LIMIT 1",
    )
}

/// Whether the checkpoint is at this position, and the target said so before.
fn checkpoint_has_passed(pair: &mut Pair, lsn: &str) -> Outcome<bool> {
    let mirror = pair.mirror().to_owned();
    pair.source.is_true(&format!(
        "SELECT confirmed_lsn >= '{lsn}' AND owner_lsn >= '{lsn}' FROM dbmazz.checkpoint WHERE mirror = '{mirror}'"
    ))
}

#[test]
fn the_row_follows_the_loads_and_leads_the_checkpoint() {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        for id in 2..5 {
            pair.source.execute(&format!("INSERT INTO item VALUES ({id})"))?;
            let lsn = pair.source.value("SELECT pg_current_wal_lsn()")?;
            wait_until("checkpoint has the row", PATIENCE, || checkpoint_has_passed(pair, &lsn))?;
            let said = owner(pair, "commit_lsn")?;
            let mirror = pair.mirror().to_owned();
            assert!(pair.source.is_true(&format!(
                "SELECT owner_lsn <= '{said}' FROM dbmazz.checkpoint WHERE mirror = '{mirror}'"
            ))?);
        }
        let server = pair.source.value(
            "SELECT s.system_identifier || '/' || d.oid FROM pg_control_system() s, pg_database d
             WHERE d.datname = current_database()",
        )?;
        assert_eq!(owner(pair, "server")?, server);
        Ok(())
    });
}

#[test]
fn a_target_that_was_restored_to_an_older_state_needs_a_resync() {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        let (server, incarnation, before) =
            (owner(pair, "server")?, owner(pair, "incarnation")?, owner(pair, "commit_lsn")?);
        pair.source.execute("INSERT INTO item VALUES (2)")?;
        let lsn = pair.source.value("SELECT pg_current_wal_lsn()")?;
        wait_until("checkpoint has the row", PATIENCE, || checkpoint_has_passed(pair, &lsn))?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        // As the backup has it: row and position of before.
        let item = pair.target.table("item");
        wait_until("worker is gone", PATIENCE, || Ok(pair.stat("pid")?.is_none()))?;
        pair.target.execute(&format!("DELETE FROM {item} WHERE id = 2"))?;
        write_row(pair, &server, &incarnation, &before)?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_for_state("needs_resync")?;
        let event = newest_error(pair)?;
        assert!(event.contains("it has been restored"), "{event}");
        assert_eq!(pair.target.count("item")?, 1);
        Ok(())
    });
}

#[test]
fn a_target_without_the_row_needs_a_resync() {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        pair.call("dbmazz_pause_mirror")?;
        wait_until("worker is gone", PATIENCE, || Ok(pair.stat("pid")?.is_none()))?;
        let table = pair.target.table("dbmazz_owner");
        pair.target.execute(&format!("DROP TABLE {table}"))?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_for_state("needs_resync")
    });
}

#[test]
fn a_foreign_claim_stops_the_start_until_somebody_takes_over() {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        pair.call("dbmazz_drop_mirror")?;
        write_row(pair, "1234/5678", "00000000000000aa", "0/1")?;
        pair.start_mirror(&["item"])?;
        pair.wait_for_state("paused")?;
        let event = newest_error(pair)?;
        assert!(event.contains("system 1234") && event.contains("dbmazz_resume_mirror"), "{event}");
        assert_eq!(owner(pair, "server")?, "1234/5678");
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item"])?;
        assert_ne!(owner(pair, "server")?, "1234/5678");
        Ok(())
    });
}

#[test]
fn a_claim_that_is_taken_while_the_mirror_runs_stops_it() {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        write_row(pair, "1234/5678", "00000000000000aa", "0/1")?;
        pair.source.execute("INSERT INTO item VALUES (2)")?;
        pair.wait_for_state("paused")?;
        let event = newest_error(pair)?;
        assert!(event.contains("has been claimed by another server"), "{event}");
        assert_eq!(owner(pair, "server")?, "1234/5678", "the other one's row is left alone");
        // Nobody here knows what the other one has written.
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_for_state("needs_resync")
    });
}

#[test]
fn no_checkpoint_passes_a_load_that_the_row_does_not_tell_of() -> Outcome {
    let starrocks = StarRocks::start()?;
    let sql = Proxy::to(starrocks.sql_port())?;
    let mut pair = Pair::without_server(&shared_cluster(), starrocks)?;
    let options = pair.server_options_through(pair.starrocks.fe_port(), sql.port());
    pair.create_server("starrocks", &options)?;
    mirrored_item(&mut pair)?;
    sql.set(Traffic::Cut);
    let before = pair.source.value("SELECT pg_current_wal_lsn()")?;
    pair.source.execute("INSERT INTO item VALUES (2)")?;
    let lsn = pair.source.value("SELECT pg_current_wal_lsn()")?;
    wait_until("row is loaded", PATIENCE, || Ok(pair.target.count("item")? == 2))?;
    pair.wait_for_state("retrying")?;
    // Each attempt is a chance for a checkpoint that must not be written.
    wait_until("several attempts have failed", PATIENCE, || {
        let mirror = pair.mirror().to_owned();
        assert!(pair.source.is_true(&format!(
            "SELECT confirmed_lsn < '{lsn}' FROM dbmazz.checkpoint WHERE mirror = '{mirror}'"
        ))?);
        pair.source.is_true(&format!(
            "SELECT clock_timestamp() - max(at) > '3 s' FROM dbmazz_event WHERE mirror = '{mirror}'"
        ))
    })?;
    sql.set(Traffic::Flowing);
    wait_until("checkpoint has the row", PATIENCE, || checkpoint_has_passed(&mut pair, &lsn))?;
    assert!(checkpoint_has_passed(&mut pair, &before)?);
    pair.wait_for_state("streaming")
}

#[test]
fn the_row_goes_with_the_mirror() {
    on_a_pair(|pair| {
        mirrored_item(pair)?;
        pair.call("dbmazz_drop_mirror")?;
        assert_eq!(pair.target.count("dbmazz_owner")?, 0);
        Ok(())
    });
}

#[test]
fn a_mirror_is_dropped_although_its_target_is_away_and_the_next_one_takes_over() -> Outcome {
    let starrocks = StarRocks::start()?;
    let (fe, sql) = (Proxy::to(starrocks.fe_port())?, Proxy::to(starrocks.sql_port())?);
    let mut pair = Pair::without_server(&shared_cluster(), starrocks)?;
    pair.create_server("starrocks", &pair.server_options_through(fe.port(), sql.port()))?;
    mirrored_item(&mut pair)?;
    fe.set(Traffic::Cut);
    sql.set(Traffic::Cut);
    pair.call("dbmazz_drop_mirror")?;
    let event = pair.source.value("SELECT message FROM dbmazz_event WHERE severity = 'warning' LIMIT 1")?;
    assert!(event.contains("stays"), "{event}");
    assert_eq!(pair.target.count("dbmazz_owner")?, 1);
    fe.set(Traffic::Flowing);
    sql.set(Traffic::Flowing);
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}
