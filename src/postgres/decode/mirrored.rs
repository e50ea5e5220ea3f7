//! One table of the mirror, as the stream sees it.
//!
//! The columns are read from the relation of the change at hand, under the catalogs of that moment, and compared with
//! what the target table was made for. As long as no invalidation came, the comparison of the last change holds.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::partition::Partitions;
use super::super::catalog::relation::{self, Columns};
use super::super::catalog::table::{DefinedAt, Layout, MirrorTableRow, TableState};
use super::super::failpoint;
use super::super::tuple::TupleReader;
use super::filtered::AddedToRows;
use super::rejected::Trouble;
use super::removal::Removal;
use crate::definition::{AlterStep, Definition};
use crate::encode::{Added, ColumnSet, RowEncoder, Stamp};
use crate::lsn::Lsn;
use crate::options::Options;
use crate::pipeline::{Parked, Pipeline, ShapeOf, TableIndex};
use crate::sink::starrocks::{field_name, load_shape};
use crate::snapshot::{CatchUp, Treatment};
use crate::table::{TableSpec, TargetTable};

/// Counts invalidations of relations, of any: after one, every table looks at its columns again.
pub(super) static INVALIDATIONS: AtomicU64 = AtomicU64::new(0);

/// More relations than these are not told apart: any may have been invalidated.
const MOST_INVALIDATED: usize = 1024;

/// Which relations have been invalidated.
#[derive(Default)]
pub(super) struct Invalidated {
    relids: Vec<u32>,
    any: bool,
}

impl Invalidated {
    /// Whether a relation for which `is_meant` is true may be one of them.
    pub(super) fn may_be(&self, is_meant: impl Fn(u32) -> bool) -> bool {
        self.any || self.relids.iter().any(|relid| is_meant(*relid))
    }

    const fn is_empty(&self) -> bool {
        !self.any && self.relids.is_empty()
    }

    fn note(&mut self, relid: u32) {
        if relid == 0 || self.relids.len() >= MOST_INVALIDATED {
            self.any = true;
            self.relids.clear();
        } else if !self.any {
            self.relids.push(relid);
        }
    }
}

thread_local! {
    /// Since they were last asked for.
    static INVALIDATED: RefCell<Invalidated> = RefCell::default();
}

/// The relations that have been invalidated since the last call; none when there are none.
pub(super) fn take_invalidated() -> Option<Invalidated> {
    let taken = INVALIDATED.take();
    (!taken.is_empty()).then_some(taken)
}

/// How often any relation has been invalidated.
#[inline]
pub(in super::super) fn invalidations() -> u64 {
    INVALIDATIONS.load(Ordering::Relaxed)
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_invalidated(_argument: pg_sys::Datum, relid: pg_sys::Oid) {
    INVALIDATIONS.fetch_add(1, Ordering::Relaxed);
    INVALIDATED.with_borrow_mut(|invalidated| invalidated.note(relid.to_u32()));
}

/// Has invalidations counted from now on. Once per process.
pub(super) fn watch_invalidations() {
    // SAFETY: the function belongs to this library, which is never unloaded.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_invalidated), pg_sys::Datum::null()) };
}

/// Who turns changes of the table into rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Route {
    /// Nobody: the table is not mirrored, or in error.
    Skip,
    /// The feed, from the tuple.
    Own,
    /// pgoutput, which knows row filters and column lists, and then the feed, from its message.
    Pgoutput,
}

/// What is needed to take rows in, made from the relation of a change.
pub(super) struct Columnar {
    pub(super) index: TableIndex,
    pub(super) spec: Arc<TableSpec>,
    /// Counts the values that it had to replace.
    pub(super) encoder: Arc<RowEncoder>,
    pub(super) readers: Readers,
    /// What rows that pgoutput brings have in columns that are not the source's.
    pub(super) added: AddedToRows,
    /// The table has no key: its rows are numbered within their commit.
    pub(super) is_appended: bool,
    /// The columns and the number of attributes that the readers were made for.
    read: (Definition, i16),
    /// [`INVALIDATIONS`] when the columns were last looked at.
    seen: u64,
}

/// What takes the tuples of one relation apart.
pub(super) struct Readers {
    pub(super) new: TupleReader,
    pub(super) old: TupleReader,
    /// REPLICA IDENTITY FULL: every old tuple is whole, whether or not the key changed.
    pub(super) identity_is_full: bool,
    /// What a DELETE does.
    pub(super) removal: Removal,
    /// Rows say which commit they are as of.
    is_stamped: bool,
}

impl Readers {
    /// For tuples of `natts` attributes, of the relation that `spec` describes.
    pub(super) fn new(spec: &TableSpec, natts: i16, identity_is_full: bool) -> Self {
        let natts = usize::try_from(natts).unwrap_or_default();
        let (live, deleted) = (Added::live(spec), Added::deleted(spec));
        Self {
            is_stamped: live.is_stamped(),
            removal: Removal::of(spec, identity_is_full),
            new: TupleReader::new(spec, natts, live),
            old: TupleReader::new(spec, natts, deleted),
            identity_is_full,
        }
    }

    /// The relation has this replica identity by now.
    pub(super) fn set_identity(&mut self, spec: &TableSpec, is_full: bool) {
        self.identity_is_full = is_full;
        self.removal = Removal::of(spec, is_full);
    }

    /// Rows are as of this commit from now on, if they say so.
    #[inline]
    pub(super) fn stamp(&mut self, stamp: Stamp) {
        if self.is_stamped {
            self.new.stamp(stamp);
            self.old.stamp(stamp);
        }
    }
}

/// Numbers the rows of one table within each commit.
#[derive(Default)]
pub(super) struct Numbering {
    commit: Lsn,
    rows: i64,
}

impl Numbering {
    /// The key of the next row of a commit: its end, and the row's number. The same when the log is read again.
    pub(super) fn next(&mut self, commit: Lsn) -> (i64, i64) {
        if self.commit != commit {
            *self = Self { commit, rows: 0 };
        }
        self.rows += 1;
        (commit.0.cast_signed(), self.rows)
    }
}

/// The relation of a change, as it was then.
pub(super) struct Seen {
    pub(super) spec: TableSpec,
    pub(super) definition: Definition,
    pub(super) layout: Layout,
    pub(super) identity_is_full: bool,
    pub(super) invalidations: u64,
}

/// Why a change is not taken in as it is.
pub(super) enum Halt {
    /// The columns have to be looked at first.
    Stale,
    /// It cannot be taken in.
    Trouble(Trouble),
}

/// A table of the mirror.
pub(super) struct Mirrored {
    pub(super) relid: u32,
    pub(super) source_name: String,
    /// The name by which the options mean it.
    known_as: String,
    pub(super) target: TargetTable,
    /// Who takes in the changes of the transaction at hand.
    pub(super) route: Route,
    /// Who does as a rule; nobody once the table is in error.
    pub(super) usual_route: Route,
    /// Rows of the transaction at hand that lack values are read from the source.
    pub(super) completes: bool,
    /// What is to be done up to which position, while the table is not in step.
    pub(super) catch_up: Option<(Lsn, CatchUp)>,
    /// What the target has, or is about to have.
    pub(super) definition: Option<Definition>,
    /// The change with which that begins.
    pub(super) defined_at: DefinedAt,
    /// How the relation was laid out at the last change with it.
    pub(super) layout: Layout,
    /// What an earlier worker may have left undone at the target.
    pub(super) altering: Vec<AlterStep>,
    /// Keys whose rows the target refused.
    pub(super) parked: Parked,
    /// Rows without a key that were written down as refused.
    pub(super) unkeyed: u64,
    /// Numbers the rows of a table without a key; goes on when its columns change within a commit.
    pub(super) numbering: Numbering,
    pub(super) columnar: Option<Columnar>,
    /// Its rows are those of its partitions.
    pub(super) is_partitioned: bool,
    /// Its partitions as of the last transaction; none until the first one that counts.
    pub(super) partitions: Option<Partitions>,
}

impl Mirrored {
    /// The table as the catalog has it; its columns are looked at when the first change comes.
    pub(super) fn new(row: &MirrorTableRow) -> Self {
        let route = match (row.state, row.filtered) {
            (TableState::Ready | TableState::CatchingUp, true) => Route::Pgoutput,
            (TableState::Ready | TableState::CatchingUp, false) => Route::Own,
            _ => Route::Skip,
        };
        Self {
            relid: row.relid.to_u32(),
            source_name: row.source_name.clone(),
            known_as: row.known_as.clone(),
            target: row.target.clone(),
            route,
            usual_route: route,
            completes: false,
            catch_up: row.catch_up.clone(),
            definition: row.definition.as_deref().and_then(Definition::parse),
            defined_at: row.defined_at,
            layout: row.layout,
            altering: row.altering.clone(),
            parked: Parked::default(),
            unkeyed: 0,
            numbering: Numbering::default(),
            columnar: None,
            is_partitioned: row.is_partitioned,
            partitions: None,
        }
    }

    /// A transaction begins whose commit ends at `end`.
    pub(super) fn begin(&mut self, end: Lsn, xid: u32) {
        let treatment = match &self.catch_up {
            Some((until, catch_up)) => catch_up.treat(*until, end, xid),
            None => Treatment::Apply,
        };
        self.route = if treatment == Treatment::Skip { Route::Skip } else { self.usual_route };
        self.completes = treatment == Treatment::Complete;
    }

    /// The stream has passed the position up to which the table had to be treated apart.
    pub(super) fn come_into_step(&mut self) {
        self.catch_up = None;
        self.route = self.usual_route;
        self.completes = false;
    }

    /// Its changes are of no interest any more.
    pub(super) const fn skip_for_good(&mut self) {
        self.route = Route::Skip;
        self.usual_route = Route::Skip;
    }

    /// Whether the columns must be looked at before the next row.
    #[inline]
    pub(super) fn is_stale(&self) -> bool {
        self.columnar.as_ref().is_none_or(|columnar| columnar.seen != invalidations())
    }

    /// Looks at the columns of a change.
    ///
    /// # Errors
    ///
    /// Why the table cannot be mirrored as it was then.
    ///
    /// # Safety
    ///
    /// `open` is the open relation of the change at hand, and this is this table.
    pub(super) unsafe fn look(
        &self,
        open: pg_sys::Relation,
        columns: Columns<'_>,
        options: &Options,
    ) -> Result<Seen, String> {
        let invalidations = invalidations();
        failpoint::hit("columns_about_to_be_looked_at");
        // SAFETY: the caller vouches for the relation. Descriptor and system caches are those of the change.
        let (spec, layout, identity_is_full) = unsafe {
            let spec = relation::describe(open, self.target.clone(), Some(&self.known_as), options, columns);
            (spec, relation::layout(open), relation::identity_is_full(open))
        };
        let spec = spec.map_err(|problem| format!("its definition has changed: {problem}"))?;
        Ok(Seen { definition: Definition::of(&spec), spec, layout, identity_is_full, invalidations })
    }

    /// Takes rows of that kind in from now on. They are written as `seen.spec` says.
    ///
    /// # Errors
    ///
    /// Why they cannot be loaded.
    pub(super) fn take_rows_of(
        &mut self,
        seen: Seen,
        options: &Options,
        pipeline: &mut Pipeline,
    ) -> Result<(), String> {
        let Seen { spec, definition, layout, identity_is_full, invalidations } = seen;
        let read = (definition, layout.natts);
        if let Some(columnar) = &mut self.columnar
            && columnar.read == read
            && *columnar.spec == spec
        {
            columnar.seen = invalidations;
            columnar.readers.set_identity(&columnar.spec, identity_is_full);
            return Ok(());
        }
        let present = self.columnar.as_ref().map(|columnar| columnar.index);
        let (index, encoder) = write_by(&spec, options, pipeline, present)?;
        self.columnar = Some(Columnar {
            index,
            encoder,
            readers: Readers::new(&spec, layout.natts, identity_is_full),
            added: AddedToRows::new(&spec),
            is_appended: spec.is_appended(),
            spec: Arc::new(spec),
            read,
            seen: invalidations,
        });
        Ok(())
    }
}

/// Has the rows of a table written as `spec` says; those of one that the pipeline has already, from the next row on.
fn write_by(
    spec: &TableSpec,
    options: &Options,
    pipeline: &mut Pipeline,
    present: Option<TableIndex>,
) -> Result<(TableIndex, Arc<RowEncoder>), String> {
    let names: Vec<String> = (0..spec.columns.len()).map(|column| field_name(spec, column)).collect();
    let encoder = Arc::new(RowEncoder::new(spec, &names, options.on_out_of_range));
    let shared = spec.clone();
    let shape_of: ShapeOf = Box::new(move |columns: &ColumnSet| {
        Ok(load_shape(&shared, columns.iter(shared.columns.len())).map(Arc::new)?)
    });
    let made = match present {
        Some(index) => pipeline.replace_table(index, encoder.clone(), shape_of).map(|()| index),
        None => pipeline.add_table(spec.relid, encoder.clone(), shape_of),
    };
    made.map(|index| (index, encoder)).map_err(|problem| problem.to_string())
}
