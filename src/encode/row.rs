//! The encoder of one table.
//!
//! Everything that is the same for all rows is made once: per column the fragment of JSON that stands before its
//! value, and how many bytes a row without characters takes at most. A row then costs no allocation: one check for
//! room, and per column a copy of the fragment and the value's own digits.

use std::sync::atomic::{AtomicU64, Ordering};

use super::column_set::ColumnSet;
use super::earlier_row::EarlierRow;
use super::error::{EncodeError, Fault, Reason};
use super::fragment::Fragment;
use super::numeric::Decimals;
use super::range::{OutOfRange, replacement};
use super::value::{Row, Value};
use super::{datetime, float, hex, json, numeric};
use crate::table::TableSpec;

/// The longest line of a row: what one load may have at most (StarRocks refuses JSON bodies above 100 MiB).
pub const MAX_ROW_BYTES: usize = 90 << 20;

/// Where a row lies in the buffer that it was appended to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RowBytes {
    /// Where it begins.
    pub start: usize,
    /// Where its key ends: `buffer[start..key_end]` is the same for rows of the same key, and only for them.
    pub key_end: usize,
    /// Where it ends, behind the line break.
    pub end: usize,
}

/// Writes the rows of one table.
#[derive(Debug)]
pub struct RowEncoder {
    pub(super) fields: Vec<Field>,
    pub(super) key_len: usize,
    policy: OutOfRange,
    /// What a row takes at most, but for its characters.
    fixed_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Field {
    /// `,"name":`, or `{"name":` for the first one.
    pub(super) fragment: Fragment,
    /// The name at the target, for messages.
    pub(super) name: Box<str>,
    nulled: AtomicU64,
    clamped: AtomicU64,
}

/// How often values of a column were out of range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Adjusted<'a> {
    /// The column's name at the target.
    pub column: &'a str,
    /// Values that became NULL.
    pub nulled: u64,
    /// Values that became the nearest one that fits.
    pub clamped: u64,
}

/// No value but characters, bytes, numerics and documents is longer than this; those make room for themselves.
const MAX_FIXED_VALUE_BYTES: usize = 40;
const _: () = assert!(MAX_FIXED_VALUE_BYTES >= Fragment::SLACK);

const UPSERT: &[u8] = b",\"__op\":0}\n";
pub(super) const DELETE: &[u8] = b",\"__op\":1}\n";

/// A row was complete with its values as they were, or with some of them replaced.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Written {
    AsIs,
    Adjusted,
}

impl RowEncoder {
    /// An encoder for the rows of `spec`. `field_names` are the JSON keys of its columns, one each: the columns' names
    /// but where a load renames them (bytea).
    ///
    /// # Panics
    ///
    /// When there are not as many names as columns, or the key is empty or longer than the table.
    pub fn new(spec: &TableSpec, field_names: &[String], policy: OutOfRange) -> Self {
        assert_eq!(spec.columns.len(), field_names.len(), "one field name per column");
        assert!((1..=spec.columns.len()).contains(&spec.key_len), "the key is a part of the table");
        let fields: Vec<Field> = spec
            .columns
            .iter()
            .zip(field_names)
            .enumerate()
            .map(|(number, (column, name))| Field {
                fragment: Fragment::new(if number == 0 { b'{' } else { b',' }, name),
                name: column.name.as_str().into(),
                nulled: AtomicU64::new(0),
                clamped: AtomicU64::new(0),
            })
            .collect();
        let fixed_bytes = fields.iter().map(|field| field.fragment.len() + MAX_FIXED_VALUE_BYTES).sum();
        Self { fields, key_len: spec.key_len, policy, fixed_bytes }
    }

    /// How many columns the table has.
    pub fn columns(&self) -> usize {
        self.fields.len()
    }

    /// Appends the line that inserts or updates `row`, with the values of `columns`.
    ///
    /// # Errors
    ///
    /// The row cannot be sent; `out` is as long as before. [`Reason::Unchanged`] when a column of `columns` is
    /// [`Value::Unchanged`], which a column of the key always is an error for.
    pub fn encode_row(
        &self,
        row: &impl Row,
        columns: &ColumnSet,
        out: &mut Vec<u8>,
    ) -> Result<RowBytes, EncodeError> {
        self.upsert(row, columns, out).map_err(|fault| self.error(fault))
    }

    /// Appends the line that deletes the row with the key of `row`; nothing else of it is asked for.
    ///
    /// # Errors
    ///
    /// The key cannot be sent; `out` is as long as before.
    pub fn encode_delete(&self, row: &impl Row, out: &mut Vec<u8>) -> Result<RowBytes, EncodeError> {
        self.delete(row, out).map_err(|fault| self.error(fault))
    }

    /// How often values of each column were out of range since the last call, columns without such values left out.
    pub fn take_adjusted(&self) -> impl Iterator<Item = Adjusted<'_>> {
        self.fields.iter().filter_map(|field| {
            let nulled = field.nulled.swap(0, Ordering::Relaxed);
            let clamped = field.clamped.swap(0, Ordering::Relaxed);
            (nulled + clamped > 0).then_some(Adjusted { column: &field.name, nulled, clamped })
        })
    }

    /// The fault with the column's name.
    pub fn error(&self, fault: Fault) -> EncodeError {
        let of_row = matches!(fault.reason, Reason::RowTooLong | Reason::OutOfMemory);
        let field = self.fields.get(fault.column).filter(|_| !of_row);
        EncodeError { reason: fault.reason, column: field.map(|field| field.name.to_string()) }
    }

    /// [`Self::encode_row`] with the small error.
    pub(crate) fn upsert(
        &self,
        row: &impl Row,
        columns: &ColumnSet,
        out: &mut Vec<u8>,
    ) -> Result<RowBytes, Fault> {
        self.whole_or_nothing(out, |out| {
            let key_end = self.write_key(row, out)?;
            let written = self.write_values(row, columns, out)?;
            end(UPSERT, out)?;
            if written == Written::Adjusted {
                self.count_adjusted(row, columns);
            }
            Ok(key_end)
        })
    }

    /// Like [`Self::upsert`]; values that are unchanged are taken from `earlier`, the line of a row of the same key
    /// that carries `columns`.
    pub(crate) fn upsert_over(
        &self,
        earlier: &[u8],
        row: &impl Row,
        columns: &ColumnSet,
        out: &mut Vec<u8>,
    ) -> Result<RowBytes, Fault> {
        self.whole_or_nothing(out, |out| {
            let mut earlier = EarlierRow::new(earlier);
            let key_end = self.write_key(row, out)?;
            let mut written = Written::AsIs;
            for (column, field) in
                self.fields.iter().enumerate().filter(|(column, _)| columns.contains(*column))
            {
                let fault = |reason| Fault { reason, column };
                let before = earlier.next(field.fragment.len()).ok_or(fault(Reason::Malformed))?;
                if column < self.key_len {
                    continue;
                }
                let value = row.value(column);
                field.begin(out).map_err(fault)?;
                if value == Value::Unchanged {
                    json::reserve(out, before.len()).map_err(fault)?;
                    out.extend_from_slice(before);
                } else if self.write_value(value, out).map_err(fault)? == Written::Adjusted {
                    written = Written::Adjusted;
                }
            }
            end(UPSERT, out)?;
            if written == Written::Adjusted {
                self.count_adjusted(row, columns);
            }
            Ok(key_end)
        })
    }

    /// [`Self::encode_delete`] with the small error.
    pub(crate) fn delete(&self, row: &impl Row, out: &mut Vec<u8>) -> Result<RowBytes, Fault> {
        self.whole_or_nothing(out, |out| {
            let key_end = self.write_key(row, out)?;
            end(DELETE, out)?;
            Ok(key_end)
        })
    }

    /// Appends the key of `row` alone, as it begins its line.
    pub(crate) fn key(&self, row: &impl Row, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.whole_or_nothing(out, |out| self.write_key(row, out)).map(|_| ())
    }

    /// Makes room, and undoes what a refused row has written so far.
    fn whole_or_nothing(
        &self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<usize, Fault>,
    ) -> Result<RowBytes, Fault> {
        let start = out.len();
        let of_row = |reason| Fault { reason, column: 0 };
        json::reserve(out, self.fixed_bytes).map_err(of_row)?;
        let written = write(out).and_then(|key_end| {
            let end = out.len();
            let fits = end - start <= MAX_ROW_BYTES;
            if fits { Ok(RowBytes { start, key_end, end }) } else { Err(of_row(Reason::RowTooLong)) }
        });
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write_key(&self, row: &impl Row, out: &mut Vec<u8>) -> Result<usize, Fault> {
        for (column, field) in self.fields.iter().enumerate().take(self.key_len) {
            let fault = |reason| Fault { reason, column };
            field.begin(out).map_err(fault)?;
            write_key_value(row.value(column), out).map_err(fault)?;
        }
        Ok(out.len())
    }

    fn write_values(&self, row: &impl Row, columns: &ColumnSet, out: &mut Vec<u8>) -> Result<Written, Fault> {
        let mut written = Written::AsIs;
        for (column, field) in self.fields.iter().enumerate().skip(self.key_len) {
            if !columns.contains(column) {
                continue;
            }
            let fault = |reason| Fault { reason, column };
            field.begin(out).map_err(fault)?;
            if self.write_value(row.value(column), out).map_err(fault)? == Written::Adjusted {
                written = Written::Adjusted;
            }
        }
        Ok(written)
    }

    #[inline]
    fn write_value(&self, value: Value<'_>, out: &mut Vec<u8>) -> Result<Written, Reason> {
        match write_value(value, out) {
            Ok(()) => Ok(Written::AsIs),
            Err(Reason::OutOfRange) => {
                write_value(replacement(value, self.policy)?, out)?;
                Ok(Written::Adjusted)
            }
            Err(reason) => Err(reason),
        }
    }

    /// Counts the values of a written row that were out of range. They are found by writing them once more: this is
    /// rare, and counting while the row is written would count rows that are refused for another column.
    #[cold]
    fn count_adjusted(&self, row: &impl Row, columns: &ColumnSet) {
        let mut scratch = Vec::new();
        for (column, field) in self.fields.iter().enumerate().skip(self.key_len) {
            let value = row.value(column);
            if !columns.contains(column) || value == Value::Unchanged {
                continue;
            }
            scratch.clear();
            if write_value(value, &mut scratch) != Err(Reason::OutOfRange) {
                continue;
            }
            let counter = match replacement(value, self.policy) {
                Ok(Value::Null) => &field.nulled,
                _ => &field.clamped,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Field {
    /// Appends the fragment, and makes room for a value of fixed length.
    #[inline]
    fn begin(&self, out: &mut Vec<u8>) -> Result<(), Reason> {
        json::reserve(out, self.fragment.len() + MAX_FIXED_VALUE_BYTES)?;
        self.fragment.append(out);
        Ok(())
    }
}

/// Closes a line.
#[inline]
fn end(operation: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    json::reserve(out, operation.len()).map_err(|reason| Fault { reason, column: 0 })?;
    out.extend_from_slice(operation);
    Ok(())
}

/// Appends a value, or nothing and the reason. Values of a fixed length find room.
#[inline]
pub(super) fn write_value(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Unchanged => return Err(Reason::Unchanged),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Float4(number) => return float::write(number, out),
        Value::Float8(number) => return float::write(number, out),
        Value::Date(days) => return datetime::write_date(days, out),
        Value::Timestamp(micros) => return datetime::write_timestamp(micros, out),
        Value::Time(micros) => return datetime::write_time(micros, out),
        Value::Numeric(stored) => return numeric::write_stored(stored, Decimals::Shown, out),
        Value::NumericText(text) => return numeric::write_text(text, Decimals::Shown, out),
        Value::Uuid(uuid) => hex::write_uuid(&uuid, out),
        Value::Bytes(bytes) => return hex::write_bytes(bytes, out),
        Value::HexBytes(digits) => return hex::write_digits(digits, out),
        Value::Json(document) => return json::write_document(document, out),
        Value::Text(text) => return json::write_string(text, out),
        Value::NotUtf8 => return Err(Reason::InvalidUtf8),
        Value::Malformed => return Err(Reason::Malformed),
    }
    Ok(())
}

/// Appends a value of the key: never NULL, and equal values are equal bytes.
#[inline]
fn write_key_value(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match value {
        Value::Null => return Err(Reason::NullKey),
        Value::Numeric(stored) => numeric::write_stored(stored, Decimals::Shortest, out)?,
        Value::NumericText(text) => numeric::write_text(text, Decimals::Shortest, out)?,
        // Minus zero is equal to zero, and adding zero makes it so.
        Value::Float4(number) => float::write(number + 0.0, out)?,
        Value::Float8(number) => float::write(number + 0.0, out)?,
        value => write_value(value, out)?,
    }
    Ok(())
}
