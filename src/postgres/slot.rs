//! A replication slot, as the array of slots in shared memory has it.

use std::ffi::CString;

use pgrx::pg_sys;

use super::compat;
use crate::identity::Slot;
use crate::lsn::Lsn;

/// Looks for a slot by name.
pub(super) fn find(name: &str) -> Option<Slot> {
    look(name, |slot| {
        let data = &slot.data;
        Slot {
            confirmed_lsn: Lsn(data.confirmed_flush),
            database_oid: data.database.to_u32(),
            plugin: text(&data.plugin),
            is_temporary: data.persistency == pg_sys::ReplicationSlotPersistency::RS_TEMPORARY,
            is_two_phase: data.two_phase,
            invalidation: compat::invalidation(data),
            active_pid: (slot.active_pid != 0).then_some(slot.active_pid),
        }
    })
}

/// The position from which a slot keeps the log; none when there is no slot, or it keeps nothing.
pub(super) fn kept_from(name: &str) -> Option<Lsn> {
    look(name, |slot| Lsn(slot.data.restart_lsn)).filter(|lsn| lsn.is_valid())
}

fn look<T>(name: &str, read: impl FnOnce(&pg_sys::ReplicationSlot) -> T) -> Option<T> {
    let name = CString::new(name).ok()?;
    // SAFETY: slots stay where they are in shared memory; single values are copied, each of them whole. A slot that is
    // dropped meanwhile gives its last values.
    unsafe {
        let slot = pg_sys::SearchNamedReplicationSlot(name.as_ptr(), true);
        (!slot.is_null()).then(|| read(&*slot))
    }
}

fn text(name: &pg_sys::NameData) -> String {
    let bytes: Vec<u8> =
        name.data.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Drops a slot that nobody uses.
///
/// Called for a slot that a start left behind before its first checkpoint, by `dbmazz_drop_mirror`, and by the slot guard
/// when an administrator chose that (`slot_guard_action = release`).
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
