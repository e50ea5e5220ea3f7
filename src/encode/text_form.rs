//! Values from the text that PostgreSQL's output functions print (pgoutput, `DateStyle ISO`, `TimeZone UTC`).

use super::datetime::{MICROS_PER_DAY, days_of};
use super::hex;
use super::value::Value;
use crate::table::Kind;

/// A text that is not what the output function of its type prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MalformedText;

impl std::fmt::Display for MalformedText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("text is not what the output function of its type prints")
    }
}

impl std::error::Error for MalformedText {}

impl<'a> Value<'a> {
    /// The value that `text` prints, for a column of this kind. Characters are borrowed, not copied; the digits of
    /// numeric and bytea are not looked at before they are written ([`super::Reason::Malformed`]).
    ///
    /// # Errors
    ///
    /// The text is not one that the type prints, with the settings named above.
    pub fn from_text(kind: Kind, text: &'a [u8]) -> Result<Self, MalformedText> {
        match Self::read_text(kind, text) {
            Self::Malformed => Err(MalformedText),
            value => Ok(value),
        }
    }

    /// [`Self::from_text`] with [`Value::Malformed`] as the error. (Unpacking the `Result` for each value of a row cost
    /// an eighth of the time of the whole path: the value was copied while its parts were still being stored.)
    #[inline]
    pub(crate) fn read_text(kind: Kind, text: &'a [u8]) -> Self {
        match kind {
            Kind::Bool => match text {
                b"t" => Self::Bool(true),
                b"f" => Self::Bool(false),
                _ => Self::Malformed,
            },
            Kind::Int => integer(text).map_or(Self::Malformed, Self::Int),
            Kind::Float4 => float(text).map_or(Self::Malformed, Self::Float4),
            Kind::Float8 => float(text).map_or(Self::Malformed, Self::Float8),
            Kind::Numeric => Self::NumericText(text),
            Kind::Date => date(text).map_or(Self::Malformed, Self::Date),
            Kind::Timestamp => timestamp(text).map_or(Self::Malformed, Self::Timestamp),
            Kind::Uuid => hex::parse_uuid(text).map_or(Self::Malformed, Self::Uuid),
            Kind::Bytes | Kind::HexText => text.strip_prefix(b"\\x").map_or(Self::Malformed, Self::HexBytes),
            Kind::Json => Self::Json(text),
            Kind::Text => Self::Text(text),
        }
    }
}

/// Digits with an optional minus; what an `i64` does not hold is refused.
fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, text),
    };
    if digits.len() <= 18 {
        let value = small_number(digits)?;
        return Some(if negative { value.wrapping_neg() } else { value });
    }
    // Counted downwards: i64::MIN has no positive twin.
    let value = digits.iter().try_fold(0_i64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_sub(i64::from(digit)) }
    })?;
    if negative { Some(value) } else { value.checked_neg() }
}

/// One to eighteen digits, which cannot overflow. What is no digit is noticed at the end, so that the loop has one
/// branch only.
#[inline]
fn small_number(digits: &[u8]) -> Option<i64> {
    let (mut value, mut wrong) = (0_i64, digits.is_empty());
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        wrong |= digit > 9;
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
    }
    if wrong { None } else { Some(value) }
}

/// Rust reads what PostgreSQL prints, and a little more (`inf`, `+1`), which no output function prints.
fn float<F: std::str::FromStr>(text: &[u8]) -> Option<F> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn date(text: &[u8]) -> Option<i32> {
    match text {
        b"infinity" => return Some(i32::MAX),
        b"-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let (text, era) = split_era(text);
    let (days, rest) = day(text, era)?;
    rest.is_empty().then_some(days)
}

fn timestamp(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, era) = split_era(text);
    let (days, rest) = day(text, era)?;
    let of_day = micros_of_day(rest)?;
    let micros = i64::from(days).checked_mul(MICROS_PER_DAY)?.checked_add(of_day)?;
    // These two stand for the infinities.
    (micros != i64::MIN && micros != i64::MAX).then_some(micros)
}

#[derive(Clone, Copy)]
enum Era {
    Common,
    BeforeChrist,
}

fn split_era(text: &[u8]) -> (&[u8], Era) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, Era::BeforeChrist),
        None => (text, Era::Common),
    }
}

/// The day that `text` begins with, and what follows it. The year has at least four digits.
#[inline]
fn day(text: &[u8], era: Era) -> Option<(i32, &[u8])> {
    let mut digits = Digits::default();
    let (year, month, day, rest) = match text.split_first_chunk() {
        Some((&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2], rest)) => {
            let year = i64::from(digits.pair(y1, y2) * 100 + digits.pair(y3, y4));
            (year, digits.pair(m1, m2), digits.pair(d1, d2), rest)
        }
        _ => {
            let dash = text.iter().take(10).position(|&byte| byte == b'-').filter(|&at| at > 4)?;
            let (year, rest) = text.split_at_checked(dash)?;
            let (&[b'-', m1, m2, b'-', d1, d2], rest) = rest.split_first_chunk()? else { return None };
            (small_number(year)?, digits.pair(m1, m2), digits.pair(d1, d2), rest)
        }
    };
    let year = match era {
        Era::Common if year > 0 => year,
        Era::BeforeChrist if year > 0 => 1 - year,
        _ => return None,
    };
    if digits.wrong { None } else { Some((days_of(year, month, day)?, rest)) }
}

/// Microseconds of ` HH:MM:SS[.f…][+00]`, with up to six digits of the second.
#[inline]
fn micros_of_day(text: &[u8]) -> Option<i64> {
    let (&[b' ', h1, h2, b':', m1, m2, b':', s1, s2], rest) = text.split_first_chunk()? else { return None };
    let mut digits = Digits::default();
    let (hour, minute, second) = (digits.pair(h1, h2), digits.pair(m1, m2), digits.pair(s1, s2));
    if digits.wrong || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = i64::from(hour * 3600 + minute * 60 + second) * 1_000_000;
    let fraction = rest.strip_suffix(b"+00").unwrap_or(rest);
    if fraction.is_empty() {
        return Some(micros);
    }
    let digits = fraction.strip_prefix(b".").filter(|digits| digits.len() <= 6)?;
    let scale = [1_000_000, 100_000, 10_000, 1000, 100, 10, 1].get(digits.len())?;
    Some(micros + small_number(digits)? * scale)
}

/// Reads pairs of digits; what is no digit is remembered.
#[derive(Default)]
struct Digits {
    wrong: bool,
}

impl Digits {
    #[inline]
    fn pair(&mut self, tens: u8, ones: u8) -> u32 {
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        self.wrong |= tens > 9 || ones > 9;
        u32::from(tens) * 10 + u32::from(ones)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(kind: Kind, text: &str) -> Result<Value<'_>, MalformedText> {
        Value::from_text(kind, text.as_bytes())
    }

    #[test]
    fn dates_and_times_are_read_as_postgresql_prints_them() {
        assert_eq!(read(Kind::Date, "2000-01-01"), Ok(Value::Date(0)));
        assert_eq!(read(Kind::Date, "0001-01-01 BC"), Ok(Value::Date(-730_485)));
        assert_eq!(read(Kind::Date, "4714-11-24 BC"), Ok(Value::Date(-2_451_545)));
        assert_eq!(read(Kind::Date, "5874897-12-31"), Ok(Value::Date(2_145_031_948)));
        assert_eq!(read(Kind::Date, "infinity"), Ok(Value::Date(i32::MAX)));
        assert_eq!(read(Kind::Timestamp, "2000-01-01 00:00:00+00"), Ok(Value::Timestamp(0)));
        assert_eq!(read(Kind::Timestamp, "2000-01-01 00:00:00.5"), Ok(Value::Timestamp(500_000)));
        assert_eq!(read(Kind::Timestamp, "1999-12-31 23:59:59.999999+00"), Ok(Value::Timestamp(-1)));
        assert_eq!(
            read(Kind::Timestamp, "0001-12-31 23:59:59+00 BC"),
            Ok(Value::Timestamp((-730_485 + 366) * MICROS_PER_DAY - 1_000_000))
        );
        assert_eq!(read(Kind::Timestamp, "-infinity"), Ok(Value::Timestamp(i64::MIN)));
    }

    #[test]
    fn text_in_another_form_is_refused() {
        let malformed = [
            (Kind::Bool, "true"),
            (Kind::Int, ""),
            (Kind::Int, "-"),
            (Kind::Int, "+1"),
            (Kind::Int, "9223372036854775808"),
            (Kind::Float8, "1.5x"),
            (Kind::Date, "20-11-2026"),
            (Kind::Date, "2026-11-31"),
            (Kind::Date, "0000-01-01"),
            (Kind::Date, "2026-11-20 10:00:00"),
            (Kind::Timestamp, "2026-11-20"),
            (Kind::Timestamp, "2026-11-20 10:00:00+01"),
            (Kind::Timestamp, "2026-11-20 10:00:00."),
            (Kind::Timestamp, "2026-11-20 10:00:00.1234567"),
            (Kind::Timestamp, "2026-11-20 24:00:00"),
            (Kind::Timestamp, "300000-01-01 00:00:00"),
            (Kind::Bytes, "00"),
            (Kind::Uuid, "x"),
        ];
        for (kind, text) in malformed {
            assert_eq!(read(kind, text), Err(MalformedText), "{kind:?} {text}");
        }
    }

    proptest! {
        #[test]
        fn integers_read_back(number in any::<i64>()) {
            let text = number.to_string();
            prop_assert_eq!(read(Kind::Int, &text), Ok(Value::Int(number)));
        }

        #[test]
        fn integers_of_both_ends_read_back(offset in 0_i64..1000) {
            for number in [i64::MIN + offset, i64::MAX - offset] {
                let text = number.to_string();
            prop_assert_eq!(read(Kind::Int, &text), Ok(Value::Int(number)));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..40)) {
            for kind in [Kind::Int, Kind::Float8, Kind::Numeric, Kind::Date, Kind::Timestamp, Kind::Uuid, Kind::Bytes] {
                let _ = Value::from_text(kind, &text);
            }
        }
    }
}
