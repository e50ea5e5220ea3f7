//! Exports: from the call until the manifest is there. Beside them, in turns, `pg_dump` of the same table, and `dd` of as many
//! bytes to the same disk.
//!
//! The destination is a directory in memory (`/dev/shm`) unless the disk is what is measured.

use std::process::Command;
use std::time::Duration;

use crate::figures::{Line, Series, Target, Unit, count};
use crate::files::{Files, Taken, clear};
use crate::harness::Outcome;
use crate::plan::{Importance, Plan};
use crate::report::Report;
use crate::workload::Shape;
use crate::{export_load, import};

/// Of the measurements here, in [`import`] and in [`export_load`].
pub(crate) const TOPIC: &str = "export";

/// Measures it all.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Outcome {
    if plan.takes(TOPIC, "narrow rows", Importance::Target) {
        narrow(plan, report)?;
    }
    if plan.takes(TOPIC, "large values", Importance::Target) {
        large(plan, report)?;
    }
    import::measure(plan, report)?;
    export_load::measure(plan, report)
}

/// Files of one table in one directory, which is empty afterwards.
struct Bench {
    files: Files,
    table: &'static str,
}

impl Bench {
    fn export_to_memory(&mut self, compression: &str) -> Outcome<Taken> {
        let directory = self.files.memory.clone();
        let (taken, _) = self.files.export(self.table, &directory.join("export"), compression)?;
        clear(&directory)?;
        Ok(taken)
    }

    fn export_to_disk(&mut self) -> Outcome<(Taken, u64)> {
        let directory = self.files.disk.clone();
        let exported = self.files.export(self.table, &directory.join("export"), "none")?;
        clear(&directory)?;
        Ok(exported)
    }

    /// A program that writes into the directory in memory.
    fn program(&mut self, line: &str) -> Outcome<Taken> {
        let directory = self.files.memory.clone();
        let name = directory.display().to_string();
        let taken = self.files.shell(line, &[("table", self.table), ("directory", &name)])?;
        clear(&directory)?;
        Ok(taken)
    }

    /// `dd` of as many bytes to the disk.
    fn dd(&mut self, bytes: u64) -> Outcome<Taken> {
        let line = format!(
            "dd if=/dev/zero of=\"$directory/dd\" bs=1M count={} conv=fsync status=none",
            bytes.div_ceil(1 << 20)
        );
        let directory = self.files.disk.clone();
        let taken = self.files.shell(&line, &[("directory", &directory.display().to_string())])?;
        clear(&directory)?;
        Ok(taken)
    }
}

const DIRECTORY: &str = "\"$pg_dump\" -Fd -j2 -Z0 -t \"$table\" -f \"$directory/dump\"";
const CUSTOM: &str = "\"$pg_dump\" -Fc -t \"$table\" -f \"$directory/dump\"";
const PIGZ: &str = "\"$pg_dump\" -Fp -t \"$table\" | pigz -p2 > \"$directory/dump\"";

fn narrow(plan: &Plan, report: &mut Report) -> Outcome {
    let rows = plan.scaled(5_000_000);
    println!("export: {rows} narrow rows");
    let mut files = Files::new()?;
    files.lab.pair.source.execute(&Shape::Narrow.create("narrow"))?;
    files.lab.execute_each(&Shape::Narrow.inserts("narrow", 0, rows))?;
    files.lab.execute_each(&["VACUUM ANALYZE narrow".to_owned(), "CHECKPOINT".to_owned()])?;
    let has_pigz = Command::new("pigz").arg("--version").output().is_ok();
    if !has_pigz {
        report.note("export: pigz is not installed, and not measured")?;
    }
    let mut bench = Bench { files, table: "narrow" };
    let series = |name: &str, unit| Series::new(name, unit);
    let (mut plain, mut zstd) =
        (series("no compression", Unit::RowsPerSecond), series("zstd", Unit::RowsPerSecond));
    let mut directory = series("pg_dump -Fd -j2 -Z0", Unit::RowsPerSecond);
    let mut custom = series("pg_dump -Fc", Unit::RowsPerSecond);
    let mut pigz = series("pg_dump -Fp | pigz -p2", Unit::RowsPerSecond);
    let (mut disk, mut dd) =
        (series("no compression", Unit::Seconds), series("dd conv=fsync", Unit::Seconds));
    bench.export_to_memory("none")?;
    let rate = |taken: Taken| count(rows) / taken.time.as_secs_f64();
    for run in 1..=plan.runs {
        println!("  run {run} of {}", plan.runs);
        plain.values.push(rate(told("no compression", bench.export_to_memory("none")?)));
        directory.values.push(rate(told("pg_dump -Fd -j2 -Z0", bench.program(DIRECTORY)?)));
        zstd.values.push(rate(told("zstd", bench.export_to_memory("zstd")?)));
        custom.values.push(rate(told("pg_dump -Fc", bench.program(CUSTOM)?)));
        if has_pigz {
            pigz.values.push(rate(told("pigz", bench.program(PIGZ)?)));
        }
        let (taken, bytes) = bench.export_to_disk()?;
        disk.values.push(told("to disk", taken).time.as_secs_f64());
        dd.values.push(told("dd", bench.dd(bytes)?).time.as_secs_f64());
    }
    let mut line = |what: &str, ours: &Series, theirs: Series, least| {
        let what = format!("export: narrow rows, 2 workers, {what}");
        report.add(Line {
            what,
            ours: ours.clone(),
            theirs: Some(theirs),
            target: Some(Target::RatioAtLeast(least)),
        })
    };
    line("to memory", &plain, directory, 3.0)?;
    line("zstd, to memory", &zstd, custom, 5.0)?;
    if has_pigz {
        line("zstd, to memory", &zstd, pigz, 3.0)?;
    }
    line("to disk", &disk, dd, 0.9)
}

/// Shows what something took, and hands it on.
pub(crate) fn told(what: &str, taken: Taken) -> Taken {
    let seconds = |time: Duration| time.as_secs_f64();
    println!("    {what}: {:.2} s, {:.2} s of processor time", seconds(taken.time), seconds(taken.cpu));
    taken
}

/// Values of 1 MB that do not compress.
fn large(plan: &Plan, report: &mut Report) -> Outcome {
    let values = plan.scaled(2_000);
    println!("export: {values} values of 1 MB");
    let mut files = Files::new()?;
    // Each by itself: VACUUM wants no transaction.
    files.lab.execute_each(&[
        "CREATE TABLE large (id int, body bytea)".to_owned(),
        "ALTER TABLE large ALTER body SET STORAGE EXTERNAL".to_owned(),
        format!(
            "INSERT INTO large SELECT n, (SELECT string_agg(sha512((n * 20000 + m)::text::bytea), '')
                 FROM generate_series(1, 16384) m) FROM generate_series(1, {values}) n"
        ),
        "VACUUM ANALYZE large".to_owned(),
        "CHECKPOINT".to_owned(),
    ])?;
    let mut bench = Bench { files, table: "large" };
    let mut ours = Series::new("no compression", Unit::Seconds);
    let mut dd = Series::new("dd conv=fsync", Unit::Seconds);
    let mut bytes = 0;
    for run in 1..=plan.runs {
        let (taken, written) = bench.export_to_disk()?;
        bytes = written;
        ours.values.push(taken.time.as_secs_f64());
        dd.values.push(bench.dd(written)?.time.as_secs_f64());
        let rate = count(written) / 1e6 / taken.time.as_secs_f64();
        println!("  run {run} of {}: {rate:.0} MB/s", plan.runs);
    }
    report.note(format!(
        "export: {:.0} MB/s of large values; the disk takes {:.0} MB/s",
        count(bytes) / 1e6 / ours.median(),
        count(bytes) / 1e6 / dd.median()
    ))?;
    let what = "export: large values, 2 workers, to disk".to_owned();
    report.add(Line { what, ours, theirs: Some(dd), target: Some(Target::RatioAtLeast(0.9)) })
}
