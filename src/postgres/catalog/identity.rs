//! `dbmazz.identity`: where each mirror runs, and with which incarnations its workers claimed the target.
//!
//! ```text
//! settled ──found elsewhere, or target claimed by another──► contested ──dbmazz_resume_mirror──► confirmed
//!    ▲                                                                                                │
//!    └────────────────────────── the worker has claimed the target here ◄─────────────────────────────┘
//! ```

use super::incarnation::{from_hex, to_hex};
use super::query;
use crate::identity::Place;

/// So many incarnations are remembered: a statement of an earlier worker may reach the target late.
const REMEMBERED: i32 = 16;

/// Whether a mirror runs where its row says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Standing {
    /// It does.
    Settled,
    /// It was found elsewhere, or the target is another server's.
    Contested,
    /// It was, and somebody said that it may go on here.
    Confirmed,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct Identity {
    /// Where it ran last.
    pub(in crate::postgres) place: Place,
    /// Whether it may run elsewhere.
    pub(in crate::postgres) standing: Standing,
    /// Who claimed the target, newest last.
    pub(in crate::postgres) incarnations: Vec<u64>,
}

/// Where a mirror ran last. Any process.
pub(in crate::postgres) fn read(mirror: &str) -> Option<Identity> {
    query::row(
        "SELECT system_identifier, database_oid, data_directory, host, standing, incarnations
         FROM dbmazz.identity WHERE mirror = $1",
        &[mirror.into()],
        |row| Identity {
            place: Place {
                system_identifier: row.must::<i64>(1).cast_unsigned(),
                database_oid: row.must::<pgrx::pg_sys::Oid>(2).to_u32(),
                data_directory: row.must(3),
                host: row.must(4),
            },
            standing: match row.must::<String>(5).as_str() {
                "contested" => Standing::Contested,
                "confirmed" => Standing::Confirmed,
                _ => Standing::Settled,
            },
            incarnations: row.must::<Vec<String>>(6).iter().map(|text| from_hex(text)).collect(),
        },
    )
}

/// Writes down where a mirror runs from now on. Backends, for a new mirror; mirror worker.
pub(in crate::postgres) fn settle(mirror: &str, place: &Place) {
    query::run(
        "INSERT INTO dbmazz.identity AS i (mirror, system_identifier, database_oid, data_directory, host)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (mirror) DO UPDATE SET system_identifier = excluded.system_identifier,
             database_oid = excluded.database_oid, data_directory = excluded.data_directory, host = excluded.host,
             standing = 'settled'",
        &[
            mirror.into(),
            place.system_identifier.cast_signed().into(),
            pgrx::pg_sys::Oid::from(place.database_oid).into(),
            place.data_directory.as_str().into(),
            place.host.as_str().into(),
        ],
    );
}

/// Writes down that somebody has to say whether the mirror may go on here. Mirror worker.
pub(in crate::postgres) fn contest(mirror: &str) {
    query::run("UPDATE dbmazz.identity SET standing = 'contested' WHERE mirror = $1", &[mirror.into()]);
}

/// Writes down that it may, if anybody asked. Backends.
pub(in crate::postgres) fn confirm(mirror: &str) {
    query::run(
        "UPDATE dbmazz.identity SET standing = 'confirmed' WHERE mirror = $1 AND standing = 'contested'",
        &[mirror.into()],
    );
}

/// Remembers an incarnation that is about to claim the target. Mirror worker.
pub(in crate::postgres) fn remember(mirror: &str, incarnation: u64) {
    query::run(
        "UPDATE dbmazz.identity SET incarnations =
             (incarnations || $2)[greatest(1, pg_catalog.cardinality(incarnations) + 2 - $3) :]
         WHERE mirror = $1",
        &[mirror.into(), to_hex(incarnation).into(), REMEMBERED.into()],
    );
}
