//! Follows the columns of a table: at the first change that has others, the target is altered, or the table is left to be
//! copied again beside the stream.
//!
//! ```text
//! change with another definition ─► rows before it are loaded ─► definition written down ─► target altered ─► goes on
//! ```
//!
//! What is written down ahead says which columns the target has or is about to have, how it gets them, and with which
//! change that definition begins. So after a crash at any point of this:
//!
//! * Before it was written down, the target is as it was, and the log brings the same change again.
//! * Afterwards the next worker takes the steps again before it loads anything into the table; a step that was taken is
//!   passed over. Changes before the one with which the definition begins are those of earlier definitions: see
//!   [`crate::definition`] for why they may go into the newer target, and how. From that change on they have this definition.

use pgrx::pg_sys;

use super::super::catalog::partition::{self, Partitions};
use super::super::catalog::relation::Columns;
use super::super::catalog::table::{DefinedAt, NewDefinition};
use super::super::shmem::Role;
use super::super::worker::{self, WriteAhead};
use super::super::{failpoint, latch};
use super::feed::Feed;
use super::given;
use super::mirrored::{Mirrored, Route, Seen};
use super::news::FailedTable;
use crate::definition::{AlterStep, Definition, DefinitionChange, Evidence};
use crate::lsn::Lsn;
use crate::options::OnStatement;
use crate::sink::Job;
use crate::table::TableSpec;

/// What becomes of a table at a change.
enum Verdict {
    /// Rows are written as they were seen, or under the names of the target.
    TakeIn(Box<Seen>),
    /// The target gets these columns first.
    Alter(Box<Seen>, Vec<AlterStep>),
    CopyAgain(String),
    Stop(String),
}

impl Feed {
    /// Looks at the columns of the change at hand, and does what follows. Returns whether the change can be taken in.
    ///
    /// # Safety
    ///
    /// `open` is the open relation of the table, `rows` that of the change at hand, at `change` in the log: the same, or a
    /// partition of it.
    #[cold]
    pub(super) unsafe fn follow(
        &mut self,
        open: pg_sys::Relation,
        rows: pg_sys::Relation,
        columns: Columns<'_>,
        change: Lsn,
        evidence: Evidence,
    ) -> bool {
        // SAFETY: the caller vouches for the relation.
        let relid = unsafe { (*open).rd_id.to_u32() };
        if self.route(relid) == Route::Skip {
            return false;
        }
        if let Err(reason) = self.finish_earlier_steps(relid) {
            self.copy_table_again(relid, reason);
            return false;
        }
        let at = DefinedAt { commit: self.stamp.lsn, change };
        // SAFETY: the caller vouches for the relation.
        match unsafe { self.judge(relid, open, rows, columns, (at, evidence)) } {
            Verdict::TakeIn(seen) => self.take_rows_of(relid, *seen),
            Verdict::Alter(seen, steps) => match self.alter(relid, &seen, at, steps) {
                Ok(()) => self.take_rows_of(relid, *seen),
                Err(reason) => {
                    self.copy_table_again(relid, reason);
                    false
                }
            },
            Verdict::CopyAgain(reason) => {
                self.copy_table_again(relid, reason);
                false
            }
            Verdict::Stop(reason) => {
                self.stop_at_change(relid, reason);
                false
            }
        }
    }

    /// # Safety
    ///
    /// As [`Self::follow`].
    unsafe fn judge(
        &mut self,
        relid: u32,
        open: pg_sys::Relation,
        rows: pg_sys::Relation,
        columns: Columns<'_>,
        (at, evidence): (DefinedAt, Evidence),
    ) -> Verdict {
        let on_ddl = self.options.on_ddl;
        let Some(table) = self.tables.get_mut(&relid) else {
            return Verdict::Stop("the table is not mirrored".to_owned());
        };
        // SAFETY: the caller vouches for the relation.
        let seen = match unsafe { table.look(open, columns, &self.options) } {
            Ok(seen) => seen,
            Err(reason) if on_ddl == OnStatement::Apply => return Verdict::CopyAgain(reason),
            Err(reason) => return Verdict::Stop(reason),
        };
        let Some(present) = &table.definition else {
            return Verdict::CopyAgain("it is not known which columns the target has".to_owned());
        };
        if seen.definition == *present {
            table.layout = seen.layout;
            return Verdict::TakeIn(Box::new(seen));
        }
        if table.route == Route::Own && at < table.defined_at {
            return narrowed(present, seen).unwrap_or_else(|| {
                Verdict::CopyAgain("earlier rows do not fit into the altered target".to_owned())
            });
        }
        match on_ddl {
            OnStatement::Error => Verdict::Stop(CHANGED.to_owned()),
            OnStatement::Ignore => {
                narrowed(present, seen).unwrap_or_else(|| Verdict::Stop(CHANGED.to_owned()))
            }
            OnStatement::Apply if table.route != Route::Own || self.outgoing.role != Role::Mirror => {
                Verdict::CopyAgain("its definition has changed".to_owned())
            }
            OnStatement::Apply => match present.change_to(&seen.definition, evidence) {
                DefinitionChange::CopyAgain(reason) => Verdict::CopyAgain(reason),
                DefinitionChange::Alter(steps) => {
                    // SAFETY: the caller vouches for the relation, whose layout was seen just now.
                    match unsafe { given::with_defaults(rows, &seen, table.layout, steps) } {
                        Ok(steps) => Verdict::Alter(Box::new(seen), steps),
                        Err(reason) => Verdict::CopyAgain(reason),
                    }
                }
            },
        }
    }

    /// Takes the steps that an earlier worker wrote down and may not have taken.
    fn finish_earlier_steps(&mut self, relid: u32) -> Result<(), String> {
        let Some(table) = self.tables.get_mut(&relid) else { return Ok(()) };
        let steps = std::mem::take(&mut table.altering);
        if steps.is_empty() { Ok(()) } else { self.take_steps(relid, steps) }
    }

    /// Alters the target. Everything that came before is loaded first.
    fn alter(&mut self, relid: u32, seen: &Seen, at: DefinedAt, steps: Vec<AlterStep>) -> Result<(), String> {
        let Some(table) = self.tables.get(&relid) else { return Ok(()) };
        if let Some(index) = table.columnar.as_ref().map(|columnar| columnar.index) {
            self.drain(index);
        }
        failpoint::hit("alter_drained");
        let new = NewDefinition {
            relid: relid.into(),
            definition: seen.definition.to_string(),
            at,
            layout: seen.layout,
            steps: serde_json::to_string(&steps).map_err(|problem| problem.to_string())?,
        };
        self.write_ahead(&new);
        failpoint::hit("alter_written_ahead");
        if let Some(table) = self.tables.get_mut(&relid) {
            table.definition = Some(seen.definition.clone());
            table.defined_at = at;
            table.layout = seen.layout;
        }
        self.take_steps(relid, steps)
    }

    fn write_ahead(&mut self, new: &NewDefinition) {
        let mut ahead = WriteAhead::begin(&self.mirror, new);
        while !ahead.is_done() {
            self.pause_inside_callback(worker::GLANCE);
            latch::serve_interrupts();
        }
        ahead.end();
    }

    fn take_steps(&mut self, relid: u32, steps: Vec<AlterStep>) -> Result<(), String> {
        let Some(table) = self.tables.get(&relid) else { return Ok(()) };
        let (target, source_name) = (table.target.clone(), table.source_name.clone());
        self.change_target(Job::Alter { target, steps }).map_err(|problem| problem.to_string())?;
        failpoint::hit("alter_done");
        self.news.altered.push((relid, source_name));
        Ok(())
    }

    fn take_rows_of(&mut self, relid: u32, seen: Seen) -> bool {
        let Self { tables, options, pipeline, news, .. } = self;
        let Some(table) = tables.get_mut(&relid) else { return false };
        if let Some(columnar) = &table.columnar {
            let adjusted = columnar.encoder.take_adjusted();
            news.adjusted.extend(adjusted.map(|adjusted| (relid, super::outgoing::said(&adjusted))));
        }
        match table.take_rows_of(seen, options, pipeline) {
            Ok(()) => true,
            Err(reason) => {
                self.stop_at_change(relid, reason);
                false
            }
        }
    }

    /// Makes ready for rows of a table that no change has come of yet. Between records, with the present relation, whose
    /// columns are those that the target was made for; the next change looks at its own.
    ///
    /// # Safety
    ///
    /// `open` is the open relation of this table.
    pub(in super::super) unsafe fn look_if_never_seen(
        &mut self,
        relid: u32,
        open: pg_sys::Relation,
        columns: Columns<'_>,
    ) {
        let Self { tables, options, pipeline, .. } = self;
        let is_new = |table: &&mut Mirrored| {
            table.columnar.is_none() && table.route != Route::Skip && table.altering.is_empty()
        };
        let Some(table) = tables.get_mut(&relid).filter(is_new) else { return };
        // SAFETY: the caller vouches for the relation.
        let Ok(seen) = (unsafe { table.look(open, columns, options) }) else { return };
        if table.definition.as_ref() == Some(&seen.definition)
            && let Err(reason) = table.take_rows_of(seen, options, pipeline)
        {
            self.fail_table(relid, reason);
        }
    }

    /// Whether the rows of a table are written with exactly these columns at the moment.
    pub(in super::super) fn writes_columns_of(&self, spec: &TableSpec) -> bool {
        let columnar = self.tables.get(&spec.relid).and_then(|table| table.columnar.as_ref());
        columnar.is_none_or(|columnar| columnar.spec.columns == spec.columns)
    }

    /// The present rows of a table are not those that the stream is at.
    pub(in super::super) fn give_up_following(&mut self, relid: u32, reason: String) {
        match self.options.on_ddl {
            OnStatement::Apply => self.copy_table_again(relid, reason),
            OnStatement::Error | OnStatement::Ignore => self.fail_table(relid, reason),
        }
    }

    /// The definition of a table may be another one from here on, whether or not a row will show it.
    #[cold]
    pub(super) fn altered(&mut self, relid: u32, at: Lsn) {
        let route = self.route(relid);
        if route == Route::Skip {
            return;
        }
        // SAFETY: inside a callback, in the reorder buffer's transaction; the relation is closed below, or by its abort.
        unsafe {
            let open = pg_sys::RelationIdGetRelation(relid.into());
            if open.is_null() {
                return;
            }
            if route == Route::Own {
                let rows = some_partition(open);
                self.follow(open, rows.unwrap_or(open), Columns::All, at, Evidence::Row);
                if let Some(rows) = rows {
                    pg_sys::RelationClose(rows);
                }
            } else {
                self.compare_published_columns(relid, open);
            }
            pg_sys::RelationClose(open);
        }
    }

    /// The rows of a table have got other values, and no change shows them.
    pub(super) fn rewritten(&mut self, relid: u32) {
        if self.route(relid) == Route::Skip {
            return;
        }
        match self.options.on_ddl {
            OnStatement::Apply => self.copy_table_again(relid, REWRITTEN.to_owned()),
            OnStatement::Error => self.stop_at_change(relid, REWRITTEN.to_owned()),
            OnStatement::Ignore => {}
        }
    }

    /// Leaves a table to be copied again: nobody takes in its changes until then.
    #[cold]
    pub(in super::super) fn copy_table_again(&mut self, relid: u32, reason: String) {
        let Some(table) = self.tables.get_mut(&relid).filter(|table| table.usual_route != Route::Skip) else {
            return;
        };
        table.skip_for_good();
        let source_name = table.source_name.clone();
        let index = table.columnar.as_ref().map(|columnar| columnar.index);
        self.news.copied_again.push(FailedTable { relid, source_name, reason });
        if let Some(index) = index {
            self.pipeline.remove_table(index);
        }
        self.count_tables();
    }
}

/// A partition of a partitioned table, open: what its rows have been given in a new column all of them have been given.
///
/// # Safety
///
/// `table` is open, inside a callback.
unsafe fn some_partition(table: pg_sys::Relation) -> Option<pg_sys::Relation> {
    // SAFETY: the caller vouches for the relation. The other one is as of the change as well.
    unsafe {
        if !partition::is_partitioned(table) {
            return None;
        }
        let first = *Partitions::of((*table).rd_id).leaves.first()?;
        let open = pg_sys::RelationIdGetRelation(first.into());
        (!open.is_null()).then_some(open)
    }
}

const CHANGED: &str = "its definition has changed, and the target table still has the old columns";

const REWRITTEN: &str = "it has been rewritten";

/// Rows that are written under the names of the target, as far as it has their columns.
fn narrowed(present: &Definition, seen: Seen) -> Option<Verdict> {
    let spec = present.narrowed(&seen.spec)?;
    Some(Verdict::TakeIn(Box::new(Seen { spec, ..seen })))
}
