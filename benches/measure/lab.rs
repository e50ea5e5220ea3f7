//! The place of a measurement: a private cluster with durability as in production, one database, the stand-in, mirrors by
//! name, and the slot of the baseline.
//!
//! Every mirror goes to a target database of its own, so that several may mirror the same tables.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Control, Failure, Outcome, Pair, Settings, StarRocks, wait_until};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What becomes of the loads of a mirror.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loads {
    /// They go to the stand-in over HTTP.
    Http,
    /// They are compressed, then thrown away.
    DiscardedCompressed,
    /// They are thrown away as they are.
    DiscardedPlain,
}

impl Loads {
    const fn server(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::DiscardedCompressed => "discarded_compressed",
            Self::DiscardedPlain => "discarded_plain",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::Http => "",
            Self::DiscardedCompressed => ", discard 'compressed'",
            Self::DiscardedPlain => ", discard 'plain'",
        }
    }
}

/// A mirror as a measurement wants it.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub(crate) name: String,
    pub(crate) loads: Loads,
    /// `tables => …` or `publication => …`, and what else there is of named arguments.
    pub(crate) arguments: String,
    /// As JSON.
    pub(crate) options: String,
}

impl Mirror {
    /// With the defaults of the product.
    pub(crate) fn new(name: &str, loads: Loads, arguments: &str) -> Self {
        Self { name: name.to_owned(), loads, arguments: arguments.to_owned(), options: "{}".to_owned() }
    }

    /// With other options.
    pub(crate) fn with_options(self, options: &str) -> Self {
        Self { options: options.to_owned(), ..self }
    }
}

/// The place.
pub(crate) struct Lab {
    pub(crate) pair: Pair,
    pub(crate) control: Control,
    mirrors: Vec<String>,
    slots: Vec<String>,
    targets: u32,
}

impl Lab {
    /// Durability as in production: the comparison must not profit from settings of a test.
    pub(crate) fn new() -> Outcome<Self> {
        Self::with(Settings::default(), &[])
    }

    /// With further settings, and further arguments of the stand-in.
    pub(crate) fn with(settings: Settings, standin: &[&str]) -> Outcome<Self> {
        let settings = settings
            .set("fsync", "on")
            .set("shared_buffers", "1GB")
            .set("max_wal_size", "24GB")
            .set("checkpoint_timeout", "1h")
            .set("autovacuum", "off")
            .set("max_wal_senders", "20");
        let cluster = Arc::new(Cluster::start(&settings)?);
        let starrocks = StarRocks::standin(&[&["--storage", "off"], standin].concat())?;
        let mut pair = Pair::without_server(&cluster, starrocks)?;
        let control = pair.starrocks.control();
        let control = control.ok_or_else(|| Failure::new("the stand-in has no control interface"))?;
        // What paces the slots forward; see `align`.
        pair.source.execute("CREATE TABLE pace (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")?;
        pair.source.execute("SET statement_timeout = 0")?;
        Ok(Self { pair, control, mirrors: Vec::new(), slots: Vec::new(), targets: 0 })
    }

    /// Runs statements one after another, none of them in a transaction with another.
    pub(crate) fn execute_each(&mut self, statements: &[String]) -> Outcome {
        statements.iter().try_for_each(|statement| self.pair.source.execute(statement))
    }

    /// A value of a query as a number.
    pub(crate) fn number(&mut self, sql: &str) -> Outcome<u64> {
        Ok(self.pair.source.value(sql)?.parse()?)
    }

    /// Starts a mirror, into a target database that nobody else has.
    pub(crate) fn start(&mut self, mirror: &Mirror) -> Outcome {
        self.targets += 1;
        let server = format!("{}_{}", mirror.loads.server(), self.targets);
        let options = self.pair.server_options();
        let own = format!("{}_{}", self.pair.target.database(), self.targets);
        let options = options.replace(self.pair.target.database(), &own) + mirror.loads.option();
        self.pair.create_server(&server, &options)?;
        self.mirrors.push(mirror.name.clone());
        self.pair.source.execute(&format!(
            "SELECT dbmazz_start_mirror('{}', '{server}', {}, options => '{}')",
            mirror.name, mirror.arguments, mirror.options
        ))
    }

    /// Waits until all that was committed before `end` is durable.
    pub(crate) fn wait(&mut self, mirror: &str, end: &str) -> Outcome {
        let patience = PATIENCE.as_secs();
        let sql = format!("SELECT dbmazz_wait_mirror('{mirror}', '{end}', '{patience} s')");
        if self.pair.source.is_true(&sql)? {
            return Ok(());
        }
        let views = self.pair.views()?;
        Err(Failure::new(format!("mirror \"{mirror}\" did not come into step\n{views}")))
    }

    /// The end of the log, and all of it flushed.
    pub(crate) fn end_of_log(&mut self) -> Outcome<String> {
        // A commit that is flushed flushes what was committed asynchronously before.
        self.pair.source.execute("SET synchronous_commit = on")?;
        self.pair.source.execute("INSERT INTO pace DEFAULT VALUES")?;
        self.pair.source.value("SELECT pg_current_wal_flush_lsn()")
    }

    /// The end of the log, with everything that was written on the disk: the kernel would write it out when it likes, and
    /// disturb whoever reads first.
    pub(crate) fn end_of_log_at_rest(&mut self) -> Outcome<String> {
        let end = self.end_of_log()?;
        let status = Command::new("sync").status()?;
        if status.success() { Ok(end) } else { Err(Failure::new(format!("sync: {status}"))) }
    }

    /// Stops a mirror's worker.
    pub(crate) fn pause(&mut self, mirror: &str) -> Outcome {
        self.pair.source.execute(&format!("SELECT dbmazz_pause_mirror('{mirror}')"))?;
        let sql = format!("SELECT pid IS NULL FROM dbmazz_stat_mirror WHERE mirror = '{mirror}'");
        wait_until(&format!("mirror \"{mirror}\" is paused"), PATIENCE, || self.pair.source.is_true(&sql))
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self, mirror: &str) -> Outcome {
        self.pair.source.execute(&format!("SELECT dbmazz_resume_mirror('{mirror}')"))
    }

    /// Removes it.
    pub(crate) fn drop_mirror(&mut self, mirror: &str) -> Outcome {
        self.mirrors.retain(|other| other != mirror);
        self.pair.source.execute(&format!("SELECT dbmazz_drop_mirror('{mirror}')"))
    }

    /// Rows that the mirror's worker has brought to their end since it started.
    pub(crate) fn rows_total(&mut self, mirror: &str) -> Outcome<u64> {
        self.number(&format!("SELECT rows_total FROM dbmazz_stat_mirror WHERE mirror = '{mirror}'"))
    }

    /// The process of its worker.
    pub(crate) fn pid(&mut self, mirror: &str) -> Outcome<u32> {
        let sql = format!("SELECT pid FROM dbmazz_stat_mirror WHERE mirror = '{mirror}'");
        Ok(self.pair.source.value(&sql)?.parse()?)
    }

    /// From the call that resumes the mirror, the start of its worker included, until all before `end` is durable. The
    /// worker is gone again afterwards.
    ///
    /// # Errors
    ///
    /// When the count of the rows is not the one that `rows` takes.
    pub(crate) fn catch_up(&mut self, mirror: &Mirror, end: &str, rows: Expected) -> Outcome<Duration> {
        let before = self.control.rows_received()?;
        let began = Instant::now();
        self.resume(&mirror.name)?;
        self.wait(&mirror.name, end)?;
        let took = began.elapsed();
        let received = match mirror.loads {
            Loads::Http => self.control.rows_received()? - before,
            Loads::DiscardedCompressed | Loads::DiscardedPlain => self.rows_total(&mirror.name)?,
        };
        rows.check(&mirror.name, received)?;
        self.pause(&mirror.name)?;
        Ok(took)
    }

    /// Makes a slot of the baseline. Its publications must be there.
    pub(crate) fn create_slot(&mut self, slot: &str) -> Outcome {
        self.slots.push(slot.to_owned());
        self.pair.source.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
    }

    /// The whole run of `pg_recvlogical`, up to `end`.
    pub(crate) fn receive(&mut self, slot: &str, end: &str, plugin: &[String]) -> Outcome<Duration> {
        let cluster = Arc::clone(self.pair.source.cluster());
        let mut command = cluster.client_program("pg_recvlogical");
        command.args(["--dbname", self.pair.source.name(), "--slot", slot, "--start", "--file", "/dev/null"]);
        command.args(["--no-loop", "--endpos", end]);
        command.args(plugin.iter().flat_map(|option| ["-o", option.as_str()]));
        let began = Instant::now();
        let status = command.status()?;
        if !status.success() {
            return Err(Failure::new(format!("pg_recvlogical: {status}")));
        }
        Ok(began.elapsed())
    }

    /// Brings every slot to the same place, so that nobody reads log that another does not, and stops the mirrors there.
    ///
    /// A slot can be read from the last record of running transactions that its consumer had decoded before it confirmed
    /// something later. A checkpoint writes such a record; a row behind it is what mirrors confirm. Returns how far apart
    /// the places are, in bytes.
    pub(crate) fn align(&mut self) -> Outcome<u64> {
        let begin = self.end_of_log()?;
        for mirror in self.mirrors.clone() {
            self.resume(&mirror)?;
        }
        // A mirror that was only just started makes its slot before it is in step.
        for mirror in self.mirrors.clone() {
            self.wait(&mirror, &begin)?;
        }
        let mut rounds = 0;
        while !self.are_past(&begin)? {
            rounds += 1;
            if rounds > 60 {
                return Err(Failure::new(format!("the slots did not come past {begin}")));
            }
            self.pair.source.execute("CHECKPOINT")?;
            let end = self.end_of_log()?;
            for mirror in self.mirrors.clone() {
                self.wait(&mirror, &end)?;
            }
            for slot in self.slots.clone() {
                self.pair
                    .source
                    .execute(&format!("SELECT pg_replication_slot_advance('{slot}', '{end}')"))?;
            }
        }
        for mirror in self.mirrors.clone() {
            self.pause(&mirror)?;
        }
        self.number(
            "SELECT pg_wal_lsn_diff(max(restart_lsn), min(restart_lsn))::bigint FROM pg_replication_slots",
        )
    }

    /// Whether all slots can be read from `begin` or later. Mirrors confirm a moment after the load, so there is some
    /// patience in it.
    fn are_past(&mut self, begin: &str) -> Outcome<bool> {
        let sql = format!("SELECT coalesce(min(restart_lsn) >= '{begin}', true) FROM pg_replication_slots");
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            if self.pair.source.is_true(&sql)? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }
}

/// What the count of rows may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// This, and the row that marks the end of the log.
    Exactly(u64),
    /// Fewer are fine, because rows of one key become one; none is not.
    AtMost(u64),
}

impl Expected {
    fn check(self, mirror: &str, received: u64) -> Outcome {
        let is_right = match self {
            Self::Exactly(rows) => received == rows + 1,
            Self::AtMost(rows) => (1..=rows + 1).contains(&received),
        };
        if is_right {
            return Ok(());
        }
        Err(Failure::new(format!(
            "mirror \"{mirror}\": {received} rows arrived, not as expected: {self:?}, and one more"
        )))
    }
}
