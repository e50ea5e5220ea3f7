//! bytea and uuid: hexadecimal digits in lower case, as a JSON string.

use super::error::Reason;
use super::json::reserve;
use crate::table::MAX_TEXT_BYTES;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends the digits of `bytes`.
pub(super) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(Reason::OutOfRange);
    }
    reserve(out, 2 * bytes.len() + 2)?;
    out.push(b'"');
    for &byte in bytes {
        out.extend_from_slice(&pair(byte));
    }
    out.push(b'"');
    Ok(())
}

/// Appends digits that must be whole bytes, in lower case.
pub(super) fn write_digits(digits: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    if digits.len() > 2 * MAX_TEXT_BYTES {
        return Err(Reason::OutOfRange);
    }
    if !are_digits(digits) {
        return Err(Reason::Malformed);
    }
    reserve(out, digits.len() + 2)?;
    out.push(b'"');
    out.extend_from_slice(digits);
    out.push(b'"');
    Ok(())
}

fn are_digits(digits: &[u8]) -> bool {
    digits.len().is_multiple_of(2) && digits.iter().all(|&byte| nibble(byte).is_some())
}

/// Appends a uuid in its 36 characters.
pub(super) fn write_uuid(uuid: &[u8; 16], out: &mut Vec<u8>) {
    let mut text = [b'-'; 38];
    let places = [1, 3, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 29, 31, 33, 35];
    for (&byte, place) in uuid.iter().zip(places) {
        [text[place], text[place + 1]] = pair(byte);
    }
    [text[0], text[37]] = [b'"', b'"'];
    out.extend_from_slice(&text);
}

/// A uuid as `uuid_out` prints it.
pub(super) fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut uuid = [0; 16];
    let places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (byte, place) in uuid.iter_mut().zip(places) {
        *byte = nibble(text[place])? << 4 | nibble(text[place + 1])?;
    }
    [8, 13, 18, 23].iter().all(|&place| text[place] == b'-').then_some(uuid)
}

const fn pair(byte: u8) -> [u8; 2] {
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 0xF) as usize]]
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_is_written_as_it_is_read() {
        let text = b"00112233-4455-6677-8899-aabbccddeeff";
        let uuid = parse_uuid(text).unwrap();
        assert_eq!(uuid[15], 0xFF);
        let mut out = Vec::new();
        write_uuid(&uuid, &mut out);
        assert_eq!(out, [b"\"", &text[..], b"\""].concat());
    }

    #[test]
    fn malformed_uuids_are_refused() {
        for text in ["", "00112233-4455-6677-8899-aabbccddeef", "00112233+4455-6677-8899-aabbccddeeff"] {
            assert_eq!(parse_uuid(text.as_bytes()), None);
        }
        assert_eq!(parse_uuid(b"0011223g-4455-6677-8899-aabbccddeeff"), None);
    }

    #[test]
    fn bytes_and_their_digits_are_one_text() {
        let (mut from_bytes, mut from_digits) = (Vec::new(), Vec::new());
        write_bytes(&[0, 0x7F, 0xAB], &mut from_bytes).unwrap();
        write_digits(b"007fab", &mut from_digits).unwrap();
        assert_eq!(from_bytes, b"\"007fab\"");
        assert_eq!(from_bytes, from_digits);
        assert_eq!(write_digits(b"7", &mut from_digits), Err(Reason::Malformed));
        assert_eq!(write_digits(b"7F", &mut from_digits), Err(Reason::Malformed));
    }
}
