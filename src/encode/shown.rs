//! A row as people read it: one JSON object with the names of the target's columns.
//!
//! For rows that were refused, by the target or by the encoder. Values are as they were sent; long ones are cut, with a note
//! that says so, such that no object is longer than a megabyte. Whatever the values are, the object is one that PostgreSQL's
//! jsonb takes: neither NUL nor an escape for another character than a control character is in it.

use super::earlier_row::value_bytes;
use super::error::Reason;
use super::row::{DELETE, RowEncoder, write_value};
use super::value::{Row, Value};

/// A row in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShownRow {
    /// The key as it begins a line, without a closing brace. `None` when it cannot be told.
    pub key: Option<Box<[u8]>>,
    /// The values: a JSON object.
    pub values: String,
}

/// A row is shown whole up to this size, in bytes of its line …
const WHOLE_ROW: usize = 64 << 10;
/// … and else with so many bytes of each value: 1,600 columns are less than a megabyte.
const CUT_VALUE: usize = 400;

impl RowEncoder {
    /// Whether a line deletes its row.
    pub fn is_delete(line: &[u8]) -> bool {
        line.ends_with(DELETE)
    }

    /// The key of a line that this encoder wrote.
    pub fn key_of<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = line;
        for field in self.fields.iter().take(self.key_len) {
            rest = rest.strip_prefix(&*field.fragment)?;
            rest = rest.get(value_bytes(rest)?..)?;
        }
        line.get(..line.len() - rest.len())
    }

    /// The line that deletes the row of a key.
    pub fn deletion_of(key: &[u8]) -> Vec<u8> {
        [key, DELETE].concat()
    }

    /// The row of a line that this encoder wrote.
    pub fn shown_line(&self, line: &[u8]) -> ShownRow {
        let most = if line.len() <= WHOLE_ROW { WHOLE_ROW } else { CUT_VALUE };
        let mut values = Object::default();
        let mut rest = line;
        for field in &self.fields {
            // A column that the load does not carry is not there.
            let Some(after) = rest.strip_prefix(&*field.fragment) else { continue };
            let Some((value, tail)) = value_bytes(after).and_then(|bytes| after.split_at_checked(bytes))
            else {
                break;
            };
            values.put(&field.name, |out| put_encoded(value, most, out));
            rest = tail;
        }
        ShownRow { key: self.key_of(line).map(Box::from), values: values.close() }
    }

    /// A row that could not be written, as far as it can be told. `columns` are those that are asked for.
    pub fn shown_row(&self, row: &impl Row, columns: std::ops::Range<usize>) -> ShownRow {
        let mut key = Vec::new();
        let key = self.key(row, &mut key).is_ok().then(|| key.into_boxed_slice());
        let mut values = Object::default();
        let mut scratch = Vec::new();
        for (number, field) in self.fields.iter().enumerate().filter(|(number, _)| columns.contains(number)) {
            let value = row.value(number);
            if value == Value::Unchanged {
                continue;
            }
            scratch.clear();
            let written = write_value(value, &mut scratch);
            values.put(&field.name, |out| match written {
                Ok(()) => put_encoded(&scratch, CUT_VALUE, out),
                Err(reason) => put_refused(value, reason, out),
            });
        }
        ShownRow { key, values: values.close() }
    }
}

/// An object that is being written.
#[derive(Default)]
struct Object(String);

impl Object {
    fn put(&mut self, name: &str, value: impl FnOnce(&mut String)) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        put_string(name, &mut self.0);
        self.0.push(':');
        value(&mut self.0);
    }

    fn close(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

/// A value in the form of a line.
fn put_encoded(value: &[u8], most: usize, out: &mut String) {
    let Ok(text) = str::from_utf8(value) else { return put_string("(not UTF-8)", out) };
    let text = text.trim_ascii();
    let is_document = text.starts_with(['{', '[']);
    if text.len() <= most && is_plain(text, is_document) {
        return out.push_str(text);
    }
    let characters = if text.starts_with('"') { serde_json::from_str::<String>(text).ok() } else { None };
    put_cut(characters.as_deref().unwrap_or(text), most, out);
}

/// Whether a JSON value can be taken over as it stands. Escapes within documents are whatever somebody wrote.
fn is_plain(text: &str, is_document: bool) -> bool {
    let has_escapes = if is_document { text.contains("\\u") } else { has_escaped_nul(text) };
    !has_escapes && serde_json::from_str::<serde_json::Value>(text).is_ok()
}

/// A JSON text may say NUL, and characters that the database does not have; our own strings never do.
fn has_escaped_nul(text: &str) -> bool {
    text.match_indices("\\u").any(|(at, _)| text.get(at + 2..at + 4) != Some("00"))
        || text.contains("\\u0000")
}

/// A value that the encoder refused.
fn put_refused(value: Value<'_>, reason: Reason, out: &mut String) {
    match (value, reason) {
        (Value::Text(text) | Value::Json(text) | Value::NumericText(text), _) => {
            put_cut(&String::from_utf8_lossy(beginning(text)), CUT_VALUE, out);
            if text.len() > beginning(text).len() {
                note_length(text.len(), out);
            }
        }
        (Value::HexBytes(digits), _) => {
            put_cut(&String::from_utf8_lossy(beginning(digits)), CUT_VALUE, out);
            note_length(digits.len(), out);
        }
        (Value::Bytes(bytes), _) => {
            let digits: String = beginning(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            put_cut(&digits, CUT_VALUE, out);
            note_length(bytes.len(), out);
        }
        (Value::Float4(number), _) => put_string(&of_float(f64::from(number)), out),
        (Value::Float8(number), _) => put_string(&of_float(number), out),
        (Value::Date(i32::MAX) | Value::Timestamp(i64::MAX), _) => put_string("infinity", out),
        (Value::Date(i32::MIN) | Value::Timestamp(i64::MIN), _) => put_string("-infinity", out),
        (Value::Date(days), _) => put_string(&format!("{days} days from 2000-01-01"), out),
        (Value::Timestamp(micros), _) => {
            put_string(&format!("{micros} microseconds from 2000-01-01 00:00:00"), out);
        }
        (Value::Numeric(stored), Reason::OutOfRange) => put_string(of_special(stored), out),
        (Value::NotUtf8, _) => put_string("(not UTF-8)", out),
        (Value::Null, _) => out.push_str("null"),
        _ => put_string("(malformed)", out),
    }
}

/// As much of a long value as is looked at.
fn beginning(text: &[u8]) -> &[u8] {
    text.get(..CUT_VALUE + 8).unwrap_or(text)
}

fn of_float(number: f64) -> String {
    match number {
        number if number.is_nan() => "NaN".to_owned(),
        number if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        number => number.to_string(),
    }
}

/// NaN and the infinities of numeric, by the second byte of their form on disk.
fn of_special(stored: &[u8]) -> &'static str {
    let header = stored.first_chunk::<2>().map_or(0, |bytes| u16::from_ne_bytes(*bytes));
    match header & 0xF000 {
        0xD000 => "Infinity",
        0xF000 => "-Infinity",
        _ => "NaN",
    }
}

/// A text, or the beginning of it with a note.
fn put_cut(text: &str, most: usize, out: &mut String) {
    if text.len() <= most {
        return put_string(text, out);
    }
    let head = text.get(..text.floor_char_boundary(most.min(CUT_VALUE))).unwrap_or_default();
    put_string(head, out);
    note_length(text.len(), out);
}

/// Says, within the string that was just written, how long the value is.
fn note_length(bytes: usize, out: &mut String) {
    if out.pop() == Some('"') {
        // Writing twice must not say it twice.
        if out.ends_with(" bytes)") {
            out.truncate(out.rfind(" (cut").unwrap_or(out.len()));
        }
        out.push_str(&format!(" (cut, of {bytes} bytes)\""));
    }
}

/// A JSON string. NUL, which jsonb does not take, becomes the character for what is not there.
fn put_string(text: &str, out: &mut String) {
    let text = text.replace('\0', "\u{FFFD}");
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{ColumnSet, OutOfRange};
    use crate::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

    struct Values<'a>([Value<'a>; 4]);

    impl Row for Values<'_> {
        fn value(&self, column: usize) -> Value<'_> {
            self.0[column]
        }
    }

    fn encoder() -> RowEncoder {
        let column = |name: &str, kind| Column {
            source: SourceColumn { attnum: 1, name: name.to_owned(), type_oid: 20, typmod: -1 },
            name: name.to_owned(),
            kind,
            target_type: "BIGINT".to_owned(),
        };
        let kinds = [("id", Kind::Int), ("k", Kind::Text), ("body", Kind::Text), ("doc", Kind::Json)];
        let spec = TableSpec {
            relid: 1,
            source_name: "public.t".to_owned(),
            target: TargetTable { database: "d".to_owned(), table: "t".to_owned() },
            columns: kinds.map(|(name, kind)| column(name, kind)).to_vec(),
            key_len: 2,
        };
        // The body is sent under another name.
        RowEncoder::new(&spec, &["id", "k", "t1", "doc"].map(str::to_owned), OutOfRange::Error)
    }

    fn shown(values: [Value<'_>; 4]) -> (ShownRow, serde_json::Value) {
        let (encoder, mut line) = (encoder(), Vec::new());
        let columns = ColumnSet::carried_by(&Values(values), 4);
        let bytes = encoder.encode_row(&Values(values), &columns, &mut line).unwrap();
        let shown = encoder.shown_line(&line);
        assert_eq!(shown.key.as_deref(), line.get(..bytes.key_end));
        assert!(shown.values.len() < 1 << 20);
        let parsed = serde_json::from_str(&shown.values).unwrap();
        (shown, parsed)
    }

    #[test]
    fn line_is_shown_with_the_names_of_the_target() {
        let (_, row) =
            shown([Value::Int(7), Value::Text(b"a\"b,"), Value::Text(b"x"), Value::Json(b"{\"a\": [1]}")]);
        assert_eq!(row, serde_json::json!({"id": 7, "k": "a\"b,", "body": "x", "doc": {"a": [1]}}));
    }

    #[test]
    fn column_that_a_load_leaves_out_is_not_shown() {
        let (_, row) = shown([Value::Int(7), Value::Text(b""), Value::Unchanged, Value::Null]);
        assert_eq!(row, serde_json::json!({"id": 7, "k": "", "doc": null}));
    }

    #[test]
    fn long_values_are_cut_with_a_note() {
        let long = "é".repeat(100_000);
        let (_, row) = shown([Value::Int(7), Value::Text(b"k"), Value::Text(long.as_bytes()), Value::Null]);
        let body = row["body"].as_str().unwrap();
        assert!(body.starts_with('é') && body.ends_with(" (cut, of 200000 bytes)"), "{body}");
        assert!(body.len() < 500);
    }

    #[test]
    fn what_jsonb_does_not_take_becomes_text() {
        for document in
            [&br#"{"a": "\u0000"}"#[..], br#""\u0000""#, br#""\ud800""#, b"[1e999999]", br#"{"\u00e9": 1}"#]
        {
            let (_, row) = shown([Value::Int(7), Value::Text(b"k"), Value::Null, Value::Json(document)]);
            let text = row["doc"].as_str().unwrap();
            assert!(!text.contains('\0'), "{text:?}");
        }
        let control = shown([Value::Int(7), Value::Text(b"k"), Value::Text(b"\x01"), Value::Null]).1;
        assert_eq!(control["body"], "\u{1}");
    }

    #[test]
    fn row_that_cannot_be_written_is_told_as_far_as_it_can() {
        let row = Values([Value::Int(7), Value::Text(b"k"), Value::Text(b"a\xff"), Value::Float8(f64::NAN)]);
        let shown = encoder().shown_row(&row, 0..4);
        assert_eq!(shown.key.as_deref(), Some(&br#"{"id":7,"k":"k""#[..]));
        let values: serde_json::Value = serde_json::from_str(&shown.values).unwrap();
        assert_eq!(values, serde_json::json!({"id": 7, "k": "k", "body": "a\u{FFFD}", "doc": "NaN"}));
        let long = vec![b'x'; 2 << 20];
        let row = Values([Value::Null, Value::Text(b"k"), Value::Text(&long), Value::Date(i32::MAX)]);
        let shown = encoder().shown_row(&row, 0..4);
        assert_eq!(shown.key, None);
        let values: serde_json::Value = serde_json::from_str(&shown.values).unwrap();
        assert!(values["body"].as_str().unwrap().ends_with("xx (cut, of 2097152 bytes)"));
        assert_eq!(values["doc"], "infinity");
    }
}
