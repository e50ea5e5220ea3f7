//! Partitions of a table that is to be copied: all of them must fit it.

use super::super::catalog::partition::Partitions;
use super::super::catalog::relation::{RelationProblem, describe_partition};
use crate::table::TableSpec;

/// Looks at every partition of a partitioned table, one after the other; none stays locked.
///
/// # Errors
///
/// The first reason why rows of a partition cannot go where those of the table go.
pub(in super::super) fn check_partitions(spec: &TableSpec) -> Result<(), RelationProblem> {
    for leaf in Partitions::of(spec.relid.into()).leaves {
        // One that is gone by now is none any more.
        let Some(open) = super::open_table(leaf.into()) else { continue };
        // SAFETY: just opened, and used no more once it is closed.
        let described = unsafe {
            let described = describe_partition(open, spec);
            super::close_and_unlock(open);
            described
        };
        described?;
    }
    Ok(())
}
