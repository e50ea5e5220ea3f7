//! Who starts, stops or restarts what at the same moment as somebody else, and what a restart of the server makes of it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Database, Failure, Outcome, PATIENCE, Pair, Settings, StopMode, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

fn items(pair: &mut Pair) -> Outcome {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'one')")
}

fn mirrored_items(pair: &mut Pair) -> Outcome {
    items(pair)?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

/// Runs both statements at the same moment; returns what each was refused with, none for success.
fn at_once(mut left: Database, right: Database, statements: [String; 2]) -> Outcome<[Option<String>; 2]> {
    fn run(session: &mut Database, statement: &str) -> Option<String> {
        match session.execute(&format!("BEGIN; {statement}; COMMIT")) {
            Ok(()) => None,
            Err(failure) => Some(failure.message().to_owned()),
        }
    }
    let barrier = Arc::new(Barrier::new(2));
    let [first, second] = statements;
    let other = {
        let barrier = Arc::clone(&barrier);
        let mut right = right;
        thread::spawn(move || {
            barrier.wait();
            run(&mut right, &second)
        })
    };
    barrier.wait();
    let first = run(&mut left, &first);
    let second = other.join().map_err(|_| Failure::new("a session of the test has ended"))?;
    Ok([first, second])
}

#[test]
fn of_two_sessions_that_start_a_name_at_once_one_gets_it() {
    on_a_pair(|pair| {
        items(pair)?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        for _ in 0..5 {
            let (left, right) = (pair.source.another_session()?, pair.source.another_session()?);
            let outcomes = at_once(left, right, [start.clone(), start.clone()])?;
            let refusals: Vec<_> = outcomes.into_iter().flatten().collect();
            assert_eq!(refusals.len(), 1, "{refusals:?}");
            assert!(refusals.iter().all(|refusal| refusal.contains("already exists")), "{refusals:?}");
            pair.wait_and_compare(&["item"])?;
            pair.call("dbmazz_drop_mirror")?;
        }
        Ok(())
    });
}

#[test]
fn of_two_mirrors_that_start_with_one_target_at_once_one_gets_it() {
    on_a_pair(|pair| {
        items(pair)?;
        let first = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        let second = first.replace(pair.mirror(), &format!("{}_b", pair.mirror()));
        for _ in 0..5 {
            let (left, right) = (pair.source.another_session()?, pair.source.another_session()?);
            let outcomes = at_once(left, right, [first.clone(), second.clone()])?;
            let refusals: Vec<_> = outcomes.iter().flatten().collect();
            assert_eq!(refusals.len(), 1, "{outcomes:?}");
            assert!(refusals.iter().all(|refusal| refusal.contains("same target")), "{outcomes:?}");
            pair.source.execute("SELECT dbmazz_drop_mirror(mirror) FROM dbmazz_stat_mirror")?;
        }
        Ok(())
    });
}

#[test]
fn of_two_databases_that_start_a_name_at_once_one_gets_it() {
    on_a_pair(|pair| {
        items(pair)?;
        let mut other = Pair::new(pair.source.cluster())?;
        items(&mut other)?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        for _ in 0..5 {
            let (left, right) = (pair.source.another_session()?, other.source.another_session()?);
            let outcomes = at_once(left, right, [start.clone(), start.clone()])?;
            let refusals: Vec<_> = outcomes.iter().flatten().collect();
            assert_eq!(refusals.len(), 1, "{outcomes:?}");
            assert!(refusals.iter().all(|refusal| refusal.contains("already exists")), "{outcomes:?}");
            let drop = format!("SELECT dbmazz_drop_mirror('{}')", pair.mirror());
            if outcomes[0].is_none() {
                pair.wait_and_compare(&["item"])?;
                pair.source.execute(&drop)?;
            } else {
                other.source.execute(&format!("SELECT dbmazz_wait_mirror('{}')", pair.mirror()))?;
                assert_eq!(other.target.count("item")?, 1);
                other.source.execute(&drop)?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_second_transaction_to_commit_a_name_is_refused() {
    on_a_pair(|pair| {
        // Both find the name free; what decides is the commit.
        items(pair)?;
        let mut other = Pair::new(pair.source.cluster())?;
        items(&mut other)?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        pair.source.execute(&format!("BEGIN; {start}"))?;
        other.source.execute(&format!("BEGIN; {start}"))?;
        pair.source.execute("COMMIT")?;
        let error = other.source.error_of("COMMIT")?;
        assert_eq!(error.code().code(), "42710", "{error:?}");
        assert_eq!(other.source.value("SELECT count(*) FROM dbmazz_stat_mirror")?, "0");
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_start_that_a_savepoint_takes_back_leaves_nothing() {
    on_a_pair(|pair| {
        items(pair)?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        pair.source.execute(&format!("BEGIN; SAVEPOINT s; {start}; ROLLBACK TO s; COMMIT"))?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_stat_mirror")?, "0");
        assert!(!pair.source.is_true(&format!(
            "SELECT EXISTS (SELECT FROM dbmazz.live_mirrors() WHERE mirror = '{}')",
            pair.mirror()
        ))?);
        // Taken back once and started once, it is started.
        pair.source.execute(&format!("BEGIN; SAVEPOINT s; {start}; ROLLBACK TO s; {start}; COMMIT"))?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_second_pause_and_a_second_resume_change_nothing() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        for _ in 0..2 {
            pair.call("dbmazz_pause_mirror")?;
        }
        pair.wait_for_state("paused")?;
        pair.source.execute("INSERT INTO item VALUES (2, 'two')")?;
        for _ in 0..2 {
            pair.call("dbmazz_resume_mirror")?;
        }
        pair.wait_and_compare(&["item"])?;
        let worker = pair.stat("pid")?;
        pair.call("dbmazz_resume_mirror")?;
        pair.source.execute("INSERT INTO item VALUES (3, 'three')")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.stat("pid")?, worker, "a mirror that runs is left alone");
        Ok(())
    });
}

#[test]
fn a_resume_right_after_a_pause_still_begins_anew() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        for n in 2..8 {
            let worker = pair.stat("pid")?;
            pair.call("dbmazz_pause_mirror")?;
            pair.call("dbmazz_resume_mirror")?;
            wait_until("another worker", PATIENCE, || {
                let now = pair.stat("pid")?;
                Ok(now.is_some() && now != worker)
            })?;
            pair.source.execute(&format!("INSERT INTO item VALUES ({n}, 'after')"))?;
            pair.wait_and_compare(&["item"])?;
        }
        Ok(())
    });
}

#[test]
fn a_restart_starts_what_was_running_and_nothing_else() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_items(pair)?;
        pair.source.execute("CREATE TABLE other (id int PRIMARY KEY)")?;
        let second = format!("{}_b", pair.mirror());
        pair.source.execute(&format!(
            "SELECT dbmazz_start_mirror('{second}', 'starrocks', ARRAY['other']::regclass[])"
        ))?;
        assert!(pair.source.is_true(&format!("SELECT dbmazz_wait_mirror('{second}')"))?);
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        for mode in [StopMode::Fast, StopMode::Immediate] {
            pair.source.execute("INSERT INTO item SELECT max(id) + 1, 'while paused' FROM item")?;
            pair.source.execute("INSERT INTO item SELECT n, repeat('v', 500) FROM generate_series((SELECT max(id) + 1 FROM item), (SELECT max(id) + 2000 FROM item)) n")?;
            pair.source.cluster().restart(mode)?;
            pair.source.reconnect()?;
            pair.source.execute("INSERT INTO other SELECT coalesce(max(id), 0) + 1 FROM other")?;
            assert!(pair.source.is_true(&format!("SELECT dbmazz_wait_mirror('{second}')"))?);
            assert_eq!(pair.stat("state")?.as_deref(), Some("paused"));
            assert_eq!(pair.stat("pid")?, None);
            assert_eq!(pair.target.count("item")?, 1);
        }
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item", "other"])
    });
}

#[test]
fn databases_can_be_dropped_while_the_server_starts() {
    on_its_own_cluster(&Settings::default(), |pair| {
        mirrored_items(pair)?;
        let cluster = Arc::clone(pair.source.cluster());
        let mut postgres = Database::connect(&cluster, "postgres")?;
        let names: Vec<String> = (0..8).map(|n| format!("gone{n}")).collect();
        for name in &names {
            postgres.execute(&format!("CREATE DATABASE {name}"))?;
        }
        cluster.restart(StopMode::Fast)?;
        let mut postgres = Database::connect(&cluster, "postgres")?;
        // Scouts visit the databases in the order in which they were made; some of these are visited meanwhile.
        for (n, name) in names.iter().rev().enumerate() {
            let force = if n % 2 == 0 { "" } else { " WITH (FORCE)" };
            let began = Instant::now();
            postgres.execute(&format!("DROP DATABASE {name}{force}"))?;
            assert!(began.elapsed() < Duration::from_secs(3), "{name}: {:?}", began.elapsed());
        }
        pair.source.reconnect()?;
        pair.source.execute("INSERT INTO item VALUES (2, 'two')")?;
        pair.wait_and_compare(&["item"])
    });
}

/// An upgrade script that only tests have. Removed when dropped.
struct Script(PathBuf);

impl Script {
    /// None, with a word, where the installation may not be written to.
    fn install(directory: &std::path::Path, name: &str, text: &str) -> Option<Self> {
        let path = directory.join(name);
        match fs::write(&path, text) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!(
                    "upgrade of the extension: skipped, \"{}\" cannot be written: {error}",
                    path.display()
                );
                None
            }
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // What is left in the end is a script that nobody asks for.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn an_upgrade_of_the_extension_does_not_disturb_a_running_mirror() {
    on_a_pair(|pair| {
        let directory = pair.source.cluster().installation().extension_directory()?;
        let version = pair.source.value("SELECT extversion FROM pg_extension WHERE extname = 'dbmazz'")?;
        let text = "ALTER TABLE dbmazz.mirror ADD COLUMN test_only int DEFAULT 7;
                    ALTER TABLE dbmazz.checkpoint ADD COLUMN test_only text DEFAULT 'seven';
                    ALTER TABLE dbmazz.mirror_table ADD COLUMN test_only timestamptz DEFAULT now();
                    ALTER TABLE dbmazz.incarnation ADD COLUMN test_only int;
                    COMMENT ON SCHEMA dbmazz IS 'as of a version that only tests have'";
        let name = format!("dbmazz--{version}--{version}.test.sql");
        let Some(_script) = Script::install(&directory, &name, text) else { return Ok(()) };
        mirrored_items(pair)?;
        let worker = pair.stat("pid")?;
        pair.source.execute("INSERT INTO item SELECT n, 'before' FROM generate_series(2, 2000) n")?;
        pair.source.execute(&format!("ALTER EXTENSION dbmazz UPDATE TO '{version}.test'"))?;
        pair.source.execute("INSERT INTO item SELECT n, 'after' FROM generate_series(2001, 4000) n")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.stat("pid")?, worker, "it is the same worker");
        let error = pair.source.error_of("DROP EXTENSION dbmazz CASCADE")?;
        assert_eq!(error.code().code(), "2BP01", "{error:?}");
        pair.call("dbmazz_drop_mirror")?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])
    });
}

/// What an earlier mirror has made, and nobody has put rows into, is no reason to refuse.
#[test]
fn an_empty_target_of_an_earlier_mirror_is_made_anew_for_other_columns() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY, v text)")?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])?;
        pair.call("dbmazz_drop_mirror")?;
        pair.source.execute("ALTER TABLE item ADD COLUMN more int, ALTER COLUMN v TYPE int USING 1")?;
        pair.source.execute("INSERT INTO item VALUES (1, 2, 3)")?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])
    });
}
