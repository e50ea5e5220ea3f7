//! How large batches and the mirror's memory may become.

use super::flush::FlushInterval;

/// The longest body of a load. StarRocks refuses JSON bodies above 100 MiB.
pub const MAX_LOAD_BYTES: usize = 90 << 20;

/// The options of a mirror that steer its batches.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A batch is sealed when it has so many rows.
    pub batch_max_rows: usize,
    /// A batch is sealed when its buffer has so many bytes; whatever is set here, a load never has more than
    /// [`MAX_LOAD_BYTES`].
    pub batch_max_bytes: usize,
    /// A batch is sealed when its buffer has so many bytes and nothing of its table is on its way: a target that is waiting is
    /// not kept waiting, and while it is busy, loads become as large as they may.
    pub batch_ample_bytes: usize,
    /// Bytes encoded or queued and not yet acknowledged, for the whole mirror.
    pub memory_limit: usize,
    /// The longest wait of a committed change.
    pub flush_interval: FlushInterval,
}
