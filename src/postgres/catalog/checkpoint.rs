//! `dbmazz.checkpoint`: what is durable and visible at the target. The slot follows it, never leads it.

use pgrx::pg_sys;

use super::incarnation::{from_hex, to_hex};
use super::query;
use crate::lsn::Lsn;
use crate::postgres::lsn_datum::LsnDatum;

/// A row of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Checkpoint {
    /// For the tables in `s` and `r`, all that committed before is visible at the target.
    pub(in crate::postgres) confirmed_lsn: Lsn,
    /// `pg_control_system().system_identifier` of the server that wrote it.
    pub(in crate::postgres) system_identifier: u64,
    /// Its timeline.
    pub(in crate::postgres) timeline: u32,
    /// The database.
    pub(in crate::postgres) database_oid: pg_sys::Oid,
    /// Whose loads `label_number` counts.
    pub(in crate::postgres) incarnation: u64,
    /// Loads up to this number are visible.
    pub(in crate::postgres) label_number: u64,
}

/// The checkpoint of a mirror; none before the first. Any process.
pub(in crate::postgres) fn read(mirror: &str) -> Option<Checkpoint> {
    query::row(
        "SELECT confirmed_lsn, system_identifier, timeline, database_oid, incarnation, label_number
         FROM dbmazz.checkpoint WHERE mirror = $1",
        &[mirror.into()],
        |row| Checkpoint {
            confirmed_lsn: row.must::<LsnDatum>(1).0,
            system_identifier: row.must::<i64>(2).cast_unsigned(),
            timeline: row.must::<i32>(3).cast_unsigned(),
            database_oid: row.must(4),
            incarnation: from_hex(&row.must::<String>(5)),
            label_number: row.must::<i64>(6).cast_unsigned(),
        },
    )
}

/// Replaces the checkpoint of a mirror. Mirror worker; only after the commit may the slot be told.
pub(in crate::postgres) fn write(mirror: &str, checkpoint: &Checkpoint) {
    query::run(
        "INSERT INTO dbmazz.checkpoint AS c (mirror, confirmed_lsn, system_identifier, timeline, database_oid,
             incarnation, label_number, confirmed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, pg_catalog.clock_timestamp())
         ON CONFLICT (mirror) DO UPDATE SET confirmed_lsn = excluded.confirmed_lsn,
             system_identifier = excluded.system_identifier, timeline = excluded.timeline,
             database_oid = excluded.database_oid, incarnation = excluded.incarnation,
             label_number = excluded.label_number, confirmed_at = excluded.confirmed_at",
        &[
            mirror.into(),
            LsnDatum(checkpoint.confirmed_lsn).into(),
            checkpoint.system_identifier.cast_signed().into(),
            checkpoint.timeline.cast_signed().into(),
            checkpoint.database_oid.into(),
            to_hex(checkpoint.incarnation).into(),
            checkpoint.label_number.cast_signed().into(),
        ],
    );
}
