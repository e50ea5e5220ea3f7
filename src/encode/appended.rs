//! A row of a table without a key, with the key that it has at the target alone.

use super::{Row, Value};

/// Puts the two columns of [`crate::table::APPENDED_KEY`] before the values of a row that was made for the same table.
///
/// Both are the same whenever the row comes again, from the log or from a copy under the same snapshot, so it takes its own
/// place then.
#[derive(Clone, Copy, Debug)]
pub struct Appended<'a, R> {
    /// The row; its own first two columns are never asked for.
    pub row: &'a R,
    /// End of its commit; for a copied row the relation's number, negated.
    pub lsn: i64,
    /// Its number within the commit; for a copied row where it lay.
    pub seq: i64,
}

impl<R: Row> Row for Appended<'_, R> {
    #[inline]
    fn value(&self, column: usize) -> Value<'_> {
        match column {
            0 => Value::Int(self.lsn),
            1 => Value::Int(self.seq),
            _ => self.row.value(column),
        }
    }
}
