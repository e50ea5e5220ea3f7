//! The tour of `make demo`: a private PostgreSQL with a million pgbench accounts, a StarRocks stand-in, and a mirror
//! that copies and follows while pgbench writes.
//!
//! It ends with both sides next to each other, and leaves the servers up until it is interrupted. With `DEMO_EXIT=1` it
//! ends by itself, with status 0 only if both sides are equal. `DEMO_SCALE` and `DEMO_SECONDS` change its size.

#[path = "harness/mod.rs"]
mod harness;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Cluster, Database, Failure, Outcome, Pgbench, Settings, StarRocks, Target, wait_until};

/// The database on both sides.
const DATABASE: &str = "bank";
/// The mirrored tables with the column whose sum tells whether they are equal; pgbench's history has no key.
const TABLES: [(&str, &str); 3] =
    [("pgbench_accounts", "abalance"), ("pgbench_branches", "bbalance"), ("pgbench_tellers", "tbalance")];

fn main() -> ExitCode {
    match tour() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("dbmazz: {}", failure.message());
            ExitCode::FAILURE
        }
    }
}

/// Everything that runs during the demo.
struct Demo {
    cluster: Arc<Cluster>,
    starrocks: StarRocks,
    source: Database,
    target: Target,
}

/// Count and sum of one table.
type Figures = (String, String);

fn tour() -> Outcome<bool> {
    let mut demo = Demo::set_up()?;
    let seconds = from_environment("DEMO_SECONDS", 15)?;
    say(&format!("pgbench -n writes with four clients for {seconds} s"));
    let writing = Pgbench::write(&demo.cluster, DATABASE, seconds)?;
    demo.mirror()?;
    writing.succeed()?;
    say("pgbench is done; waiting until the mirror is in step");
    demo.wait_in_step()?;
    let equal = demo.print_both_sides()?;
    if std::env::var("DEMO_EXIT").is_ok_and(|value| value == "1") {
        return Ok(equal);
    }
    demo.print_how_to_connect();
    loop {
        std::thread::park();
    }
}

impl Demo {
    fn set_up() -> Outcome<Self> {
        say("starting a private PostgreSQL and the StarRocks stand-in");
        let settings = Settings::default().set("shared_buffers", "512MB").set("max_wal_size", "4GB");
        let cluster = Arc::new(Cluster::start(&settings)?);
        let starrocks = StarRocks::start()?;
        Database::connect(&cluster, "postgres")?.execute(&format!("CREATE DATABASE {DATABASE}"))?;
        let source = Database::connect(&cluster, DATABASE)?;
        let target = Target::of(&starrocks, DATABASE)?;
        let scale = from_environment("DEMO_SCALE", 10)?;
        say(&format!("creating pgbench tables with {} accounts", scale * 100_000));
        Pgbench::initialize(&source, scale)?;
        Ok(Self { cluster, starrocks, source, target })
    }

    /// The quick start: extension, server, user mapping, mirror.
    fn mirror(&mut self) -> Outcome {
        let (host, fe_port, sql_port) =
            (self.starrocks.host(), self.starrocks.fe_port(), self.starrocks.sql_port());
        let (user, password) = (self.starrocks.user(), self.starrocks.password());
        let tables = TABLES.map(|(table, _)| format!("'{table}'")).join(", ");
        let statements = [
            "CREATE EXTENSION dbmazz".to_owned(),
            format!(
                "CREATE SERVER starrocks FOREIGN DATA WRAPPER dbmazz_starrocks OPTIONS (load_url 'http://{host}:{fe_port}', \
                 sql_host '{host}', sql_port '{sql_port}', database '{DATABASE}', replication_num '1')"
            ),
            format!(
                "CREATE USER MAPPING FOR CURRENT_USER SERVER starrocks OPTIONS (user '{user}', password '{password}')"
            ),
            format!("SELECT dbmazz_start_mirror('bank', 'starrocks', ARRAY[{tables}]::regclass[])"),
        ];
        let began = Instant::now();
        for statement in &statements {
            say(&format!("psql> {statement};"));
            self.source.execute(statement)?;
        }
        self.wait_until_copied()?;
        let copied: f64 =
            self.source.value("SELECT sum(rows_loaded) FROM dbmazz_stat_table")?.parse().unwrap_or(0.0);
        let took = began.elapsed();
        say(&format!(
            "copied while pgbench writes: {copied:.0} rows in {:.1} s, {:.0} rows/s",
            took.as_secs_f64(),
            copied / took.as_secs_f64()
        ));
        Ok(())
    }

    fn wait_until_copied(&mut self) -> Outcome {
        let copied = wait_until("copying the tables", Duration::from_secs(300), || {
            let state = self.source.value("SELECT state FROM dbmazz_stat_mirror WHERE mirror = 'bank'")?;
            let table_fails = self.source.is_true("SELECT bool_or(state = 'e') FROM dbmazz_stat_table")?;
            if table_fails || state == "error" || state == "needs_resync" {
                return Err(Failure::new(self.last_error()?));
            }
            self.source.is_true("SELECT bool_and(state IN ('s', 'r')) FROM dbmazz_stat_table")
        });
        copied.map_err(|failure| failure.while_doing("copy the tables"))
    }

    fn wait_in_step(&mut self) -> Outcome {
        if self.source.is_true("SELECT dbmazz_wait_mirror('bank', timeout => '2 min')")? {
            return Ok(());
        }
        Err(Failure::new(self.last_error()?).while_doing("bring the mirror into step"))
    }

    fn last_error(&mut self) -> Outcome<String> {
        let reason =
            self.source.value_or_null(
            "SELECT last_error FROM (SELECT last_error FROM dbmazz_stat_mirror UNION ALL SELECT last_error FROM dbmazz_stat_table) e
             WHERE last_error IS NOT NULL LIMIT 1",
        )?;
        Ok(reason.unwrap_or_else(|| "the mirror gives no reason".to_owned()))
    }

    /// Prints counts and sums, and returns whether they are equal.
    fn print_both_sides(&mut self) -> Outcome<bool> {
        println!(
            "{:<18} {:>12} {:>12} {:>16} {:>16}",
            "", "source rows", "target rows", "source balance", "target balance"
        );
        let mut equal = true;
        for (table, column) in TABLES {
            let (rows, balance) = self.at_source(table, column)?;
            let (target_rows, target_balance) = self.at_target(table, column)?;
            let same = rows == target_rows && balance == target_balance;
            let mark = if same { "" } else { "  different!" };
            println!("{table:<18} {rows:>12} {target_rows:>12} {balance:>16} {target_balance:>16}{mark}");
            equal &= same;
        }
        let totals = self
            .source
            .rows("SELECT rows_total, loads_total FROM dbmazz_stat_mirror WHERE mirror = 'bank'")?;
        let totals: Vec<_> = totals.into_iter().flatten().flatten().collect();
        println!("rows and loads sent in all: {}", totals.join(", "));
        say(if equal { "both sides are equal" } else { "the two sides differ" });
        Ok(equal)
    }

    fn at_source(&mut self, table: &str, column: &str) -> Outcome<Figures> {
        figures(self.source.rows(&format!("SELECT count(*), sum({column}) FROM {table}"))?)
    }

    fn at_target(&mut self, table: &str, column: &str) -> Outcome<Figures> {
        let name = self.target.table(table);
        figures(self.target.rows(&format!("SELECT count(*), sum({column}) FROM {name}"))?)
    }

    fn print_how_to_connect(&self) {
        let password = match self.starrocks.password() {
            "" => String::new(),
            password => format!(" -p{password}"),
        };
        println!();
        println!("psql -h 127.0.0.1 -p {} -U postgres {DATABASE}", self.cluster.port());
        let (host, port, user) = (self.starrocks.host(), self.starrocks.sql_port(), self.starrocks.user());
        println!("mysql -h {host} -P {port} -u {user}{password} {DATABASE}");
        println!();
        println!("Change rows on the first, see them on the second.  Ctrl-C stops both.");
    }
}

fn figures(rows: Vec<Vec<Option<String>>>) -> Outcome<Figures> {
    let mut values = rows.into_iter().flatten().flatten();
    match (values.next(), values.next()) {
        (Some(count), Some(sum)) => Ok((count, sum)),
        _ => Err(Failure::new("a table of the demo is empty")),
    }
}

fn from_environment(name: &str, default: u32) -> Outcome<u32> {
    match std::env::var(name) {
        Ok(text) => {
            text.parse().map_err(|_| Failure::new(format!("{name} must be a number, not \"{text}\"")))
        }
        Err(_) => Ok(default),
    }
}

fn say(what: &str) {
    println!("dbmazz: {what}");
}
