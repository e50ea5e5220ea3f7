//! Rows of partitions go where the rows of their root go.
//!
//! A change in the log is one of a leaf. Which mirrored table that is a partition of is asked of the catalogs of that moment,
//! once, and again after each invalidation; as long as none came, a change costs one look for the leaf and one for its root.
//! The columns and the target are those of the root, followed like those of any table; a leaf has them in an order of its own,
//! so it has readers of its own ([`describe_partition`]).
//!
//! Where a leaf and a table that it is a partition of are both mirrored, because the leaf was attached later, its rows go to
//! the root's target, and the leaf goes into error.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use pgrx::pg_sys;

use super::super::catalog::partition;
use super::super::catalog::publication::truncates_roots;
use super::super::catalog::relation::{self, Columns, describe_partition};
use super::feed::Feed;
use super::intake::With;
use super::mirrored::{Halt, Mirrored, Readers, Route, invalidations};
use crate::definition::Evidence;
use crate::lsn::Lsn;
use crate::options::OnStatement;
use crate::table::TableSpec;

/// More leaves than these are not remembered; all are asked for again.
const MOST_KNOWN: usize = 100_000;

/// Who takes a change in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// Nobody.
    Skip,
    /// The table itself, from the tuple.
    Own,
    /// The table whose partition it is, from the tuple.
    Partition(u32),
    /// pgoutput, and then the table that its message is for.
    Pgoutput,
}

/// What is known of a leaf.
struct Leaf {
    /// The mirrored table that it is a partition of.
    root: Option<u32>,
    /// [`invalidations`] when that was asked.
    seen: u64,
    /// Its readers, and the columns of the root that they were made for.
    read: Option<(Readers, Arc<TableSpec>)>,
}

/// The partitions that changes have come for.
#[derive(Default)]
pub(super) struct Partitions {
    /// The mirrored tables that have partitions.
    pub(super) roots: Vec<u32>,
    leaves: HashMap<u32, Leaf>,
    /// Tables that are not mirrored and that the transaction at hand has changed, if there are roots that they may become
    /// partitions of.
    others: HashSet<u32>,
    last_other: u32,
}

impl Partitions {
    /// The mirror has these roots now.
    pub(super) fn restart(&mut self, mut roots: Vec<u32>) {
        roots.sort_unstable();
        if self.roots != roots {
            self.roots = roots;
            self.leaves.clear();
        }
    }

    /// The list of tables has changed.
    pub(super) fn forget_leaves(&mut self) {
        self.leaves.clear();
    }

    #[inline]
    pub(super) const fn has_roots(&self) -> bool {
        !self.roots.is_empty()
    }

    /// Whether a partition has been compared with these columns of its root, and has not changed since.
    pub(super) fn has_seen(&self, leaf: u32, spec: &Arc<TableSpec>) -> bool {
        let known = self.leaves.get(&leaf).filter(|known| known.seen == invalidations());
        known.and_then(|known| known.read.as_ref()).is_some_and(|(_, made_for)| Arc::ptr_eq(made_for, spec))
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.last_other = 0;
        self.others.clear();
    }

    /// A change of a table that is not mirrored.
    #[inline]
    pub(super) fn note_other(&mut self, relid: u32) {
        if self.has_roots() && self.last_other != relid {
            self.last_other = relid;
            self.others.insert(relid);
        }
    }

    /// Whether the transaction at hand has changed a table while it was nobody's partition.
    pub(super) fn has_changed_apart(&self, relid: u32) -> bool {
        self.others.contains(&relid)
    }
}

impl Feed {
    /// Who takes in changes of an open relation.
    ///
    /// # Safety
    ///
    /// The server has just called back with it.
    #[inline]
    pub(super) unsafe fn way(&mut self, open: pg_sys::Relation) -> Way {
        // SAFETY: the caller vouches for the relation.
        let (relid, form) = unsafe { ((*open).rd_id.to_u32(), (*open).rd_rel) };
        if self.partitions.has_roots()
            // SAFETY: as above.
            && unsafe { (*form).relispartition }
            && let Some(root) = self.root_of(relid)
        {
            return match self.route(root) {
                Route::Skip => Way::Skip,
                Route::Own => Way::Partition(root),
                Route::Pgoutput => Way::Pgoutput,
            };
        }
        match self.route(relid) {
            Route::Skip => Way::Skip,
            Route::Own => Way::Own,
            Route::Pgoutput => Way::Pgoutput,
        }
    }

    /// The mirrored table that a leaf is a partition of at the moment.
    #[inline]
    pub(super) fn root_of(&mut self, leaf: u32) -> Option<u32> {
        match self.partitions.leaves.get(&leaf) {
            Some(known) if known.seen == invalidations() => known.root,
            _ => self.find_root(leaf),
        }
    }

    #[cold]
    fn find_root(&mut self, leaf: u32) -> Option<u32> {
        let seen = invalidations();
        let ancestors = partition::ancestors(leaf.into());
        let roots = &self.partitions.roots;
        let root = ancestors.iter().rev().map(|it| it.to_u32()).find(|it| roots.contains(it));
        if let Some(root) = root {
            let below = ancestors.iter().map(|it| it.to_u32()).take_while(|it| *it != root);
            for both in std::iter::once(leaf).chain(below) {
                self.leave_rows_to(root, both);
            }
        }
        if self.partitions.leaves.len() >= MOST_KNOWN {
            self.partitions.leaves.clear();
        }
        self.partitions.leaves.insert(leaf, Leaf { root, seen, read: None });
        root
    }

    /// A table of the mirror has become a partition of another one.
    fn leave_rows_to(&mut self, root: u32, leaf: u32) {
        if self.route(leaf) == Route::Skip {
            return;
        }
        let name = self.tables.get(&root).map_or("", |table| table.source_name.as_str());
        let reason =
            format!("it has become a partition of \"{name}\", which is mirrored too: its rows go there");
        self.stop_at_change(leaf, reason);
    }

    /// Takes in a change of a partition of `root` that is decoded from its tuples.
    ///
    /// # Safety
    ///
    /// The server has just called back with this open relation and its change.
    #[inline]
    pub(super) unsafe fn change_of_partition(
        &mut self,
        open: pg_sys::Relation,
        root: u32,
        change: *mut pg_sys::ReorderBufferChange,
    ) {
        let taken = loop {
            // SAFETY: the caller vouches for relation and change.
            match unsafe { self.take_in_of_partition(open, root, change) } {
                Ok(()) => break Ok(()),
                Err(Halt::Trouble(trouble)) => break Err(trouble),
                Err(Halt::Stale) => {}
            }
            // As in `change`, not the last time.
            // SAFETY: as above.
            match unsafe { self.look_at_partition(open, root, Columns::All, Lsn((*change).lsn)) } {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(reason) => break Err(reason.into()),
            }
        };
        if let Err(trouble) = taken {
            self.take_trouble(root, trouble);
        }
        self.after_change();
    }

    /// # Safety
    ///
    /// As [`Self::change_of_partition`].
    #[inline]
    unsafe fn take_in_of_partition(
        &mut self,
        open: pg_sys::Relation,
        root: u32,
        change: *mut pg_sys::ReorderBufferChange,
    ) -> Result<(), Halt> {
        let Self { tables, partitions, pipeline, memory, incomplete, news, options, xid, stamp, .. } = self;
        let Some(table) = tables.get_mut(&root) else { return Ok(()) };
        if table.is_stale() {
            return Err(Halt::Stale);
        }
        let news = &mut news.rejected;
        let with =
            With { pipeline, incomplete, news, on_reject: options.on_reject, xid: *xid, stamp: *stamp };
        let Some(of_table) = with.table(table) else { return Ok(()) };
        // SAFETY: the caller vouches for the relation.
        let leaf = unsafe { (*open).rd_id.to_u32() };
        let known = partitions.leaves.get_mut(&leaf);
        let Some((readers, made_for)) = known.and_then(|known| known.read.as_mut()) else {
            return Err(Halt::Stale);
        };
        if !Arc::ptr_eq(made_for, of_table.spec) {
            return Err(Halt::Stale);
        }
        // SAFETY: the caller vouches for relation and change; the readers were made for its columns, or they are looked at
        // again.
        let taken = unsafe { of_table.tuples.take(memory, readers, open, change) };
        taken.map_err(Halt::Trouble)
    }

    /// Looks at the columns of the root, if they may be others by now, and at those of the partition. Returns whether the change
    /// can be taken in.
    ///
    /// # Safety
    ///
    /// As [`Self::change_of_partition`].
    #[cold]
    pub(super) unsafe fn look_at_partition(
        &mut self,
        open: pg_sys::Relation,
        root: u32,
        columns: Columns<'_>,
        change: Lsn,
    ) -> Result<bool, String> {
        // SAFETY: the caller vouches for the relation.
        if !unsafe { self.look_at_root(root, open, columns, change) } {
            return Ok(false);
        }
        let Some(columnar) = self.tables.get(&root).and_then(|table| table.columnar.as_ref()) else {
            return Ok(false);
        };
        let made_for = columnar.spec.clone();
        // SAFETY: as above.
        let (leaf, readers) = unsafe {
            let spec = describe_partition(open, &made_for).map_err(|problem| problem.to_string())?;
            let natts = relation::layout(open).natts;
            ((*open).rd_id.to_u32(), Readers::new(&spec, natts, relation::identity_is_full(open)))
        };
        // Whatever was known of the leaf may have been forgotten meanwhile.
        if self.root_of(leaf) != Some(root) {
            return Err("its partitions are not what they were a moment ago".to_owned());
        }
        if let Some(known) = self.partitions.leaves.get_mut(&leaf) {
            known.read = Some((readers, made_for));
        }
        Ok(true)
    }

    /// Looks at the columns of a root, if they may be others by now. Returns whether changes of its partitions can be taken in.
    ///
    /// # Safety
    ///
    /// `rows` is the open partition that the change at hand is of.
    unsafe fn look_at_root(
        &mut self,
        root: u32,
        rows: pg_sys::Relation,
        columns: Columns<'_>,
        change: Lsn,
    ) -> bool {
        if !self.tables.get(&root).is_some_and(Mirrored::is_stale) {
            return true;
        }
        // SAFETY: the relation is that of the catalogs of the change; it is closed below, or by the abort after an error.
        unsafe {
            let open = pg_sys::RelationIdGetRelation(root.into());
            if open.is_null() {
                return false;
            }
            let goes_on = self.follow(open, rows, columns, change, Evidence::Row);
            pg_sys::RelationClose(open);
            goes_on
        }
    }

    /// A TRUNCATE of relations. Returns whether pgoutput has to say something about some of them.
    ///
    /// # Safety
    ///
    /// The server has just called back with these open relations.
    pub(super) unsafe fn truncated(&mut self, relations: &[pg_sys::Relation]) -> bool {
        let mut has_filtered = false;
        let mut by_root: HashMap<u32, Vec<u32>> = HashMap::new();
        for relation in relations {
            // SAFETY: the caller vouches for the relations.
            let (way, relid) = unsafe { (self.way(*relation), (**relation).rd_id.to_u32()) };
            match way {
                Way::Skip => self.partitions.note_other(relid),
                Way::Own => self.truncate(relid),
                Way::Partition(root) => by_root.entry(root).or_default().push(relid),
                Way::Pgoutput => {
                    has_filtered = true;
                    if let Some(root) = self.root_of_unsaid_truncate(relid) {
                        by_root.entry(root).or_default().push(relid);
                    }
                }
            }
        }
        // SAFETY: as above.
        let has = |root: &u32| relations.iter().any(|it| unsafe { (**it).rd_id.to_u32() } == *root);
        for (root, leaves) in by_root.into_iter().filter(|(root, _)| !has(root)) {
            self.truncate_partitions(root, &leaves);
        }
        has_filtered
    }

    /// The root of a partition that pgoutput decodes, and whose TRUNCATE it passes over: it sends changes of partitions as
    /// those of their root, and has no such message for this one (pgoutput.c, `pgoutput_truncate`).
    fn root_of_unsaid_truncate(&mut self, relid: u32) -> Option<u32> {
        if !self.partitions.has_roots() {
            return None;
        }
        let root = self.root_of(relid)?;
        self.filtered.publication.as_deref().is_some_and(truncates_roots).then_some(root)
    }

    /// Some partitions have been truncated, not their root: what is left of it is copied again, unless nothing is.
    pub(super) fn truncate_partitions(&mut self, root: u32, truncated: &[u32]) {
        let is_left = || {
            let all = partition::Partitions::of(root.into()).leaves;
            all.iter().any(|leaf| !truncated.contains(leaf))
        };
        if self.options.on_truncate == OnStatement::Apply && is_left() {
            return self.copy_table_again(root, "a partition of it has been truncated".to_owned());
        }
        self.truncate(root);
    }
}
