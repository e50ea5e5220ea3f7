//! The numbers under which loads are known.
//!
//! A number is used once, for one load, and never for other rows. Numbers are reserved in blocks: the caller commits "up
//! to N may be in use" before the first of them is taken, so after a crash every label that can be in flight is known.

use std::sync::Arc;

use crate::options::LOAD_THREADS;
use crate::sink::{Label, LabelFate};

/// Hands out the labels of one incarnation of a mirror worker.
#[derive(Debug)]
pub struct LabelSequence {
    mirror: Arc<str>,
    incarnation: u64,
    /// The last number that was handed out.
    taken: u64,
    /// The last number that may be.
    reserved_until: u64,
}

impl LabelSequence {
    /// A sequence with nothing reserved.
    pub const fn new(mirror: Arc<str>, incarnation: u64) -> Self {
        Self { mirror, incarnation, taken: 0, reserved_until: 0 }
    }

    /// The next label, or `None` when the reserved block is used up.
    pub fn take(&mut self) -> Option<Label> {
        if self.remaining() == 0 {
            return None;
        }
        self.taken += 1;
        Some(Label { mirror: Arc::clone(&self.mirror), incarnation: self.incarnation, number: self.taken })
    }

    /// Whose numbers these are.
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The last number that was handed out; zero before the first.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// How many labels can still be taken.
    pub const fn remaining(&self) -> u64 {
        self.reserved_until - self.taken
    }

    /// The last number that may be used; what a further block begins after.
    pub const fn reserved_until(&self) -> u64 {
        self.reserved_until
    }

    /// Numbers up to `until` are reserved: committed where the next worker will look. A lower one changes nothing.
    pub fn extend(&mut self, until: u64) {
        self.reserved_until = self.reserved_until.max(until);
    }
}

/// Numbers of a worker that is gone under which a load may still arrive, of those whose fate nobody had written down, with
/// what the target said of each.
///
/// Numbers are taken in their order, each by a load thread that is free, so those that were never used are the last ones:
/// behind the last one that the target knows no more can be on their way than there are threads. Before it, any that the target
/// does not know, or whose load has failed and may be sent once more.
pub fn under_way(fates: &[(u64, LabelFate)]) -> Vec<u64> {
    let is_known = |(_, fate): &&(u64, LabelFate)| *fate != LabelFate::Unknown;
    let number = |(number, _): &(u64, LabelFate)| *number;
    let first = fates.iter().map(number).min().unwrap_or_default();
    let behind_known = fates.iter().filter(is_known).map(number).max().map_or(first, |last| last + 1);
    let may_arrive = |(number, fate): &&(u64, LabelFate)| {
        *fate != LabelFate::Visible && *number < behind_known + LOAD_THREADS.end()
    };
    let mut found: Vec<u64> = fates.iter().filter(may_arrive).map(number).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(known: &[(u64, LabelFate)], numbers: std::ops::Range<u64>) -> Vec<(u64, LabelFate)> {
        let known_or_not = |number| {
            let found = known.iter().find(|(known, _)| *known == number);
            (number, found.map_or(LabelFate::Unknown, |(_, fate)| *fate))
        };
        numbers.rev().map(known_or_not).collect()
    }

    #[test]
    fn numbers_that_nobody_knows_may_be_under_way_as_many_as_there_can_be_threads() {
        let at_most = *LOAD_THREADS.end();
        assert_eq!(under_way(&fates(&[], 8..1001)), (8..8 + at_most).collect::<Vec<_>>());
        assert_eq!(under_way(&fates(&[], 8..10)), [8, 9]);
        assert!(under_way(&[]).is_empty());
        let known = [
            (8, LabelFate::Visible),
            (9, LabelFate::Aborted),
            (11, LabelFate::Visible),
            (12, LabelFate::Visible),
        ];
        let expected: Vec<u64> = [9, 10].into_iter().chain(13..13 + at_most).collect();
        assert_eq!(under_way(&fates(&known, 8..1001)), expected);
    }

    #[test]
    fn no_label_is_taken_that_is_not_reserved() {
        let mut labels = LabelSequence::new("m".into(), 7);
        assert_eq!(labels.take(), None);
        labels.extend(2);
        assert_eq!(labels.take().map(|label| label.number), Some(1));
        assert_eq!(
            labels.take().map(|label| label.to_string()),
            Some("dbmazz_m_0000000000000007_2".to_owned())
        );
        assert_eq!((labels.take(), labels.remaining()), (None, 0));
        labels.extend(1);
        assert_eq!(labels.take(), None);
        labels.extend(3);
        assert_eq!(labels.take().map(|label| label.number), Some(3));
    }
}
