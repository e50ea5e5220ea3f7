//! Which transactions a snapshot sees.
//!
//! A table that was copied under a snapshot later than the slot must not get again what the snapshot has seen already:
//! the mirror worker asks here, once per transaction, with the number that decoding has for it.

use std::fmt;

/// A snapshot as `pg_current_snapshot()` shows it: `xmin:xmax:xip,…`, with numbers that do not wrap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VisibleIn {
    /// Every transaction before this one had ended.
    xmin: u64,
    /// No transaction from this one on had ended.
    xmax: u64,
    /// Those between that had not ended, in ascending order.
    in_progress: Vec<u64>,
}

/// A text that is no snapshot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoSnapshot(String);

impl fmt::Display for NoSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not read snapshot \"{}\"", self.0)
    }
}

impl std::error::Error for NoSnapshot {}

impl fmt::Display for VisibleIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (number, xid) in self.in_progress.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{xid}")?;
        }
        Ok(())
    }
}

impl VisibleIn {
    /// Reads the text of `pg_current_snapshot()`.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, NoSnapshot> {
        let read = || {
            let mut parts = text.split(':');
            let (xmin, xmax, list) = (parts.next()?, parts.next()?, parts.next()?);
            let numbers = list.split(',').filter(|number| !number.is_empty());
            let mut in_progress: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
            in_progress.sort_unstable();
            let nothing_follows = parts.next().is_none();
            nothing_follows.then_some(Self {
                xmin: xmin.parse().ok()?,
                xmax: xmax.parse().ok()?,
                in_progress,
            })
        };
        read().ok_or_else(|| NoSnapshot(text.to_owned()))
    }

    /// Whether the snapshot sees what a transaction did that has committed. Decoding knows the lower half of its number;
    /// the other half is that which brings it next to the snapshot, since no two transactions that matter at the same
    /// time are 2³¹ apart.
    pub fn sees(&self, xid: u32) -> bool {
        let distance = xid.wrapping_sub(self.xmax as u32).cast_signed();
        let full = self.xmax.wrapping_add_signed(i64::from(distance));
        full < self.xmin || (full < self.xmax && self.in_progress.binary_search(&full).is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(text: &str) -> VisibleIn {
        VisibleIn::parse(text).unwrap()
    }

    #[test]
    fn transactions_that_had_ended_are_seen() {
        let snapshot = visible("100:110:103,107");
        let seen: Vec<u32> = (98..113).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [98, 99, 100, 101, 102, 104, 105, 106, 108, 109]);
    }

    #[test]
    fn numbers_that_wrap_are_told_apart() {
        let wrap = 1_u64 << 32;
        let snapshot = visible(&format!("{}:{}:{}", wrap - 2, wrap + 5, wrap + 3));
        assert!(snapshot.sees(u32::MAX - 10));
        assert!(snapshot.sees(u32::MAX));
        assert!(snapshot.sees(2));
        assert!(!snapshot.sees(3));
        assert!(snapshot.sees(4));
        assert!(!snapshot.sees(5));
        assert!(!snapshot.sees(1_000_000));
    }

    #[test]
    fn snapshot_without_transactions_in_progress_is_read() {
        assert!(visible("7:7:").sees(6));
        assert!(!visible("7:7:").sees(7));
        assert_eq!(visible("7:10:9,8").to_string(), "7:10:8,9");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "7", "7:8", "7:8:9:10", "a:8:", "7:8:x", "7:8:9,,x"] {
            assert_eq!(VisibleIn::parse(text), Err(NoSnapshot(text.to_owned())), "{text}");
        }
    }
}
