//! The extension goes only after its mirrors, whichever command would take it along, and then it leaves nothing.

use postgres::error::DbError;

use crate::harness::{Database, Outcome, PATIENCE, Pair, Settings, StopMode, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

/// Everything in a database that carries the name of the extension, by catalog.
const LEFT_BEHIND: &str = "
    SELECT string_agg(what, ', ') FROM (
        SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname ~ 'dbmazz'
        UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname ~ 'dbmazz' OR probin ~ 'dbmazz'
        UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typname ~ 'dbmazz'
        UNION ALL SELECT 'relation ' || relname FROM pg_class WHERE relname ~ 'dbmazz'
        UNION ALL SELECT 'wrapper ' || fdwname FROM pg_foreign_data_wrapper WHERE fdwname ~ 'dbmazz'
        UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger WHERE evtname ~ 'dbmazz'
        UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname ~ 'dbmazz'
        UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
        UNION ALL SELECT backend_type FROM pg_stat_activity
                  WHERE datname = current_database() AND backend_type ~ 'dbmazz') AS t (what)";

fn mirrored_items(pair: &mut Pair) -> Outcome {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

/// The error names the mirror and the way out.
fn assert_refused(error: &DbError, mirror: &str) {
    assert_eq!(error.code().code(), "2BP01", "{error:?}");
    assert!(error.message().contains("because it has mirrors"), "{error:?}");
    assert!(error.detail().is_some_and(|detail| detail.contains(mirror)), "{error:?}");
    let way_out = format!("SELECT dbmazz_drop_mirror('{mirror}')");
    assert!(error.hint().is_some_and(|hint| hint.contains(&way_out)), "{error:?}");
}

/// The mirror must not have noticed.
fn assert_goes_on(pair: &mut Pair) -> Outcome {
    pair.source.execute("INSERT INTO item SELECT max(id) + 1 FROM item")?;
    pair.wait_and_compare(&["item"])
}

fn refused(statement: &str) {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        let error = pair.source.error_of(statement)?;
        assert_refused(&error, pair.mirror());
        assert_goes_on(pair)
    });
}

#[test]
fn drop_extension_is_refused_while_there_is_a_mirror() {
    refused("DROP SERVER starrocks CASCADE; DROP EXTENSION dbmazz");
}

#[test]
fn drop_extension_cascade_is_refused_too() {
    refused("DROP EXTENSION dbmazz CASCADE");
}

#[test]
fn a_schema_that_would_take_the_extension_along_stays() {
    refused("DROP SCHEMA public CASCADE");
}

#[test]
fn an_owner_who_would_take_the_extension_along_is_refused() {
    on_a_pair(|pair| {
        // DROP OWNED takes what belongs to a role; what the bootstrap superuser made cannot be dropped that way at all.
        let role = format!("owner_{}", pair.source.name());
        pair.source.execute(&format!(
            "DROP SERVER starrocks CASCADE; DROP EXTENSION dbmazz; CREATE ROLE {role} SUPERUSER; SET ROLE {role};
             CREATE EXTENSION dbmazz; RESET ROLE"
        ))?;
        let options = pair.server_options();
        pair.create_server("starrocks", &options)?;
        mirrored_items(pair)?;
        let error = pair.source.error_of(&format!("DROP OWNED BY {role} CASCADE"))?;
        assert_refused(&error, pair.mirror());
        assert_goes_on(pair)?;
        pair.call("dbmazz_drop_mirror")?;
        pair.source.execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))?;
        assert_eq!(pair.source.value_or_null(LEFT_BEHIND)?, None);
        Ok(())
    });
}

#[test]
fn a_paused_mirror_counts_and_every_mirror_is_named() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.source.execute("CREATE TABLE other (id int PRIMARY KEY)")?;
        let second = format!("{}_b", pair.mirror());
        pair.source.execute(&format!(
            "SELECT dbmazz_start_mirror('{second}', 'starrocks', ARRAY['other']::regclass[])"
        ))?;
        for mirror in [pair.mirror().to_owned(), second.clone()] {
            pair.source.execute(&format!("SELECT dbmazz_pause_mirror('{mirror}')"))?;
        }
        // What a worker writes in the end, and the locks of the drop, may deadlock; that is an error, too, but another one.
        wait_until("no worker", PATIENCE, || {
            pair.source.is_true(
                "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type ~ 'dbmazz')",
            )
        })?;
        let error = pair.source.error_of("DROP EXTENSION dbmazz CASCADE")?;
        assert_refused(&error, pair.mirror());
        assert_refused(&error, &second);
        Ok(())
    });
}

#[test]
fn a_mirror_that_was_started_after_the_snapshot_of_the_transaction_counts() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")?;
        let mut other = pair.source.another_session()?;
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        let error = other.error_of("DROP EXTENSION dbmazz CASCADE")?;
        assert_refused(&error, pair.mirror());
        other.execute("ROLLBACK")?;
        assert_goes_on(pair)
    });
}

#[test]
fn without_mirrors_it_leaves_nothing() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.call("dbmazz_drop_mirror")?;
        assert!(pair.source.value_or_null(LEFT_BEHIND)?.is_some(), "the look finds what is there");
        pair.source.execute("DROP EXTENSION dbmazz CASCADE")?;
        assert_eq!(pair.source.value_or_null(LEFT_BEHIND)?, None);
        // And it comes back as new.
        pair.source.execute("CREATE EXTENSION dbmazz")?;
        let options = pair.server_options();
        pair.create_server("starrocks", &options)?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn mirror_and_extension_may_go_in_one_transaction() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        let drop = format!("SELECT dbmazz_drop_mirror('{}'); DROP EXTENSION dbmazz CASCADE", pair.mirror());
        pair.source.execute(&format!("BEGIN; {drop}; ROLLBACK"))?;
        assert_goes_on(pair)?;
        pair.source.execute(&format!("BEGIN; {drop}; COMMIT"))?;
        assert_eq!(pair.source.value_or_null(LEFT_BEHIND)?, None);
        Ok(())
    });
}

#[test]
fn a_table_of_the_same_name_without_the_extension_is_nobodys_business() {
    on_a_pair(|pair| {
        pair.source.execute(
            "DROP EXTENSION dbmazz CASCADE; CREATE SCHEMA dbmazz; CREATE TABLE dbmazz.mirror (mirror text PRIMARY KEY);
             INSERT INTO dbmazz.mirror VALUES ('mine'); DROP TABLE dbmazz.mirror; DROP SCHEMA dbmazz",
        )
    });
}

/// Without the library in `shared_preload_libraries` there are no workers, but there may be rows and slots of earlier.
#[test]
fn without_preloading_a_session_that_knows_the_library_is_refused_too() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_items(pair)?;
        let cluster = std::sync::Arc::clone(pair.source.cluster());
        cluster.configure(&Settings::default().set("shared_preload_libraries", ""))?;
        cluster.restart(StopMode::Fast)?;
        pair.source.reconnect()?;
        let mirror = pair.mirror().to_owned();
        let error = pair.source.error_of("LOAD 'dbmazz'; DROP EXTENSION dbmazz CASCADE")?;
        assert_refused(&error, &mirror);
        // The way out works without workers, too.
        pair.source.execute(&format!("SELECT dbmazz_drop_mirror('{mirror}')"))?;
        pair.source.execute("DROP EXTENSION dbmazz CASCADE")?;
        assert_eq!(pair.source.value_or_null(LEFT_BEHIND)?, None);
        Ok(())
    });
}

#[test]
fn a_database_with_a_mirror_is_not_dropped_even_by_force() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        let (name, mirror) = (pair.source.name().to_owned(), pair.mirror().to_owned());
        let mut postgres = Database::connect(pair.source.cluster(), "postgres")?;
        for force in ["", " WITH (FORCE)"] {
            let error = postgres.error_of(&format!("DROP DATABASE {name}{force}"))?;
            assert_refused(&error, &mirror);
        }
        assert_goes_on(pair)?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        let error = postgres.error_of(&format!("DROP DATABASE {name} WITH (FORCE)"))?;
        assert_refused(&error, &mirror);
        pair.call("dbmazz_drop_mirror")?;
        postgres.execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
    });
}

#[test]
fn a_mirror_whose_database_is_gone_is_forgotten() {
    on_its_own_cluster(&Settings::default(), |pair| {
        // No command does this while a mirror runs; a hand at the catalogs stands for the moment in which a DROP DATABASE
        // by force overtakes a start.
        mirrored_items(pair)?;
        let (name, mirror) = (pair.source.name().to_owned(), pair.mirror().to_owned());
        let worker: i32 = pair.stat("pid")?.unwrap_or_default().parse()?;
        let mut postgres = Database::connect(pair.source.cluster(), "postgres")?;
        postgres.execute(&format!(
            "CREATE EXTENSION dbmazz; SET allow_system_table_mods = on; DELETE FROM pg_database WHERE datname = '{name}'"
        ))?;
        pair.source.cluster().signal(worker, "TERM")?;
        wait_until("the mirror is forgotten", PATIENCE, || {
            postgres.is_true(&format!(
                "SELECT NOT EXISTS (SELECT FROM dbmazz.live_mirrors() WHERE mirror = '{mirror}')"
            ))
        })
    });
}
