//! Servers that are not configured for a mirror say what to configure.

use std::sync::Arc;

use crate::harness::{Cluster, Database, Outcome, PATIENCE, Pair, Settings};
use crate::on_its_own_cluster;

/// The start of a mirror of one table, which must fail; returns code and text.
fn refused(pair: &mut Pair) -> Outcome<(String, String)> {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
    let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
    let error = pair.source.error_of(&start)?;
    assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_stat_mirror")?, "0");
    let text = [Some(error.message()), error.detail(), error.hint()]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n");
    Ok((error.code().code().to_owned(), text))
}

#[test]
fn wal_level_replica_is_refused() {
    on_its_own_cluster(&Settings::default().set("wal_level", "replica"), |pair| {
        let (code, text) = refused(pair)?;
        assert_eq!(code, "55000", "{text}");
        assert!(text.contains("wal_level") && text.contains("logical"), "{text}");
        Ok(())
    });
}

#[test]
fn no_free_replication_slot_is_refused() {
    on_its_own_cluster(&Settings::default().set("max_replication_slots", "1"), |pair| {
        pair.source.execute("SELECT pg_create_physical_replication_slot('taken')")?;
        let (code, text) = refused(pair)?;
        assert!(["53400", "55000"].contains(&code.as_str()), "{code}: {text}");
        assert!(text.contains("max_replication_slots"), "{text}");
        Ok(())
    });
}

/// Free workers come and go, so the start may succeed; then the mirror must say what it lacks.
#[test]
fn no_free_worker_is_told() {
    on_its_own_cluster(&Settings::default().set("max_worker_processes", "2"), |pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        let Err(failure) = pair.source.execute(&start) else {
            return crate::harness::wait_until("the lack of workers is told", PATIENCE, || {
                Ok(pair.views()?.contains("max_worker_processes"))
            });
        };
        assert!(failure.message().contains("53400"), "{failure}");
        assert!(failure.message().contains("max_worker_processes"), "{failure}");
        Ok(())
    });
}

#[test]
fn an_extension_that_is_not_preloaded_says_so() -> Outcome {
    let cluster = Arc::new(Cluster::start(&Settings::default().set("shared_preload_libraries", ""))?);
    let mut source = Database::create(&cluster)?;
    let failed = source.execute(
        "CREATE EXTENSION dbmazz;
         CREATE SERVER starrocks FOREIGN DATA WRAPPER dbmazz_starrocks OPTIONS (load_url 'http://127.0.0.1:1', sql_host '127.0.0.1', sql_port '1', database 'd');
         CREATE USER MAPPING FOR CURRENT_USER SERVER starrocks OPTIONS (user 'root', password '');
         CREATE TABLE item (id int PRIMARY KEY);
         SELECT dbmazz_start_mirror('m', 'starrocks', ARRAY['item']::regclass[])",
    );
    let Err(failure) = failed else { panic!("a mirror cannot start without its launcher") };
    assert!(failure.message().contains("shared_preload_libraries"), "{failure}");
    assert!(failure.message().contains("55000"), "{failure}");
    Ok(())
}

#[test]
fn enabled_off_stops_all_work_at_once() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        pair.source.execute("ALTER SYSTEM SET dbmazz.enabled = off")?;
        pair.source.execute("SELECT pg_reload_conf()")?;
        let worker = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dbmazz mirror')";
        crate::harness::wait_until("no worker", PATIENCE, || pair.source.is_true(worker))?;
        pair.source.execute("INSERT INTO item VALUES (1)")?;
        pair.source.execute("ALTER SYSTEM RESET dbmazz.enabled")?;
        pair.source.execute("SELECT pg_reload_conf()")?;
        pair.wait_and_compare(&["item"])
    });
}
