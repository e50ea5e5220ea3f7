//! The numbers under which loads are known.
//!
//! A number is used once, for one load, and never for other rows. Numbers are reserved in blocks: the caller commits "up
//! to N may be in use" before the first of them is taken, so after a crash every label that can be in flight is known.

use std::sync::Arc;

use crate::sink::Label;

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

#[cfg(test)]
mod tests {
    use super::*;

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
