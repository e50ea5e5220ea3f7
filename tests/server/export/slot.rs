//! The slot that an export leaves, and what goes on from it.

use super::{import, manifest, place, resume, start, wait};
use crate::harness::{Action, Database, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::slot_start::change_while_a_slot_begins;
use crate::{on_a_pair, on_its_own_cluster};

pub(super) const HOLDER: &str = "dbmazz export holder";
pub(super) const SLOT: &str = r#"{"slot": true}"#;

#[test]
fn a_mirror_goes_on_from_an_export() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE continued (id int PRIMARY KEY, v text);
             INSERT INTO continued SELECT n, 'before' FROM generate_series(1, 10) n",
        )?;
        let directory = place(pair, "slot")?;
        let id = start(pair, &directory, &["continued"], SLOT)?;
        wait(pair, id)?;
        let manifest = manifest(&directory)?;
        assert_eq!(manifest.slot, Some(slot_name(pair, id)?));
        assert_eq!(confirmed(pair, id)?, manifest.snapshot_lsn);
        pair.source.execute("INSERT INTO continued SELECT n, 'after' FROM generate_series(11, 15) n")?;
        go_on(pair, "continued", id)?;
        // What the export has is for others to bring; the mirror brings what came after it.
        assert_eq!(pair.target.count("continued")?, 5);
        drop_slot(pair, id)
    });
}

/// A change of the catalogs while the view of a slot is begun, and a transaction that begins before the slot is consistent:
/// see `slot_start`.
#[test]
fn a_table_that_is_truncated_while_the_slot_of_an_export_begins_goes_on() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'one'), (2, 'two')",
        )?;
        let directory = place(pair, "slot")?;
        let change = "TRUNCATE item; INSERT INTO item VALUES (7, 'exported')";
        let id = change_while_a_slot_begins(pair, HOLDER, change, |pair| {
            start(pair, &directory, &["item"], SLOT)
        })?;
        wait(pair, id)?;
        pair.source.execute("INSERT INTO item VALUES (3, 'last')")?;
        go_on(pair, "item", id)?;
        let mut imported = import(pair, &directory)?;
        assert_together_equal(pair, &mut imported, "item")?;
        drop_slot(pair, id)
    });
}

/// A start that is given up leaves no slot that would keep the log for ever, and one that is killed none in the way.
#[test]
fn an_export_whose_slot_was_not_finished_is_resumed() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")?;
        let directory = place(pair, "slot")?;
        let armed = pair.source.cluster().arm("start_slot_alone", Action::Wait, 0)?;
        let id = start(pair, &directory, &["item"], SLOT)?;
        armed.wait_until_reached()?;
        pair.source.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
        wait_until("no slot is left", PATIENCE, || {
            pair.source.is_true("SELECT NOT EXISTS (SELECT FROM pg_replication_slots)")
        })?;
        drop(armed);
        let killed = pair.source.cluster().arm("start_slot_alone", Action::Kill, 0)?;
        resume(pair, id)?;
        killed.wait_until_reached()?;
        wait_until("the postmaster has noticed", PATIENCE, || Ok(pair.source.value("SELECT 1").is_err()))?;
        wait_until("the server is back", PATIENCE, || {
            Ok(pair.source.reconnect().and_then(|()| pair.source.value("SELECT 1")).is_ok())
        })?;
        drop(killed);
        resume(pair, id)?;
        wait(pair, id)?;
        assert_eq!(confirmed(pair, id)?, manifest(&directory)?.snapshot_lsn);
        drop_slot(pair, id)
    });
}

fn go_on(pair: &mut Pair, table: &str, export: i64) -> Outcome {
    pair.start_mirror_with(
        &format!("tables => ARRAY['{table}']::regclass[]"),
        &format!("{{\"from_export\": {export}}}"),
    )?;
    pair.wait()
}

#[test]
fn exports_of_two_databases_have_slots_of_their_own() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let mut other = Pair::new(pair.source.cluster())?;
        let mut ids = Vec::new();
        for pair in [&mut *pair, &mut other] {
            pair.source.execute("CREATE TABLE numbered (id int PRIMARY KEY)")?;
            let directory = place(pair, "slot")?;
            let id = start(pair, &directory, &["numbered"], SLOT)?;
            wait(pair, id)?;
            assert_eq!(confirmed(pair, id)?, manifest(&directory)?.snapshot_lsn);
            ids.push(id);
        }
        assert_eq!(ids[0], ids[1], "they are to have the same number");
        other.source.execute("INSERT INTO numbered VALUES (1)")?;
        go_on(&mut other, "numbered", ids[1])?;
        assert_eq!(other.target.count("numbered")?, 1);
        drop_slot(&mut other, ids[1])?;
        drop_slot(pair, ids[0])
    });
}

/// Where whoever reads the slot of an export begins.
fn confirmed(pair: &mut Pair, id: i64) -> Outcome<String> {
    let name = slot_name(pair, id)?;
    pair.source
        .value(&format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{name}'"))
}

/// Numbers of exports are the database's own, names of slots are the cluster's.
fn slot_name(pair: &mut Pair, id: i64) -> Outcome<String> {
    let sql = format!(
        "SELECT 'dbmazz_export_' || oid || '_{id}' FROM pg_database WHERE datname = current_database()"
    );
    pair.source.value(&sql)
}

pub(super) fn drop_slot(pair: &mut Pair, id: i64) -> Outcome {
    let name = slot_name(pair, id)?;
    pair.source.execute(&format!("SELECT pg_drop_replication_slot('{name}')"))
}

/// What was exported and what was mirrored are, together, what is there; no row is both.
fn assert_together_equal(pair: &mut Pair, imported: &mut Database, table: &str) -> Outcome {
    let target = pair.target.table(table);
    let mut together = imported.rows(&format!("SELECT id, v FROM {table}"))?;
    together.extend(pair.target.rows(&format!("SELECT id, v FROM {target}"))?);
    together.sort();
    assert_eq!(together, pair.source.rows(&format!("SELECT id, v FROM {table} ORDER BY id"))?);
    Ok(())
}
