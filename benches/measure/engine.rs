//! The one figure of the engine that has a target: narrow rows, encoded and compacted on one core. Criterion measures it
//! (`benches/engine.rs`); `make bench` runs it before, and here its estimate is read.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::figures::{Line, Series, Target, Unit};
use crate::harness::Outcome;
use crate::plan::{Importance, Plan};
use crate::report::Report;

/// Rows of an iteration, as `benches/engine.rs` has them.
const ROWS: f64 = 50_000.0;

/// Takes over the estimate that lies in the target directory.
pub(crate) fn measure(plan: &Plan, report: &mut Report, target: &Path) -> Outcome {
    if !plan.takes("engine", "encode and compact", Importance::Target) {
        return Ok(());
    }
    let path = target.join("criterion/narrow/encode, compact, seal/new/estimates.json");
    let Ok(text) = fs::read_to_string(&path) else {
        return report.note("The engine was not measured: cargo bench --bench engine was not run before.");
    };
    let estimates: Value = serde_json::from_str(&text)?;
    let nanoseconds = estimates.pointer("/median/point_estimate").and_then(Value::as_f64).unwrap_or(f64::NAN);
    let mut ours = Series::new("engine", Unit::RowsPerSecond);
    ours.values.push(ROWS * 1e9 / nanoseconds);
    let what = "engine: narrow rows, encode and compact, one core".to_owned();
    report.add(Line { what, ours, theirs: None, target: Some(Target::AtLeast(5e6)) })
}
