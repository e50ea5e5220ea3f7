//! `dbmazz.incarnation`: the numbers of load labels that may be in flight. A number is committed here before any
//! load has it, so that after a crash every label is known that the target could have heard of.

use super::query;
use crate::sink::Label;

/// Numbers whose fate is not known yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Unsettled {
    /// Whose numbers.
    pub(in crate::postgres) incarnation: u64,
    /// No label has this number or a higher one.
    pub(in crate::postgres) reserved_until: u64,
    /// The fate of every label below this number is known.
    pub(in crate::postgres) settled_until: u64,
}

impl Unsettled {
    /// The label with one of its numbers.
    pub(in crate::postgres) fn label(&self, mirror: &str, number: u64) -> Label {
        Label { mirror: mirror.into(), incarnation: self.incarnation, number }
    }
}

/// Begins an incarnation with its first block of numbers. Mirror worker.
pub(in crate::postgres) fn open(mirror: &str, incarnation: u64, reserved_until: u64) {
    query::run(
        "INSERT INTO dbmazz.incarnation (mirror, incarnation, reserved_until) VALUES ($1, $2, $3)",
        &[mirror.into(), to_hex(incarnation).into(), reserved_until.cast_signed().into()],
    );
}

/// Reserves the numbers below `until`; never fewer than before. Mirror worker, launcher.
pub(in crate::postgres) fn reserve(mirror: &str, incarnation: u64, until: u64) {
    query::run(
        "UPDATE dbmazz.incarnation SET reserved_until = greatest(reserved_until, $3)
         WHERE mirror = $1 AND incarnation = $2",
        &[mirror.into(), to_hex(incarnation).into(), until.cast_signed().into()],
    );
}

/// Writes down that the fate of the numbers below `until` is known. Mirror worker.
pub(in crate::postgres) fn settle(mirror: &str, incarnation: u64, until: u64) {
    query::run(
        "UPDATE dbmazz.incarnation SET settled_until = greatest(settled_until, $3)
         WHERE mirror = $1 AND incarnation = $2",
        &[mirror.into(), to_hex(incarnation).into(), until.cast_signed().into()],
    );
}

/// The incarnations whose numbers must be asked for at the target, oldest first. Mirror worker.
pub(in crate::postgres) fn unsettled(mirror: &str) -> Vec<Unsettled> {
    query::rows(
        "SELECT incarnation, reserved_until, settled_until FROM dbmazz.incarnation
         WHERE mirror = $1 ORDER BY created_at, incarnation",
        &[mirror.into()],
        |row| Unsettled {
            incarnation: from_hex(&row.must::<String>(1)),
            reserved_until: row.must::<i64>(2).cast_unsigned(),
            settled_until: row.must::<i64>(3).cast_unsigned(),
        },
    )
}

/// Forgets every incarnation of a mirror that has been dropped, its last loads being settled. Backends, at the end of a
/// transaction.
pub(in crate::postgres) fn remove_all(mirror: &str) {
    query::run_at_commit("DELETE FROM dbmazz.incarnation WHERE mirror = $1", &[mirror.into()]);
}

/// Forgets an incarnation: the fate of every number is known, and no worker uses it any more. Mirror worker.
pub(in crate::postgres) fn remove(mirror: &str, incarnation: u64) {
    query::run(
        "DELETE FROM dbmazz.incarnation WHERE mirror = $1 AND incarnation = $2",
        &[mirror.into(), to_hex(incarnation).into()],
    );
}

/// As labels have it: 16 digits.
pub(super) fn to_hex(incarnation: u64) -> String {
    format!("{incarnation:016x}")
}

/// The table allows nothing but 16 digits. Should there be anything else, no label has the number zero.
pub(super) fn from_hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or(0)
}
