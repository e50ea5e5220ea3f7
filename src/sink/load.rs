//! A sealed load: what a batch becomes when it is closed, and never changes again.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::table::TargetTable;

/// The name under which StarRocks knows a load: `dbmazz_<mirror>_<incarnation>_<n>`.
///
/// The same bytes are sent again under the same label, other bytes never are.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Label {
    /// The mirror, `[a-z0-9_]{1,40}`.
    pub mirror: Arc<str>,
    /// 64 random bits, drawn by the worker that made the load.
    pub incarnation: u64,
    /// Counts the loads of the incarnation, from 1.
    pub number: u64,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dbmazz_{}_{:016x}_{}", self.mirror, self.incarnation, self.number)
    }
}

/// What the rows of a load have in common: the table and the set of columns that they carry.
#[derive(Debug, Eq, PartialEq)]
pub struct LoadShape {
    /// Where the rows go.
    pub target: TargetTable,
    /// The value of the `columns` header, `__op` included: "`id`,`t1`,`c`=to_binary(`t1`,'hex'),`__op`".
    pub columns: String,
    /// Whether columns of the table are missing (unchanged TOAST): the load is a partial update then.
    pub partial: bool,
}

/// Rows of one table, encoded as NDJSON, at most one row per key.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its name.
    pub label: Label,
    /// Table and columns.
    pub shape: Arc<LoadShape>,
    /// The batch's buffer. Rows that a later row of the same batch replaced are still in it.
    pub buffer: Bytes,
    /// The parts of `buffer` that make the body, in order.
    pub live: Vec<Range<usize>>,
    /// How many rows the body has. At least one: StarRocks refuses an empty load.
    pub rows: u64,
}

impl Load {
    /// The body, piece by piece.
    pub fn body(&self) -> impl Iterator<Item = &[u8]> {
        self.live.iter().map(|range| &self.buffer[range.clone()])
    }

    /// Bytes of the body before compression.
    pub fn body_bytes(&self) -> usize {
        self.live.iter().map(Range::len).sum()
    }
}
