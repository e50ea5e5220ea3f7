//! What happened to one table since somebody last asked.

/// Why a row is upserted; only the counters tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE of a row that stays at the target, marked.
    Marked,
    /// None of its own: a row that was read from the source, because the log did not have all of its values.
    Completed,
}

/// Changes taken in and rows loaded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TableCounters {
    /// INSERTs taken in.
    pub inserts: u64,
    /// UPDATEs taken in.
    pub updates: u64,
    /// DELETEs taken in.
    pub deletes: u64,
    /// TRUNCATEs, counted by the caller through [`super::Pipeline::count_truncate`].
    pub truncates: u64,
    /// Loads that are visible at the target.
    pub loads: u64,
    /// Their rows: after compaction, so at most as many as the changes.
    pub rows_loaded: u64,
    /// The bytes of their bodies before compression.
    pub bytes_loaded: u64,
}

impl TableCounters {
    /// Nothing happened.
    pub const NONE: Self =
        Self { inserts: 0, updates: 0, deletes: 0, truncates: 0, loads: 0, rows_loaded: 0, bytes_loaded: 0 };

    pub(super) const fn count(&mut self, change: Change) {
        match change {
            Change::Insert => self.inserts += 1,
            Change::Update => self.updates += 1,
            Change::Marked => self.deletes += 1,
            Change::Completed => {}
        }
    }
}
