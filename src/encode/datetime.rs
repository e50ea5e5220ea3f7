//! date and timestamp: the calendar, from PostgreSQL's counts to text and back.
//!
//! PostgreSQL counts days and microseconds from 2000-01-01 in the proleptic Gregorian calendar. StarRocks has the
//! years 0000 to 9999; its year 0000 is 1 BC.

use std::ops::RangeInclusive;

use super::error::Reason;

/// The days that StarRocks has, from 0000-01-01 to 9999-12-31.
pub(super) const DATES: RangeInclusive<i32> = -730_485..=2_921_939;

/// The microseconds that StarRocks has, from 0000-01-01 00:00:00 to 9999-12-31 23:59:59.999999.
pub(super) const TIMESTAMPS: RangeInclusive<i64> = -730_485 * MICROS_PER_DAY..=2_921_940 * MICROS_PER_DAY - 1;

pub(super) const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Appends `"YYYY-MM-DD"`.
pub(super) fn write_date(days: i32, out: &mut Vec<u8>) -> Result<(), Reason> {
    if !DATES.contains(&days) {
        return Err(Reason::OutOfRange);
    }
    let mut text = *b"\"0000-00-00\"";
    put_date(&mut text, days);
    out.extend_from_slice(&text);
    Ok(())
}

/// Appends `"YYYY-MM-DD HH:MM:SS"`, with `.ffffff` when there is a fraction.
pub(super) fn write_timestamp(micros: i64, out: &mut Vec<u8>) -> Result<(), Reason> {
    if !TIMESTAMPS.contains(&micros) {
        return Err(Reason::OutOfRange);
    }
    // Counted from the year 0, so that nothing is negative: unsigned divisions by constants are multiplications.
    let micros = micros.wrapping_sub(*TIMESTAMPS.start()) as u64;
    let (days, of_day) = (micros / MICROS_PER_DAY as u64, micros % MICROS_PER_DAY as u64);
    let days = days as i32 + *DATES.start();
    let (second, fraction) = ((of_day / 1_000_000) as u32, (of_day % 1_000_000) as u32);
    let mut text = *b"\"0000-00-00 00:00:00.000000\"";
    put_date(&mut text, days);
    [text[12], text[13]] = pair(second / 3600);
    [text[15], text[16]] = pair(second / 60 % 60);
    [text[18], text[19]] = pair(second % 60);
    if fraction == 0 {
        text[20] = b'"';
        let (seconds_only, _) = text.split_at(21);
        out.extend_from_slice(seconds_only);
        return Ok(());
    }
    [text[21], text[22]] = pair(fraction / 10_000);
    [text[23], text[24]] = pair(fraction / 100 % 100);
    [text[25], text[26]] = pair(fraction % 100);
    out.extend_from_slice(&text);
    Ok(())
}

/// Appends `"HH:MM:SS"`, with as many decimals as there are, as `time_out` prints it.
pub(super) fn write_time(micros: i64, out: &mut Vec<u8>) -> Result<(), Reason> {
    if !(0..=MICROS_PER_DAY).contains(&micros) {
        return Err(Reason::Malformed);
    }
    let (second, fraction) = ((micros / 1_000_000) as u32, (micros % 1_000_000) as u32);
    let mut text = *b"\"00:00:00.000000";
    [text[1], text[2]] = pair(second / 3600);
    [text[4], text[5]] = pair(second / 60 % 60);
    [text[7], text[8]] = pair(second % 60);
    [text[10], text[11]] = pair(fraction / 10_000);
    [text[12], text[13]] = pair(fraction / 100 % 100);
    [text[14], text[15]] = pair(fraction % 100);
    let zeros = text.iter().rev().take_while(|&&byte| byte == b'0').count();
    let length = if fraction == 0 { 9 } else { text.len() - zeros };
    out.extend_from_slice(text.get(..length).unwrap_or(&text));
    out.push(b'"');
    Ok(())
}

/// Days since 2000-01-01 of a date; year 0 is 1 BC. `None` for a date that the calendar does not have or an `i32` does
/// not reach.
pub(super) fn days_of(year: i64, month: u32, day: u32) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let cycle = year.div_euclid(400);
    let of_cycle = year.rem_euclid(400);
    let of_year = i64::from((153 * month + 2) / 5 + day - 1);
    let days = cycle * DAYS_PER_CYCLE + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year;
    i32::try_from(days - MARCH_0000).ok()
}

/// Days from 0000-03-01 to 2000-01-01.
const MARCH_0000: i64 = 730_425;
/// Days in the 400 years after which the calendar repeats.
const DAYS_PER_CYCLE: i64 = 146_097;

/// Puts `YYYY-MM-DD` behind the first byte of `text`. The day is one of [`DATES`].
fn put_date<const N: usize>(text: &mut [u8; N], days: i32) {
    let (year, month, day) = civil(days);
    let [a, b, c, d, e, f, g, h] = {
        let [a, b] = pair(year / 100);
        let [c, d] = pair(year % 100);
        let [e, f] = pair(month);
        let [g, h] = pair(day);
        [a, b, c, d, e, f, g, h]
    };
    if let Some(place) = text.first_chunk_mut::<11>() {
        *place = [b'"', a, b, c, d, b'-', e, f, b'-', g, h];
    }
}

/// Year, month and day of one of [`DATES`], by the century, the year of it and the day of that.
fn civil(days: i32) -> (u32, u32, u32) {
    // One cycle more, so that January and February of the year 0 are not negative.
    let day = (i64::from(days) + MARCH_0000 + DAYS_PER_CYCLE) as u32;
    let quarters = 4 * day + 3;
    let (century, of_century) = (quarters / 146_097, quarters % 146_097 / 4);
    let quarters = 4 * of_century + 3;
    let (year, of_year) = (quarters / 1461, quarters % 1461 / 4);
    let fifths = 5 * of_year + 2;
    let (month, day) = (fifths / 153, fifths % 153 / 5 + 1);
    let year = 100 * century + year;
    if month < 10 { (year - 400, month + 3, day) } else { (year + 1 - 400, month - 9, day) }
}

/// Two decimal digits of a number below 100.
#[inline]
fn pair(number: u32) -> [u8; 2] {
    PAIRS.get(number as usize).copied().unwrap_or_default()
}

/// `00` to `99`.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;

    fn date(days: i32) -> String {
        let mut out = Vec::new();
        write_date(days, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn timestamp(micros: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(micros, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_have_as_many_decimals_as_the_server_prints() {
        let time = |micros| {
            let mut out = Vec::new();
            write_time(micros, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let cases = [
            (0, "\"00:00:00\""),
            (1, "\"00:00:00.000001\""),
            (36_000_000_000, "\"10:00:00\""),
            (45_296_700_000, "\"12:34:56.7\""),
            (45_296_070_010, "\"12:34:56.07001\""),
            (MICROS_PER_DAY - 1, "\"23:59:59.999999\""),
            (MICROS_PER_DAY, "\"24:00:00\""),
        ];
        for (micros, expected) in cases {
            assert_eq!(time(micros).as_deref(), Ok(expected));
        }
        assert_eq!((time(-1), time(MICROS_PER_DAY + 1)), (Err(Reason::Malformed), Err(Reason::Malformed)));
    }

    #[test]
    fn every_day_of_ten_thousand_years_is_the_day_after_the_one_before() {
        let (mut year, mut month, mut day) = (0, 1, 1);
        for days in DATES {
            assert_eq!(civil(days), (year, month, day));
            assert_eq!(days_of(i64::from(year), month, day), Some(days));
            let next = days_of(i64::from(year), month, day + 1).is_some();
            (year, month, day) = match (next, month) {
                (true, _) => (year, month, day + 1),
                (false, 12) => (year + 1, 1, 1),
                (false, _) => (year, month + 1, 1),
            };
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }

    #[test]
    fn known_days() {
        assert_eq!(date(0), "\"2000-01-01\"");
        assert_eq!(date(-730_485), "\"0000-01-01\"");
        assert_eq!(date(2_921_939), "\"9999-12-31\"");
        assert_eq!(date(59), "\"2000-02-29\"");
        assert_eq!(days_of(1900, 2, 29), None);
        assert_eq!(days_of(5_874_897, 12, 31), Some(2_145_031_948));
    }

    #[test]
    fn fraction_is_there_only_when_it_is_not_zero() {
        assert_eq!(timestamp(0), "\"2000-01-01 00:00:00\"");
        assert_eq!(timestamp(-1), "\"1999-12-31 23:59:59.999999\"");
        assert_eq!(timestamp(1), "\"2000-01-01 00:00:00.000001\"");
        assert_eq!(timestamp(123_400), "\"2000-01-01 00:00:00.123400\"");
        assert_eq!(timestamp(*TIMESTAMPS.start()), "\"0000-01-01 00:00:00\"");
        assert_eq!(timestamp(*TIMESTAMPS.end()), "\"9999-12-31 23:59:59.999999\"");
    }

    #[test]
    fn what_starrocks_lacks_is_out_of_range() {
        for days in [i32::MIN, i32::MAX, *DATES.start() - 1, *DATES.end() + 1] {
            assert_eq!(write_date(days, &mut Vec::new()), Err(Reason::OutOfRange));
        }
        for micros in [i64::MIN, i64::MAX, *TIMESTAMPS.start() - 1, *TIMESTAMPS.end() + 1] {
            assert_eq!(write_timestamp(micros, &mut Vec::new()), Err(Reason::OutOfRange));
        }
    }
}
