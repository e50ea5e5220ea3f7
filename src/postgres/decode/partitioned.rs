//! Which partitions a mirrored root has, as the log goes on.
//!
//! A partition that is created as one is followed from its first row. ATTACH brings rows that are in no change of the root,
//! DETACH and DROP take rows away without any: then the root is copied again. All of this is in the log, as changes of
//! catalogs, so that no trigger is needed: a transaction that invalidates a root or one of its partitions has its partitions
//! compared, at its commit, with those before it, and its own catalogs say which of them it has created.

use pgrx::pg_sys;

use super::super::catalog::partition::{self, Partitions};
use super::super::compat;
use super::feed::Feed;
use super::mirrored::{Invalidated, Route, take_invalidated};
use crate::options::OnStatement;

impl Feed {
    /// A transaction begins: the partitions before it are what its end is compared with.
    pub(super) fn begin_partitions(&mut self) {
        if !self.partitions.has_roots() {
            return;
        }
        self.partitions.begin();
        for root in &self.partitions.roots {
            if let Some(table) = self.tables.get_mut(root)
                && table.route != Route::Skip
                && table.partitions.is_none()
            {
                table.partitions = Some(Partitions::of((*root).into()));
            }
        }
    }

    /// A transaction is about to commit. Roots whose rows are others by that, without changes, are copied again.
    ///
    /// # Safety
    ///
    /// The server has just called back with this transaction.
    #[inline]
    pub(super) unsafe fn compare_partitions(&mut self, txn: *mut pg_sys::ReorderBufferTXN) {
        if !self.partitions.has_roots() {
            return;
        }
        if let Some(invalidated) = take_invalidated() {
            for root in self.partitions.roots.clone() {
                // SAFETY: the caller vouches for the transaction.
                if let Some(reason) = unsafe { self.compare(root, &invalidated, txn) } {
                    self.rows_are_others(root, reason);
                }
            }
        }
    }

    /// Compares the partitions of one root. Returns what has become of them, if its rows are others by that.
    ///
    /// # Safety
    ///
    /// As [`Self::compare_partitions`].
    #[cold]
    unsafe fn compare(
        &mut self,
        root: u32,
        invalidated: &Invalidated,
        txn: *mut pg_sys::ReorderBufferTXN,
    ) -> Option<String> {
        let Self { tables, partitions, .. } = self;
        let table = tables.get_mut(&root)?;
        let before = table.partitions.take_if(|before| invalidated.may_be(|it| before.contain(it)))?;
        // A transaction that is not for this table leaves no trace but that it has to be looked again.
        if table.route == Route::Skip || partition::relkind(root.into()) == 0 {
            return None;
        }
        let now = table.partitions.insert(Partitions::of(root.into()));
        // Its rows are in the log if it was a partition from the beginning, or still is.
        let is_followed = |leaf: u32| {
            // SAFETY: the caller vouches for the transaction.
            let is_created = || unsafe { compat::has_created(txn, leaf.into()) };
            before.contain(leaf) || (partition::unlogged(leaf.into()).is_none() && is_created())
        };
        let attached =
            now.leaves.iter().find(|leaf| partitions.has_changed_apart(**leaf) || !is_followed(**leaf));
        if let Some(leaf) = attached {
            return Some(format!("partition \"{}\" has been attached", partition::name((*leaf).into())));
        }
        let gone = before.leaves.iter().find(|leaf| !now.contain(**leaf))?;
        Some(match partition::relkind((*gone).into()) {
            0 => "a partition of it has been dropped".to_owned(),
            _ => format!("partition \"{}\" has been detached", partition::name((*gone).into())),
        })
    }

    fn rows_are_others(&mut self, root: u32, reason: String) {
        match self.options.on_ddl {
            OnStatement::Apply => self.copy_table_again(root, reason),
            OnStatement::Error => self.stop_at_change(root, reason),
            OnStatement::Ignore => {}
        }
    }
}
