//! Everything that a mirrored table can go through, mixed at random: rows of every type, large values that the log does not
//! repeat, keys that move and change places, TRUNCATE, columns that come, go and change, transactions that are rolled back in
//! part or whole or committed in two phases, several clients at once; during the copy and the stream, while the worker is
//! ended, tables are rewritten and copied again, and the mirror is paused or begun anew. In the end both sides are equal.
//!
//! `DBMAZZ_MIXED_SECONDS` says how long each test goes on (60), `DBMAZZ_MIXED_SEEDS` with how many seeds one after another (1, and
//! 5 in `make soak`), `DBMAZZ_TEST_SEED` repeats one. What clients do to each other depends on the moment, so a seed may need some tries.

mod clients;
mod tables;
mod values;

use std::time::{Duration, Instant};

use clients::Clients;

use crate::harness::{Comparison, Failure, Outcome, PATIENCE, Pair, Random, wait_until};
use crate::on_a_pair;

const CLIENTS: u64 = 3;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// All tables but a partition that is detached at times: mirrored by itself it could not come back.
const ALL: &str = "tables => (SELECT array_agg(oid::regclass) FROM pg_class
    WHERE relnamespace IN ('public'::regnamespace, 'elsewhere'::regnamespace) AND relkind IN ('r', 'p')
        AND NOT relispartition AND relname <> 'parted_1')";

/// A mirror and those who write into its source.
struct Scene<'a> {
    pair: &'a mut Pair,
    random: Random,
    play: Play,
}

/// What is mirrored, and how.
#[derive(Clone, Copy, Default)]
struct Play {
    /// What makes a publication, if there is one.
    publication: &'static str,
    arguments: &'static str,
    options: &'static str,
    /// Which rows of the target are those of the source.
    target_rows: &'static str,
    /// Which rows of a table the target has, if not all.
    source_rows: (&'static str, &'static str),
}

impl Scene<'_> {
    fn create_tables(&mut self) -> Outcome {
        self.pair.source.execute("SET lock_timeout = '5s'")?;
        self.pair.source.execute(tables::TYPES)?;
        tables::TABLES.iter().try_for_each(|table| self.pair.source.execute(table.create))?;
        self.pair.source.execute(self.play.publication)
    }

    fn start_mirror(&mut self) -> Outcome {
        self.pair.start_mirror_with(self.play.arguments, self.play.options)
    }

    fn run(&mut self, until: Instant) -> Outcome {
        self.create_tables()?;
        let writing = Clients::start(&self.pair.source, &mut self.random, CLIENTS);
        writing.wait_for(20)?;
        self.start_mirror()?;
        self.disturb(writing)?;
        while Instant::now() < until {
            let writing = Clients::start(&self.pair.source, &mut self.random, CLIENTS);
            self.disturb(writing)?;
        }
        Ok(())
    }

    /// Some things that must not matter, and a look at both sides.
    fn disturb(&mut self, writing: Clients) -> Outcome {
        for _ in 0..2 + self.random.below(5) {
            writing.wait_for(self.random.below(150))?;
            self.blow(&writing)?;
        }
        writing.wait_for(20)?;
        writing.stop()?;
        self.come_into_step()?;
        self.compare().map_err(|failure| self.told_again(&failure))
    }

    /// A difference that goes away by itself is one of another kind: then the mirror promised too early.
    fn told_again(&mut self, failure: &Failure) -> Failure {
        let again = self.come_into_step().and_then(|()| self.compare());
        let again = again.map_or_else(|again| again.message().to_owned(), |()| "equal".to_owned());
        Failure::new(format!("{}; and a moment later: {again}", failure.message()))
    }

    fn blow(&mut self, writing: &Clients) -> Outcome {
        let mirror = self.pair.mirror().to_owned();
        match self.random.below(12) {
            0..=2 => self.pair.source.execute(&format!(
                "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{mirror}'"
            )),
            3 => self.pair.source.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid =
                     (SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'dbmazz %'
                      ORDER BY random() LIMIT 1)",
            ),
            4 => {
                self.pair.call("dbmazz_pause_mirror")?;
                writing.wait_for(self.random.below(100))?;
                self.pair.call("dbmazz_resume_mirror")
            }
            5 | 6 => self.resync_some_table(),
            // Clients may have it locked for longer.
            7 => self.pair.source.execute("VACUUM FULL leaf").or(Ok(())),
            8 => {
                self.pair.call("dbmazz_drop_mirror")?;
                writing.wait_for(self.random.below(50))?;
                // A new mirror takes tables of an earlier one only with the columns that it needs.
                let database = self.pair.target.database().to_owned();
                self.pair.target.execute(&format!("CREATE DATABASE IF NOT EXISTS {database}"))?;
                for altered in ["shifting", "parted"] {
                    let table = self.pair.target.table(altered);
                    self.pair.target.execute(&format!("DROP TABLE IF EXISTS {table}"))?;
                }
                self.start_mirror()
            }
            _ => Ok(()),
        }
    }

    fn resync_some_table(&mut self) -> Outcome {
        let mirror = self.pair.mirror().to_owned();
        let chosen = self.pair.source.value_or_null(&format!(
            "SELECT relation FROM dbmazz_stat_table WHERE mirror = '{mirror}' ORDER BY random() LIMIT 1"
        ))?;
        let Some(relation) = chosen else { return Ok(()) };
        let relation = relation.replace('\'', "''");
        self.pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', '{relation}')"))
    }

    /// A worker that was ended too often is left alone until somebody resumes it: that is us.
    fn come_into_step(&mut self) -> Outcome {
        let in_step = format!("SELECT dbmazz_wait_mirror('{}', timeout => '2 s')", self.pair.mirror());
        wait_until("the mirror is in step", PATIENCE, || {
            if self.pair.stat("state")?.as_deref() == Some("error") {
                self.pair.call("dbmazz_resume_mirror")?;
            }
            self.pair.source.is_true(&in_step)
        })
    }

    /// Every table of the mirror, under the name that it has by now.
    fn compare(&mut self) -> Outcome {
        let rows = self.pair.source.rows(&format!(
            "SELECT relid::regclass, target_table FROM dbmazz.mirror_table WHERE mirror = '{}'",
            self.pair.mirror()
        ))?;
        if rows.len() < tables::TABLES.len() {
            return Err(Failure::new(format!("only {} tables are mirrored", rows.len())));
        }
        for row in rows {
            let [Some(relation), Some(target)] = row.as_slice() else { continue };
            let comparison = Comparison::of(relation).with_target(target).target_where(self.play.target_rows);
            let (limited, rows) = self.play.source_rows;
            let comparison = if relation == limited { comparison.rows_where(rows) } else { comparison };
            self.pair.compare(&comparison)?;
        }
        Ok(())
    }
}

fn play(play: Play) {
    for _ in 0..from_environment("DBMAZZ_MIXED_SEEDS", 1) {
        on_a_pair(|pair| {
            if !play.publication.is_empty() && pair.is_before(15, "a publication", "row filters") {
                return Ok(());
            }
            let random = Random::announced("mixed");
            let until = Instant::now() + Duration::from_secs(from_environment("DBMAZZ_MIXED_SECONDS", 60));
            Scene { pair, random, play }.run(until)
        });
    }
}

#[test]
fn both_sides_are_equal_after_anything_in_small_loads() {
    let options = r#"{"batch_max_rows": 7, "snapshot_chunk_size": "1MB", "snapshot_workers": 2}"#;
    play(Play { arguments: ALL, options, ..Play::default() });
}

#[test]
fn both_sides_are_equal_after_anything_in_a_small_memory() {
    let options = r#"{"memory_limit": "4MB", "snapshot_chunk_size": "1MB"}"#;
    play(Play { arguments: ALL, options, ..Play::default() });
}

#[test]
fn both_sides_are_equal_after_anything_with_marks_and_metadata() {
    let options = r#"{"on_delete": "mark", "metadata_columns": true, "batch_max_rows": 50, "snapshot_chunk_size": "1MB"}"#;
    play(Play { arguments: ALL, options, target_rows: "dbmazz_deleted = false", ..Play::default() });
}

#[test]
fn both_sides_are_equal_after_anything_that_a_publication_has() {
    play(Play {
        publication: "CREATE PUBLICATION most FOR TABLE leaf WHERE (part = 0), word, whole, coded, typed, shifting, ledger,
            numbered, elsewhere.\"Odd `Name\", bare, parted, wanderer WITH (publish_via_partition_root = true)",
        arguments: "publication => 'most'",
        options: r#"{"batch_max_rows": 20, "snapshot_chunk_size": "1MB"}"#,
        source_rows: ("leaf", "part = 0"),
        ..Play::default()
    });
}
