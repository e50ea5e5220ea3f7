//! numeric: exact decimal digits as a JSON string, from the form on disk or from text.
//!
//! The form on disk (`numeric.c`, `NumericChoice`, without the varlena header), in the byte order of the machine:
//!
//! ```text
//! short   10 s ddddddd w wwwwww                 digits…    s: negative, d: dscale, w: weight with its sign
//! long    0s dddddddddddddd, weight as int16,   digits…
//! special 11 00 NaN, 11 01 Infinity, 11 11 -Infinity
//! ```
//!
//! Digits are in base 10000, two bytes each; the first one counts `10000^weight`. `dscale` is how many decimals are
//! shown; stored digits may be fewer (zeros at the end are not kept) or reach further.

use super::error::Reason;
use super::json::reserve;

/// How many decimals are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decimals {
    /// As many as PostgreSQL shows: 12.50.
    Shown,
    /// Without zeros at the end: 12.5. Equal numbers are equal texts then, as a key must be.
    Shortest,
}

/// Appends a numeric in its form on disk.
pub(super) fn write_stored(stored: &[u8], decimals: Decimals, out: &mut Vec<u8>) -> Result<(), Reason> {
    let numeric = Stored::parse(stored)?;
    let whole_groups = usize::try_from(numeric.weight + 1).unwrap_or(0);
    reserve(out, 4 * whole_groups + numeric.dscale + 12)?;
    out.push(b'"');
    if numeric.negative {
        out.push(b'-');
    }
    numeric.write_whole(out);
    numeric.write_decimals(decimals, out);
    out.push(b'"');
    Ok(())
}

/// Appends a numeric as PostgreSQL printed it.
pub(super) fn write_text(text: &[u8], decimals: Decimals, out: &mut Vec<u8>) -> Result<(), Reason> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    // One pass, and one branch at its end: what is no digit may be the point, once and between digits.
    let (mut others, mut point) = (0_usize, 0);
    for (at, &byte) in unsigned.iter().enumerate() {
        if byte.wrapping_sub(b'0') > 9 {
            others += 1;
            point = at;
        }
    }
    let is_inside = point > 0 && point + 1 < unsigned.len() && unsigned.get(point) == Some(&b'.');
    match (others, decimals) {
        (0, _) if !unsigned.is_empty() => write_quoted(text, out),
        (1, Decimals::Shown) if is_inside => write_quoted(text, out),
        (1, Decimals::Shortest) if is_inside => write_quoted(without_zeros(text), out),
        _ if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") => Err(Reason::OutOfRange),
        _ => Err(Reason::Malformed),
    }
}

/// The same number without zeros at its end, and without the point if nothing is left behind it.
fn without_zeros(text: &[u8]) -> &[u8] {
    let zeros = text.iter().rev().take_while(|&&byte| byte == b'0').count();
    let shortest = text.get(..text.len() - zeros).unwrap_or(text);
    shortest.strip_suffix(b".").unwrap_or(shortest)
}

fn write_quoted(text: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    reserve(out, text.len() + 2)?;
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
    Ok(())
}

/// A finite numeric, read from its form on disk.
struct Stored<'a> {
    negative: bool,
    /// Decimals that are shown.
    dscale: usize,
    /// The power of 10000 that the first digit counts.
    weight: i32,
    /// Digits in base 10000.
    digits: &'a [[u8; 2]],
}

impl<'a> Stored<'a> {
    fn parse(stored: &'a [u8]) -> Result<Self, Reason> {
        let (header, rest) = stored.split_first_chunk().ok_or(Reason::Malformed)?;
        let header = u16::from_ne_bytes(*header);
        let (negative, dscale, weight, digits) = match header & 0xC000 {
            0xC000 => return Err(Reason::OutOfRange),
            0x8000 => {
                let weight = i32::from(header & 0x3F) - i32::from(header & 0x40);
                (header & 0x2000 != 0, (header & 0x1F80) >> 7, weight, rest)
            }
            sign => {
                let (weight, digits) = rest.split_first_chunk().ok_or(Reason::Malformed)?;
                (sign == 0x4000, header & 0x3FFF, i32::from(i16::from_ne_bytes(*weight)), digits)
            }
        };
        let (digits, odd) = digits.as_chunks::<2>();
        if !odd.is_empty() || digits.iter().any(|digit| u16::from_ne_bytes(*digit) > 9999) {
            return Err(Reason::Malformed);
        }
        Ok(Self { negative, dscale: usize::from(dscale), weight, digits })
    }

    /// The digit that counts `10000^power`; zero where none is stored.
    fn digit(&self, power: i32) -> u16 {
        let place = usize::try_from(self.weight - power).ok();
        place.and_then(|place| self.digits.get(place)).map_or(0, |digit| u16::from_ne_bytes(*digit))
    }

    fn write_whole(&self, out: &mut Vec<u8>) {
        if self.weight < 0 {
            return out.push(b'0');
        }
        let first = quad(self.digit(self.weight));
        let zeros = first.iter().take(3).take_while(|&&digit| digit == b'0').count();
        out.extend(first.into_iter().skip(zeros));
        for power in (0..self.weight).rev() {
            out.extend_from_slice(&quad(self.digit(power)));
        }
    }

    fn write_decimals(&self, decimals: Decimals, out: &mut Vec<u8>) {
        let end_of_whole = out.len();
        if self.dscale > 0 {
            out.push(b'.');
            for group in 0..self.dscale.div_ceil(4) {
                // dscale has 14 bits.
                out.extend_from_slice(&quad(self.digit(-1 - group as i32)));
            }
            out.truncate(end_of_whole + 1 + self.dscale);
        }
        if decimals == Decimals::Shortest {
            while out.len() > end_of_whole && matches!(out.last(), Some(b'0' | b'.')) {
                out.pop();
            }
        }
    }
}

/// Four decimal digits of a number below 10000.
const fn quad(number: u16) -> [u8; 4] {
    let (high, low) = (number / 100, number % 100);
    [b'0' + (high / 10) as u8, b'0' + (high % 10) as u8, b'0' + (low / 10) as u8, b'0' + (low % 10) as u8]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn long(negative: bool, dscale: u16, weight: i16, digits: &[u16]) -> Vec<u8> {
        let header = dscale | if negative { 0x4000 } else { 0 };
        let mut bytes = header.to_ne_bytes().to_vec();
        bytes.extend(weight.to_ne_bytes());
        digits.iter().for_each(|digit| bytes.extend(digit.to_ne_bytes()));
        bytes
    }

    fn short(negative: bool, dscale: u16, weight: i16, digits: &[u16]) -> Vec<u8> {
        let sign = if negative { 0x2000 } else { 0 };
        let weight = (weight as u16 & 0x3F) | if weight < 0 { 0x40 } else { 0 };
        let mut bytes = (0x8000 | sign | dscale << 7 | weight).to_ne_bytes().to_vec();
        digits.iter().for_each(|digit| bytes.extend(digit.to_ne_bytes()));
        bytes
    }

    fn shown(stored: &[u8]) -> String {
        written(stored, Decimals::Shown)
    }

    fn written(stored: &[u8], decimals: Decimals) -> String {
        let mut out = Vec::new();
        write_stored(stored, decimals, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stored_digits_are_shown_as_numeric_out_shows_them() {
        for form in [short, long] {
            assert_eq!(shown(&form(false, 2, 0, &[12, 5000])), "\"12.50\"");
            assert_eq!(shown(&form(true, 2, 0, &[12, 5000])), "\"-12.50\"");
            assert_eq!(shown(&form(false, 0, 0, &[])), "\"0\"");
            assert_eq!(shown(&form(false, 3, 0, &[])), "\"0.000\"");
            assert_eq!(shown(&form(false, 0, 2, &[1])), "\"100000000\"");
            assert_eq!(shown(&form(false, 0, 1, &[1, 1])), "\"10001\"");
            assert_eq!(shown(&form(false, 6, -1, &[12])), "\"0.001200\"");
            assert_eq!(shown(&form(false, 9, -2, &[1])), "\"0.000000010\"");
        }
        assert_eq!(shown(&long(false, 1, 200, &[9])).len(), 2 + 801 + 2);
    }

    #[test]
    fn equal_keys_are_equal_texts() {
        for (dscale, digits) in [(0, &[10_u16][..]), (1, &[10]), (4, &[10]), (9, &[10])] {
            assert_eq!(written(&short(false, dscale, 0, digits), Decimals::Shortest), "\"10\"");
        }
        assert_eq!(written(&short(false, 3, 0, &[]), Decimals::Shortest), "\"0\"");
        for text in ["10", "10.0", "10.0000"] {
            let mut out = Vec::new();
            write_text(text.as_bytes(), Decimals::Shortest, &mut out).unwrap();
            assert_eq!(out, b"\"10\"");
        }
    }

    #[test]
    fn nan_and_infinities_are_out_of_range() {
        for header in [0xC000_u16, 0xD000, 0xF000] {
            let stored = header.to_ne_bytes();
            assert_eq!(write_stored(&stored, Decimals::Shown, &mut Vec::new()), Err(Reason::OutOfRange));
        }
        for text in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(
                write_text(text.as_bytes(), Decimals::Shown, &mut Vec::new()),
                Err(Reason::OutOfRange)
            );
        }
    }

    #[test]
    fn what_is_no_numeric_is_refused() {
        for stored in [&[][..], &[1], &0_u16.to_ne_bytes(), &short(false, 0, 0, &[10_000]), &[0, 0x80, 0]] {
            assert_eq!(write_stored(stored, Decimals::Shown, &mut Vec::new()), Err(Reason::Malformed));
        }
        for text in ["", "-", ".", "1.", ".5", "1e5", "1.5x", "--1", "1.2.3", "nan"] {
            let written = write_text(text.as_bytes(), Decimals::Shown, &mut Vec::new());
            assert_eq!(written, Err(Reason::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_stored_form_give_the_same_bytes(
            negative in any::<bool>(), whole in 1_u64..10_u64.pow(16), decimals in 0_u64..10_u64.pow(12),
            dscale in 0_u16..=12,
        ) {
            let kept = decimals / 10_u64.pow(12 - u32::from(dscale)) * 10_u64.pow(12 - u32::from(dscale));
            let group = |number: u64, place: u32| (number / 10_000_u64.pow(place) % 10_000) as u16;
            let mut digits = vec![group(whole, 3), group(whole, 2), group(whole, 1), group(whole, 0)];
            digits.extend([group(kept, 2), group(kept, 1), group(kept, 0)]);
            let zeros = digits.iter().take_while(|&&digit| digit == 0).count();
            digits.drain(..zeros);
            while digits.last() == Some(&0) {
                digits.pop();
            }
            let weight = 3 - zeros as i16;
            let mut text = format!("{}{whole}", if negative { "-" } else { "" });
            if dscale > 0 {
                let all = format!("{kept:012}");
                text = format!("{text}.{}", &all[..usize::from(dscale)]);
            }
            for decimals in [Decimals::Shown, Decimals::Shortest] {
                let mut from_text = Vec::new();
                write_text(text.as_bytes(), decimals, &mut from_text).unwrap();
                let from_text = String::from_utf8(from_text).unwrap();
                prop_assert_eq!(&written(&short(negative, dscale, weight, &digits), decimals), &from_text);
                prop_assert_eq!(&written(&long(negative, dscale, weight, &digits), decimals), &from_text);
            }
        }
    }
}
