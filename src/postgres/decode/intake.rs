//! A change on its way into the pipeline, whoever has decoded it.

use std::sync::Arc;

use pgrx::pg_sys;

use super::super::compat;
use super::super::tuple::{RowMemory, Toast};
use super::filtered::AddedToRows;
use super::incomplete::{Incomplete, TooMany};
use super::mirrored::{Columnar, Mirrored, Numbering, Readers};
use super::rejected::{Parking, RejectedNews, Trouble};
use super::removal::Removal;
use crate::encode::{Appended, Row, RowEncoder, Stamp, Value};
use crate::options::OnReject;
use crate::pipeline::{Change, Pipeline, PushError, TableIndex};
use crate::table::TableSpec;

/// What changes of any table need on their way.
pub(super) struct With<'a> {
    pub(super) pipeline: &'a mut Pipeline,
    pub(super) incomplete: &'a mut Incomplete,
    pub(super) news: &'a mut RejectedNews,
    pub(super) on_reject: OnReject,
    pub(super) xid: u32,
    pub(super) stamp: Stamp,
}

/// What changes of one table need.
pub(super) struct OfTable<'a> {
    pub(super) tuples: Tuples<'a>,
    /// For tuples of the table itself.
    pub(super) readers: &'a mut Readers,
    /// For rows that pgoutput brings.
    pub(super) added: &'a mut AddedToRows,
    pub(super) spec: &'a Arc<TableSpec>,
}

impl<'a> With<'a> {
    /// Into the target of this table. None when its columns are not known.
    #[inline]
    pub(super) fn table(self, table: &'a mut Mirrored) -> Option<OfTable<'a>> {
        let Self { pipeline, incomplete, news, on_reject, xid, stamp } = self;
        let Mirrored { relid, columnar, parked, numbering, completes, .. } = table;
        let Columnar { index, readers, added, spec, encoder, is_appended, .. } = columnar.as_mut()?;
        let relid = *relid;
        let intake = Intake {
            pipeline,
            incomplete,
            encoder,
            parking: Parking { on_reject, parked, news, relid, end: stamp.lsn },
            relid,
            xid,
            stamp,
            removal: readers.removal,
            index: *index,
            key_len: spec.key_len,
            columns: spec.columns.len(),
            completes: *completes,
        };
        let tuples = Tuples { intake, appended: is_appended.then_some(numbering) };
        Some(OfTable { tuples, readers, added, spec })
    }
}

/// Takes one change in that comes as tuples.
pub(super) struct Tuples<'a> {
    pub(super) intake: Intake<'a>,
    /// Numbers the rows of a table without a key.
    appended: Option<&'a mut Numbering>,
}

impl Tuples<'_> {
    /// Takes the tuples of a change apart and the rows in.
    ///
    /// # Safety
    ///
    /// The server has just called back with this open relation and its change; the readers are for tuples of its descriptor.
    #[inline]
    pub(super) unsafe fn take(
        self,
        memory: &mut RowMemory,
        readers: &mut Readers,
        open: pg_sys::Relation,
        change: *mut pg_sys::ReorderBufferChange,
    ) -> Result<(), Trouble> {
        let Self { mut intake, appended } = self;
        readers.stamp(intake.stamp);
        intake.removal = readers.removal;
        let Readers { new: new_reader, old: old_reader, identity_is_full, .. } = readers;
        // SAFETY: the caller vouches for the relation, its change and the readers; tuples conform to the relation's
        // descriptor.
        unsafe {
            let (old, new) = compat::change_tuples(change);
            let descriptor = (*open).rd_att;
            memory.scoped(|| {
                let rows = Decoded {
                    old: (!old.is_null()).then(|| old_reader.heap_row(old, descriptor, Toast::Unchanged)),
                    new: (!new.is_null()).then(|| new_reader.heap_row(new, descriptor, Toast::Unchanged)),
                    old_is_whole: *identity_is_full,
                };
                intake.take((*change).action, rows, appended)
            })
        }
    }
}

/// Takes one change of a table in.
pub(super) struct Intake<'a> {
    pub(super) pipeline: &'a mut Pipeline,
    pub(super) incomplete: &'a mut Incomplete,
    pub(super) encoder: &'a RowEncoder,
    pub(super) parking: Parking<'a>,
    pub(super) relid: u32,
    pub(super) xid: u32,
    pub(super) stamp: Stamp,
    pub(super) removal: Removal,
    pub(super) index: TableIndex,
    pub(super) key_len: usize,
    pub(super) columns: usize,
    /// A row that lacks values is read from the source.
    pub(super) completes: bool,
}

/// The rows of a change that was decoded from its tuples.
pub(super) struct Decoded<R> {
    pub(super) old: Option<R>,
    pub(super) new: Option<R>,
    /// REPLICA IDENTITY FULL: not only the key is in the old one.
    pub(super) old_is_whole: bool,
}

impl Intake<'_> {
    /// Takes such a change in. A table without a key has its rows numbered.
    #[inline]
    pub(super) fn take<R: Row>(
        self,
        action: pg_sys::ReorderBufferChangeType::Type,
        rows: Decoded<R>,
        appended: Option<&mut Numbering>,
    ) -> Result<(), Trouble> {
        let Decoded { old, new, old_is_whole } = rows;
        match action {
            pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_INSERT => match (new, appended) {
                (None, _) => Ok(()),
                (Some(new), None) => self.insert(&new),
                (Some(new), Some(numbering)) => {
                    let (lsn, seq) = numbering.next(self.parking.end);
                    self.insert(&Appended { row: &new, lsn, seq })
                }
            },
            _ if appended.is_some() => self.not_addressed(new.as_ref().or(old.as_ref())),
            pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_UPDATE => match new {
                None => Ok(()),
                Some(new) => {
                    let whole_old = old.as_ref().filter(|_| old_is_whole);
                    self.update(old.as_ref(), &Merged { new, old: whole_old })
                }
            },
            pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_DELETE => match old {
                Some(old) => self.delete(&old),
                None => {
                    let reason = "the log does not say which row was deleted: it had no replica identity";
                    Err(Trouble::Table(reason.to_owned()))
                }
            },
            _ => Ok(()),
        }
    }

    /// Takes a new row in.
    #[inline]
    pub(super) fn insert(mut self, row: &impl Row) -> Result<(), Trouble> {
        match self.pipeline.upsert(self.index, Change::Insert, row) {
            Ok(()) => {
                self.parking.mend(self.encoder, row);
                Ok(())
            }
            Err(problem) => Err(self.trouble(problem, row)),
        }
    }

    /// Takes in a row that a row filter lets in: a new one, or one that an UPDATE has moved there. Of that the log lacks the
    /// large values that were not changed, and the target does not have them.
    #[inline]
    pub(super) fn let_in(self, row: &impl Row) -> Result<(), Trouble> {
        if self.is_lacking(row) { self.leave_to_source(row) } else { self.insert(row) }
    }

    /// Takes the new row of an UPDATE in. There is an old one when the key changed, or when the replica identity is FULL.
    #[inline]
    pub(super) fn update(mut self, old: Option<&impl Row>, new: &impl Row) -> Result<(), Trouble> {
        let moves = old.is_some_and(|old| (0..self.key_len).any(|at| old.value(at) != new.value(at)));
        if let (true, Some(old)) = (moves, old) {
            self.take_delete(old)?;
        }
        let is_read = moves
            || self.completes
            || self.parking.holds(self.encoder, new)
            || self.incomplete.has(self.relid, |out| self.encoder.key(new, out));
        if is_read && self.is_lacking(new) {
            return self.leave_to_source(new);
        }
        match self.pipeline.upsert(self.index, Change::Update, new) {
            Ok(()) => {
                // A row that is parked is whole here.
                self.parking.mend(self.encoder, new);
                Ok(())
            }
            Err(PushError::UnchangedAfterDelete) => self.leave_to_source(new),
            Err(problem) => Err(self.trouble(problem, new)),
        }
    }

    /// Takes the delete of a row in.
    #[inline]
    pub(super) fn delete(mut self, old: &impl Row) -> Result<(), Trouble> {
        self.take_delete(old)
    }

    /// An UPDATE or DELETE of a row that has no key.
    #[cold]
    pub(super) fn not_addressed(self, row: Option<&impl Row>) -> Result<(), Trouble> {
        Err(Trouble::not_addressed(self.encoder, row, self.key_len..self.columns))
    }

    #[inline]
    fn take_delete(&mut self, old: &impl Row) -> Result<(), Trouble> {
        match self.removal.take_in(self.pipeline, self.index, old) {
            Ok(()) => {
                self.parking.mend(self.encoder, old);
                Ok(())
            }
            // The target cannot have a row of such a key. The one that it had was refused, and is kept.
            Err(PushError::Encode(error))
                if error.is_of_row() && self.parking.on_reject == OnReject::Continue =>
            {
                Ok(())
            }
            Err(problem) => Err(Trouble::of(problem, self.encoder, old, 0..self.key_len)),
        }
    }

    /// The log does not repeat all values of this row.
    #[inline]
    fn is_lacking(&self, row: &impl Row) -> bool {
        (0..self.columns).any(|at| row.value(at) == Value::Unchanged)
    }

    /// The target does not have the values that the log lacks.
    #[cold]
    fn leave_to_source(self, row: &impl Row) -> Result<(), Trouble> {
        let noted =
            self.incomplete.note(self.relid, (self.xid, self.stamp), |out| self.encoder.key(row, out));
        match noted.map_err(|fault| self.trouble(PushError::Encode(self.encoder.error(fault)), row))? {
            Ok(()) => {
                self.pipeline.hold();
                Ok(())
            }
            Err(TooMany) => Err("too many rows at once have large values that are not in the log; \
                                 REPLICA IDENTITY FULL would put them there"
                .to_owned()
                .into()),
        }
    }

    #[cold]
    fn trouble(&self, problem: PushError, row: &impl Row) -> Trouble {
        Trouble::of(problem, self.encoder, row, 0..self.columns)
    }
}

/// A new row whose unchanged values are taken from the old one, where that is whole.
struct Merged<'a, R> {
    new: R,
    old: Option<&'a R>,
}

impl<R: Row> Row for Merged<'_, R> {
    #[inline]
    fn value(&self, column: usize) -> Value<'_> {
        match (self.new.value(column), self.old) {
            (Value::Unchanged, Some(old)) => old.value(column),
            (value, _) => value,
        }
    }
}
