//! Reads values back out of a line that this encoder wrote.
//!
//! An UPDATE leaves a TOASTed value out of the log when it did not touch it. When an earlier row of the same key is still
//! in the batch, the value is there, ready encoded; it is taken over byte for byte.

/// The columns of an encoded line, one after another.
pub(super) struct EarlierRow<'a> {
    rest: &'a [u8],
}

impl<'a> EarlierRow<'a> {
    /// The line of a row, from its `{` on.
    pub(super) const fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    /// The next column's value, behind a fragment (`,"name":`) of so many bytes. `None` if the line is not one.
    pub(super) fn next(&mut self, fragment_bytes: usize) -> Option<&'a [u8]> {
        let (_, rest) = self.rest.split_at_checked(fragment_bytes)?;
        let (value, rest) = rest.split_at_checked(value_bytes(rest)?)?;
        self.rest = rest;
        Some(value)
    }
}

/// The length of the JSON value that `text` begins with, blanks around it included (documents may have them).
pub(super) fn value_bytes(text: &[u8]) -> Option<usize> {
    let start = blanks(text);
    let body = text.get(start..)?;
    let bytes = match body.first()? {
        b'"' => string_bytes(body)?,
        b'{' | b'[' => container_bytes(body)?,
        _ => body.iter().position(|byte| matches!(byte, b',' | b'}'))?,
    };
    let end = start + bytes;
    Some(end + blanks(text.get(end..)?))
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The length of a string, both quotes included.
fn string_bytes(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        match text.get(at)? {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// The length of an object or array. Braces of both kinds are counted alike: the document is valid.
fn container_bytes(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => {
                at += string_bytes(text.get(at..)?)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_form_are_found() {
        let values =
            ["7", "null", "\"a\\\"},b\\\\\"", " {\"x\": [\"]}\", {}]}  ", "[]", "-1.5e3", "\"\"", "true "];
        let mut line = String::from("{\"0\":");
        line.push_str(values[0]);
        for value in &values[1..] {
            line.push_str(",\"1\":");
            line.push_str(value);
        }
        line.push_str(",\"__op\":0}\n");
        let mut row = EarlierRow::new(line.as_bytes());
        for value in values {
            assert_eq!(
                row.next(5).map(|it| String::from_utf8_lossy(it).into_owned()),
                Some(value.to_owned())
            );
        }
    }

    #[test]
    fn line_that_ends_early_gives_nothing() {
        for line in ["", "{\"0\":", "{\"0\":\"abc", "{\"0\":\"abc\\", "{\"0\":{\"a\":1", "{\"0\":12"] {
            assert_eq!(EarlierRow::new(line.as_bytes()).next(5), None, "{line}");
        }
    }
}
