//! How far the mirror has come: which commits are durable at the target.
//!
//! What is tracked: the *position* (everything that committed before it has been seen) and, for each batch that is not
//! yet loaded, a *floor*: the position at which its first row came.
//!
//! ```text
//! durable = the lowest floor, or the position when no batch is unfinished
//! ```
//!
//! Why no commit is promised too early: let a transaction T have a row in the unfinished batch B. The row came before
//! T's commit, and B's first row came before it or is it. When B's first row came, T had therefore not committed, and
//! the position, which is the end of a transaction before T, lay before T's end. So `durable <= floor(B) < end(T)`.
//! Read backwards: every T with `end(T) <= durable` has rows in finished batches only, or had one replaced there by a
//! later row of the same key in the same batch. When a row takes the place of one in *another* unfinished batch, its
//! batch takes over the lower of the two floors ([`CheckpointTracker::lower`]), and the argument holds for it too.
//!
//! Why it goes on: floors are closed when their batches are loaded or dropped, and the position is the newest commit.
//! A transaction that is cut into many batches opens many floors at one position, so the floors are a multiset: the
//! cost is `O(log n)` of the distinct positions of unfinished batches, and a commit costs nothing that stays.
//!
//! A row may also come *after* its transaction's commit: one whose values the log does not have, and that is read from
//! the source. Until it has come its place is held ([`CheckpointTracker::hold`]): the hold is a floor itself, taken while
//! the transaction was open, and every batch that is opened meanwhile has no higher one.
//!
//! Called by [`super::Pipeline`] alone, from one thread.

use std::collections::BTreeMap;

use crate::lsn::Lsn;

/// Knows the position and the floors.
#[derive(Debug, Default)]
pub(super) struct CheckpointTracker {
    position: Lsn,
    /// Rows of a transaction have come and its commit has not.
    in_transaction: bool,
    /// How many unfinished batches have this floor.
    floors: BTreeMap<Lsn, u32>,
    /// The floor of rows that are still to be read from the source.
    held: Option<Lsn>,
}

impl CheckpointTracker {
    /// A row has come; its transaction is open until [`Self::commit`].
    pub(super) const fn row(&mut self) {
        self.in_transaction = true;
    }

    /// The transaction whose rows came last has committed; its commit record ends at `end`.
    pub(super) fn commit(&mut self, end: Lsn) {
        self.in_transaction = false;
        self.position = self.position.max(end);
    }

    /// The log is decoded up to `lsn`, and what committed before it has been seen. Ignored in the middle of a
    /// transaction, where it would promise rows that are still to come.
    pub(super) fn decoded_to(&mut self, lsn: Lsn) {
        if !self.in_transaction {
            self.position = self.position.max(lsn);
        }
    }

    /// Everything that committed before has been seen.
    pub(super) const fn position(&self) -> Lsn {
        self.position
    }

    /// A batch gets its first row. Its floor is returned, to be closed when the batch is loaded or dropped.
    pub(super) fn open(&mut self) -> Lsn {
        let floor = self.held.unwrap_or(self.position);
        self.add(floor);
        floor
    }

    /// A row of the open transaction will come after its commit. Holds are not counted: one [`Self::release`] ends them.
    pub(super) fn hold(&mut self) {
        if self.held.is_none() {
            self.add(self.position);
            self.held = Some(self.position);
        }
    }

    /// The same for rows that came after `floor`, and whose batch is about to let them go.
    pub(super) fn hold_from(&mut self, floor: Lsn) {
        self.hold();
        if let Some(held) = self.held {
            self.held = Some(self.lower(held, floor));
        }
    }

    /// The rows that were waited for have come.
    pub(super) fn release(&mut self) {
        if let Some(floor) = self.held.take() {
            self.close(floor);
        }
    }

    /// The batch with floor `mine` takes over a row of the batch with floor `other`; returns the floor of both.
    pub(super) fn lower(&mut self, mine: Lsn, other: Lsn) -> Lsn {
        if other < mine {
            self.close(mine);
            self.add(other);
        }
        mine.min(other)
    }

    /// The batch with this floor is loaded or dropped.
    pub(super) fn close(&mut self, floor: Lsn) {
        if let Some(batches) = self.floors.get_mut(&floor) {
            *batches -= 1;
            if *batches == 0 {
                self.floors.remove(&floor);
            }
        }
    }

    /// Everything that committed at or before this position is at the target, for the tables that are kept.
    pub(super) fn durable(&self) -> Lsn {
        self.floors.first_key_value().map_or(self.position, |(floor, _)| *floor)
    }

    fn add(&mut self, floor: Lsn) {
        *self.floors.entry(floor).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_open_makes_the_position_durable() {
        let mut tracker = CheckpointTracker::default();
        tracker.commit(Lsn(10));
        assert_eq!(tracker.durable(), Lsn(10));
        tracker.decoded_to(Lsn(15));
        assert_eq!(tracker.durable(), Lsn(15));
        tracker.decoded_to(Lsn(12));
        assert_eq!(tracker.durable(), Lsn(15));
    }

    #[test]
    fn decoded_position_inside_a_transaction_is_ignored() {
        let mut tracker = CheckpointTracker::default();
        tracker.commit(Lsn(10));
        tracker.row();
        let floor = tracker.open();
        tracker.close(floor);
        tracker.decoded_to(Lsn(20));
        assert_eq!(tracker.durable(), Lsn(10));
        tracker.commit(Lsn(30));
        assert_eq!(tracker.durable(), Lsn(30));
    }

    #[test]
    fn commit_of_later_batch_does_not_move_progress() {
        let mut tracker = CheckpointTracker::default();
        tracker.commit(Lsn(10));
        tracker.row();
        let first = tracker.open();
        tracker.commit(Lsn(20));
        tracker.row();
        let second = tracker.open();
        tracker.commit(Lsn(30));
        tracker.close(second);
        assert_eq!(tracker.durable(), Lsn(10));
        tracker.close(first);
        assert_eq!(tracker.durable(), Lsn(30));
    }

    #[test]
    fn row_that_comes_after_its_commit_is_waited_for() {
        let mut tracker = CheckpointTracker::default();
        tracker.commit(Lsn(10));
        tracker.row();
        tracker.hold();
        tracker.commit(Lsn(20));
        tracker.decoded_to(Lsn(25));
        assert_eq!(tracker.durable(), Lsn(10));
        tracker.row();
        let late = tracker.open();
        tracker.commit(Lsn(25));
        tracker.release();
        assert_eq!(tracker.durable(), Lsn(10));
        tracker.close(late);
        assert_eq!(tracker.durable(), Lsn(25));
    }

    /// A step of a schedule; numbers choose among what is there at that moment.
    #[derive(Clone, Debug)]
    enum Step {
        /// A row for the batch of this number, which is opened if it is not.
        Row(usize),
        /// The oldest open batch of this number is loaded, or its table removed: the same to the tracker.
        Close(usize),
        Commit,
        DecodedTo,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..5_usize).prop_map(Step::Row),
            3 => (0..5_usize).prop_map(Step::Close),
            2 => Just(Step::Commit),
            1 => Just(Step::DecodedTo),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Compared with a model that remembers, per batch, the commit of each of its rows.
        #[test]
        fn durable_position_never_passes_a_row_that_is_not_loaded(steps in steps()) {
            let mut tracker = CheckpointTracker::default();
            // Per open batch its floor and the transaction numbers of its rows.
            let mut open: BTreeMap<usize, (Lsn, Vec<u64>)> = BTreeMap::new();
            let (mut committed, mut transaction, mut rows_pending) = (0_u64, 10_u64, false);
            for step in steps {
                match step {
                    Step::Row(batch) => {
                        tracker.row();
                        rows_pending = true;
                        let entry = open.entry(batch).or_insert_with(|| (tracker.open(), Vec::new()));
                        entry.1.push(transaction);
                    }
                    Step::Close(batch) => {
                        if let Some((floor, _)) = open.remove(&batch) {
                            tracker.close(floor);
                        }
                    }
                    Step::Commit => {
                        tracker.commit(Lsn(transaction));
                        committed = transaction;
                        rows_pending = false;
                        transaction += 10;
                    }
                    Step::DecodedTo => {
                        tracker.decoded_to(Lsn(transaction - 5));
                        if !rows_pending {
                            committed = transaction - 5;
                        }
                    }
                }
                let first_missing = open.values().flat_map(|(_, rows)| rows).min();
                let durable = tracker.durable().0;
                prop_assert!(first_missing.is_none_or(|&missing| durable < missing));
                prop_assert!(durable <= committed);
                if open.is_empty() {
                    prop_assert_eq!(durable, committed);
                }
            }
        }
    }
}
