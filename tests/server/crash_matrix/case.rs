//! One case of the matrix: a pair, a point of the code and a blow.

use std::sync::Arc;

use crate::harness::{
    Action, Cluster, Database, Failpoint, Outcome, PATIENCE, Pair, Random, Settings, StopMode, wait_until,
};
use crate::loads::assert_loads_are_sound;
use crate::workload::{TABLES, Writers, create_tables, tables_argument};

/// How the process at the point ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Blow {
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
pub(super) struct Case<'a> {
    pub(super) pair: &'a mut Pair,
    pub(super) random: &'a mut Random,
    pub(super) point: &'a str,
    pub(super) blow: Blow,
}

impl Case<'_> {
    /// Arms the point; it is passed fewer than `most` times before.
    pub(super) fn arm(&mut self, most: u64) -> Outcome<Failpoint> {
        let passes = self.random.below(most);
        self.pair.source.cluster().arm(self.point, self.blow.action(), passes)
    }

    /// Runs the statement that brings a process to the point. The blow may take the session along before it has an answer, but
    /// not before it has committed.
    pub(super) fn provoke(&mut self, sql: &str) -> Outcome {
        let outcome = self.pair.source.execute(sql);
        self.unless_taken_along(outcome)
    }

    /// Likewise, the start of the mirror.
    pub(super) fn start(&mut self, arguments: &str, options: &str) -> Outcome {
        let outcome = self.pair.start_mirror_with(arguments, options);
        self.unless_taken_along(outcome)
    }

    fn unless_taken_along(&mut self, outcome: Outcome) -> Outcome {
        match outcome {
            Err(_) if self.blow == Blow::Kill && self.pair.source.value("SELECT 1").is_err() => Ok(()),
            outcome => outcome,
        }
    }

    /// Waits for the blow. Returns when the server takes connections, if it was away.
    pub(super) fn strike(&mut self, armed: Failpoint) -> Outcome {
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

    pub(super) fn writers(&mut self) -> Writers {
        Writers::start(&self.pair.source, self.random, 1)
    }

    /// A mirror that streams already.
    pub(super) fn streaming(&mut self, options: &str) -> Outcome {
        create_tables(self.pair, 300)?;
        self.pair.start_mirror_with(&tables_argument(), options)?;
        self.pair.wait()
    }

    /// The clients write on for a while; then both sides must be equal.
    pub(super) fn settle(&mut self, writers: Writers) -> Outcome {
        writers.wait_for(20)?;
        writers.stop()?;
        self.pair.wait_and_compare(&TABLES)?;
        assert_loads_are_sound(self.pair)
    }
}

/// Runs the scene for each point and blow.
pub(super) fn at_each(test: &str, points: &[&str], scene: fn(&mut Case<'_>) -> Outcome) {
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
