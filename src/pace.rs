//! A rate in bytes per second that several processes keep together.
//!
//! Whoever has moved bytes books the time that they take at the rate, behind what the others have booked, and goes on when
//! that time has come. The end of what is booked is one number in shared memory; who keeps it, and how it is waited for, is
//! the business of the caller.

/// When bytes that have just been moved are paid for, if everything before is at `booked_until`. Times are in microseconds; a
/// rate is not zero.
#[must_use]
pub fn book(booked_until: i64, now: i64, bytes: u64, bytes_per_second: u64) -> i64 {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_second.max(1));
    let micros = i64::try_from(micros).unwrap_or(i64::MAX >> 2);
    booked_until.max(now).saturating_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookings_follow_each_other() {
        let first = book(0, 1_000, 5_000_000, 10_000_000);
        assert_eq!(first, 501_000);
        assert_eq!(book(first, 2_000, 10_000_000, 10_000_000), 1_501_000);
    }

    #[test]
    fn time_that_nobody_used_is_not_made_up_for() {
        assert_eq!(book(1_000, 90_000_000, 1_000_000, 1_000_000), 91_000_000);
    }

    #[test]
    fn more_than_there_is_time_for_does_not_overflow() {
        assert!(book(i64::MAX - 1, 0, u64::MAX, 1) > 0);
    }
}
