//! Clients that write transactions until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::tables;
use crate::harness::{Database, Failure, Outcome, PATIENCE, Random, wait_until};

/// Between the transactions of one client, so that servers and not clients have the machine.
const PACE: Duration = Duration::from_millis(3);

/// Running clients.
pub(super) struct Clients {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Clients {
    pub(super) fn start(source: &Database, random: &mut Random, count: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |number| {
            let client = Client {
                number,
                source: (Arc::clone(source.cluster()), source.name().to_owned()),
                random: Random::from_seed(random.next()),
                stop: Arc::clone(&stop),
                done: Arc::clone(&done),
            };
            thread::spawn(move || client.run())
        };
        Self { threads: (0..count).map(start).collect(), stop, done }
    }

    /// Waits until they have committed so many transactions more.
    pub(super) fn wait_for(&self, transactions: u64) -> Outcome {
        let until = self.done.load(Ordering::Relaxed) + transactions;
        wait_until("transactions of clients", PATIENCE, || Ok(self.done.load(Ordering::Relaxed) >= until))
    }

    /// Stops them and waits until they are gone.
    pub(super) fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        match threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count() {
            0 => Ok(()),
            count => Err(Failure::new(format!("{count} clients have panicked"))),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    number: u64,
    source: (Arc<crate::harness::Cluster>, String),
    random: Random,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Client {
    fn run(mut self) {
        let mut session: Option<Database> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(open) = &mut session else {
                session = Database::connect(&self.source.0, &self.source.1)
                    .and_then(|mut session| session.execute("SET lock_timeout = '2s'").map(|()| session))
                    .ok();
                continue;
            };
            let transaction = self.transaction(open);
            match transaction.or_else(|_| open.execute("ROLLBACK")) {
                Ok(()) => _ = self.done.fetch_add(1, Ordering::Relaxed),
                Err(_) => session = None,
            }
            thread::sleep(PACE);
        }
    }

    /// One to eight statements, some of them undone again; the end is a commit, a rollback, or a commit in two phases.
    fn transaction(&mut self, session: &mut Database) -> Outcome {
        session.execute("BEGIN")?;
        for _ in 0..=self.random.below(7) {
            self.step(session)?;
        }
        match self.random.below(24) {
            0..=2 => session.execute("ROLLBACK"),
            3 => self.commit_in_two_phases(session),
            _ => session.execute("COMMIT"),
        }
    }

    fn step(&mut self, session: &mut Database) -> Outcome {
        match self.random.below(10) {
            0 => {
                session.execute("SAVEPOINT first")?;
                self.one(session)?;
                session.execute("SAVEPOINT second")?;
                self.one(session)?;
                session.execute("ROLLBACK TO first")
            }
            1 => {
                session.execute("SAVEPOINT kept")?;
                self.one(session)?;
                session.execute("RELEASE kept")
            }
            _ => self.one(session),
        }
    }

    fn one(&mut self, session: &mut Database) -> Outcome {
        let sql = tables::statement(&mut self.random, session)?;
        session.execute(&sql)
    }

    fn commit_in_two_phases(&mut self, session: &mut Database) -> Outcome {
        let name = format!("{}_{}", self.source.1, self.number);
        session.execute(&format!("PREPARE TRANSACTION '{name}'"))?;
        let verdict = if self.random.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
        session.execute(&format!("{verdict} PREPARED '{name}'"))
    }
}
