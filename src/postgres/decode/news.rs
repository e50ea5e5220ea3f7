//! What happened inside the callbacks, where nothing can be committed, and is written down with the next checkpoint.

use pgrx::pg_sys;

use super::super::catalog::event::{Event, Severity};
use super::super::catalog::table::Counters;
use super::super::{catalog, shmem};
use super::rejected::RejectedNews;

/// A table that cannot go on.
pub(super) struct FailedTable {
    pub(super) relid: u32,
    pub(super) source_name: String,
    pub(super) reason: String,
}

/// Things to write down.
#[derive(Default)]
pub(in super::super) struct News {
    /// Rows that are not at the target.
    pub(super) rejected: RejectedNews,
    pub(super) failed: Vec<FailedTable>,
    /// Tables that the stream cannot follow, which are copied again.
    pub(super) copied_again: Vec<FailedTable>,
    /// Tables that have been dropped, of any state.
    pub(super) dropped: Vec<u32>,
    /// Tables that may have other names.
    pub(super) renamed: Vec<(u32, String)>,
    /// Tables whose targets have been altered, with their names.
    pub(super) altered: Vec<(u32, String)>,
    pub(super) counters: Vec<(u32, Counters)>,
    /// Why the target could not be reached.
    pub(super) trouble: Vec<String>,
    /// Values that were replaced because the target cannot hold them.
    pub(super) adjusted: Vec<(u32, String)>,
    /// Tables that have come into step.
    pub(super) in_step: Vec<u32>,
    /// The incarnation, and the first of its numbers whose fate is open.
    pub(super) settled: Option<(u64, u64)>,
}

impl News {
    /// Whether there is something that cannot wait for the next checkpoint.
    pub(super) fn is_urgent(&self) -> bool {
        self.has_lost_table()
            || !self.altered.is_empty()
            || !self.dropped.is_empty()
            || !self.renamed.is_empty()
            || !self.trouble.is_empty()
    }

    /// Whether a table has left the stream, or a row was left out, and nobody can know yet: what is durable without it must
    /// not be shown.
    pub(super) fn has_lost_table(&self) -> bool {
        !self.failed.is_empty() || !self.copied_again.is_empty() || !self.rejected.refused.is_empty()
    }

    /// Whether the list of tables, as the workers know it, is not what it was.
    fn changes_the_list(&self) -> bool {
        !(self.altered.is_empty()
            && self.copied_again.is_empty()
            && self.dropped.is_empty()
            && self.renamed.is_empty())
    }

    /// Writes everything into the tables of the extension. Inside the transaction of the checkpoint, so that it never
    /// passes a table that is not known to be in error.
    pub(in super::super) fn write_down(&self, mirror: &str) {
        self.rejected.write_down(mirror);
        for table in &self.failed {
            catalog::table::fail(mirror, pg_sys::Oid::from(table.relid), &table.source_name, &table.reason);
        }
        for (relid, source_name) in &self.altered {
            catalog::table::set_altered(mirror, pg_sys::Oid::from(*relid), source_name);
        }
        for FailedTable { relid, source_name, reason } in &self.copied_again {
            catalog::table::copy_again_because(mirror, pg_sys::Oid::from(*relid), source_name, reason);
        }
        for relid in &self.dropped {
            catalog::table::let_go(mirror, pg_sys::Oid::from(*relid));
        }
        for (relid, name) in &self.renamed {
            catalog::table::rename(mirror, pg_sys::Oid::from(*relid), name);
        }
        if self.changes_the_list() {
            // The worker reads the list again when this is committed.
            shmem::update(mirror, |slot| slot.tables_version += 1);
        }
        for relid in &self.in_step {
            catalog::table::set_in_step(mirror, pg_sys::Oid::from(*relid));
        }
        for (relid, counters) in &self.counters {
            catalog::table::add_counters(mirror, pg_sys::Oid::from(*relid), counters);
        }
        for reason in &self.trouble {
            let message = format!("the target could not be reached: {reason}");
            Event::of(mirror, Severity::Warning, &message).record();
        }
        for (relid, message) in &self.adjusted {
            let relid = Some(pg_sys::Oid::from(*relid));
            Event { relid, ..Event::of(mirror, Severity::Warning, message) }.record();
        }
        if let Some((incarnation, until)) = self.settled {
            catalog::incarnation::settle(mirror, incarnation, until);
        }
    }
}
