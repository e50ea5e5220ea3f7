//! What earlier copies have left at the target: tables that were filled to take the places of others, and never did.
//!
//! They are dropped by the next process that leads a copy, before it does anything else. For those of tables that have left the
//! mirror such a process is started if need be; by then nobody loads into them any more.

use pgrx::pg_sys;

use super::super::super::catalog::event::{Event, Severity};
use super::super::super::catalog::table::MirrorTableRow;
use super::super::super::loader::Loader;
use super::super::super::{catalog, session};
use super::super::start::{DefinitionWatch, Mirror};
use crate::definition::AlterStep;
use crate::sink::{Job, Outcome, StatementError};
use crate::table::TargetTable;

/// Drops those whose tables have left the mirror. One that the target does not let go of is told of, and left to the
/// administrator.
pub(super) fn drop_abandoned(mirror: &mut Mirror, loader: &mut Loader) {
    let copies = session::transaction(|| catalog::table::abandoned_copies(&mirror.name));
    if copies.is_empty() {
        return;
    }
    let failed = drop_copies(mirror, loader, copies.clone());
    catalog::mirror::transaction(&mirror.name, || {
        for copy in &copies {
            catalog::table::forget_abandoned_copy(&mirror.name, copy);
        }
        for (copy, problem) in &failed {
            let message =
                format!("table \"{copy}\" of the target is of no use any more and could not be dropped");
            let detail = problem.to_string();
            let event = Event::of(&mirror.name, Severity::Warning, &message);
            Event { detail: Some(&detail), ..event }.record();
        }
    });
    mirror.read_tables();
}

/// Drops what earlier copies of these tables were filling. Before anything else: from then on nothing can put it in place.
/// Tables of which that cannot be done go into error; returns the others.
pub(super) fn drop_of(mirror: &Mirror, loader: &mut Loader, tables: &[pg_sys::Oid]) -> Vec<pg_sys::Oid> {
    let of_these = mirror.tables.iter().filter(|table| tables.contains(&table.relid));
    let earlier: Vec<&MirrorTableRow> = of_these.filter(|table| table.copy.is_some()).collect();
    let copies = earlier.iter().map(|table| table.copied_into()).collect();
    let failed = drop_copies(mirror, loader, copies);
    if failed.is_empty() {
        return tables.to_vec();
    }
    let reason = |table: &MirrorTableRow| {
        let (copy, problem) = failed.iter().find(|(copy, _)| *copy == table.copied_into())?;
        Some(format!("could not drop table \"{copy}\" of an earlier copy: {problem}"))
    };
    catalog::mirror::transaction(&mirror.name, || {
        let mut fit = tables.to_vec();
        for table in earlier {
            let Some(reason) = reason(table) else { continue };
            catalog::table::fail(&mirror.name, table.relid, &table.source_name, &reason);
            fit.retain(|relid| *relid != table.relid);
        }
        fit
    })
}

/// Drops tables that were filled beside others. Returns those that could not be.
fn drop_copies(
    mirror: &Mirror,
    loader: &mut Loader,
    copies: Vec<TargetTable>,
) -> Vec<(TargetTable, StatementError)> {
    let mut definition = DefinitionWatch::new();
    let jobs = copies.into_iter().map(|target| Job::Alter { target, steps: vec![AlterStep::DropCopy] });
    let outcomes = loader.run_all(jobs, |trouble| definition.begin_anew_if_mended(mirror, trouble));
    let failed = outcomes.into_iter().filter_map(|outcome| match outcome {
        Outcome::Alter(target, Err(problem)) => Some((target, problem)),
        _ => None,
    });
    failed.collect()
}
