//! One table of the mirror, as the stream sees it.
//!
//! The columns are read from the relation of the change at hand, under the catalogs of that moment, and compared with
//! what the target table was made for. As long as no invalidation came, the comparison of the last change holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::relation::{self, Columns};
use super::super::catalog::table::{DefinedAt, Layout, MirrorTableRow, TableState};
use super::super::tuple::TupleReader;
use crate::definition::{AlterStep, Definition};
use crate::encode::{ColumnSet, RowEncoder};
use crate::lsn::Lsn;
use crate::options::Options;
use crate::pipeline::{Pipeline, ShapeOf, TableIndex};
use crate::sink::starrocks::{field_name, load_shape};
use crate::snapshot::{CatchUp, Treatment};
use crate::table::{TableSpec, TargetTable};

/// Counts invalidations of relations, of any: after one, every table looks at its columns again.
static INVALIDATIONS: AtomicU64 = AtomicU64::new(0);

#[pg_guard]
unsafe extern "C-unwind" fn relation_invalidated(_argument: pg_sys::Datum, _relid: pg_sys::Oid) {
    INVALIDATIONS.fetch_add(1, Ordering::Relaxed);
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
    pub(super) new: TupleReader,
    pub(super) old: TupleReader,
    /// REPLICA IDENTITY FULL: every old tuple is whole, whether or not the key changed.
    pub(super) identity_is_full: bool,
    /// The table has no key: its rows are numbered within their commit.
    pub(super) is_appended: bool,
    /// The columns and the number of attributes that the readers were made for.
    read: (Definition, i16),
    /// [`INVALIDATIONS`] when the columns were last looked at.
    seen: u64,
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
    /// The table cannot go on.
    Error(String),
}

impl From<String> for Halt {
    fn from(reason: String) -> Self {
        Self::Error(reason)
    }
}

/// A table of the mirror.
pub(super) struct Mirrored {
    pub(super) relid: u32,
    pub(super) source_name: String,
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
    /// Numbers the rows of a table without a key; goes on when its columns change within a commit.
    pub(super) numbering: Numbering,
    pub(super) columnar: Option<Columnar>,
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
            target: row.target.clone(),
            route,
            usual_route: route,
            completes: false,
            catch_up: row.catch_up.clone(),
            definition: row.definition.as_deref().and_then(Definition::parse),
            defined_at: row.defined_at,
            layout: row.layout,
            altering: row.altering.clone(),
            numbering: Numbering::default(),
            columnar: None,
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
        self.columnar.as_ref().is_none_or(|columnar| columnar.seen != INVALIDATIONS.load(Ordering::Relaxed))
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
        let invalidations = INVALIDATIONS.load(Ordering::Relaxed);
        // SAFETY: the caller vouches for the relation. Descriptor and system caches are those of the change.
        let (spec, layout, identity_is_full) = unsafe {
            let spec = relation::describe(open, self.target.clone(), options, columns);
            let is_full = (*(*open).rd_rel).relreplident as u8 == pg_sys::REPLICA_IDENTITY_FULL;
            (spec, relation::layout(open), is_full)
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
            columnar.identity_is_full = identity_is_full;
            return Ok(());
        }
        let present = self.columnar.as_ref().map(|columnar| columnar.index);
        let (index, encoder) = write_by(&spec, options, pipeline, present)?;
        let natts = usize::try_from(layout.natts).unwrap_or_default();
        self.columnar = Some(Columnar {
            index,
            encoder,
            new: TupleReader::new(&spec, natts),
            old: TupleReader::new(&spec, natts),
            is_appended: spec.is_appended(),
            spec: Arc::new(spec),
            identity_is_full,
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
