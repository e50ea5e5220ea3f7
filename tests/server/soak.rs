//! Clients write while anything may fail at any time: workers, sessions, the server, the target, its answers.
//!
//! The schedule is random. Every few blows the clients rest, what is broken is let alone, and both sides must be equal,
//! row by row. `DBMAZZ_SOAK_SECONDS` sets how long (60 by default, an hour in `make soak`), `DBMAZZ_TEST_SEED` repeats the choices.
//! A failure shows the seed and everything that was done so far.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Action, Cluster, Control, Failpoint, Failure, Fault, Outcome, PATIENCE, Pair, Random, Settings,
    StarRocks, StopMode, Target, wait_for, wait_until,
};
use crate::loads::assert_loads_are_sound;
use crate::workload::{TABLES, Writers, create_tables, tables_argument};
use crate::{crash, crash_matrix};

/// How long the server may be away.
const ABSENCE: Duration = Duration::from_secs(60);
const CLIENTS: u32 = 3;
/// Rows that the largest table may keep, so that a comparison takes a moment.
const LEDGER_ROWS: u32 = 20_000;

/// Faults of the stand-in, with the value that makes each strike soon. None of them refuses rows for good.
const FAULTS: [(&str, Option<&str>); 25] = [
    ("cut_before_commit", None),
    ("cut_after_commit", None),
    ("publish_timeout", None),
    ("fail_commit_unknown", Some("committed")),
    ("fail_commit_unknown", Some("aborted")),
    ("label_exists_as_fail", None),
    ("redirect_dead_host", None),
    ("redirect_loop", None),
    ("http_500", Some("fe")),
    ("http_500", Some("be")),
    ("garbage_answer", Some("fe")),
    ("garbage_answer", Some("be")),
    ("garbage_bytes", None),
    ("cut_statement", Some("before")),
    ("cut_statement", Some("after")),
    ("late_statement", None),
    ("too_many_versions", None),
    ("no_backend", None),
    ("delay_answer", None),
    ("delay_begin", None),
    ("delay_continue", None),
    ("reset_on_refusal", None),
    ("close_be", None),
    ("hang", Some("before_commit")),
    ("hang", Some("after_commit")),
];

/// What is done next.
#[derive(Clone, Debug)]
enum Blow {
    /// SIGKILL, SIGTERM or SIGINT to some process of dbmazz.
    Worker(&'static str),
    /// SIGKILL to the session of a client.
    Client,
    /// The server stops in this mode and starts again.
    Restart(StopMode),
    /// The stand-in is killed and started again.
    Target,
    /// The stand-in does something wrong, so many times.
    Fault(&'static str, Option<&'static str>, u64),
    /// It does nothing wrong any more.
    NoFaults,
    /// So many labels are remembered.
    KeepLabels(u64),
    /// A process that comes by fails.
    Point(&'static str, Action, u64),
    /// The mirror is paused, and resumed after so many transactions.
    Pause(u64),
    /// A transaction that fills the memory and uses up labels.
    Large(u64),
    /// A table is written anew.
    Rewrite(&'static str),
    /// A table is copied again.
    Resync(&'static str),
    /// A table leaves the mirror, and comes back after so many transactions.
    Leave(&'static str, u64),
    /// The mirror is dropped and started again, with loads of so many rows.
    Anew(u64),
}

impl Blow {
    fn random(random: &mut Random) -> Self {
        match random.below(100) {
            0..=11 => Self::Worker("KILL"),
            12..=19 => Self::Worker("TERM"),
            20..=25 => Self::Worker("INT"),
            26..=29 => Self::Client,
            30..=34 => Self::Restart(StopMode::Immediate),
            35..=38 => Self::Restart(StopMode::Fast),
            39..=46 => Self::Target,
            47..=70 => {
                let (kind, value) = FAULTS[random.below(FAULTS.len() as u64) as usize];
                Self::Fault(kind, value, 1 + random.below(3))
            }
            71..=73 => Self::NoFaults,
            74..=77 => Self::KeepLabels([1, 3, 1000][random.below(3) as usize]),
            78..=87 => {
                let points: Vec<_> = crash_matrix::points().collect();
                let action = [Action::Error, Action::Kill, Action::Terminate][random.below(3) as usize];
                Self::Point(points[random.below(points.len() as u64) as usize], action, random.below(10))
            }
            88..=90 => Self::Pause(random.below(100)),
            91 => Self::Rewrite(table(random)),
            92..=93 => Self::Resync(table(random)),
            94 => Self::Leave(table(random), random.below(100)),
            95..=96 => Self::Large(500 + random.below(8000)),
            _ => Self::Anew([1, 7, 50, 5000][random.below(4) as usize]),
        }
    }
}

fn table(random: &mut Random) -> &'static str {
    TABLES[random.below(TABLES.len() as u64) as usize]
}

struct Soak {
    pair: Pair,
    random: Random,
    control: Control,
    armed: Vec<Failpoint>,
    elsewhere: Vec<JoinHandle<()>>,
    began: Instant,
}

impl Soak {
    fn say(&self, what: &str) {
        println!("{:8.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Repeats a step until it succeeds: a point that was armed may take the session away at any time.
    fn insist<T>(&mut self, what: &str, step: impl Fn(&mut Pair) -> Outcome<T>) -> Outcome<T> {
        let mut last = String::new();
        let done = wait_for(what, ABSENCE, || match step(&mut self.pair) {
            Ok(done) => Ok(Some(done)),
            Err(failure) => {
                last = failure.message().to_owned();
                crash::come_back(&mut self.pair).map(|()| None)
            }
        });
        done.map_err(|failure| Failure::new(format!("{}: {last}", failure.message())))
    }

    fn strike(&mut self, blow: &Blow, writers: &Writers) -> Outcome {
        match *blow {
            Blow::Worker(signal) => self.signal("backend_type LIKE 'dbmazz %'", signal),
            Blow::Client => {
                self.signal("backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()", "KILL")
            }
            Blow::Restart(mode) => {
                self.pair.source.cluster().restart(mode)?;
                crash::come_back(&mut self.pair)
            }
            Blow::Target => self.pair.starrocks.restart_standin(),
            Blow::Fault(kind, value, times) => {
                let lasts = ["hang", "close_be"].contains(&kind);
                let fault = if lasts { Fault::lasting(kind) } else { Fault::times(kind, times) };
                self.control.set(&match (kind, value) {
                    ("delay_answer" | "delay_begin" | "delay_continue" | "publish_timeout", _) => fault.with(times * 200),
                    ("late_statement", _) => fault.with(json!({"of": "TABLE", "ms": times * 200})),
                    (_, Some(value)) => fault.with(value),
                    (_, None) => fault,
                })
            }
            Blow::NoFaults => self.control.clear(),
            Blow::KeepLabels(most) => self.control.keep_labels(most),
            Blow::Point(point, action, passes) => {
                self.armed.push(self.pair.source.cluster().arm(point, action, passes)?);
                Ok(())
            }
            Blow::Pause(transactions) => {
                self.insist("pausing the mirror", |pair| pair.call("dbmazz_pause_mirror"))?;
                writers.wait_for(transactions)?;
                self.resume()
            }
            Blow::Large(rows) => self.execute_elsewhere(format!(
                "BEGIN; INSERT INTO ledger (amount, memo) SELECT n, repeat('large', 20) FROM generate_series(1, {rows}) n;
                 UPDATE ledger SET amount = -amount WHERE id % 3 = 0; COMMIT"
            )),
            Blow::Rewrite(table) => self.execute_elsewhere(format!("VACUUM FULL {table}")),
            Blow::Resync(table) => self.change_table("resync", table),
            Blow::Leave(table, transactions) => {
                self.change_table("remove", table)?;
                writers.wait_for(transactions)?;
                self.change_table("add", table)
            }
            Blow::Anew(rows) => self.begin_anew(rows),
        }
    }

    /// Sends a signal to some process; to none when there is none at the moment.
    fn signal(&mut self, which: &str, signal: &str) -> Outcome {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE {which} ORDER BY random() LIMIT 1");
        let Some(pid) = self.insist("choosing a process", |pair| pair.source.value_or_null(&sql))? else {
            return Ok(());
        };
        let pid = pid.parse()?;
        if signal == "KILL" {
            crash::kill(&mut self.pair, pid).map(drop)
        } else {
            // It may have ended by itself.
            let _ = self.pair.source.cluster().signal(pid, signal);
            Ok(())
        }
    }

    /// Runs something in a session of its own, and does not wait for it: it succeeds, or it fails.
    fn execute_elsewhere(&mut self, sql: String) -> Outcome {
        let mut session = self.insist("connecting", |pair| pair.source.another_session())?;
        self.elsewhere.push(thread::spawn(move || drop(session.execute(&sql))));
        Ok(())
    }

    /// The answer to an earlier attempt may have been lost: what is done already is no failure.
    fn change_table(&mut self, change: &str, table: &str) -> Outcome {
        let wanted = if change == "remove" { "NOT EXISTS" } else { "EXISTS" };
        self.insist("changing a table of the mirror", |pair| {
            let is_there = format!(
                "SELECT {wanted} (SELECT FROM dbmazz_stat_table WHERE mirror = '{}' AND relation = '{table}'::regclass)",
                pair.mirror()
            );
            if change != "resync" && pair.source.is_true(&is_there)? {
                return Ok(());
            }
            let sql = format!("SELECT dbmazz_{change}_table('{}', '{table}')", pair.mirror());
            pair.source.execute(&sql)
        })
    }

    fn resume(&mut self) -> Outcome {
        self.insist("resuming the mirror", |pair| pair.call("dbmazz_resume_mirror"))
    }

    /// A mirror is not started while its target cannot be reached: preflight says so.
    fn begin_anew(&mut self, batch_max_rows: u64) -> Outcome {
        self.control.clear()?;
        self.insist("dropping the mirror", |pair| {
            pair.source.execute(&format!("SELECT dbmazz_drop_mirror('{}', true)", pair.mirror()))
        })?;
        self.insist("starting the mirror", |pair| {
            let is_there =
                format!("SELECT EXISTS (SELECT FROM dbmazz.mirror WHERE mirror = '{}')", pair.mirror());
            // The answer to an earlier attempt may have been lost.
            if pair.source.is_true(&is_there)? {
                Ok(())
            } else {
                pair.start_mirror_with(&tables_argument(), &options(batch_max_rows))
            }
        })
    }

    /// Nothing is done any more; both sides must become equal.
    fn verify(&mut self) -> Outcome {
        self.armed.clear();
        for session in self.elsewhere.drain(..) {
            session.join().map_err(|_| Failure::new("a session has panicked"))?;
        }
        self.control.clear()?;
        self.control.keep_labels(1000)?;
        crash::come_back(&mut self.pair)?;
        self.come_into_step()?;
        self.pair.target = Target::of(&self.pair.starrocks, self.pair.target.database())?;
        self.pair.wait_and_compare(&TABLES)?;
        assert_loads_are_sound(&self.pair)
    }

    /// A worker that failed three times without progress is left alone until somebody resumes it: that is us.
    fn come_into_step(&mut self) -> Outcome {
        let in_step = format!("SELECT dbmazz_wait_mirror('{}', timeout => '1 s')", self.pair.mirror());
        let waited = wait_until("the mirror is in step", PATIENCE, || {
            match self.pair.stat("state")?.as_deref() {
                Some("error") => {
                    println!("            resuming the mirror, whose worker failed too often");
                    self.pair.call("dbmazz_resume_mirror")?;
                }
                Some("needs_resync") => return Err(Failure::new("the mirror has lost its slot")),
                _ => {}
            }
            self.pair.source.is_true(&in_step)
        });
        waited.map_err(|failure| match self.pair.views() {
            Ok(views) => Failure::new(format!("{}\n{views}", failure.message())),
            Err(_) => failure,
        })
    }

    /// Some blows under a load, and a look at both sides.
    fn round(&mut self) -> Outcome {
        let writers = Writers::start(&self.pair.source, &mut self.random, CLIENTS);
        for _ in 0..4 + self.random.below(8) {
            writers.wait_for(self.random.below(300))?;
            let blow = Blow::random(&mut self.random);
            self.say(&format!("{blow:?}"));
            self.strike(&blow, &writers)?;
        }
        writers.wait_for(20)?;
        writers.stop()?;
        self.verify()?;
        self.say("both sides are equal");
        self.pair
            .source
            .execute(&format!("DELETE FROM ledger WHERE id < (SELECT max(id) - {LEDGER_ROWS} FROM ledger)"))
    }
}

/// Small chunks and a small memory, so that everything happens often.
fn options(batch_max_rows: u64) -> String {
    format!(
        r#"{{"batch_max_rows": {batch_max_rows}, "snapshot_chunk_size": "1MB", "snapshot_workers": 2, "memory_limit": "4MB"}}"#
    )
}

fn seconds() -> u64 {
    std::env::var("DBMAZZ_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

#[test]
fn both_sides_are_equal_whatever_fails_and_when() -> Outcome {
    let random = Random::announced("soak");
    let settings = Settings::default().set("deadlock_timeout", "50ms").set("log_min_messages", "log");
    let cluster = Arc::new(Cluster::start(&settings)?);
    let data = cluster.make_directory("standin")?;
    let starrocks = StarRocks::standin(&["--data-dir", &data.display().to_string()])?;
    let Some(control) = starrocks.control() else { return Ok(()) };
    let mut pair = Pair::with(&cluster, starrocks)?;
    create_tables(&mut pair, LEDGER_ROWS)?;
    pair.start_mirror_with(&tables_argument(), &options(50))?;
    let mut soak =
        Soak { pair, random, control, armed: Vec::new(), elsewhere: Vec::new(), began: Instant::now() };
    let until = Instant::now() + Duration::from_secs(seconds());
    while Instant::now() < until {
        if let Err(failure) = soak.round() {
            // While the pair is still there, so that its drop can show views and log.
            panic!("{failure}");
        }
    }
    Ok(())
}
