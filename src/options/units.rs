//! Sizes and times as PostgreSQL writes them in its settings: `64MB`, `1.5GB`, `500 ms`, `1min`.
//!
//! Unlike PostgreSQL's settings, a number without a unit is refused unless it is zero: what it would mean depends on
//! the setting, and a mistake by a factor of 1,024 is easily made.

use std::time::Duration;

/// Units of memory, as in `guc.c`: powers of 1,024.
const SIZES: [(&str, u64); 5] =
    [("B", 1), ("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];

/// Units of time in microseconds.
const TIMES: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Bytes of a text such as `64MB`; nothing when it is not one.
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// The time of a text such as `500ms`; nothing when it is not one.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &TIMES).map(Duration::from_micros)
}

/// Bytes in the largest unit that divides them, as `SHOW` prints them.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

/// A time in the largest unit that divides it, as `SHOW` prints it.
pub fn show_duration(time: Duration) -> String {
    show(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), &TIMES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit = unit.trim_start();
    if unit.is_empty() {
        return (number == "0").then_some(0);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(*factor),
        Err(_) => fraction(number, *factor),
    }
}

/// `1.5` of a unit, rounded to the nearest whole.
fn fraction(number: &str, factor: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let scale = 10_u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let decimals: u64 = decimals.parse().ok()?;
    let part = u128::from(decimals) * u128::from(factor);
    let part = (part + u128::from(scale) / 2) / u128::from(scale);
    whole.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().rev().find(|(_, factor)| value.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) if value != 0 => format!("{}{name}", value / factor),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("64MB"), Some(64 << 20));
        assert_eq!(parse_size(" 1.5 GB "), Some(3 << 29));
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("7B"), Some(7));
    }

    #[test]
    fn times_go_down_to_microseconds() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1 min"), Some(Duration::from_secs(60)));
        assert_eq!(parse_duration("0.25s"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_not_a_value_with_a_unit_is_refused() {
        for text in
            ["", "64", "MB", "64mb", "64 XB", "-1MB", "1.MB", ".5MB", "1e3MB", "1..2MB", "20000000TB", "1s"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(parse_duration("1 sec"), None);
    }

    #[test]
    fn values_are_shown_in_their_largest_unit() {
        assert_eq!(show_size(64 << 20), "64MB");
        assert_eq!(show_size(1 << 20 | 1), "1048577B");
        assert_eq!(show_size(0), "0");
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(Duration::from_secs(3_600)), "1h");
    }
}
