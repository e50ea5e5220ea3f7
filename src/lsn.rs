//! A position in the write-ahead log, as `pg_lsn` prints it.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log. Zero is PostgreSQL's `InvalidXLogRecPtr`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `InvalidXLogRecPtr`: before any record.
    pub const INVALID: Self = Self(0);

    /// Whether this is a position at all.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Bytes of log from `earlier` up to here; zero when `earlier` is the later one.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is not of the form `X/X`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MalformedLsn;

impl fmt::Display for MalformedLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position in the log is written as two hexadecimal numbers with a slash between")
    }
}

impl std::error::Error for MalformedLsn {}

impl FromStr for Lsn {
    type Err = MalformedLsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').ok_or(MalformedLsn)?;
        let half = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| MalformedLsn);
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_position_are_the_same_thing() {
        for lsn in [Lsn(0), Lsn(0x16_B374_D848), Lsn(u64::MAX)] {
            assert_eq!(lsn.to_string().parse(), Ok(lsn));
        }
        assert_eq!(Lsn(0x1_0000_000A).to_string(), "1/A");
        assert_eq!("1".parse::<Lsn>(), Err(MalformedLsn));
        assert_eq!("1/1FFFFFFFF".parse::<Lsn>(), Err(MalformedLsn));
    }
}
