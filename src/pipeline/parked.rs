//! Keys whose rows at the target are not those of the source, because the last one was refused (`on_reject = 'continue'`).
//!
//! The target has an older row of such a key, or none. So a change that does not carry the whole row must not be sent as it
//! is: the row is read from the source instead. A whole row that is taken in, or a delete, ends it.
//!
//! Known from `dbmazz.rejected_row` after a restart. Bounded: a table with more of them does not go on.

use hashbrown::HashMap;

use crate::encode::{Row, RowEncoder};
use crate::lsn::Lsn;

/// More keys of a table than this are not kept …
pub const MOST_KEYS: usize = 10_000;
/// … nor more bytes of them.
const MOST_BYTES: usize = 8 << 20;

/// The parked keys of one table, as they begin a line, each with the commit of the row that was refused.
#[derive(Debug, Default)]
pub struct Parked {
    keys: HashMap<Box<[u8]>, Lsn>,
    bytes: usize,
    scratch: Vec<u8>,
}

/// There are too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooManyParked;

impl Parked {
    /// Whether no key is parked.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.keys().map(|key| &**key)
    }

    /// Whether this key is parked.
    pub fn has(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    /// Parks a key. Says whether this was news: not when a later row of it has been refused already.
    ///
    /// # Errors
    ///
    /// [`TooManyParked`]; it is parked all the same.
    pub fn park(&mut self, key: &[u8], lsn: Lsn) -> Result<bool, TooManyParked> {
        match self.keys.get_mut(key) {
            Some(known) if *known > lsn => return Ok(false),
            Some(known) => *known = lsn,
            None => {
                self.bytes += key.len();
                self.keys.insert(key.into(), lsn);
            }
        }
        if self.keys.len() > MOST_KEYS || self.bytes > MOST_BYTES { Err(TooManyParked) } else { Ok(true) }
    }

    /// Whether the key of a row is parked.
    #[inline]
    pub fn holds(&mut self, encoder: &RowEncoder, row: &impl Row) -> bool {
        !self.keys.is_empty() && self.find(encoder, row)
    }

    /// The row at the target is that of the source again, or will be. Returns its key if it was parked.
    #[inline]
    pub fn release(&mut self, encoder: &RowEncoder, row: &impl Row) -> Option<Box<[u8]>> {
        if self.keys.is_empty() || !self.find(encoder, row) {
            return None;
        }
        let key = std::mem::take(&mut self.scratch);
        self.release_key(&key);
        Some(key.into_boxed_slice())
    }

    /// The same for a key.
    pub fn release_key(&mut self, key: &[u8]) -> bool {
        let was_parked = self.keys.remove(key).is_some();
        if was_parked {
            self.bytes -= key.len();
        }
        was_parked
    }

    /// The table is empty.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[cold]
    fn find(&mut self, encoder: &RowEncoder, row: &impl Row) -> bool {
        self.scratch.clear();
        encoder.key(row, &mut self.scratch).is_ok() && self.keys.contains_key(self.scratch.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_refusal_is_the_one_that_counts() {
        let mut parked = Parked::default();
        assert_eq!(parked.park(b"{\"id\":1", Lsn(20)), Ok(true));
        assert_eq!(parked.park(b"{\"id\":1", Lsn(10)), Ok(false));
        assert_eq!(parked.park(b"{\"id\":1", Lsn(30)), Ok(true));
        assert!(parked.release_key(b"{\"id\":1") && parked.is_empty());
        assert!(!parked.release_key(b"{\"id\":1"));
    }

    #[test]
    fn more_keys_than_are_kept_are_too_many() {
        let mut parked = Parked::default();
        for number in 0..MOST_KEYS {
            assert_eq!(parked.park(&number.to_be_bytes(), Lsn(1)), Ok(true));
        }
        assert_eq!(parked.park(b"one more", Lsn(1)), Err(TooManyParked));
        let mut parked = Parked::default();
        assert_eq!(parked.park(&vec![0; MOST_BYTES + 1], Lsn(1)), Err(TooManyParked));
    }
}
