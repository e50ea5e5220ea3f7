//! Values that PostgreSQL has and StarRocks has not.
//!
//! The option `on_out_of_range` decides. Clamping takes the nearest value that fits; where there is none (NaN, an
//! infinite numeric, a JSON document that is too long) it is NULL.

use super::datetime::{DATES, TIMESTAMPS};
use super::error::Reason;
use super::value::Value;
use crate::table::MAX_TEXT_BYTES;

/// The longest JSON value of StarRocks, in bytes.
pub const MAX_JSON_BYTES: usize = 16 << 20;

/// What becomes of a value that StarRocks cannot hold. Keys are always an error.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OutOfRange {
    /// The row is refused.
    #[default]
    Error,
    /// NULL is sent, and counted.
    Null,
    /// The nearest value that fits is sent, and counted.
    Clamp,
}

/// What is sent in place of `value`, which is out of range.
pub(super) fn replacement(value: Value<'_>, policy: OutOfRange) -> Result<Value<'_>, Reason> {
    match policy {
        OutOfRange::Error => Err(Reason::OutOfRange),
        OutOfRange::Null => Ok(Value::Null),
        OutOfRange::Clamp => Ok(nearest(value)),
    }
}

fn nearest(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Float4(float) if !float.is_nan() => Value::Float4(float.clamp(f32::MIN, f32::MAX)),
        Value::Float8(float) if !float.is_nan() => Value::Float8(float.clamp(f64::MIN, f64::MAX)),
        Value::Date(days) => Value::Date(days.clamp(*DATES.start(), *DATES.end())),
        Value::Timestamp(micros) => Value::Timestamp(micros.clamp(*TIMESTAMPS.start(), *TIMESTAMPS.end())),
        Value::Text(text) => Value::Text(up_to_boundary(text, MAX_TEXT_BYTES)),
        Value::Bytes(bytes) => Value::Bytes(bytes.get(..MAX_TEXT_BYTES).unwrap_or(bytes)),
        Value::HexBytes(digits) => Value::HexBytes(digits.get(..2 * MAX_TEXT_BYTES).unwrap_or(digits)),
        _ => Value::Null,
    }
}

/// At most `limit` bytes of `text`, cut where a character ends.
fn up_to_boundary(text: &[u8], limit: usize) -> &[u8] {
    let Some((mut head, tail)) = text.split_at_checked(limit) else { return text };
    if tail.first().is_some_and(|&byte| is_continuation(byte)) {
        while let Some((&last, rest)) = head.split_last() {
            head = rest;
            if !is_continuation(last) {
                break;
            }
        }
    }
    head
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(up_to_boundary("aé".as_bytes(), 2), b"a");
        assert_eq!(up_to_boundary("aé".as_bytes(), 3), "aé".as_bytes());
        assert_eq!(up_to_boundary("a😀b".as_bytes(), 4), b"a");
        assert_eq!(up_to_boundary("a😀b".as_bytes(), 5), "a😀".as_bytes());
        assert_eq!(up_to_boundary(b"abc", 2), b"ab");
    }

    #[test]
    fn what_has_no_nearest_value_becomes_null() {
        assert_eq!(nearest(Value::Float8(f64::NAN)), Value::Null);
        assert_eq!(nearest(Value::NumericText(b"Infinity")), Value::Null);
        assert_eq!(nearest(Value::Float8(f64::NEG_INFINITY)), Value::Float8(f64::MIN));
    }
}
