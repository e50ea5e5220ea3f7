//! What becomes of a row at the target that is deleted at the source, or moves to another key.

use crate::encode::{Mark, Row};
use crate::pipeline::{Change, Pipeline, PushError, TableIndex};
use crate::table::TableSpec;

/// What a DELETE does with the old row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Removal {
    /// The row goes.
    Delete,
    /// It stays and is marked; the log has its key alone, the target all else.
    Mark {
        /// How many columns make the key.
        key_len: usize,
        /// How many columns come before those that mark it.
        source_columns: usize,
    },
    /// The same; the log has the whole row (replica identity FULL).
    MarkWhole,
}

impl Removal {
    /// What a table's target was made for.
    pub(super) fn of(spec: &TableSpec, identity_is_full: bool) -> Self {
        match (spec.marks_deletes(), identity_is_full) {
            (false, _) => Self::Delete,
            (true, true) => Self::MarkWhole,
            (true, false) => Self::Mark { key_len: spec.key_len, source_columns: spec.source_columns() },
        }
    }

    /// Takes the old row in; its added columns say that it is deleted.
    #[inline]
    pub(super) fn take_in(
        self,
        pipeline: &mut Pipeline,
        index: TableIndex,
        old: &impl Row,
    ) -> Result<(), PushError> {
        match self {
            Self::Delete => pipeline.delete(index, old),
            Self::Mark { key_len, source_columns } => {
                pipeline.mark(index, &Mark { row: old, key_len, source_columns })
            }
            Self::MarkWhole => pipeline.upsert(index, Change::Marked, old),
        }
    }
}
