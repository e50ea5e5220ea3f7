//! Imports: from the call until all is done, indexes included. Beside them, in turns, `pg_restore -j2` of a dump of the same
//! tables, each into a database of its own that is empty.
//!
//! The files are in memory (`/dev/shm`), as the usual options make them: zstd of dbmazz, gzip of `pg_dump -Fd -j2`. Rows are
//! counted on both sides.

use std::path::Path;
use std::sync::Arc;

use crate::export::{TOPIC, told};
use crate::figures::{Line, Series, Target, Unit, count};
use crate::files::{Files, Taken};
use crate::harness::{Database, Failure, Outcome};
use crate::plan::{Importance, Plan};
use crate::report::Report;
use crate::workload::Shape;

/// Measures one table, and several.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    let rows = plan.scaled(5_000_000);
    if plan.takes(TOPIC, "import, one table", Importance::Target) {
        compare(plan, report, "one table", &["narrow"], rows, Some(Target::RatioAtLeast(1.5)))?;
    }
    if plan.takes(TOPIC, "import, four tables", Importance::Context) {
        compare(plan, report, "four tables", &["narrow1", "narrow2", "narrow3", "narrow4"], rows, None)?;
    }
    Ok(())
}

fn compare(
    plan: &Plan,
    report: &mut Report,
    what: &str,
    tables: &[&str],
    rows: u64,
    target: Option<Target>,
) -> Outcome {
    println!("export: import of {rows} narrow rows, {what}");
    let mut bench = Bench::new(tables, rows)?;
    let mut ours = Series::new("zstd", Unit::RowsPerSecond);
    let mut theirs = Series::new("pg_restore -j2", Unit::RowsPerSecond);
    // The first run warms up.
    for run in 0..=plan.runs {
        println!("  run {run} of {}{}", plan.runs, if run == 0 { ", not counted" } else { "" });
        let both = [told("import", bench.import()?), told("pg_restore", bench.restore()?)];
        if run > 0 {
            let rates = both.map(|taken| count(rows) / taken.time.as_secs_f64());
            ours.values.push(rates[0]);
            theirs.values.push(rates[1]);
        }
    }
    let what = format!("export: import, {what} of narrow rows, 2 workers");
    report.add(Line { what, ours, theirs: Some(theirs), target })
}

/// An export and a dump of the same tables.
struct Bench {
    files: Files,
    tables: Vec<String>,
    rows: u64,
    number: u32,
}

impl Bench {
    fn new(tables: &[&str], rows: u64) -> Outcome<Self> {
        let mut files = Files::new()?;
        let each = rows / count_of(tables);
        for table in tables {
            files.lab.pair.source.execute(&Shape::Narrow.create(table))?;
            files.lab.execute_each(&Shape::Narrow.inserts(table, 0, each))?;
        }
        files.lab.execute_each(&["VACUUM ANALYZE".to_owned(), "CHECKPOINT".to_owned()])?;
        let (export, dump) = (files.memory.join("export"), files.memory.join("dump"));
        files.export(&tables.join(","), &export, "zstd")?;
        let names: Vec<String> = tables.iter().map(|table| format!("-t {table}")).collect();
        let line = format!("\"$pg_dump\" -Fd -j2 {} -f \"$dump\"", names.join(" "));
        files.shell(&line, &[("dump", &dump.display().to_string())])?;
        let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
        Ok(Self { files, rows: each * count_of(&tables), tables, number: 0 })
    }

    fn import(&mut self) -> Outcome<Taken> {
        let mut into = self.empty_database()?;
        into.execute("CREATE EXTENSION dbmazz")?;
        let call = format!(
            "SELECT dbmazz_import('{}', options => '{{\"workers\": 2}}')",
            self.files.memory.join("export").display()
        );
        let taken = self.files.timed(|_| {
            let id = into.value(&call)?;
            into.execute(&format!("SELECT dbmazz_wait_export({id})"))
        })?;
        self.check_and_drop(into)?;
        Ok(taken)
    }

    fn restore(&mut self) -> Outcome<Taken> {
        let into = self.empty_database()?;
        let dump = self.files.memory.join("dump");
        let variables = [("dump", path(&dump)?), ("PGDATABASE", into.name())];
        let taken = self.files.shell("\"$pg_restore\" -j2 -d \"$PGDATABASE\" \"$dump\"", &variables)?;
        self.check_and_drop(into)?;
        Ok(taken)
    }

    fn empty_database(&mut self) -> Outcome<Database> {
        self.number += 1;
        let name = format!("imported_{}", self.number);
        self.files.lab.execute_each(&[format!("CREATE DATABASE {name}"), "CHECKPOINT".to_owned()])?;
        let mut into = Database::connect(&Arc::clone(self.files.lab.pair.source.cluster()), &name)?;
        into.execute("SET statement_timeout = 0")?;
        Ok(into)
    }

    fn check_and_drop(&mut self, mut into: Database) -> Outcome {
        let mut rows = 0;
        for table in &self.tables {
            let sql = format!("SELECT count(*) FROM {table} WHERE id IS NOT NULL");
            rows += into.value(&sql)?.parse::<u64>()?;
        }
        let indexes: usize = into
            .value(
                "SELECT count(*) FROM pg_index WHERE indrelid >= 16384 AND indisprimary
                AND indrelid::regclass::text LIKE 'narrow%'",
            )?
            .parse()?;
        if (rows, indexes) != (self.rows, self.tables.len()) {
            return Err(Failure::new(format!("{rows} rows and {indexes} keys came of {}", self.rows)));
        }
        let name = into.name().to_owned();
        drop(into);
        self.files.lab.execute_each(&[format!("DROP DATABASE {name} WITH (FORCE)")])
    }
}

fn count_of<T>(things: &[T]) -> u64 {
    things.len() as u64
}

fn path(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| Failure::new("a path is not UTF-8"))
}
