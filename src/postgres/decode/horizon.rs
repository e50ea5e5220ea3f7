//! How far the log may be decoded.
//!
//! Not beyond what is on disk here, and not beyond what the standbys of `synchronized_standby_slots` have: after a
//! failover to one of them the target would otherwise hold changes that never happened. Walsenders of failover slots
//! keep to the same (walsender.c, `NeedToWaitForStandbys`).

use std::time::{Duration, Instant};

use pgrx::PgLogLevel;

use super::super::compat;
use crate::lsn::Lsn;

/// How long a standby may be behind, again and again, before the log says what keeps it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the log says so after the first time.
const REMINDER: Duration = Duration::from_secs(30);

/// The position up to which the log may be decoded.
#[derive(Debug, Default)]
pub(in super::super) struct Horizon {
    allowed: Lsn,
    /// A position that is on disk here and that standbys are awaited for. It stays until they have it: the newest
    /// position of a busy server is one that they never have.
    awaited: Option<Lsn>,
    next_warning: Option<Instant>,
}

impl Horizon {
    /// Looks again; returns the position up to which all log may be decoded now.
    pub(in super::super) fn advance(&mut self) -> Lsn {
        let awaited = self.awaited.take().unwrap_or_else(compat::flush_position);
        let now = Instant::now();
        let next_warning = *self.next_warning.get_or_insert(now + PATIENCE);
        let level = if now < next_warning { PgLogLevel::DEBUG1 } else { PgLogLevel::WARNING };
        if compat::standbys_have(awaited, level) {
            self.next_warning = None;
            self.allowed = awaited;
        } else {
            self.awaited = Some(awaited);
            if now >= next_warning {
                self.next_warning = Some(now + REMINDER);
            }
        }
        self.allowed
    }
}
