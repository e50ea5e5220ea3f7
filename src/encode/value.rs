//! One value of a row, borrowed from wherever it lies.
//!
//! Three sources meet here: the tuple of a decoded change, the slot of a snapshot scan, and the text of pgoutput.
//! Whatever brought it, the same value becomes the same bytes.

/// A value of a column, in PostgreSQL's own terms. It lives as long as the tuple or message that it was read from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// A TOASTed value that an UPDATE did not touch: the log does not have it.
    Unchanged,
    /// boolean.
    Bool(bool),
    /// smallint, integer, bigint, oid.
    Int(i64),
    /// real.
    Float4(f32),
    /// double precision.
    Float8(f64),
    /// date: days since 2000-01-01; `i32::MIN` and `i32::MAX` are minus and plus infinity.
    Date(i32),
    /// timestamp, or timestamptz in UTC: microseconds since 2000-01-01; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// time: microseconds since midnight, which is also the end of the day.
    Time(i64),
    /// numeric as PostgreSQL stores it, without the varlena header (`numeric.c`, `NumericChoice`).
    Numeric(&'a [u8]),
    /// numeric as PostgreSQL prints it.
    NumericText(&'a [u8]),
    /// uuid, by value: its text form has no sixteen bytes to borrow.
    Uuid([u8; 16]),
    /// bytea.
    Bytes(&'a [u8]),
    /// bytea as hexadecimal digits, without `\x`.
    HexBytes(&'a [u8]),
    /// json or jsonb, as text.
    Json(&'a [u8]),
    /// Characters: text types, and what the output function of any other type prints. Meant to be UTF-8, not yet
    /// checked.
    Text(&'a [u8]),
    /// Characters that cannot be told in UTF-8; the encoder refuses them.
    NotUtf8,
    /// A text that is no value of its column's type. No source of PostgreSQL's makes one; the encoder refuses it.
    Malformed,
}

/// A row whose values can be asked for, one at a time and in any order.
///
/// `column` counts the columns of the [`crate::table::TableSpec`] that the row is encoded for, from zero.
pub trait Row {
    /// The value of one column.
    fn value(&self, column: usize) -> Value<'_>;
}
