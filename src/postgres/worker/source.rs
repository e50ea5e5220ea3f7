//! How the rows of one table are read from the source and written into loads: by the copy, block by block, and one by one
//! for rows that the log does not have whole.

use std::sync::Arc;

use pgrx::pg_sys;

use super::super::catalog::table::MirrorTableRow;
use super::super::catalog::{partition, relation};
use super::super::scan;
use super::super::tuple::TupleReader;
use super::start::Mirror;
use crate::encode::{Added, RowEncoder};
use crate::sink::LoadShape;
use crate::sink::starrocks::{field_name, load_shape};
use crate::table::TableSpec;

/// A table of the mirror and the relation that has rows of it: the same, or a partition. Open and locked.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub(super) table: pg_sys::Relation,
    pub(super) rows: pg_sys::Relation,
}

impl Opened {
    /// Opens both, in the order in which everybody locks them. None when one of them is gone.
    pub(super) fn open(table: pg_sys::Oid, rows: pg_sys::Oid) -> Option<Self> {
        let opened = scan::open_table(table)?;
        if rows == table {
            return Some(Self { table: opened, rows: opened });
        }
        let Some(rows) = scan::open_table(rows) else {
            // SAFETY: just opened, and used no more.
            unsafe { scan::close_table(opened) };
            return None;
        };
        Some(Self { table: opened, rows })
    }

    /// Closes both. The lock of the table stays until the transaction ends; that of a partition is given back, so that nobody
    /// who has another one locked is waited for meanwhile.
    ///
    /// # Safety
    ///
    /// They were opened in this transaction and are used no more.
    pub(super) unsafe fn close(self) {
        // SAFETY: the caller vouches.
        unsafe {
            if self.rows != self.table {
                scan::close_and_unlock(self.rows);
            }
            scan::close_table(self.table);
        }
    }
}

/// A table as it is now, and where its rows are read.
pub(super) struct Source {
    pub(super) spec: Arc<TableSpec>,
    pub(super) reader: TupleReader,
    /// The relation that the rows are in.
    relid: pg_sys::Oid,
    is_appended: bool,
}

/// Why a table cannot be read.
pub(super) enum Unreadable {
    /// Its columns are not those that the target was made for.
    Changed,
    /// It cannot be mirrored any more.
    Unfit(String),
}

impl Unreadable {
    /// In words.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Changed => "its columns or partitions are others by now".to_owned(),
            Self::Unfit(reason) => reason,
        }
    }
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
    /// The relations are open and locked.
    pub(super) unsafe fn of(
        opened: Opened,
        table: &MirrorTableRow,
        mirror: &Mirror,
    ) -> Result<Self, Unreadable> {
        let columns = mirror.columns_of(table.relid);
        // SAFETY: the caller vouches for the relation.
        let spec = unsafe {
            relation::describe(
                opened.table,
                table.copied_into(),
                Some(&table.known_as),
                &mirror.options,
                columns,
            )
        };
        let spec = spec.map_err(|problem| Unreadable::Unfit(problem.to_string()))?;
        if table.definition.as_deref() != Some(relation::definition(&spec).as_str()) {
            return Err(Unreadable::Changed);
        }
        // SAFETY: as above.
        let (relid, natts) = unsafe { ((*opened.rows).rd_id, relation::layout(opened.rows).natts) };
        let natts = usize::try_from(natts).unwrap_or_default();
        let reader = if relid == table.relid {
            TupleReader::new(&spec, natts, Added::live(&spec))
        } else if partition::ancestors(relid).contains(&table.relid) {
            // SAFETY: as above.
            let described = unsafe { relation::describe_partition(opened.rows, &spec) };
            let described = described.map_err(|problem| Unreadable::Unfit(problem.to_string()))?;
            TupleReader::new(&described, natts, Added::live(&described))
        } else {
            return Err(Unreadable::Changed);
        };
        Ok(Self { is_appended: spec.is_appended(), spec: Arc::new(spec), reader, relid })
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
        Some((-i64::from(self.relid.to_u32()), i64::from(block) * 65_536 + i64::from(offset)))
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
