//! One table of the mirror, as the stream sees it.
//!
//! The columns are read from the relation of the change at hand, under the catalogs of that moment, and compared with
//! what the target table was made for. As long as no invalidation came, the comparison of the last change holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::relation::{self, Columns};
use super::super::catalog::table::{MirrorTableRow, TableState};
use super::super::tuple::TupleReader;
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
    /// The rows of a table without a key are numbered within their commit.
    pub(super) appended: Option<Numbering>,
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
    definition: String,
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
            definition: row.definition.clone().unwrap_or_default(),
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

    /// Looks at the columns: they must still be those that the target table has.
    ///
    /// # Errors
    ///
    /// A reason to put the table into error.
    ///
    /// # Safety
    ///
    /// `open` is the open relation of the change at hand, and this is this table.
    pub(super) unsafe fn look_again(
        &mut self,
        open: pg_sys::Relation,
        columns: Columns<'_>,
        options: &Options,
        pipeline: &mut Pipeline,
    ) -> Result<(), String> {
        let seen = INVALIDATIONS.load(Ordering::Relaxed);
        // SAFETY: the caller vouches for the relation. Descriptor and system caches are those of the change.
        let (spec, natts, is_full) = unsafe {
            let spec = relation::describe(open, self.target.clone(), options, columns);
            let is_full = (*(*open).rd_rel).relreplident as u8 == pg_sys::REPLICA_IDENTITY_FULL;
            (spec, (*(*open).rd_att).natts, is_full)
        };
        let spec = spec.map_err(|problem| format!("its definition has changed: {problem}"))?;
        if relation::definition(&spec) != self.definition {
            return Err(
                "its definition has changed, and the target table still has the old columns".to_owned()
            );
        }
        match &mut self.columnar {
            Some(columnar) => {
                columnar.seen = seen;
                columnar.identity_is_full = is_full;
            }
            None => {
                let (index, encoder) = add_to_pipeline(&spec, options, pipeline)?;
                let natts = usize::try_from(natts).unwrap_or_default();
                self.columnar = Some(Columnar {
                    index,
                    encoder,
                    new: TupleReader::new(&spec, natts),
                    old: TupleReader::new(&spec, natts),
                    appended: spec.is_appended().then(Numbering::default),
                    spec: Arc::new(spec),
                    identity_is_full: is_full,
                    seen,
                });
            }
        }
        Ok(())
    }
}

fn add_to_pipeline(
    spec: &TableSpec,
    options: &Options,
    pipeline: &mut Pipeline,
) -> Result<(TableIndex, Arc<RowEncoder>), String> {
    let names: Vec<String> = (0..spec.columns.len()).map(|column| field_name(spec, column)).collect();
    let encoder = Arc::new(RowEncoder::new(spec, &names, options.on_out_of_range));
    let shared = spec.clone();
    let shape_of: ShapeOf = Box::new(move |columns: &ColumnSet| {
        Ok(load_shape(&shared, columns.iter(shared.columns.len())).map(Arc::new)?)
    });
    let index =
        pipeline.add_table(spec.relid, encoder.clone(), shape_of).map_err(|problem| problem.to_string())?;
    Ok((index, encoder))
}
