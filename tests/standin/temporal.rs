//! DATE and DATETIME from text, as lenient as StarRocks is.
//!
//! A zone offset, `Z` and ` BC` behind a value are dropped without a word: that is what the real parser does, and a client that sends
//! them must be seen to load wrong data.

/// A point in time as StarRocks stores it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DateTime {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn digits(&mut self, most: usize) -> Option<(u32, usize)> {
        let count = self.rest.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        let value = digits.iter().fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
        (count > 0).then_some((value, count))
    }

    fn eat(&mut self, any_of: &[u8]) -> bool {
        let Some((first, rest)) = self.rest.split_first() else { return false };
        let found = any_of.contains(first);
        if found {
            self.rest = rest;
        }
        found
    }
}

/// Reads a date with an optional time.
pub(crate) fn parse(text: &str) -> Option<DateTime> {
    let mut reader = Reader { rest: text.trim_matches(' ').as_bytes() };
    let (year, month, day) = date(&mut reader)?;
    let mut value = DateTime { year, month, day, hour: 0, minute: 0, second: 0, micros: 0 };
    if value.month == 0 || value.month > 12 || value.day == 0 || value.day > days_of(year, month) {
        return None;
    }
    if matches!(reader.rest, [b' ' | b'T', b'0'..=b'9', ..]) {
        reader.eat(b" T");
        time(&mut reader, &mut value)?;
    }
    is_ignored(reader.rest).then_some(value)
}

fn date(reader: &mut Reader<'_>) -> Option<(u32, u32, u32)> {
    let (first, count) = reader.digits(8)?;
    match count {
        8 => Some((first / 10000, first / 100 % 100, first % 100)),
        4 if reader.eat(b"-/") => {
            let (month, _) = reader.digits(2)?;
            if !reader.eat(b"-/") {
                return None;
            }
            let (day, _) = reader.digits(2)?;
            Some((first, month, day))
        }
        _ => None,
    }
}

fn time(reader: &mut Reader<'_>, value: &mut DateTime) -> Option<()> {
    value.hour = reader.digits(2)?.0;
    if reader.eat(b":") {
        value.minute = reader.digits(2)?.0;
        if reader.eat(b":") {
            value.second = reader.digits(2)?.0;
        }
    }
    if reader.eat(b".") {
        let (micros, count) = reader.digits(6)?;
        value.micros = micros * 10u32.pow(6 - u32::try_from(count).ok()?);
        // More than six fraction digits are cut.
        let _ = reader.digits(usize::MAX);
    }
    (value.hour < 24 && value.minute < 60 && value.second < 60).then_some(())
}

/// What may follow a value without being noticed.
fn is_ignored(rest: &[u8]) -> bool {
    matches!(rest, [] | [b'Z'] | [b' ', b'B', b'C'])
        || matches!(rest, [b'+' | b'-', digits @ ..] if digits.iter().all(|b| b.is_ascii_digit() || *b == b':'))
}

fn days_of(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl DateTime {
    /// `YYYY-MM-DD`.
    pub(crate) fn date_text(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// `YYYY-MM-DD HH:MM:SS`, with six fraction digits unless they are zero.
    pub(crate) fn text(&self) -> String {
        let date = self.date_text();
        let whole = format!("{date} {:02}:{:02}:{:02}", self.hour, self.minute, self.second);
        if self.micros == 0 { whole } else { format!("{whole}.{:06}", self.micros) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(from: &str) -> Option<String> {
        parse(from).map(|value| value.text())
    }

    #[test]
    fn dates_and_times_are_read() {
        assert_eq!(text("2026-11-20").as_deref(), Some("2026-11-20 00:00:00"));
        assert_eq!(text("20261120").as_deref(), Some("2026-11-20 00:00:00"));
        assert_eq!(text("2026-11-20T01:02:03.5").as_deref(), Some("2026-11-20 01:02:03.500000"));
        assert_eq!(text("2026-11-20 01:02:03.1234567").as_deref(), Some("2026-11-20 01:02:03.123456"));
        assert_eq!(text("0000-01-01 00:00:00").as_deref(), Some("0000-01-01 00:00:00"));
    }

    #[test]
    fn offsets_and_eras_are_dropped_in_silence() {
        assert_eq!(text("2026-11-20 01:02:03+02").as_deref(), Some("2026-11-20 01:02:03"));
        assert_eq!(text("2026-11-20 01:02:03Z").as_deref(), Some("2026-11-20 01:02:03"));
        assert_eq!(text("0044-03-15 BC").as_deref(), Some("0044-03-15 00:00:00"));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in [
            "infinity",
            "-infinity",
            "12026-01-01",
            "2026-13-01",
            "2026-02-29",
            "2026-11-20 24:00:00",
            "2026-11-20 1:2:60",
            "",
            "2026",
            "2026-11-20x",
            "294276-12-31 23:59:59",
        ] {
            assert_eq!(text(bad), None, "{bad}");
        }
        assert!(text("2024-02-29").is_some());
        assert!(text("1900-02-29").is_none());
    }
}
