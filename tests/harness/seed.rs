//! Random numbers that can be had again: the seed is printed, and `DBMAZZ_TEST_SEED` sets it.

use std::time::{SystemTime, UNIX_EPOCH};

/// A generator of the family splitmix64. Good enough to pick moments and rows; nothing depends on its quality.
pub(crate) struct Random(u64);

impl Random {
    /// Starts from `DBMAZZ_TEST_SEED`, or from the clock, and prints which.
    pub(crate) fn announced(who: &str) -> Self {
        let given = std::env::var("DBMAZZ_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(from_the_clock);
        println!("{who}: DBMAZZ_TEST_SEED={seed}");
        Self(seed)
    }

    /// Starts from a number that another generator gave.
    pub(crate) const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn from_the_clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |time| time.as_secs() << 20 | u64::from(time.subsec_micros()))
}
