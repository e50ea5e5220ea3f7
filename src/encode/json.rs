//! JSON strings and embedded documents.

use memchr::memchr2;

use super::error::Reason;
use super::range::MAX_JSON_BYTES;
use crate::table::MAX_TEXT_BYTES;

/// Appends `text` as a JSON string.
///
/// Most text is ASCII without anything to escape: one pass says so, eight bytes at a time, and one copy follows.
/// Everything else is checked to be UTF-8 and copied run by run.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Reason::OutOfRange);
    }
    reserve(out, text.len() + 2)?;
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text);
    } else {
        simdutf8::basic::from_utf8(text).map_err(|_| Reason::InvalidUtf8)?;
        write_escaped(text, out)?;
    }
    out.push(b'"');
    Ok(())
}

/// Appends a JSON document as it is. Line breaks can only stand between its tokens; they become blanks.
pub(super) fn write_document(document: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    if document.len() > MAX_JSON_BYTES {
        return Err(Reason::OutOfRange);
    }
    if !is_plain(document) {
        simdutf8::basic::from_utf8(document).map_err(|_| Reason::InvalidUtf8)?;
    }
    reserve(out, document.len())?;
    let mut rest = document;
    while let Some((head, tail)) = memchr2(b'\n', b'\r', rest).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(head);
        out.push(b' ');
        rest = tail.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Makes room, or says that there is none: a failed allocation of Rust's own would end the whole server.
#[inline]
pub(super) fn reserve(out: &mut Vec<u8>, bytes: usize) -> Result<(), Reason> {
    out.try_reserve(bytes).map_err(|_| Reason::OutOfMemory)
}

fn write_escaped(text: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let mut rest = text;
    while let Some((run, tail)) = next_escape(rest).and_then(|at| rest.split_at_checked(at)) {
        let Some((&byte, after)) = tail.split_first() else { break };
        reserve(out, rest.len() + ESCAPE_BYTES)?;
        out.extend_from_slice(run);
        write_escape(byte, out);
        rest = after;
    }
    reserve(out, rest.len() + 1)?;
    out.extend_from_slice(rest);
    Ok(())
}

/// The longest escape, `\u001f`, and the closing quote.
const ESCAPE_BYTES: usize = 7;

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xF)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Whether `text` is ASCII and stands in a JSON string as it is.
fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().all(|&byte| (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\');
    };
    let (blocks, rest) = text.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        if words.iter().fold(0, |found, word| found | plain_test(u64::from_le_bytes(*word))) != 0 {
            return false;
        }
    }
    let (words, _) = rest.as_chunks::<8>();
    // The last eight bytes overlap with what was already looked at, so that no byte is looked at alone.
    words.iter().fold(plain_test(u64::from_le_bytes(*last)), |found, word| {
        found | plain_test(u64::from_le_bytes(*word))
    }) == 0
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Not zero when one of eight bytes is not ASCII or must be escaped.
const fn plain_test(word: u64) -> u64 {
    (escape_test(word) | word) & HIGHS
}

/// High bits where a byte may have to be escaped. The lowest of them is exact: a false one stands only above a true
/// one, because only a true one borrows.
const fn escape_test(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    (control | quote | backslash) & !word & HIGHS
}

/// Where the first byte stands that must be escaped.
fn next_escape(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let found = escape_test(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut out = Vec::new();
        write_string(text, &mut out).map(|()| out)
    }

    #[test]
    fn every_byte_at_every_place_is_written_as_json_reads_it() {
        for byte in 0..128_u8 {
            for place in 0..70 {
                let mut text = vec![b'x'; 70];
                text[place] = byte;
                let json = string(&text).unwrap();
                assert_eq!(
                    serde_json::from_slice::<String>(&json).unwrap().as_bytes(),
                    text,
                    "{byte} at {place}"
                );
            }
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        for text in [&b"\xFF"[..], b"abcdefgh\xC3", b"0123456789\xED\xA0\x80 and more of it"] {
            assert_eq!(string(text), Err(Reason::InvalidUtf8));
        }
    }

    #[test]
    fn text_over_the_limit_is_out_of_range() {
        assert!(string(&vec![b'x'; MAX_TEXT_BYTES]).is_ok());
        assert_eq!(string(&vec![b'x'; MAX_TEXT_BYTES + 1]), Err(Reason::OutOfRange));
    }

    #[test]
    fn line_breaks_between_tokens_become_blanks() {
        let mut out = Vec::new();
        write_document(b"{\n\t\"a\": \"b\\n\",\r\n \"c\": [1,\n2]\n}", &mut out).unwrap();
        assert_eq!(out, b"{ \t\"a\": \"b\\n\",   \"c\": [1, 2] }");
    }

    proptest! {
        #[test]
        fn any_string_reads_back(text in "(?s).{0,100}") {
            let json = string(text.as_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
