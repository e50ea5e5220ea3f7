//! What is queued of a key whose row was refused.
//!
//! A load is refused while later changes of its table are queued. A later whole row or delete of the key takes the place of
//! the one that was refused, as if both had been in one load. A later row without all of its values (unchanged TOAST) was
//! meant to go on top of the refused one: it is taken out, for the row to be read from the source.

use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashMap};

use super::batch::{Batch, Operation};
use super::table::Sealed;
use crate::lsn::Lsn;

/// What comes after a row that was refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Later {
    /// Nothing.
    #[default]
    Nothing,
    /// Rows that lacked values were taken out. Their commits are later than this position.
    Lacking(Lsn),
    /// Another row takes its place, or it is deleted.
    Replaced,
}

impl Later {
    fn lacks(&mut self, floor: Lsn) {
        *self = match *self {
            Self::Nothing => Self::Lacking(floor),
            Self::Lacking(other) => Self::Lacking(other.min(floor)),
            Self::Replaced => Self::Replaced,
        };
    }
}

/// By key.
pub(super) type Keys<'a> = HashMap<&'a [u8], Later>;

/// Looks through a sealed batch.
pub(super) fn look_through(sealed: &mut Sealed, keys: &mut Keys<'_>) {
    let mut dead: Vec<Range<usize>> = Vec::new();
    for range in &sealed.live {
        let mut start = range.start;
        let lines = sealed.buffer.get(range.clone()).unwrap_or_default();
        for at in memchr::memchr_iter(b'\n', lines) {
            let line = start..range.start + at + 1;
            start = line.end;
            let text = sealed.buffer.get(line.clone()).unwrap_or_default();
            let Some(later) = sealed.encoder.key_of(text).and_then(|key| keys.get_mut(key)) else { continue };
            if *later == Later::Replaced {
            } else if sealed.shape.partial && !crate::encode::RowEncoder::is_delete(text) {
                later.lacks(sealed.floor);
                dead.push(line);
            } else {
                *later = Later::Replaced;
            }
        }
    }
    sealed.rows -= dead.len() as u64;
    for line in dead {
        take_out(&mut sealed.live, line);
    }
}

/// Looks through an open batch.
pub(super) fn look_through_open(batch: &mut Batch, keys: &mut Keys<'_>, hasher: &DefaultHashBuilder) {
    for (key, later) in keys.iter_mut().filter(|(_, later)| **later != Later::Replaced) {
        match batch.find(key, hasher) {
            None => {}
            Some((_, Operation::Upsert)) if !batch.columns.is_all() => {
                batch.kill(key, hasher);
                later.lacks(batch.floor);
            }
            Some(_) => *later = Later::Replaced,
        }
    }
}

/// Cuts a line out of the range that has it.
fn take_out(live: &mut Vec<Range<usize>>, line: Range<usize>) {
    let Some(at) = live.iter().position(|range| range.start <= line.start && line.end <= range.end) else {
        return;
    };
    let range = live.remove(at);
    let parts = [range.start..line.start, line.end..range.end];
    live.splice(at..at, parts.into_iter().filter(|part| !part.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_cut_out_wherever_it_is() {
        for (line, left) in [
            (0..5, vec![5..20, 30..40]),
            (5..10, vec![0..5, 10..20, 30..40]),
            (30..40, std::iter::once(0..20).collect()),
        ] {
            let mut live = vec![0..20, 30..40];
            take_out(&mut live, line);
            assert_eq!(live, left);
        }
    }
}
