//! A tuple as a row of a mirrored table.

use super::relation::ColumnMap;
use super::tuple::{Tuple, TupleColumn, TupleIndex};
use crate::encode::{Row, Value};

/// A [`Row`] over a tuple of pgoutput: columns are found through the [`ColumnMap`], values read from their text.
///
/// A column that the source does not have (its attribute number is not positive) is [`Value::Malformed`] here; who adds
/// such columns wraps this row.
#[derive(Clone, Copy, Debug)]
pub struct PgoutputRow<'a> {
    map: &'a ColumnMap,
    new: (Tuple<'a>, &'a TupleIndex),
    old: Option<(Tuple<'a>, &'a TupleIndex)>,
}

impl<'a> PgoutputRow<'a> {
    /// The row of `tuple`, of which `index` was filled.
    pub const fn new(map: &'a ColumnMap, tuple: Tuple<'a>, index: &'a TupleIndex) -> Self {
        Self { map, new: (tuple, index), old: None }
    }

    /// The same row, with unchanged values from the whole row before the update (replica identity FULL), of which
    /// `index` was filled.
    pub const fn or_from(self, old: Tuple<'a>, index: &'a TupleIndex) -> Self {
        Self { old: Some((old, index)), ..self }
    }
}

impl Row for PgoutputRow<'_> {
    #[inline]
    fn value(&self, column: usize) -> Value<'_> {
        let Some((place, kind)) = self.map.get(column) else { return Value::Malformed };
        let (tuple, index) = &self.new;
        let mut found = index.column(tuple, place);
        if let (Some(TupleColumn::Unchanged), Some((tuple, index))) = (found, &self.old) {
            found = index.column(tuple, place);
        }
        match found {
            Some(TupleColumn::Null) => Value::Null,
            Some(TupleColumn::Unchanged) => Value::Unchanged,
            Some(TupleColumn::Text(text)) => Value::read_text(kind, text),
            Some(TupleColumn::Binary(_)) | None => Value::Malformed,
        }
    }
}
