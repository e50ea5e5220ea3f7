//! From a JSON value to the value of a column, by the rules of a JSON load.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::decimal::Decimal;
use crate::ndjson::{self, Shape};
use crate::temporal;
use crate::typing::ColumnType;

/// The longest JSON value, in bytes.
const MAX_JSON_BYTES: usize = 16 << 20;

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Int(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(Vec<u8>),
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Int(value) => ValueRef::Integer(*value),
            // SQLite would make NULL of it.
            Cell::Real(value) if value.is_nan() => ValueRef::Text(b"nan"),
            Cell::Real(value) => ValueRef::Real(*value),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Why a value does not go into its column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Misfit {
    /// Not a value of the type, or beyond its range. NULL outside of strict mode.
    OutOfRange,
    /// Longer than the column. Always refused.
    TooLong,
}

/// How the text of a binary column is decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BinaryFormat {
    Hex,
    Base64,
    Utf8,
}

/// A JSON value: its shape, and its text (of a string, what is between the quotes).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) shape: Shape,
    pub(crate) text: &'a str,
}

impl<'a> Raw<'a> {
    /// The characters of a string.
    fn string(&self) -> Cow<'a, str> {
        if self.shape != Shape::Escaped {
            return Cow::Borrowed(self.text);
        }
        let mut out = String::with_capacity(self.text.len());
        ndjson::unescape(self.text, &mut out);
        Cow::Owned(out)
    }

    fn is_string(&self) -> bool {
        matches!(self.shape, Shape::Plain | Shape::Escaped)
    }

    fn is_number(&self) -> bool {
        self.shape == Shape::Number
    }
}

/// Converts a value for a column; JSON `null` is NULL for every type.
pub(crate) fn convert<'a>(ty: &ColumnType, raw: Raw<'a>) -> Result<Cell<'a>, Misfit> {
    if raw.shape == Shape::Null {
        return Ok(Cell::Null);
    }
    if let Some((least, most)) = ty.integer_range() {
        let value = integer(raw)?;
        return if (least..=most).contains(&value) { Ok(Cell::Int(value)) } else { Err(Misfit::OutOfRange) };
    }
    match ty {
        ColumnType::Boolean => boolean(raw),
        ColumnType::LargeInt => large_integer(raw),
        ColumnType::Float => float(raw),
        ColumnType::Double => Ok(Cell::Real(double(raw)?)),
        ColumnType::Decimal { precision, scale } => decimal(raw, *precision as usize, *scale as usize),
        ColumnType::Date => Ok(Cell::Text(date_time(raw)?.date_text().into())),
        ColumnType::DateTime => Ok(Cell::Text(date_time(raw)?.text().into())),
        ColumnType::Char(length) | ColumnType::Varchar(length) => text(raw, *length as usize),
        ColumnType::VarBinary(length) => binary(raw, BinaryFormat::Utf8, *length as usize),
        ColumnType::Json => json(raw),
        ColumnType::Nested(_) if matches!(raw.shape, Shape::Array | Shape::Object) => json(raw),
        _ => Err(Misfit::OutOfRange),
    }
}

/// Decodes the value of a `to_binary(x, format)` expression for a column of `length` bytes.
pub(crate) fn binary<'a>(raw: Raw<'a>, format: BinaryFormat, length: usize) -> Result<Cell<'a>, Misfit> {
    if raw.shape == Shape::Null {
        return Ok(Cell::Null);
    }
    if !raw.is_string() {
        return Err(Misfit::OutOfRange);
    }
    let text = raw.string();
    let bytes = match format {
        BinaryFormat::Utf8 => text.into_owned().into_bytes(),
        BinaryFormat::Base64 => STANDARD.decode(text.as_bytes()).map_err(|_| Misfit::OutOfRange)?,
        BinaryFormat::Hex => from_hex(&text).ok_or(Misfit::OutOfRange)?,
    };
    if bytes.len() > length { Err(Misfit::TooLong) } else { Ok(Cell::Blob(bytes)) }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn integer(raw: Raw<'_>) -> Result<i64, Misfit> {
    if !raw.is_number() && !raw.is_string() {
        return Err(Misfit::OutOfRange);
    }
    let text = raw.string();
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    // Fractions and exponents go through a double and lose their fraction; whole numbers beyond 64 bits are out of range.
    let text = text.trim_matches(' ');
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    let is_whole = text.trim_start_matches(['-', '+']).bytes().all(|byte| byte.is_ascii_digit());
    let value = number(text).ok_or(Misfit::OutOfRange)?.trunc();
    #[expect(clippy::cast_precision_loss, reason = "the bounds of the type, as a double")]
    let in_range = value >= i64::MIN as f64 && value < i64::MAX as f64;
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    if in_range && !is_whole { Ok(value as i64) } else { Err(Misfit::OutOfRange) }
}

/// A finite number; Rust would also read `inf` and `nan`.
fn number(text: &str) -> Option<f64> {
    let is_numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|value: &f64| is_numeric && value.is_finite())
}

fn boolean(raw: Raw<'_>) -> Result<Cell<'static>, Misfit> {
    let text = raw.string();
    let value = match raw.shape {
        Shape::True => true,
        Shape::False => false,
        Shape::Number => number(&text).ok_or(Misfit::OutOfRange)? != 0.0,
        Shape::Plain | Shape::Escaped if text.eq_ignore_ascii_case("true") => true,
        Shape::Plain | Shape::Escaped if text.eq_ignore_ascii_case("false") => false,
        Shape::Plain | Shape::Escaped => number(&text).ok_or(Misfit::OutOfRange)? != 0.0,
        _ => return Err(Misfit::OutOfRange),
    };
    Ok(Cell::Int(value.into()))
}

fn large_integer(raw: Raw<'_>) -> Result<Cell<'static>, Misfit> {
    if !raw.is_number() && !raw.is_string() {
        return Err(Misfit::OutOfRange);
    }
    let parsed = Decimal::parse(&raw.string()).ok_or(Misfit::OutOfRange)?;
    let value = parsed.to_scaled(0).ok_or(Misfit::OutOfRange)?;
    Ok(Cell::Text(value.to_string().into()))
}

fn double(raw: Raw<'_>) -> Result<f64, Misfit> {
    if !raw.is_number() && !raw.is_string() {
        return Err(Misfit::OutOfRange);
    }
    let text = raw.string();
    let text = text.trim_matches(' ');
    if let Some(value) = number(text) {
        return Ok(value);
    }
    let unsigned = text.trim_start_matches(['-', '+']).to_ascii_lowercase();
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match unsigned.as_str() {
        name if raw.is_string() && name.starts_with("inf") => Ok(sign * f64::INFINITY),
        name if raw.is_string() && name.starts_with("nan") => Ok(f64::NAN),
        _ => Err(Misfit::OutOfRange),
    }
}

fn float(raw: Raw<'_>) -> Result<Cell<'static>, Misfit> {
    let value = double(raw)?;
    #[expect(clippy::cast_possible_truncation, reason = "a FLOAT is the nearest 32-bit value")]
    let narrow = value as f32;
    if narrow.is_infinite() && value.is_finite() {
        return Err(Misfit::OutOfRange);
    }
    Ok(Cell::Real(narrow.into()))
}

fn decimal(raw: Raw<'_>, precision: usize, scale: usize) -> Result<Cell<'static>, Misfit> {
    if !raw.is_number() && !raw.is_string() {
        return Err(Misfit::OutOfRange);
    }
    let value = Decimal::parse(&raw.string()).ok_or(Misfit::OutOfRange)?.rounded(scale);
    if !value.fits(precision, scale) {
        return Err(Misfit::OutOfRange);
    }
    Ok(Cell::Text(value.to_string().into()))
}

fn date_time(raw: Raw<'_>) -> Result<temporal::DateTime, Misfit> {
    if !raw.is_string() {
        return Err(Misfit::OutOfRange);
    }
    temporal::parse(&raw.string()).ok_or(Misfit::OutOfRange)
}

fn text(raw: Raw<'_>, length: usize) -> Result<Cell<'_>, Misfit> {
    let text = match raw.shape {
        Shape::True => Cow::Borrowed("1"),
        Shape::False => Cow::Borrowed("0"),
        Shape::Object | Shape::Array => compact_json(raw.text).ok_or(Misfit::OutOfRange)?.into(),
        _ => raw.string(),
    };
    if text.len() > length { Err(Misfit::TooLong) } else { Ok(Cell::Text(text)) }
}

fn json(raw: Raw<'_>) -> Result<Cell<'_>, Misfit> {
    let document =
        if raw.is_string() { Cow::Owned(format!("\"{}\"", raw.text)) } else { Cow::Borrowed(raw.text) };
    let compact = compact_json(&document).ok_or(Misfit::OutOfRange)?;
    if compact.len() > MAX_JSON_BYTES { Err(Misfit::TooLong) } else { Ok(Cell::Text(compact.into())) }
}

/// JSON without spaces, keys in order, numbers beyond 64 bits as doubles: what a JSON column gives back.
pub(crate) fn compact_json(text: &str) -> Option<String> {
    serde_json::from_str::<serde_json::Value>(text).ok().map(|value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ty: ColumnType, json: &str) -> Result<Cell<'static>, Misfit> {
        let document = format!("{{\"v\":{json}}}");
        let mut fields = Vec::new();
        ndjson::scan_object(document.as_bytes(), 0, &mut fields).unwrap();
        let raw = Raw { shape: fields[0].shape, text: &document[fields[0].value.clone()] };
        convert(&ty, raw).map(|cell| match cell {
            Cell::Text(text) => Cell::Text(text.into_owned().into()),
            Cell::Null => Cell::Null,
            Cell::Int(value) => Cell::Int(value),
            Cell::Real(value) => Cell::Real(value),
            Cell::Blob(bytes) => Cell::Blob(bytes),
        })
    }

    fn text(ty: ColumnType, json: &str) -> String {
        match value(ty, json) {
            Ok(Cell::Text(text)) => text.into_owned(),
            other => format!("{other:?}"),
        }
    }

    const OUT: Result<Cell<'static>, Misfit> = Err(Misfit::OutOfRange);

    #[test]
    fn integers_are_checked_against_their_type() {
        assert_eq!(value(ColumnType::TinyInt, "127"), Ok(Cell::Int(127)));
        assert_eq!(value(ColumnType::TinyInt, "128"), OUT);
        assert_eq!(value(ColumnType::SmallInt, "\"-32768\""), Ok(Cell::Int(-32768)));
        assert_eq!(value(ColumnType::BigInt, "9223372036854775807"), Ok(Cell::Int(i64::MAX)));
        assert_eq!(value(ColumnType::BigInt, "9223372036854775808"), OUT);
        assert_eq!(value(ColumnType::Int, "1.9"), Ok(Cell::Int(1)));
        assert_eq!(value(ColumnType::Int, "\"x\""), OUT);
        assert_eq!(value(ColumnType::Int, "true"), OUT);
        assert_eq!(value(ColumnType::Int, "null"), Ok(Cell::Null));
    }

    #[test]
    fn large_integers_keep_all_their_digits() {
        let most = i128::MAX.to_string();
        assert_eq!(text(ColumnType::LargeInt, &most), most);
        assert_eq!(text(ColumnType::LargeInt, &format!("\"-{most}\"")), format!("-{most}"));
        assert_eq!(value(ColumnType::LargeInt, "170141183460469231731687303715884105728"), OUT);
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let ty = || ColumnType::Decimal { precision: 10, scale: 2 };
        assert_eq!(text(ty(), "\"12345678.905\""), "12345678.91");
        assert_eq!(text(ty(), "0.1"), "0.10");
        assert_eq!(value(ty(), "\"123456789.00\""), OUT);
        assert_eq!(value(ty(), "\"NaN\""), OUT);
    }

    #[test]
    fn strings_are_measured_in_bytes() {
        assert_eq!(text(ColumnType::Varchar(2), "\"é\""), "é");
        assert_eq!(value(ColumnType::Varchar(1), "\"é\""), Err(Misfit::TooLong));
        assert_eq!(text(ColumnType::Varchar(9), "12.50"), "12.50");
        assert_eq!(text(ColumnType::Varchar(9), "true"), "1");
        assert_eq!(text(ColumnType::Varchar(9), "[1, 2]"), "[1,2]");
        assert_eq!(text(ColumnType::Varchar(9), r#""a\n\u00e9""#), "a\né");
    }

    #[test]
    fn booleans_and_floats_have_their_spellings() {
        assert_eq!(value(ColumnType::Boolean, "\"TRUE\""), Ok(Cell::Int(1)));
        assert_eq!(value(ColumnType::Boolean, "\"t\""), OUT);
        assert_eq!(value(ColumnType::Double, "\"-Infinity\""), Ok(Cell::Real(f64::NEG_INFINITY)));
        assert_eq!(value(ColumnType::Float, "1e39"), OUT);
        assert_eq!(value(ColumnType::Float, "0.1"), Ok(Cell::Real(0.1f32.into())));
        assert_eq!(value(ColumnType::Double, "1e400"), OUT);
    }

    #[test]
    fn json_is_embedded_not_parsed_from_strings() {
        assert_eq!(text(ColumnType::Json, r#"{"b": 1, "a": [1, 2.5]}"#), r#"{"a":[1,2.5],"b":1}"#);
        assert_eq!(text(ColumnType::Json, r#""{}""#), r#""{}""#);
        assert_eq!(value(ColumnType::Nested("array<int>".into()), "\"[1]\""), OUT);
    }

    #[test]
    fn binary_text_is_decoded_by_its_format() {
        let raw = |text| Raw { shape: Shape::Plain, text };
        assert_eq!(binary(raw("00fF"), BinaryFormat::Hex, 2), Ok(Cell::Blob(vec![0, 255])));
        assert_eq!(binary(raw("00f"), BinaryFormat::Hex, 2), OUT);
        assert_eq!(binary(raw("AP8="), BinaryFormat::Base64, 2), Ok(Cell::Blob(vec![0, 255])));
        assert_eq!(binary(raw("abc"), BinaryFormat::Utf8, 2), Err(Misfit::TooLong));
    }
}
