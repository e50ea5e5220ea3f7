//! Which columns of a table a row carries.
//!
//! Nearly every row carries all of them, so that case is free: no allocation, no bit is looked at.

use super::value::{Row, Value};

/// A set of columns, counted from zero in the order of the [`crate::table::TableSpec`].
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ColumnSet {
    /// One bit per column; `None` is the set of all columns.
    words: Option<Box<[u64]>>,
}

impl ColumnSet {
    /// All columns of the table.
    pub const ALL: Self = Self { words: None };

    /// The columns of `row` that are not [`Value::Unchanged`], of a table with `columns` columns.
    pub fn carried_by(row: &impl Row, columns: usize) -> Self {
        let Some(first) = (0..columns).find(|&column| row.value(column) == Value::Unchanged) else {
            return Self::ALL;
        };
        let mut words = vec![0_u64; columns.div_ceil(64)];
        let is_carried = |column: &usize| *column < first || row.value(*column) != Value::Unchanged;
        for column in (0..columns).filter(is_carried) {
            if let Some(word) = words.get_mut(column / 64) {
                *word |= 1 << (column % 64);
            }
        }
        Self { words: Some(words.into_boxed_slice()) }
    }

    /// Whether no column is missing.
    pub const fn is_all(&self) -> bool {
        self.words.is_none()
    }

    /// Whether `column` is in the set.
    pub fn contains(&self, column: usize) -> bool {
        match &self.words {
            None => true,
            Some(words) => words.get(column / 64).is_some_and(|word| word >> (column % 64) & 1 == 1),
        }
    }

    /// Whether every column of this set is in `other` too. Both are sets of the same table.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        match (&self.words, &other.words) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(theirs)) => mine.iter().zip(theirs).all(|(mine, theirs)| mine & !theirs == 0),
        }
    }

    /// The columns of the set, ascending, of a table with `columns` columns.
    pub fn iter(&self, columns: usize) -> impl Iterator<Item = usize> {
        (0..columns).filter(|&column| self.contains(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Missing(Vec<usize>);

    impl Row for Missing {
        fn value(&self, column: usize) -> Value<'_> {
            if self.0.contains(&column) { Value::Unchanged } else { Value::Null }
        }
    }

    #[test]
    fn row_without_unchanged_values_carries_all() {
        assert!(ColumnSet::carried_by(&Missing(vec![]), 1600).is_all());
    }

    #[test]
    fn unchanged_columns_are_left_out_wherever_they_stand() {
        let set = ColumnSet::carried_by(&Missing(vec![1, 63, 64, 1599]), 1600);
        let left_out: Vec<usize> = (0..1600).filter(|&column| !set.contains(column)).collect();
        assert_eq!(left_out, [1, 63, 64, 1599]);
        assert_eq!(set.iter(1600).count(), 1596);
    }

    #[test]
    fn subset_is_by_columns() {
        let small = ColumnSet::carried_by(&Missing(vec![1, 70]), 100);
        let large = ColumnSet::carried_by(&Missing(vec![70]), 100);
        assert!(small.is_subset_of(&large) && !large.is_subset_of(&small));
        assert!(small.is_subset_of(&ColumnSet::ALL) && !ColumnSet::ALL.is_subset_of(&large));
    }
}
