//! The columns of a row.

use super::error::ParseError;
use super::reader::Reader;

/// A row as it stands in a message; its columns are known to be whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tuple<'a> {
    columns: u16,
    bytes: &'a [u8],
}

/// A value of a column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TupleColumn<'a> {
    /// NULL.
    Null,
    /// A TOASTed value that did not change.
    Unchanged,
    /// What the output function printed.
    Text(&'a [u8]),
    /// What the send function sent; only where the option `binary` is on.
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Reads a tuple and checks its columns.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let columns = reader.count()?;
        let before = reader.left();
        for _ in 0..columns {
            column(reader)?;
        }
        let bytes = before.len() - reader.left().len();
        Ok(Self { columns, bytes: before.get(..bytes).unwrap_or_default() })
    }

    /// How many columns there are.
    pub const fn len(&self) -> usize {
        self.columns as usize
    }

    /// Whether there is none: a table may be empty-handed.
    pub const fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The columns in the order of the Relation message.
    pub const fn columns(&self) -> TupleColumns<'a> {
        TupleColumns { left: self.columns, reader: Reader::new(self.bytes) }
    }
}

/// The columns of a tuple, one after another.
#[derive(Clone, Debug)]
pub struct TupleColumns<'a> {
    left: u16,
    reader: Reader<'a>,
}

impl<'a> Iterator for TupleColumns<'a> {
    type Item = TupleColumn<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        column(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

#[inline(always)]
fn column<'a>(reader: &mut Reader<'a>) -> Result<TupleColumn<'a>, ParseError> {
    Ok(match reader.u8()? {
        b't' => TupleColumn::Text(reader.counted()?),
        b'n' => TupleColumn::Null,
        b'u' => TupleColumn::Unchanged,
        b'b' => TupleColumn::Binary(reader.counted()?),
        tag => return Err(ParseError::ColumnTag(tag)),
    })
}

/// Where the columns of a tuple lie, so that they can be asked for in any order. One is made once and filled for each
/// row.
#[derive(Clone, Debug, Default)]
pub struct TupleIndex {
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Null,
    Unchanged,
    Text { start: u32, end: u32 },
    Binary,
}

impl TupleIndex {
    /// Finds the columns of `tuple`. What was found before is forgotten.
    pub fn fill(&mut self, tuple: &Tuple<'_>) {
        self.places.clear();
        let mut columns = tuple.columns();
        while let Some(column) = columns.next() {
            let place = match column {
                TupleColumn::Null => Place::Null,
                TupleColumn::Unchanged => Place::Unchanged,
                TupleColumn::Binary(_) => Place::Binary,
                TupleColumn::Text(text) => {
                    // A message is shorter than 1 GiB: PostgreSQL makes it in one StringInfo.
                    let end = tuple.bytes.len() - columns.reader.left().len();
                    Place::Text { start: (end - text.len()) as u32, end: end as u32 }
                }
            };
            self.places.push(place);
        }
    }

    /// Column number `column` of `tuple`, which is the one that was filled in. `None` when it has no such column, or
    /// has it in binary form.
    #[inline]
    pub fn column<'a>(&self, tuple: &Tuple<'a>, column: usize) -> Option<TupleColumn<'a>> {
        Some(match *self.places.get(column)? {
            Place::Null => TupleColumn::Null,
            Place::Unchanged => TupleColumn::Unchanged,
            Place::Text { start, end } => TupleColumn::Text(tuple.bytes.get(start as usize..end as usize)?),
            Place::Binary => return None,
        })
    }
}
