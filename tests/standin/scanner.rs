//! One row after another, each first read as if it were like the one before.
//!
//! Rows of a load nearly always have the same members in the same order. So what stands between their values is compared as a
//! whole, and only the values are scanned; a row that differs is scanned from its beginning.

use std::ops::Range;

use crate::ndjson::{Field, Scan, Shape, scan_object, scan_value};

/// How a row's members compare with those of the row before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Members {
    /// The same keys in the same order.
    Same,
    /// Perhaps others.
    Other,
}

/// Reads the rows of one body.
#[derive(Default)]
pub(crate) struct Scanner {
    /// What stands before each value of the row that was read last.
    before: Vec<Before>,
    /// What stands behind its last value.
    tail: Vec<u8>,
}

/// `{"name":`, `,"name":`, with the blanks that there were.
struct Before {
    text: Vec<u8>,
    /// The key, within the text.
    key: Range<usize>,
    key_is_escaped: bool,
}

impl Scanner {
    /// Reads the object that begins at `at`; returns where it ends.
    #[inline]
    pub(crate) fn scan(&mut self, data: &[u8], at: usize, fields: &mut Vec<Field>) -> Scan<(usize, Members)> {
        if let Some(end) = self.scan_as_before(data, at, fields) {
            return Ok((end, Members::Same));
        }
        let end = scan_object(data, at, fields)?;
        self.remember(data, at..end, fields);
        Ok((end, Members::Other))
    }

    /// None when it is another row, or none at all.
    #[inline]
    fn scan_as_before(&self, data: &[u8], mut at: usize, fields: &mut Vec<Field>) -> Option<usize> {
        fields.clear();
        for Before { text, key, key_is_escaped } in &self.before {
            if !data.get(at..)?.starts_with(text) {
                return None;
            }
            let (shape, value, end) = scan_value(data, at + text.len(), 1).ok()?;
            let key = at + key.start..at + key.end;
            fields.push(Field { key, key_is_escaped: *key_is_escaped, shape, value });
            at = end;
        }
        // Nothing is remembered before the first row.
        (!self.tail.is_empty() && data.get(at..)?.starts_with(&self.tail)).then_some(at + self.tail.len())
    }

    fn remember(&mut self, data: &[u8], row: Range<usize>, fields: &[Field]) {
        let text = |range: Range<usize>| data.get(range).unwrap_or_default().to_vec();
        let mut at = row.start;
        self.before.clear();
        for Field { key, key_is_escaped, shape, value } in fields {
            // The range of a string lies between its quotes.
            let quote = usize::from(matches!(shape, Shape::Plain | Shape::Escaped));
            self.before.push(Before {
                text: text(at..value.start - quote),
                key: key.start - at..key.end - at,
                key_is_escaped: *key_is_escaped,
            });
            at = value.end + quote;
        }
        self.tail = text(at..row.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [&str; 16] = [
        r#"{"a":1,"b":"x"}"#,
        r#"{"a":-2.5e3,"b":"\"y"}"#,
        r#"{"a":1,"b":null}"#,
        r#"{ "a":1,"b":null}"#,
        r#"{"a":1,"b":null }"#,
        r#"{"a":1 ,"b":{"c":[]}}"#,
        r#"{"a":1}"#,
        r#"{"a":1,"b":2,"c":3}"#,
        r#"{"b":1,"a":2}"#,
        r#"{"\u0061":1,"b":2}"#,
        r#"{}"#,
        r#"{"a":1,"b":}"#,
        r#"{"a":1,"b":"x"#,
        r#"{"a":1,"b":"x""#,
        r#"{"a":1,"b":01}"#,
        r#"{"a":1,"bb":1}"#,
    ];

    #[test]
    fn row_is_read_the_same_whatever_the_row_before_was() {
        for first in ROWS {
            for second in ROWS {
                let (mut scanner, mut fields, mut alone) = (Scanner::default(), Vec::new(), Vec::new());
                let _ = scanner.scan(first.as_bytes(), 0, &mut fields);
                let end = scanner.scan(second.as_bytes(), 0, &mut fields).map(|(end, _)| end);
                assert_eq!(end, scan_object(second.as_bytes(), 0, &mut alone), "{second} after {first}");
                assert!(end.is_err() || fields == alone, "{second} after {first}: {fields:?}");
            }
        }
    }

    #[test]
    fn members_are_the_same_only_if_all_between_the_values_is() {
        let mut scanner = Scanner::default();
        let rows = [0, 1, 6, 0, 3, 3, 10, 10, 9, 9].map(|number: usize| ROWS[number]);
        let found = rows.map(|row| scanner.scan(row.as_bytes(), 0, &mut Vec::new()).unwrap().1);
        use Members::{Other, Same};
        assert_eq!(found, [Other, Same, Other, Other, Other, Same, Other, Same, Other, Same]);
    }
}
