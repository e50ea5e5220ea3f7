//! A replication slot, as the array of slots in shared memory has it.

use std::ffi::CString;

use pgrx::pg_sys;

use super::compat;
use crate::lsn::Lsn;

/// What a mirror must know of its slot before it uses it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SlotStatus {
    /// What its consumer confirmed last.
    pub(super) confirmed_lsn: Lsn,
    /// Whether the log that it needs is gone.
    pub(super) is_invalidated: bool,
}

/// Looks for a slot by name.
pub(super) fn find(name: &str) -> Option<SlotStatus> {
    let name = CString::new(name).ok()?;
    // SAFETY: the slot stays where it is in shared memory; its fields are copied under its own lock's protocol for
    // readers who need no more than single values.
    unsafe {
        let slot = pg_sys::SearchNamedReplicationSlot(name.as_ptr(), true);
        if slot.is_null() {
            return None;
        }
        Some(SlotStatus {
            confirmed_lsn: Lsn((*slot).data.confirmed_flush),
            is_invalidated: compat::is_invalidated(&(*slot).data),
        })
    }
}

/// Drops a slot that nobody uses.
///
/// Called for a slot that a start left behind before its first checkpoint, and by `dbmazz_drop_mirror`.
pub(super) fn drop_unused(name: &str) {
    let c_name = CString::new(name).unwrap_or_default();
    // SAFETY: the slot stays where it is in shared memory. This process holds no slot; when another one does, the drop
    // raises an error. `MyDatabaseId` is set before a worker runs.
    unsafe {
        let slot = pg_sys::SearchNamedReplicationSlot(c_name.as_ptr(), true);
        if !slot.is_null() && (*slot).data.database != pg_sys::MyDatabaseId {
            pgrx::error!("could not drop replication slot \"{name}\": it is of another database");
        }
        pg_sys::ReplicationSlotDrop(c_name.as_ptr(), true);
    }
}
