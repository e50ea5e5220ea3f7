//! The target tables before a copy: there, of the right columns, and empty.
//!
//! A table that is filled beside another one has a name that no other copy has, so that a statement of an earlier copy that
//! comes late finds nothing ([`crate::sink::starrocks`], `fence`). The name is written down before the table is made, and
//! forgotten only when the table is gone: it is dropped when it has been exchanged, before the next copy of the same table,
//! after the table has left the mirror, or with the mirror.

use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::super::catalog::table::{CopyTable, MirrorTableRow};
use super::super::super::loader::Loader;
use super::super::super::{catalog, failpoint, labels};
use super::super::start::{self, DefinitionWatch, Described, Mirror};
use super::earlier;
use crate::definition::Definition;
use crate::sink::{Job, Outcome, Prepared, TableMatch};
use crate::table::{TableSpec, TargetTable};

/// Locks of so many tables are held at once.
const TABLES_AT_A_TIME: usize = 100;

/// What becomes of the rows of a target table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Rows {
    /// They are taken away: the copy brings others.
    Replaced,
    /// They stay until the copy is complete: it goes into a table beside, which takes the place of the target.
    Beside,
    /// They stay: nothing is copied.
    Kept,
}

/// Makes the target table of every one of these tables exist, fit and, for a copy, be empty; those that cannot be mirrored go into
/// error. Returns the others. No load of any of them may be on its way.
pub(in super::super) fn make_ready(
    mirror: &mut Mirror,
    loader: &mut Loader,
    tables: &[pg_sys::Oid],
    rows: Rows,
) -> Vec<pg_sys::Oid> {
    earlier::drop_abandoned(mirror, loader);
    let tables = earlier::drop_of(mirror, loader, tables);
    let described = describe(mirror, &tables);
    let mut work = Work { described, problems: vec![], emptied: vec![], beside: vec![], copies: vec![] };
    let specs = work.described.iter().map(|(_, described)| described.spec.clone()).collect();
    let prepared = run(mirror, loader, Job::Prepare(specs));
    work.judge(mirror, loader, prepared, rows);
    if rows != Rows::Kept {
        empty(mirror, loader, std::mem::take(&mut work.emptied));
    }
    work.make_tables_beside(mirror, loader);
    work.write_down(mirror)
}

/// Runs a job about tables of the target to its end, however long the target is away.
fn run(mirror: &Mirror, loader: &mut Loader, job: Job) -> Vec<Prepared> {
    let mut definition = DefinitionWatch::new();
    match loader.run(job, |trouble| definition.begin_anew_if_mended(mirror, trouble)) {
        Outcome::Prepare(prepared) => prepared,
        _ => Vec::new(),
    }
}

fn empty(mirror: &Mirror, loader: &mut Loader, targets: Vec<TargetTable>) {
    let mut definition = DefinitionWatch::new();
    let jobs = targets.into_iter().map(Job::Truncate);
    for outcome in loader.run_all(jobs, |trouble| definition.begin_anew_if_mended(mirror, trouble)) {
        if let Outcome::Truncate(target, Err(problem)) = outcome {
            error!("could not empty target table \"{target}\" before the copy: {problem}");
        }
    }
}

/// What is found out about the tables.
struct Work {
    described: Vec<(pg_sys::Oid, Described)>,
    problems: Vec<(pg_sys::Oid, String)>,
    emptied: Vec<TargetTable>,
    /// Those that are copied into another table first.
    beside: Vec<Arc<TableSpec>>,
    copies: Vec<(pg_sys::Oid, CopyTable)>,
}

/// Describes the tables; those that cannot be are put into error at once.
fn describe(mirror: &mut Mirror, tables: &[pg_sys::Oid]) -> Vec<(pg_sys::Oid, Described)> {
    let mut found = Vec::new();
    for some in tables.chunks(TABLES_AT_A_TIME) {
        catalog::mirror::transaction(&mirror.name, || {
            for relid in some {
                let Some(table) = mirror.table(*relid) else { continue };
                match start::describe_for_copy(mirror, table) {
                    Ok(described) => found.push((*relid, described)),
                    Err(None) => start::let_go_of_dropped(mirror, *relid),
                    Err(Some(reason)) => {
                        catalog::table::fail(&mirror.name, *relid, &table.source_name, &reason);
                    }
                }
            }
        });
    }
    found
}

impl Work {
    /// Decides what is done with each table of the target.
    fn judge(&mut self, mirror: &Mirror, loader: &mut Loader, prepared: Vec<Prepared>, rows: Rows) {
        let mut outdated = Vec::new();
        for table in prepared {
            let relid = pg_sys::Oid::from(table.spec.relid);
            let has_begun = mirror.table(relid).is_some_and(MirrorTableRow::has_begun);
            match table.result {
                Ok(TableMatch::Created) => {}
                Ok(TableMatch::Replaceable) if rows == Rows::Beside => self.beside.push(table.spec),
                // Columns that the source has no longer; the next one of such a name would be taken for what is there.
                Ok(TableMatch::Wider(more)) if rows != Rows::Kept && has_made(mirror, relid, &more) => {
                    if rows == Rows::Beside { &mut self.beside } else { &mut outdated }.push(table.spec);
                }
                Ok(TableMatch::Fits | TableMatch::Replaceable | TableMatch::Wider(_)) => {
                    self.emptied.push(table.spec.target.clone())
                }
                // Rows of an earlier attempt of this very mirror.
                Ok(TableMatch::Occupied) if has_begun => self.emptied.push(table.spec.target.clone()),
                Ok(TableMatch::Occupied) if rows == Rows::Kept => {}
                Ok(TableMatch::Occupied) => self.problems.push((relid, occupied(&table.spec.target))),
                // What this mirror has made for columns that the source has no longer.
                Ok(TableMatch::Outdated(_)) if has_begun && rows == Rows::Beside => {
                    self.beside.push(table.spec);
                }
                Ok(TableMatch::Outdated(_)) if has_begun => outdated.push(table.spec),
                // The source was altered since the target was made.
                Ok(TableMatch::Unused(_)) => outdated.push(table.spec),
                Ok(TableMatch::Outdated(how) | TableMatch::Differs(how)) => {
                    let reason = format!("target table \"{}\" does not fit: {how}", table.spec.target);
                    self.problems.push((relid, reason));
                }
                Err(problem) => self.problems.push((relid, problem.to_string())),
            }
        }
        for table in run(mirror, loader, Job::Replace(outdated)) {
            if let Err(problem) = table.result {
                self.problems.push((pg_sys::Oid::from(table.spec.relid), problem.to_string()));
            }
        }
    }

    /// Makes the tables that are filled beside others.
    fn make_tables_beside(&mut self, mirror: &Mirror, loader: &mut Loader) {
        if self.beside.is_empty() {
            return;
        }
        let number = labels::random_number();
        let specs: Vec<Arc<TableSpec>> =
            self.beside.drain(..).map(|spec| Arc::new(beside(&spec, number))).collect();
        let copy_of = |spec: &TableSpec| CopyTable { table: spec.target.table.clone(), mark: mark(number) };
        // A table that has left the mirror meanwhile is not written down, and need not be made.
        let specs = catalog::mirror::transaction(&mirror.name, || {
            let is_known = |spec: &Arc<TableSpec>| {
                catalog::table::write_copy(&mirror.name, spec.relid.into(), &copy_of(spec))
            };
            specs.into_iter().filter(is_known).collect()
        });
        failpoint::hit("copy_tables_written_down");
        for table in run(mirror, loader, Job::Prepare(specs)) {
            let relid = pg_sys::Oid::from(table.spec.relid);
            match table.result {
                Ok(TableMatch::Created | TableMatch::Fits | TableMatch::Replaceable) => {
                    self.copies.push((relid, copy_of(&table.spec)));
                }
                Ok(_) => {
                    let reason = format!("table \"{}\" is in the way of its copy", table.spec.target);
                    self.problems.push((relid, reason));
                }
                Err(problem) => self.problems.push((relid, problem.to_string())),
            }
        }
    }

    fn write_down(self, mirror: &mut Mirror) -> Vec<pg_sys::Oid> {
        let Self { described, problems, copies, .. } = self;
        let is_fit = |relid: &pg_sys::Oid| !problems.iter().any(|(problem, _)| problem == relid);
        let fit = catalog::mirror::transaction(&mirror.name, || {
            for (relid, reason) in &problems {
                let source_name = mirror.table(*relid).map_or("", |table| table.source_name.as_str());
                catalog::table::fail(&mirror.name, *relid, source_name, reason);
            }
            let fit: Vec<_> = described.into_iter().filter(|(relid, _)| is_fit(relid)).collect();
            for (relid, described) in &fit {
                let Described { definition, layout, .. } = described;
                let copy = copies.iter().find(|(copied, _)| copied == relid).map(|(_, copy)| copy);
                catalog::table::write_definition(&mirror.name, *relid, definition, *layout, copy);
            }
            fit.into_iter().map(|(relid, _)| relid).collect()
        });
        mirror.read_tables();
        fit
    }
}

/// Whether the mirror has made one of these columns of the target. What the target had before a copy that was not completed
/// is not known any more; it was to be exchanged then, and still is.
fn has_made(mirror: &Mirror, relid: pg_sys::Oid, columns: &[String]) -> bool {
    mirror.table(relid).is_some_and(|table| {
        let definition = table.definition.as_deref().and_then(Definition::parse);
        table.copy.is_some() || definition.is_some_and(|definition| definition.has_any_of(columns))
    })
}

/// The table that takes the place of another one. Its comment, made from the source's name, is that of no other table: so it
/// can be told which of the two is which.
fn beside(spec: &TableSpec, number: u64) -> TableSpec {
    // StarRocks allows 1,024 characters.
    let name: String = spec.target.table.chars().take(980).collect();
    let target = TargetTable { table: format!("dbmazz_copy_of_{name}_{number:016x}"), ..spec.target.clone() };
    TableSpec { target, source_name: format!("{} {}", spec.source_name, mark(number)), ..spec.clone() }
}

fn mark(number: u64) -> String {
    format!("(copy {number:016x})")
}

fn occupied(target: &TargetTable) -> String {
    format!(
        "target table \"{target}\" has rows and was not made by a mirror; empty it, or drop it and have the mirror create it"
    )
}
