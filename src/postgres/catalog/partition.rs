//! Which tables are partitions of which.
//!
//! Reads catalogs by their caches and indexes, takes no lock and runs no query: for anywhere inside a transaction, and for the
//! callbacks of decoding, where the answers are those of the change.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

use super::super::ffi;

/// The partitioned tables that a table is a partition of, the nearest first. None for any other table.
pub(in crate::postgres) fn ancestors(relid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // Asked about a table that inherits in the plain way, the server would name its parents.
    // SAFETY: looks into the system cache.
    if unsafe { pg_sys::get_rel_relispartition(relid) } {
        ffi::partition_ancestors(relid)
    } else {
        Vec::new()
    }
}

/// Whether a relation is a partitioned table.
///
/// # Safety
///
/// `relation` is open.
pub(in crate::postgres) unsafe fn is_partitioned(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller vouches for the relation.
    unsafe { (*(*relation).rd_rel).relkind.cast_unsigned() == pg_sys::RELKIND_PARTITIONED_TABLE }
}

/// Everything below a partitioned table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::postgres) struct Partitions {
    /// Those that have rows, in ascending order.
    pub(in crate::postgres) leaves: Vec<u32>,
    /// The table itself, and partitions that are partitioned.
    pub(in crate::postgres) inner: Vec<u32>,
}

impl Partitions {
    /// Everything below `root`.
    pub(in crate::postgres) fn of(root: pg_sys::Oid) -> Self {
        let mut found = Self::default();
        for relid in ffi::inheritors(root) {
            match relkind(relid) {
                pg_sys::RELKIND_PARTITIONED_TABLE => found.inner.push(relid.to_u32()),
                // Gone since the list was read.
                0 => {}
                _ => found.leaves.push(relid.to_u32()),
            }
        }
        found.leaves.sort_unstable();
        found
    }

    /// Whether a relation is one of them.
    pub(in crate::postgres) fn contain(&self, relid: u32) -> bool {
        self.inner.contains(&relid) || self.leaves.binary_search(&relid).is_ok()
    }
}

/// `attnum` of the columns that a partitioned table is divided by; zero for an expression.
pub(in crate::postgres) fn divided_by(relid: pg_sys::Oid) -> Vec<i16> {
    let cache = pg_sys::SysCacheIdentifier::PARTRELID as i32;
    let mut is_null = true;
    // SAFETY: the cache has this key, and the attribute is an int2vector that is never null; it is copied before the tuple is
    // released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, relid.into());
        if tuple.is_null() {
            return Vec::new();
        }
        // Anum_pg_partitioned_table_partattrs
        let attribute = 5;
        let datum = pg_sys::SysCacheGetAttr(cache, tuple, attribute, &raw mut is_null);
        let columns = datum.cast_mut_ptr::<pg_sys::int2vector>();
        let count = usize::try_from((*columns).dim1).unwrap_or_default();
        let columns = (*columns).values.as_slice(count).to_vec();
        pg_sys::ReleaseSysCache(tuple);
        columns
    }
}

/// The name of a column; empty when there is none of that number.
pub(in crate::postgres) fn column_name(relid: pg_sys::Oid, attnum: i16) -> String {
    // SAFETY: looks into the system cache; the answer is null or a C string, copied at once.
    unsafe {
        let name = pg_sys::get_attname(relid, attnum, true);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// `pg_class.relkind`; zero for a relation that is not there.
pub(in crate::postgres) fn relkind(relid: pg_sys::Oid) -> u8 {
    // SAFETY: looks into the system cache.
    unsafe { pg_sys::get_rel_relkind(relid) }.cast_unsigned()
}

/// Why a partition cannot be followed with its root, if it has rows that are not in the log.
pub(in crate::postgres) fn unlogged(leaf: pg_sys::Oid) -> Option<&'static str> {
    // SAFETY: looks into the system cache.
    let persistence = unsafe { pg_sys::get_rel_persistence(leaf) }.cast_unsigned();
    match relkind(leaf) {
        pg_sys::RELKIND_FOREIGN_TABLE => Some("is a foreign table"),
        _ if persistence != pg_sys::RELPERSISTENCE_PERMANENT => Some("is not logged"),
        _ => None,
    }
}

/// `schema.name` of a table, for messages.
pub(in crate::postgres) fn name(relid: pg_sys::Oid) -> String {
    // SAFETY: looks into the system cache; answers are null or C strings, copied at once.
    unsafe {
        let text = |name: *const c_char| {
            if name.is_null() {
                return String::new();
            }
            CStr::from_ptr(name).to_string_lossy().into_owned()
        };
        let schema = text(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid)));
        format!("{schema}.{}", text(pg_sys::get_rel_name(relid)))
    }
}
