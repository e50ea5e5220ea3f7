//! The outcome: a table on the terminal and for the README, everything as JSON, the curves as SVG. Written anew after each
//! measurement, so that a run that is interrupted leaves what it has.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::figures::{Line, Target};
use super::machine::Machine;
use super::svg::Chart;
use crate::harness::Outcome;

/// Everything so far.
pub(crate) struct Report {
    directory: PathBuf,
    machine: Machine,
    command: String,
    lines: Vec<Line>,
    charts: Vec<Chart>,
    notes: Vec<String>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(directory: PathBuf, machine: Machine, command: String) -> Outcome<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, machine, command, lines: Vec::new(), charts: Vec::new(), notes: Vec::new() })
    }

    /// Adds a line, and shows it.
    pub(crate) fn add(&mut self, line: Line) -> Outcome {
        println!("  {}", one_line(&line));
        self.lines.push(line);
        self.write()
    }

    /// Adds a drawing.
    pub(crate) fn draw(&mut self, chart: Chart) -> Outcome {
        let path = self.directory.join(format!("{}.svg", chart.name));
        fs::write(&path, chart.to_svg())?;
        println!("  curve: {}", path.display());
        self.charts.push(chart);
        self.write()
    }

    /// Adds a remark: what was not measured, and why.
    pub(crate) fn note(&mut self, note: impl Into<String>) -> Outcome {
        let note = note.into();
        println!("  {note}");
        self.notes.push(note);
        self.write()
    }

    /// Prints the whole table; returns whether every target was reached.
    pub(crate) fn print(&self) -> bool {
        println!("\n{}", self.to_markdown());
        println!("written to {}: table.md, results.json, *.svg", self.directory.display());
        self.lines.iter().all(|line| line.is_met() != Some(false))
    }

    fn write(&self) -> Outcome {
        fs::write(self.directory.join("table.md"), self.to_markdown())?;
        let lines: Vec<_> = self.lines.iter().map(to_json).collect();
        let all = json!({
            "command": self.command,
            "machine": self.machine,
            "lines": lines,
            "charts": self.charts,
            "notes": self.notes,
        });
        fs::write(self.directory.join("results.json"), serde_json::to_string_pretty(&all)?)?;
        Ok(())
    }

    fn to_markdown(&self) -> String {
        let mut text = format!("`{}`, {}.\n\n", self.command, self.machine);
        text.push_str("Medians, and from the lowest to the highest run in brackets; the ratio is that of the medians.\n\n");
        text.push_str("| measured | dbmazz | baseline | ratio | target | |\n|---|---|---|---|---|---|\n");
        // What has a target comes first.
        let (first, rest): (Vec<_>, Vec<_>) = self.lines.iter().partition(|line| line.target.is_some());
        for line in first.into_iter().chain(rest) {
            let theirs = line.theirs.as_ref();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                line.what,
                values(&line.ours),
                theirs.map(|theirs| format!("{}: {}", theirs.name, values(theirs))).unwrap_or_default(),
                ratio(line),
                target(line),
                line.is_met().map_or("", |met| if met { "met" } else { "**missed**" }),
            );
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }
}

fn to_json(line: &Line) -> serde_json::Value {
    json!({
        "line": line,
        "median": line.ours.median(),
        "ratio": line.ratio(),
        "ratio_spread": line.ratio_spread(),
        "met": line.is_met(),
    })
}

fn values(series: &super::figures::Series) -> String {
    let shown = series.unit.show(series.median());
    if series.values.len() < 2 {
        return shown;
    }
    let (low, high) = series.spread();
    format!("{shown} ({} – {})", number(series.unit, low), number(series.unit, high))
}

/// Without the unit.
fn number(unit: super::figures::Unit, value: f64) -> String {
    let shown = unit.show(value);
    shown.split_once(' ').map_or(shown.clone(), |(number, rest)| match rest {
        "k rows/s" => format!("{number} k"),
        "M rows/s" => format!("{number} M"),
        _ => number.to_owned(),
    })
}

fn ratio(line: &Line) -> String {
    let Some((ratio, (low, high))) = line.ratio().zip(line.ratio_spread()) else { return String::new() };
    if line.ours.values.len() < 2 {
        return format!("{ratio:.2}");
    }
    format!("{ratio:.2} ({low:.2} – {high:.2})")
}

fn target(line: &Line) -> String {
    match line.target {
        None => String::new(),
        Some(Target::RatioAtLeast(least)) => format!("at least {least} ×"),
        Some(Target::AtLeast(least)) => format!("at least {}", line.ours.unit.show(least)),
        Some(Target::Below(bound)) => format!("below {}", line.ours.unit.show(bound)),
    }
}

fn one_line(line: &Line) -> String {
    let mut text = format!("{}: {}", line.what, values(&line.ours));
    if let Some(theirs) = &line.theirs {
        let _ = write!(text, "; {}: {}; ratio {}", theirs.name, values(theirs), ratio(line));
    }
    if let Some(met) = line.is_met() {
        let _ = write!(text, "; target {}: {}", target(line), if met { "met" } else { "MISSED" });
    }
    text
}
