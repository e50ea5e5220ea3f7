//! The columns that a mirror adds to those of the source: whether a row is deleted, and which commit it is as of.
//!
//! Their values are the same for all rows of one transaction and table, so they are set once and asked for with each row.

use super::{Row, Value};
use crate::lsn::Lsn;
use crate::table::{AddedColumn, TableSpec};

/// Which commit a row is as of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stamp {
    /// Its end; for a copied row the position of the snapshot.
    pub lsn: Lsn,
    /// When it was, in microseconds since 2000-01-01 UTC; nobody knows of a copied row.
    pub committed_at: Option<i64>,
}

/// The values of the added columns of one table.
#[derive(Clone, Debug)]
pub struct Added {
    values: [Value<'static>; AddedColumn::ALL.len()],
    /// Places in `values`; outside of it for a column that the table has not.
    lsn: usize,
    committed_at: usize,
}

/// The place of a column that the table has not.
const NOWHERE: usize = usize::MAX;

impl Added {
    /// Those of a table without such columns.
    pub const NONE: Self =
        Self { values: [Value::Null; AddedColumn::ALL.len()], lsn: NOWHERE, committed_at: NOWHERE };

    /// Those of rows that are there.
    pub fn live(spec: &TableSpec) -> Self {
        Self::of(spec, Value::Bool(false))
    }

    /// Those of rows that are there no longer.
    pub fn deleted(spec: &TableSpec) -> Self {
        Self::of(spec, Value::Bool(true))
    }

    fn of(spec: &TableSpec, deleted: Value<'static>) -> Self {
        let mut added = Self::NONE;
        let columns = spec.columns.iter().skip(spec.source_columns());
        for (place, (column, value)) in columns.zip(&mut added.values).enumerate() {
            match AddedColumn::of(column.source.attnum) {
                Some(AddedColumn::Deleted) => *value = deleted,
                Some(AddedColumn::Lsn) => added.lsn = place,
                Some(AddedColumn::CommittedAt) => added.committed_at = place,
                None => {}
            }
        }
        added
    }

    /// Whether the table has columns that say which commit a row is as of.
    pub const fn is_stamped(&self) -> bool {
        self.lsn != NOWHERE || self.committed_at != NOWHERE
    }

    /// Rows are as of this commit from now on.
    #[inline]
    pub fn stamp(&mut self, stamp: Stamp) {
        if let Some(value) = self.values.get_mut(self.lsn) {
            *value = Value::Int(stamp.lsn.0.cast_signed());
        }
        if let Some(value) = self.values.get_mut(self.committed_at) {
            *value = stamp.committed_at.map_or(Value::Null, Value::Timestamp);
        }
    }

    /// The value of one of the columns, counted from the first added one.
    #[inline]
    pub fn value(&self, place: usize) -> Value<'static> {
        self.values.get(place).copied().unwrap_or(Value::Null)
    }
}

/// A row of the source with the added columns behind its own.
#[derive(Clone, Copy, Debug)]
pub struct WithAdded<'a, R> {
    /// The row; never asked for added columns.
    pub row: &'a R,
    /// How many columns come before the added ones.
    pub source_columns: usize,
    /// What those have.
    pub added: &'a Added,
}

impl<R: Row> Row for WithAdded<'_, R> {
    #[inline]
    fn value(&self, column: usize) -> Value<'_> {
        match column.checked_sub(self.source_columns) {
            Some(place) => self.added.value(place),
            None => self.row.value(column),
        }
    }
}

/// Of a deleted row no more than its key and the added columns: all others stay at the target as they are.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a, R> {
    /// The deleted row, added columns included.
    pub row: &'a R,
    /// How many columns make the key.
    pub key_len: usize,
    /// How many columns come before the added ones.
    pub source_columns: usize,
}

impl<R: Row> Row for Mark<'_, R> {
    #[inline]
    fn value(&self, column: usize) -> Value<'_> {
        if column < self.key_len || column >= self.source_columns {
            self.row.value(column)
        } else {
            Value::Unchanged
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, Kind, SourceColumn, TargetTable};

    struct Plain;

    impl Row for Plain {
        fn value(&self, column: usize) -> Value<'_> {
            Value::Int(column as i64)
        }
    }

    fn spec(added: &[AddedColumn]) -> TableSpec {
        let own = (1..=2).map(|attnum| Column {
            source: SourceColumn { attnum, name: format!("c{attnum}"), type_oid: 20, typmod: -1 },
            name: format!("c{attnum}"),
            kind: Kind::Int,
            target_type: "BIGINT".to_owned(),
        });
        TableSpec {
            relid: 1,
            source_name: "public.t".to_owned(),
            target: TargetTable { database: "d".to_owned(), table: "t".to_owned() },
            columns: own.chain(added.iter().map(|added| added.column())).collect(),
            key_len: 1,
        }
    }

    fn values(row: &impl Row, columns: usize) -> Vec<Value<'_>> {
        (0..columns).map(|column| row.value(column)).collect()
    }

    const STAMP: Stamp = Stamp { lsn: Lsn(77), committed_at: Some(5) };

    #[test]
    fn added_columns_come_behind_those_of_the_source() {
        let spec = spec(&AddedColumn::ALL);
        let mut added = Added::live(&spec);
        added.stamp(STAMP);
        let row = WithAdded { row: &Plain, source_columns: spec.source_columns(), added: &added };
        let expected =
            [Value::Int(0), Value::Int(1), Value::Bool(false), Value::Int(77), Value::Timestamp(5)];
        assert_eq!(values(&row, 5), expected);
    }

    #[test]
    fn mark_carries_key_and_added_columns_alone() {
        let spec = spec(&AddedColumn::ALL);
        let mut added = Added::deleted(&spec);
        added.stamp(Stamp { committed_at: None, ..STAMP });
        let row = WithAdded { row: &Plain, source_columns: 2, added: &added };
        let mark = Mark { row: &row, key_len: spec.key_len, source_columns: 2 };
        let expected = [Value::Int(0), Value::Unchanged, Value::Bool(true), Value::Int(77), Value::Null];
        assert_eq!(values(&mark, 5), expected);
    }

    #[test]
    fn stamp_finds_its_columns_wherever_they_stand() {
        let only_time = spec(&[AddedColumn::CommittedAt]);
        let mut added = Added::live(&only_time);
        added.stamp(STAMP);
        assert_eq!((added.is_stamped(), added.value(0)), (true, Value::Timestamp(5)));
        let only_mark = Added::live(&spec(&[AddedColumn::Deleted]));
        assert_eq!((only_mark.is_stamped(), only_mark.value(0)), (false, Value::Bool(false)));
    }
}
