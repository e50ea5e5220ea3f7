//! Changes of tables that are not mirrored, left out before the reorder buffer keeps them.
//!
//! The reorder buffer keeps every change of the database until its transaction commits, and beyond
//! `logical_decoding_work_mem` it writes them to files and reads them again: bulk work in a table of no interest costs as much as
//! in one that is mirrored. Before a change is kept, the output plugin is asked whether it wants changes of that origin; at
//! that moment the reader stands on the record, which names the file of the table. So changes are left out there.
//!
//! ```text
//! record ─► filter (here): the file is of a table that is not mirrored? ─► left out
//!                     └─► else ─► reorder buffer ─► callbacks
//! ```
//!
//! Why nothing is lost:
//!
//! * Whose file it is, the catalogs say as they were at this place of the log, as far as it has committed. A file that they do
//!   not have is of a table that the transaction itself has made or rewritten: its changes are kept. So are those of
//!   partitions, which may be mirrored as part of another table. A TOAST table is treated like its owner: large values that
//!   are kept without their row could be taken for those of another one.
//! * A file changes hands only by changes of the catalogs. Whenever the relation cache is told of one, at its place in the
//!   log, all answers are forgotten; and when the list of the mirror's tables changes.
//! * A table that was mirrored since the start of the process counts as mirrored, whether or not it is at the moment. One that
//!   joins the stream for the first time may have been changed before by a transaction that is still open, and whose changes
//!   were left out: then the worker begins anew ([`Unmirrored::has_left_out`]) and reads the log from before every open
//!   transaction.
//!
//! Called by the filter callback, in the decoding process, while a record is looked at and no transaction is decoded.

use std::sync::atomic::Ordering;

use hashbrown::{HashMap, HashSet};
use pgrx::pg_sys;

use super::super::ffi;
use super::mirrored::INVALIDATIONS;

/// A file of this database: tablespace and number.
pub(in super::super) type File = (u32, u32);

/// What becomes of the changes in a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Kept,
    LeftOut,
}

/// What is known of files at this place of the log.
#[derive(Default)]
pub(super) struct Unmirrored {
    known: HashMap<File, Verdict>,
    last: Option<(File, Verdict)>,
    /// [`INVALIDATIONS`] when all this was found out.
    seen: u64,
    has_left_out: bool,
    /// Every table that was mirrored since the start of the process.
    mirrored: HashSet<u32>,
}

impl Unmirrored {
    /// Whether any change was left out since the start of the process.
    pub(super) const fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    /// These tables are mirrored from now on. Returns whether any of them was not before.
    pub(super) fn mirror(&mut self, tables: impl Iterator<Item = u32>) -> bool {
        let before = self.mirrored.len();
        self.mirrored.extend(tables);
        self.forget();
        self.mirrored.len() > before
    }

    fn forget(&mut self) {
        self.known.clear();
        self.last = None;
    }

    /// Whether the change at hand, in this file, is left out.
    ///
    /// # Safety
    ///
    /// The context is asking its output plugin about the record that its reader stands on.
    #[inline]
    pub(super) unsafe fn leaves_out(&mut self, ctx: *mut pg_sys::LogicalDecodingContext, file: File) -> bool {
        let invalidations = INVALIDATIONS.load(Ordering::Relaxed);
        if self.seen != invalidations {
            self.forget();
            self.seen = invalidations;
        }
        let verdict = match self.last {
            Some((last, verdict)) if last == file => verdict,
            _ => {
                // SAFETY: the caller vouches for the context.
                let verdict = unsafe { self.verdict(ctx, file) };
                self.last = Some((file, verdict));
                verdict
            }
        };
        self.has_left_out |= verdict == Verdict::LeftOut;
        verdict == Verdict::LeftOut
    }

    /// # Safety
    ///
    /// As [`Self::leaves_out`].
    unsafe fn verdict(&mut self, ctx: *mut pg_sys::LogicalDecodingContext, file: File) -> Verdict {
        if let Some(verdict) = self.known.get(&file) {
            return *verdict;
        }
        // SAFETY: the caller vouches for the context.
        let owner = unsafe { ffi::with_committed_catalogs(ctx, || owner_of(file)) };
        let is_other = owner.flatten().is_some_and(|relid| !self.mirrored.contains(&relid));
        let verdict = if is_other { Verdict::LeftOut } else { Verdict::Kept };
        self.known.insert(file, verdict);
        verdict
    }
}

/// The table whose rows are in a file, or their large values; none when it is not known, or is no ordinary table.
fn owner_of(file: File) -> Option<u32> {
    let relid = ffi::relation_of_file(file)?;
    let mut class = ffi::class_of(relid)?;
    let mut owner = relid;
    if class.relkind.cast_unsigned() == pg_sys::RELKIND_TOASTVALUE {
        owner = ffi::owner_of_toast_table(&class)?;
        class = ffi::class_of(owner).filter(|class| class.reltoastrelid == relid)?;
    }
    let is_plain = class.relkind.cast_unsigned() == pg_sys::RELKIND_RELATION && !class.relispartition;
    is_plain.then_some(owner.to_u32())
}
