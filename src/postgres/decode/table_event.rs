//! What happens to tables as a whole, and no row shows. An event trigger puts it into the log, at its place among the rows.
//!
//! A message that cannot be read ([`crate::table_event`]) is from another version of the extension, and is passed over with a
//! warning. One is seen when its transaction has committed, never when it was rolled back.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::relation::Columns;
use super::super::shmem::Role;
use super::feed::Feed;
use super::mirrored::Route;
use crate::definition::Evidence;
use crate::lsn::Lsn;
use crate::options::OnStatement;
use crate::table_event::TableEvent;

/// Under which prefix the messages are.
pub(super) const PREFIX: &std::ffi::CStr = c"dbmazz_table";

/// Reads a message.
pub(super) fn parse(message: &[u8]) -> Option<TableEvent> {
    serde_json::from_slice(message)
        .inspect_err(|problem| warning!("could not read a message about a table: {problem}"))
        .ok()
}

const DROPPED: &str = "it has been dropped";
const RENAMED: &str = "it has been renamed";

impl Feed {
    /// Does what follows from it.
    #[cold]
    pub(super) fn take_event(&mut self, event: TableEvent, place: Lsn) {
        match event {
            TableEvent::Rewritten { relid } => self.rewritten(relid),
            TableEvent::Retyped { relid } => self.retyped(relid, place),
            TableEvent::Dropped { relid } => self.dropped(relid),
            TableEvent::Altered { relid, name } => {
                self.named(relid, name);
                self.altered(relid, place);
            }
            TableEvent::Created => self.await_list_of(self.xid),
        }
    }

    /// Where the target can be altered to the wider types, that is done; the rows are not copied.
    fn retyped(&mut self, relid: u32, place: Lsn) {
        let is_altered = self.route(relid) == Route::Own
            && self.outgoing.role == Role::Mirror
            && self.options.on_ddl == OnStatement::Apply;
        if !is_altered {
            return self.rewritten(relid);
        }
        // SAFETY: inside a callback of decoding, in its transaction: the catalogs are those of this place in the log, where
        // the columns have their new types already. The relation is closed again, unless an error ends the process.
        unsafe {
            let open = pg_sys::RelationIdGetRelation(relid.into());
            if open.is_null() {
                return self.rewritten(relid);
            }
            self.follow(open, open, Columns::All, place, Evidence::TypesAlone);
            pg_sys::RelationClose(open);
        }
    }

    /// The table leaves the mirror, once all of its rows are at the target.
    fn dropped(&mut self, relid: u32) {
        // The other decoder has only tables that the mirror worker does not stream; that one sees the same message.
        if self.outgoing.role != Role::Mirror {
            return;
        }
        if let Some(table) = self.tables.get(&relid) {
            let index = table.columnar.as_ref().map(|columnar| columnar.index);
            if self.options.on_ddl == OnStatement::Error {
                return self.stop_at_change(relid, DROPPED.to_owned());
            }
            if let Some(index) = index {
                self.drain(index);
            }
        }
        if let Some(table) = self.tables.get_mut(&relid) {
            table.skip_for_good();
            self.count_tables();
        }
        self.news.dropped.push(relid);
    }

    /// A transaction has written to the list of tables.
    fn await_list_of(&mut self, xid: u32) {
        if self.awaited_lists.last() != Some(&xid) {
            self.awaited_lists.push(xid);
        }
    }

    /// Whether there is something new in the list of tables; once. Between records.
    pub(in super::super) fn list_has_changed(&mut self) -> bool {
        let before = self.awaited_lists.len();
        // SAFETY: looks into shared memory.
        let is_open =
            |xid: &u32| unsafe { pg_sys::TransactionIdIsInProgress(pg_sys::TransactionId::from(*xid)) };
        self.awaited_lists.retain(is_open);
        self.awaited_lists.len() < before
    }

    /// The table may be called otherwise. Its target keeps its name.
    fn named(&mut self, relid: u32, name: String) {
        if self.outgoing.role != Role::Mirror {
            return;
        }
        if let Some(table) = self.tables.get_mut(&relid) {
            if table.source_name == name {
                return;
            }
            table.source_name.clone_from(&name);
            if self.options.on_ddl == OnStatement::Error {
                self.stop_at_change(relid, RENAMED.to_owned());
            }
        }
        self.news.renamed.push((relid, name));
    }
}
