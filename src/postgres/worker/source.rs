//! How the rows of one table are read from the source and written into loads: by the copy, block by block, and one by one
//! for rows that the log does not have whole.

use std::sync::Arc;

use pgrx::pg_sys;

use super::super::catalog::relation;
use super::super::catalog::table::MirrorTableRow;
use super::super::tuple::TupleReader;
use super::start::Mirror;
use crate::encode::RowEncoder;
use crate::sink::LoadShape;
use crate::sink::starrocks::{field_name, load_shape};
use crate::table::TableSpec;

/// A table as it is now.
pub(super) struct Source {
    pub(super) spec: Arc<TableSpec>,
    pub(super) reader: TupleReader,
    is_appended: bool,
}

/// Why a table cannot be read.
pub(super) enum Unreadable {
    /// Its columns are not those that the target was made for.
    Changed,
    /// It cannot be mirrored any more.
    Unfit(String),
}

impl Source {
    /// Describes a table under its lock.
    ///
    /// # Errors
    ///
    /// When the target was made for other columns.
    ///
    /// # Safety
    ///
    /// The relation is open and locked.
    pub(super) unsafe fn of(
        open: pg_sys::Relation,
        table: &MirrorTableRow,
        mirror: &Mirror,
    ) -> Result<Self, Unreadable> {
        // SAFETY: the caller vouches for the relation.
        let (spec, natts) = unsafe {
            let columns = mirror.columns_of(table.relid);
            let spec = relation::describe(open, table.target.clone(), &mirror.options, columns);
            (spec, (*(*open).rd_att).natts)
        };
        let spec = spec.map_err(|problem| Unreadable::Unfit(problem.to_string()))?;
        if table.definition.as_deref() != Some(relation::definition(&spec).as_str()) {
            return Err(Unreadable::Changed);
        }
        let reader = TupleReader::new(&spec, usize::try_from(natts).unwrap_or_default());
        Ok(Self { is_appended: spec.is_appended(), spec: Arc::new(spec), reader })
    }

    /// The key of a copied row of a table without one: of the relation, and of the place where the row lies. None for a
    /// table that has a key.
    ///
    /// # Safety
    ///
    /// The slot holds a row of this table.
    #[inline]
    pub(super) unsafe fn appended_key(&self, slot: *mut pg_sys::TupleTableSlot) -> Option<(i64, i64)> {
        if !self.is_appended {
            return None;
        }
        // SAFETY: the caller vouches for the slot.
        let (block, offset) = pgrx::itemptr::item_pointer_get_both(unsafe { (*slot).tts_tid });
        Some((-i64::from(self.spec.relid), i64::from(block) * 65_536 + i64::from(offset)))
    }

    /// What writes its rows into loads of all columns.
    pub(super) fn writer(&self, mirror: &Mirror) -> Result<(Arc<RowEncoder>, Arc<LoadShape>), String> {
        let spec = &*self.spec;
        let names: Vec<String> = (0..spec.columns.len()).map(|column| field_name(spec, column)).collect();
        let encoder = Arc::new(RowEncoder::new(spec, &names, mirror.options.on_out_of_range));
        let shape = load_shape(spec, 0..spec.columns.len()).map_err(|problem| problem.to_string())?;
        Ok((encoder, Arc::new(shape)))
    }
}
