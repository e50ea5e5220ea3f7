//! Rows that the log does not have whole, and that the target cannot complete.
//!
//! An UPDATE leaves large values out that it did not change. Usually the target has them and gets a partial update. It has
//! not when the key has changed, when the same batch deletes the key, or when the copy of the table was made under several
//! snapshots (`snapshot::catch_up`). Such a row is only noted here, by its key, and its transaction is held back from the
//! checkpoint; between records the worker reads the row from the source (`worker::complete`) and puts it into the pipeline.
//!
//! The source has it as it is by then, which may be later than the log says. That converges: what has happened to the row
//! since is still to come, and a row that is not there any more is removed by a change that is still to come.

use hashbrown::{HashMap, HashSet};

use crate::encode::Stamp;

/// More keys than this are not kept: the table goes into error.
const MOST_KEYS: usize = 1_000_000;

/// Keys of rows that are to be read from the source.
#[derive(Debug, Default)]
pub(in super::super) struct Incomplete {
    /// Keys as they begin a line, by table, and the last commit that changed their rows.
    keys: HashMap<u32, HashMap<Box<[u8]>, Stamp>>,
    /// Whose changes these are. A commit is in the log before others see it; the rows can be read when they do.
    transactions: HashSet<u32>,
    count: usize,
    scratch: Vec<u8>,
}

/// A key as it begins a line, and the last commit that changed its row.
pub(in super::super) type IncompleteKey = (Box<[u8]>, Stamp);

/// Too many keys.
#[derive(Debug)]
pub(super) struct TooMany;

impl Incomplete {
    /// Whether nothing is noted.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the key that `write` appends is noted: a change that lacks values must not overtake the row that is to be read.
    #[inline]
    pub(super) fn has<E>(&mut self, relid: u32, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> bool {
        if self.count == 0 {
            return false;
        }
        let Some(keys) = self.keys.get(&relid) else { return false };
        self.scratch.clear();
        write(&mut self.scratch).is_ok() && keys.contains_key(self.scratch.as_slice())
    }

    /// Notes the key that `write` appends.
    pub(super) fn note<E>(
        &mut self,
        relid: u32,
        (transaction, stamp): (u32, Stamp),
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), TooMany>, E> {
        self.scratch.clear();
        write(&mut self.scratch)?;
        if self.count >= MOST_KEYS {
            return Ok(Err(TooMany));
        }
        self.transactions.insert(transaction);
        if self.keys.entry(relid).or_default().insert(self.scratch.as_slice().into(), stamp).is_none() {
            self.count += 1;
        }
        Ok(Ok(()))
    }

    /// The transactions that must be seen by others before the rows are read.
    pub(in super::super) fn transactions(&self) -> impl Iterator<Item = u32> + '_ {
        self.transactions.iter().copied()
    }

    /// Takes the keys of one table.
    pub(in super::super) fn take_table(&mut self) -> Option<(u32, Vec<IncompleteKey>)> {
        let relid = *self.keys.keys().next()?;
        let keys: Vec<_> = self.keys.remove(&relid)?.into_iter().collect();
        self.count -= keys.len();
        if self.keys.is_empty() {
            self.transactions.clear();
        }
        Some((relid, keys))
    }

    /// Puts keys back that could not be read yet.
    pub(in super::super) fn put_back(&mut self, relid: u32, keys: impl IntoIterator<Item = IncompleteKey>) {
        let table = self.keys.entry(relid).or_default();
        let before = table.len();
        table.extend(keys);
        self.count += table.len() - before;
        if table.is_empty() {
            self.keys.remove(&relid);
        }
    }
}
