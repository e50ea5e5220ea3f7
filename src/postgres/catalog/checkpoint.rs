//! `dbmazz.checkpoint`: what is durable and visible at the target. The slot follows it, never leads it.

use pgrx::pg_sys;

use super::incarnation::{from_hex, to_hex};
use super::query;
use crate::lsn::Lsn;
use crate::postgres::compat;
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
    /// What `dbmazz_owner` at the target said at least; [`Lsn::INVALID`] before it said anything.
    pub(in crate::postgres) owner_lsn: Lsn,
}

/// The checkpoint of a mirror; none before the first. Any process.
pub(in crate::postgres) fn read(mirror: &str) -> Option<Checkpoint> {
    query::row(
        "SELECT confirmed_lsn, system_identifier, timeline, database_oid, incarnation, label_number,
             owner_lsn
         FROM dbmazz.checkpoint WHERE mirror = $1",
        &[mirror.into()],
        |row| Checkpoint {
            confirmed_lsn: row.must::<LsnDatum>(1).0,
            system_identifier: row.must::<i64>(2).cast_unsigned(),
            timeline: row.must::<i32>(3).cast_unsigned(),
            database_oid: row.must(4),
            incarnation: from_hex(&row.must::<String>(5)),
            label_number: row.must::<i64>(6).cast_unsigned(),
            owner_lsn: row.get::<LsnDatum>(7).map_or(Lsn::INVALID, |lsn| lsn.0),
        },
    )
}

/// A checkpoint of this server as it is now, that promises nothing yet. Any process.
pub(in crate::postgres) fn here(database_oid: pg_sys::Oid, incarnation: u64) -> Checkpoint {
    Checkpoint {
        confirmed_lsn: Lsn::INVALID,
        // SAFETY: reads what the control file said at the server's start.
        system_identifier: unsafe { pg_sys::GetSystemIdentifier() },
        timeline: compat::timeline(),
        database_oid,
        incarnation,
        label_number: 0,
        owner_lsn: Lsn::INVALID,
    }
}

/// Writes down what `dbmazz_owner` says at the target, for a checkpoint that was written before it said so. Mirror worker.
pub(in crate::postgres) fn write_owner_lsn(mirror: &str, owner_lsn: Lsn) {
    query::run(
        "UPDATE dbmazz.checkpoint SET owner_lsn = $2 WHERE mirror = $1",
        &[mirror.into(), LsnDatum(owner_lsn).into()],
    );
}

/// Writes down that the server has left the timeline of the checkpoint, whose position it has. Mirror worker, before it loads
/// anything of the new timeline: what the target says next is a position of that one.
pub(in crate::postgres) fn write_timeline(mirror: &str, timeline: u32) {
    query::run(
        "UPDATE dbmazz.checkpoint SET timeline = $2 WHERE mirror = $1 AND timeline <> $2",
        &[mirror.into(), timeline.cast_signed().into()],
    );
}

/// The proof that a checkpoint has been committed. Only with it can a slot be moved.
#[derive(Debug)]
pub(in crate::postgres) struct Written {
    confirmed_lsn: Lsn,
}

impl Written {
    /// What the checkpoint says.
    pub(in crate::postgres) const fn confirmed_lsn(&self) -> Lsn {
        self.confirmed_lsn
    }
}

/// Commits a checkpoint, together with what `body` writes, in a transaction of its own. Mirror worker.
pub(in crate::postgres) fn commit(mirror: &str, checkpoint: &Checkpoint, body: impl FnOnce()) -> Written {
    super::mirror::transaction(mirror, || {
        body();
        write(mirror, checkpoint);
    });
    Written { confirmed_lsn: checkpoint.confirmed_lsn }
}

fn write(mirror: &str, checkpoint: &Checkpoint) {
    query::run(
        "INSERT INTO dbmazz.checkpoint AS c (mirror, confirmed_lsn, system_identifier, timeline, database_oid,
             incarnation, label_number, owner_lsn, confirmed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, pg_catalog.clock_timestamp())
         ON CONFLICT (mirror) DO UPDATE SET confirmed_lsn = excluded.confirmed_lsn,
             system_identifier = excluded.system_identifier, timeline = excluded.timeline,
             database_oid = excluded.database_oid, incarnation = excluded.incarnation,
             label_number = excluded.label_number, owner_lsn = excluded.owner_lsn, confirmed_at = excluded.confirmed_at",
        &[
            mirror.into(),
            LsnDatum(checkpoint.confirmed_lsn).into(),
            checkpoint.system_identifier.cast_signed().into(),
            checkpoint.timeline.cast_signed().into(),
            checkpoint.database_oid.into(),
            to_hex(checkpoint.incarnation).into(),
            checkpoint.label_number.cast_signed().into(),
            checkpoint.owner_lsn.is_valid().then_some(LsnDatum(checkpoint.owner_lsn)).into(),
        ],
    );
}
