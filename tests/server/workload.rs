//! Random transactions of several clients over tables that make all kinds of loads, while servers come and go.
//!
//! What committed is what the source has in the end: a client counts nothing that it would have to compare. A statement
//! that fails, because another client has the key or the server was taken away, is rolled back and forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::{Cluster, Database, Failure, Outcome, PATIENCE, Pair, Random, wait_until};

/// The tables that the clients write.
pub(crate) const TABLES: [&str; 4] = ["leaf", "word", "whole", "ledger"];

/// Between the transactions of one client, so that servers and not clients have the machine.
const PACE: Duration = Duration::from_millis(2);
/// So many transactions come at that pace after somebody has waited for some. Then they come slowly: a mirror that makes a load
/// of each row, beside many other tests, would fall further behind with every second that it is waited for.
const BRISK: u64 = 400;
const SLOW_PACE: Duration = Duration::from_millis(200);

/// Makes the tables. `rows` go into the largest one.
///
/// `leaf` has a key of two columns and large values, `word` a text as its key, `whole` replica identity FULL, `ledger`
/// mostly rows that nobody changes.
pub(crate) fn create_tables(pair: &mut Pair, rows: u32) -> Outcome {
    pair.source.execute(&format!(
        "CREATE TABLE leaf (id int, part int, v text, big text, n numeric, PRIMARY KEY (id, part));
         ALTER TABLE leaf ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE word (id text PRIMARY KEY, at timestamptz, big text, other text);
         ALTER TABLE word ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL;
         CREATE TABLE whole (id int PRIMARY KEY, v text, big text);
         ALTER TABLE whole ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
         CREATE TABLE ledger (id bigserial PRIMARY KEY, amount numeric(12, 2), memo text);
         INSERT INTO leaf SELECT n, 0, 'v', repeat('start', 1000), n FROM generate_series(1, 40) n;
         INSERT INTO word SELECT 'w' || n, now(), repeat('start', 1000), NULL FROM generate_series(1, 40) n;
         INSERT INTO whole SELECT n, 'v', repeat('start', 1000) FROM generate_series(1, 40) n;
         INSERT INTO ledger (amount, memo) SELECT n / 7.0, repeat('memo ', 20) FROM generate_series(1, {rows}) n"
    ))
}

/// The tables as an argument of `dbmazz_start_mirror`.
pub(crate) fn tables_argument() -> String {
    format!("tables => ARRAY[{}]::regclass[]", TABLES.map(|table| format!("'{table}'")).join(", "))
}

/// A transaction of one to six statements, sometimes rolled back in part or whole.
pub(crate) fn transaction(random: &mut Random) -> String {
    let mut sql = String::from("BEGIN;");
    for _ in 0..=random.below(5) {
        match random.below(8) {
            0 => sql.push_str(&format!("SAVEPOINT s; {} ROLLBACK TO s;", statement(random))),
            1 => sql.push_str(&format!("SAVEPOINT s; {} RELEASE s;", statement(random))),
            _ => sql.push_str(&statement(random)),
        }
    }
    sql.push_str(if random.below(8) == 0 { "ROLLBACK" } else { "COMMIT" });
    sql
}

fn statement(random: &mut Random) -> String {
    match random.below(4) {
        0 => on_leaf(random),
        1 => on_word(random),
        2 => on_whole(random),
        _ => on_ledger(random),
    }
}

/// A change of a key writes the large values anew, or leaves them out of the log: then they come from the source.
fn on_leaf(random: &mut Random) -> String {
    let (id, other, number) = (random.below(50), random.below(50), random.below(1_000_000));
    match random.below(60) {
        0..=19 => format!(
            "INSERT INTO leaf VALUES ({id}, {}, 'i{number}', repeat('big{number}', 700), {number}.50)
             ON CONFLICT (id, part) DO UPDATE SET v = excluded.v;",
            number % 2
        ),
        20..=29 => format!("UPDATE leaf SET v = 'u{number}' WHERE id = {id};"),
        30..=34 => {
            format!("UPDATE leaf SET big = repeat('new{number}', 700), n = NULL WHERE id = {id};")
        }
        35..=39 => format!("UPDATE leaf SET n = n + 1 WHERE id <> {id};"),
        40..=48 => format!("DELETE FROM leaf WHERE id = {id} AND part = {};", number % 2),
        49 => "TRUNCATE leaf;".to_owned(),
        _ => format!(
            "UPDATE leaf SET id = {other}{} WHERE id = {id} AND part = 0
             AND NOT EXISTS (SELECT FROM leaf l WHERE l.id = {other} AND l.part = 0);",
            if number % 2 == 0 { ", big = big || ''" } else { "" }
        ),
    }
}

fn on_word(random: &mut Random) -> String {
    let (id, other, number) = (random.below(50), random.below(50), random.below(1_000_000));
    match random.below(60) {
        0..=24 => format!(
            "INSERT INTO word VALUES ('w{id}', now(), repeat('a{number}', 800), repeat('b', {}))
             ON CONFLICT (id) DO UPDATE SET at = now(), other = 'short {number}';",
            number % 9000
        ),
        25..=34 => format!("UPDATE word SET big = NULL WHERE id = 'w{id}';"),
        35..=46 => format!("DELETE FROM word WHERE id = 'w{id}';"),
        47 => "TRUNCATE word;".to_owned(),
        _ => format!(
            "UPDATE word SET id = 'w{other}'{} WHERE id = 'w{id}'
             AND NOT EXISTS (SELECT FROM word w WHERE w.id = 'w{other}');",
            if number % 2 == 0 { ", other = other || 'x'" } else { "" }
        ),
    }
}

/// The whole old row is in the log, so a key may change without its large value.
fn on_whole(random: &mut Random) -> String {
    let (id, other, number) = (random.below(50), random.below(50), random.below(1_000_000));
    match random.below(60) {
        0..=19 => format!(
            "INSERT INTO whole VALUES ({id}, 'i{number}', repeat('big{number}', 700))
             ON CONFLICT (id) DO UPDATE SET v = excluded.v;"
        ),
        20..=34 => format!("UPDATE whole SET v = 'u{number}' WHERE id = {id};"),
        35..=44 => format!("DELETE FROM whole WHERE id = {id};"),
        45 => "TRUNCATE whole, leaf;".to_owned(),
        _ => format!(
            "UPDATE whole SET id = {other} WHERE id = {id}
             AND NOT EXISTS (SELECT FROM whole w WHERE w.id = {other});"
        ),
    }
}

fn on_ledger(random: &mut Random) -> String {
    let (id, number) = (random.below(400), random.below(1_000_000));
    match random.below(10) {
        0..=6 => format!(
            "INSERT INTO ledger (amount, memo) SELECT n, 'memo {number}' FROM generate_series(1, {}) n;",
            1 + number % 20
        ),
        7 | 8 => format!("UPDATE ledger SET amount = amount + 0.01 WHERE id % 400 = {id};"),
        _ => format!("DELETE FROM ledger WHERE id % 400 = {id};"),
    }
}

/// Clients that write until they are stopped, whatever becomes of the server.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    transactions: Arc<AtomicU64>,
    brisk_until: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// So many clients in the source's database.
    pub(crate) fn start(source: &Database, random: &mut Random, clients: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let transactions = Arc::new(AtomicU64::new(0));
        let brisk_until = Arc::new(AtomicU64::new(BRISK));
        let threads = (0..clients).map(|_| {
            let client = Client {
                cluster: Arc::clone(source.cluster()),
                database: source.name().to_owned(),
                random: Random::from_seed(random.next()),
                stop: Arc::clone(&stop),
                transactions: Arc::clone(&transactions),
                brisk_until: Arc::clone(&brisk_until),
            };
            thread::spawn(move || client.run())
        });
        let threads = threads.collect();
        Self { stop, transactions, brisk_until, threads }
    }

    /// Waits until so many more transactions have ended.
    pub(crate) fn wait_for(&self, more: u64) -> Outcome {
        let until = self.transactions.load(Ordering::Relaxed) + more;
        self.brisk_until.fetch_max(until + BRISK, Ordering::Relaxed);
        wait_until("clients write", PATIENCE, || Ok(self.transactions.load(Ordering::Relaxed) >= until))
    }

    /// Stops them and waits until they are gone.
    ///
    /// # Errors
    ///
    /// When one has panicked.
    pub(crate) fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        match threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count() {
            0 => Ok(()),
            count => Err(Failure::new(format!("{count} clients have panicked"))),
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    cluster: Arc<Cluster>,
    database: String,
    random: Random,
    stop: Arc<AtomicBool>,
    transactions: Arc<AtomicU64>,
    brisk_until: Arc<AtomicU64>,
}

impl Client {
    fn run(mut self) {
        let mut session: Option<Database> = None;
        while !self.stop.load(Ordering::Relaxed) {
            if session.is_none() {
                session = Database::connect(&self.cluster, &self.database).ok();
            }
            let sql = transaction(&mut self.random);
            let done = session
                .as_mut()
                .map(|session| session.execute(&sql).or_else(|_| session.execute("ROLLBACK")));
            match done {
                Some(Ok(())) => {
                    self.transactions.fetch_add(1, Ordering::Relaxed);
                }
                // The server is away: the next round connects anew.
                _ => session = None,
            }
            thread::sleep(self.pace());
        }
    }

    fn pace(&self) -> Duration {
        let is_brisk = self.transactions.load(Ordering::Relaxed) < self.brisk_until.load(Ordering::Relaxed);
        if is_brisk { PACE } else { SLOW_PACE }
    }
}
