//! One JSON object after another: where each row, key and value lies.
//!
//! The scanner checks the grammar completely (a malformed document fails a whole load) but builds nothing: a row is a list of ranges
//! into the body. Strings are crossed eight bytes at a time, because a benchmark sends hundreds of megabytes a second through
//! here. UTF-8 is the caller's to check, in larger pieces.

use std::ops::Range;

/// Documents nested deeper than this are refused, as StarRocks' parser does.
const MAX_DEPTH: usize = 1024;

/// What a value looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    Null,
    True,
    False,
    Number,
    /// A string; `range` lies between the quotes.
    Plain,
    /// A string with escapes; `range` lies between the quotes.
    Escaped,
    Object,
    Array,
}

/// One member of a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Field {
    /// The key between its quotes.
    pub(crate) key: Range<usize>,
    pub(crate) key_is_escaped: bool,
    pub(crate) shape: Shape,
    pub(crate) value: Range<usize>,
}

/// Why a row was not read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum ScanError {
    /// The bytes end inside the row.
    Incomplete,
    /// No continuation could make this a row.
    Malformed(String),
}

pub(crate) type Scan<T> = Result<T, ScanError>;

fn malformed<T>(what: &str, at: usize) -> Scan<T> {
    Err(ScanError::Malformed(format!("parse error: {what} at byte {at}")))
}

/// Skips white space.
pub(crate) fn skip_space(data: &[u8], mut at: usize) -> usize {
    while matches!(data.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Reads the object that begins at `at`; returns where it ends.
pub(crate) fn scan_object(data: &[u8], at: usize, fields: &mut Vec<Field>) -> Scan<usize> {
    fields.clear();
    match data.get(at) {
        Some(b'{') => {}
        Some(byte) => return malformed(&format!("illegal json started with [{}]", char::from(*byte)), at),
        None => return Err(ScanError::Incomplete),
    }
    let mut at = skip_space(data, at + 1);
    if data.get(at) == Some(&b'}') {
        return Ok(at + 1);
    }
    loop {
        at = expect(data, at, b'"')?;
        let (key_end, key_is_escaped) = string_end(data, at)?;
        let key = at..key_end;
        at = expect(data, skip_space(data, key_end + 1), b':')?;
        at = skip_space(data, at);
        let (shape, value, end) = scan_value(data, at, 1)?;
        fields.push(Field { key, key_is_escaped, shape, value });
        at = skip_space(data, end);
        match data.get(at) {
            Some(b',') => at = skip_space(data, at + 1),
            Some(b'}') => return Ok(at + 1),
            Some(_) => return malformed("a comma or a brace is missing", at),
            None => return Err(ScanError::Incomplete),
        }
    }
}

fn expect(data: &[u8], at: usize, byte: u8) -> Scan<usize> {
    match data.get(at) {
        Some(found) if *found == byte => Ok(at + 1),
        Some(_) => malformed(&format!("'{}' is missing", char::from(byte)), at),
        None => Err(ScanError::Incomplete),
    }
}

/// Shape, inner range and end of the value at `at`.
pub(crate) fn scan_value(data: &[u8], at: usize, depth: usize) -> Scan<(Shape, Range<usize>, usize)> {
    let whole = |shape, end: usize| Ok((shape, at..end, end));
    match data.get(at) {
        Some(b'"') => {
            let (end, escaped) = string_end(data, at + 1)?;
            let shape = if escaped { Shape::Escaped } else { Shape::Plain };
            Ok((shape, at + 1..end, end + 1))
        }
        Some(b'-' | b'0'..=b'9') => whole(Shape::Number, number_end(data, at)?),
        Some(b'n') => whole(Shape::Null, word_end(data, at, b"null")?),
        Some(b't') => whole(Shape::True, word_end(data, at, b"true")?),
        Some(b'f') => whole(Shape::False, word_end(data, at, b"false")?),
        Some(b'{') => whole(Shape::Object, container_end(data, at, depth)?),
        Some(b'[') => whole(Shape::Array, container_end(data, at, depth)?),
        Some(_) => malformed("no value begins so", at),
        None => Err(ScanError::Incomplete),
    }
}

fn word_end(data: &[u8], at: usize, word: &[u8]) -> Scan<usize> {
    let rest = data.get(at..).unwrap_or_default();
    if rest.starts_with(word) {
        return Ok(at + word.len());
    }
    if word.starts_with(rest) { Err(ScanError::Incomplete) } else { malformed("no value begins so", at) }
}

/// The end of a nested object or array that begins at `at`.
fn container_end(data: &[u8], at: usize, depth: usize) -> Scan<usize> {
    if depth >= MAX_DEPTH {
        return malformed("nested too deeply", at);
    }
    let (is_object, close) = if data.get(at) == Some(&b'{') { (true, b'}') } else { (false, b']') };
    let mut at = skip_space(data, at + 1);
    if data.get(at) == Some(&close) {
        return Ok(at + 1);
    }
    loop {
        if is_object {
            let (key_end, _) = string_end(data, expect(data, at, b'"')?)?;
            at = skip_space(data, expect(data, skip_space(data, key_end + 1), b':')?);
        }
        let (_, _, end) = scan_value(data, at, depth + 1)?;
        at = skip_space(data, end);
        match data.get(at) {
            Some(b',') => at = skip_space(data, at + 1),
            Some(byte) if *byte == close => return Ok(at + 1),
            Some(_) => return malformed("a comma or a closing bracket is missing", at),
            None => return Err(ScanError::Incomplete),
        }
    }
}

/// The closing quote of a string whose first byte is at `at`, and whether it has escapes.
#[inline]
fn string_end(data: &[u8], mut at: usize) -> Scan<(usize, bool)> {
    let mut escaped = false;
    loop {
        at = special_byte(data, at);
        match data.get(at) {
            Some(b'"') => return Ok((at, escaped)),
            Some(b'\\') => {
                escaped = true;
                at = escape_end(data, at)?;
            }
            Some(_) => return malformed("a control character is not escaped", at),
            None => return Err(ScanError::Incomplete),
        }
    }
}

/// The first quote, backslash or control character at or after `at`; the end of the data without one.
#[inline]
fn special_byte(data: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = data.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        // Classic zero-byte test; false hits lie above a true one only, and the lowest is what counts.
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hits = hits & HIGHS;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = data.get(at) {
        if *byte == b'"' || *byte == b'\\' || *byte < 0x20 {
            return at;
        }
        at += 1;
    }
    at
}

/// The end of the escape whose backslash is at `at`.
fn escape_end(data: &[u8], at: usize) -> Scan<usize> {
    match data.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(data, at + 2)? {
            0xD800..=0xDBFF => {
                let low = expect(data, expect(data, at + 6, b'\\')?, b'u')?;
                match hex4(data, low)? {
                    0xDC00..=0xDFFF => Ok(low + 4),
                    _ => malformed("half a surrogate pair", at),
                }
            }
            0xDC00..=0xDFFF => malformed("half a surrogate pair", at),
            _ => Ok(at + 6),
        },
        Some(_) => malformed("unknown escape", at),
        None => Err(ScanError::Incomplete),
    }
}

fn hex4(data: &[u8], at: usize) -> Scan<u32> {
    let mut value = 0;
    for index in at..at + 4 {
        let Some(byte) = data.get(index) else { return Err(ScanError::Incomplete) };
        let Some(digit) = char::from(*byte).to_digit(16) else { return malformed("bad \\u escape", index) };
        value = value * 16 + digit;
    }
    Ok(value)
}

/// The end of the number at `at`.
fn number_end(data: &[u8], at: usize) -> Scan<usize> {
    let mut end = at;
    if data.get(end) == Some(&b'-') {
        end += 1;
    }
    end = match data.get(end) {
        Some(b'0') => end + 1,
        Some(b'1'..=b'9') => digits_end(data, end),
        Some(_) => return malformed("bad number", at),
        None => return Err(ScanError::Incomplete),
    };
    if data.get(end) == Some(&b'.') {
        end = some_digits(data, end + 1)?;
    }
    if matches!(data.get(end), Some(b'e' | b'E')) {
        let sign = matches!(data.get(end + 1), Some(b'+' | b'-'));
        end = some_digits(data, end + 1 + usize::from(sign))?;
    }
    match data.get(end) {
        Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') => Ok(end),
        Some(_) => malformed("bad number", at),
        None => Err(ScanError::Incomplete),
    }
}

#[inline]
fn digits_end(data: &[u8], mut at: usize) -> usize {
    while data.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

fn some_digits(data: &[u8], at: usize) -> Scan<usize> {
    let end = digits_end(data, at);
    match data.get(end) {
        None => Err(ScanError::Incomplete),
        Some(_) if end == at => malformed("bad number", at),
        Some(_) => Ok(end),
    }
}

/// Appends the text of an escaped string that the scanner has passed.
pub(crate) fn unescape(raw: &str, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or_default();
        rest = rest.get(at + 2..).unwrap_or_default();
        match escape {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => rest = unescape_unicode(rest, out),
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
}

/// Appends the character of a `\u` escape whose digits begin `rest`; returns what follows.
fn unescape_unicode<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let unit = |text: &str| text.get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0xFFFD);
    let high = unit(rest);
    let after = rest.get(4..).unwrap_or_default();
    if !(0xD800..=0xDBFF).contains(&high) {
        out.push(char::from_u32(high).unwrap_or('\u{FFFD}'));
        return after;
    }
    let low = unit(after.get(2..).unwrap_or_default());
    let code = 0x10000 + ((high - 0xD800) << 10) + (low.wrapping_sub(0xDC00) & 0x3FF);
    out.push(char::from_u32(code).unwrap_or('\u{FFFD}'));
    after.get(6..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key, shape and text of each member, and how many bytes the object took.
    type Members = (Vec<(String, Shape, String)>, usize);

    fn scan(text: &str) -> Scan<Members> {
        let mut fields = Vec::new();
        let end = scan_object(text.as_bytes(), 0, &mut fields)?;
        let list = fields
            .iter()
            .map(|f| (text[f.key.clone()].into(), f.shape, text[f.value.clone()].into()))
            .collect();
        Ok((list, end))
    }

    fn is_malformed(text: &str) -> bool {
        matches!(scan(text), Err(ScanError::Malformed(_)))
    }

    #[test]
    fn fields_of_a_row_are_found() {
        let text = r#"{"id":-12.5e3, "s" : "a\"b","n":null,"t":true,"f":false,"o":{"x":[1,{}]},"a":[]} "#;
        let (fields, end) = scan(text).unwrap();
        let shapes: Vec<Shape> = fields.iter().map(|field| field.1).collect();
        use Shape::*;
        assert_eq!(shapes, [Number, Escaped, Null, True, False, Object, Array]);
        assert_eq!(fields[0].2, "-12.5e3");
        assert_eq!(fields[5].2, r#"{"x":[1,{}]}"#);
        assert_eq!(end, text.len() - 1);
    }

    #[test]
    fn every_prefix_of_a_row_is_incomplete() {
        let text = r#"{"id":-12.5e3,"s":"a\u00e9\ud83d\ude00b","n":null,"o":{"x":[1,true]}}"#;
        for cut in 0..text.len() {
            assert_eq!(scan(&text[..cut]), Err(ScanError::Incomplete), "cut at {cut}");
        }
        assert!(scan(text).is_ok());
    }

    #[test]
    fn grammar_is_enforced() {
        for text in [
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":+1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a" 1}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\ud800x"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":nul1}"#,
            r#"{"a":[1 2]}"#,
            "[1]",
            "\0{}",
            r#"{"a":1}}"#,
        ] {
            let rest_is_bad =
                scan(text).is_ok_and(|(_, end)| scan(&text[end..]).is_err() && end < text.len());
            assert!(is_malformed(text) || rest_is_bad, "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_overflowed() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(is_malformed(&text));
    }

    #[test]
    fn special_bytes_are_found_at_every_offset() {
        for length in 0..40 {
            for special in [b'"', b'\\', 0x1f, 0x00] {
                let mut data = vec![b' '; length];
                data.push(special);
                data.extend_from_slice(&[0xff, b'"', b'z', 0x80, b'!', b'#', b'[', b']']);
                assert_eq!(special_byte(&data, 0), length);
            }
        }
        assert_eq!(special_byte(&[0x80, 0x7f, 0x20, 0x21, 0x23, 0xff, 0xa2, 0xdc, b'x'], 0), 9);
    }

    #[test]
    fn escapes_become_characters() {
        let mut out = String::new();
        unescape(r#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z"#, &mut out);
        assert_eq!(out, "a\"\\/\u{8}\u{c}\n\r\té😀z");
    }
}
