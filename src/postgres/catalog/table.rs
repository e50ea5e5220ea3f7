//! `dbmazz.mirror_table`: the tables of the mirrors, how far each has come, and what was done for it.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::event::{Event, Severity};
use super::query::{self, Row};
use crate::definition::AlterStep;
use crate::lsn::Lsn;
use crate::postgres::encoding::own_text;
use crate::postgres::lsn_datum::LsnDatum;
use crate::postgres::shmem;
use crate::snapshot::CatchUp;
use crate::table::TargetTable;

/// How far a table has come, in letters of `pg_subscription_rel`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum TableState {
    /// `i`: known, nothing done.
    Known,
    /// `d`: its rows are being copied.
    Copying,
    /// `s`: copied, catching up.
    CatchingUp,
    /// `r`: in step.
    Ready,
    /// `e`: in error; it keeps no changes.
    Error,
}

impl TableState {
    const ALL: [Self; 5] = [Self::Known, Self::Copying, Self::CatchingUp, Self::Ready, Self::Error];

    /// The letter of the table.
    pub(in crate::postgres) const fn letter(self) -> char {
        match self {
            Self::Known => 'i',
            Self::Copying => 'd',
            Self::CatchingUp => 's',
            Self::Ready => 'r',
            Self::Error => 'e',
        }
    }

    /// The state of a letter. The table allows no others than these.
    fn of(letter: i8) -> Self {
        Self::ALL.into_iter().find(|state| state.as_char() == letter).unwrap_or(Self::Error)
    }

    /// PostgreSQL's `"char"`.
    const fn as_char(self) -> i8 {
        self.letter() as i8
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct MirrorTableRow {
    /// The source.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// `schema.table` of the source when the mirror was started.
    pub(in crate::postgres) source_name: String,
    /// Where its rows go.
    pub(in crate::postgres) target: TargetTable,
    /// Whether pgoutput decodes it: row filter, column list, or operations left out.
    pub(in crate::postgres) filtered: bool,
    /// What the target was made for, by [`super::relation::definition`].
    pub(in crate::postgres) definition: Option<String>,
    /// How far it has come.
    pub(in crate::postgres) state: TableState,
    /// What the stream has to do for it, and up to where.
    pub(in crate::postgres) catch_up: Option<(Lsn, CatchUp)>,
    /// Where the definition begins.
    pub(in crate::postgres) defined_at: DefinedAt,
    /// How the relation was laid out there.
    pub(in crate::postgres) layout: Layout,
    /// What may not have been done at the target yet.
    pub(in crate::postgres) altering: Vec<AlterStep>,
}

/// The first change that had a definition: the end of its transaction's commit, and its own place in the log. Changes are
/// decoded in this order, always the same; one before this belongs to an earlier definition.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::postgres) struct DefinedAt {
    /// Where the commit ends.
    pub(in crate::postgres) commit: Lsn,
    /// Where the change is.
    pub(in crate::postgres) change: Lsn,
}

/// What tells whether rows of a relation can have got values that no change shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::postgres) struct Layout {
    /// Numbers of columns that were ever given.
    pub(in crate::postgres) natts: i16,
    /// Its file: another one after every rewrite.
    pub(in crate::postgres) file: pg_sys::Oid,
}

/// Another definition of a table, as it is written down before the target is altered.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct NewDefinition {
    /// The source.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// The definition.
    pub(in crate::postgres) definition: String,
    /// Where it begins.
    pub(in crate::postgres) at: DefinedAt,
    /// How the relation is laid out there.
    pub(in crate::postgres) layout: Layout,
    /// What has to be done at the target.
    pub(in crate::postgres) steps: String,
}

impl MirrorTableRow {
    /// Whether an earlier worker of this mirror has begun to copy it: rows at the target are the mirror's own.
    pub(in crate::postgres) const fn has_begun(&self) -> bool {
        self.definition.is_some()
    }

    /// Whether it waits for a copy, or is in the midst of one.
    pub(in crate::postgres) fn wants_copy(&self) -> bool {
        matches!(self.state, TableState::Known | TableState::Copying)
    }
}

/// A table that joins a mirror.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct NewTable {
    /// The source.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// `schema.table` of the source.
    pub(in crate::postgres) source_name: String,
    /// Where its rows go.
    pub(in crate::postgres) target: TargetTable,
    /// Whether pgoutput decodes it.
    pub(in crate::postgres) filtered: bool,
}

/// How the tables of a mirror stand, as of now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Standing {
    /// Some table is in error.
    pub(in crate::postgres) in_error: bool,
    /// Every table is in step.
    pub(in crate::postgres) all_ready: bool,
}

/// What has been done since the last time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::postgres) struct Counters {
    /// Rows inserted at the source.
    pub(in crate::postgres) inserts: u64,
    /// Rows updated at the source.
    pub(in crate::postgres) updates: u64,
    /// Rows deleted at the source.
    pub(in crate::postgres) deletes: u64,
    /// Times that the source was truncated.
    pub(in crate::postgres) truncates: u64,
    /// Rows loaded.
    pub(in crate::postgres) rows_loaded: u64,
    /// Bytes loaded, before compression.
    pub(in crate::postgres) bytes_loaded: u64,
}

/// The tables of a mirror, in the order of their names. Any process.
pub(in crate::postgres) fn list(mirror: &str) -> Vec<MirrorTableRow> {
    query::rows(
        "SELECT relid, source_name, target_database, target_table, filtered, definition, state, catch_up_lsn, catch_up,
             defined_commit, defined_change, natts, relfilenode, altering
         FROM dbmazz.mirror_table WHERE mirror = $1 ORDER BY source_name, relid",
        &[mirror.into()],
        from_row,
    )
}

/// Adds a table to a mirror. Backends.
pub(in crate::postgres) fn insert(mirror: &str, new: &NewTable) {
    query::run(
        "INSERT INTO dbmazz.mirror_table (mirror, relid, source_name, target_database, target_table, filtered)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            mirror.into(),
            new.relid.into(),
            new.source_name.as_str().into(),
            new.target.database.as_str().into(),
            new.target.table.as_str().into(),
            new.filtered.into(),
        ],
    );
}

/// The table of this database's mirrors that has the same target, by name of mirror and source; not `itself`. Backends.
pub(in crate::postgres) fn with_target(
    target: &TargetTable,
    server: &str,
    itself: Option<pg_sys::Oid>,
) -> Option<(String, String)> {
    query::row(
        "SELECT t.mirror, t.source_name FROM dbmazz.mirror_table t JOIN dbmazz.mirror m USING (mirror)
         WHERE t.target_database = $1 AND t.target_table = $2 AND m.server = $3 AND t.relid IS DISTINCT FROM $4",
        &[target.database.as_str().into(), target.table.as_str().into(), server.into(), itself.into()],
        |row| (row.must(1), row.must(2)),
    )
}

/// Takes a table out of a mirror. Backends.
pub(in crate::postgres) fn remove(mirror: &str, relid: pg_sys::Oid) {
    super::chunk::clear_of(mirror, relid);
    query::run(
        "DELETE FROM dbmazz.mirror_table WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into()],
    );
}

/// Writes down that a table is wanted anew, also one in error. Backends.
pub(in crate::postgres) fn copy_again(mirror: &str, relid: pg_sys::Oid, filtered: bool) {
    super::chunk::clear_of(mirror, relid);
    query::run(
        "UPDATE dbmazz.mirror_table SET state = 'i', filtered = $3, last_error = NULL, catch_up_lsn = NULL,
             catch_up = NULL, snapshot_lsn = NULL
         WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into(), filtered.into()],
    );
}

/// Writes down how far a table has come, and why it went no further; without an error the last one is forgotten.
/// Mirror worker.
pub(in crate::postgres) fn write_state(
    mirror: &str,
    relid: pg_sys::Oid,
    state: TableState,
    error: Option<&str>,
) {
    query::run(
        "UPDATE dbmazz.mirror_table SET state = $3, last_error = $4 WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into(), state.as_char().into(), error.map(own_text).as_deref().into()],
    );
}

/// Puts a table into error, where the views show it. Inside a transaction.
pub(in crate::postgres) fn fail(mirror: &str, relid: pg_sys::Oid, source_name: &str, reason: &str) {
    write_state(mirror, relid, TableState::Error, Some(reason));
    let message = format!("table \"{source_name}\" has been put into error: {reason}");
    let hint = "Mend the cause, then copy the table again with dbmazz_resync_table.";
    Event { relid: Some(relid), hint: Some(hint), ..Event::of(mirror, Severity::Error, &message) }.record();
    warning!("mirror \"{mirror}\": {message}");
    shmem::note_error(mirror, &message);
}

/// Writes down that the rows of a table are copied, as of `snapshot_lsn` or a later snapshot, and what came since is in
/// the slot. It is in step at once, unless it has to catch up. Mirror worker.
pub(in crate::postgres) fn set_copied(mirror: &str, relid: pg_sys::Oid, snapshot_lsn: Lsn) {
    query::run(
        "UPDATE dbmazz.mirror_table SET state = CASE WHEN catch_up IS NULL THEN 'r' ELSE 's' END,
             snapshot_lsn = coalesce(snapshot_lsn, $3), last_error = NULL
         WHERE mirror = $1 AND relid = $2 AND state = 'd'",
        &[mirror.into(), relid.into(), LsnDatum(snapshot_lsn).into()],
    );
}

/// Writes down that everything that committed up to `lsn` is at the target, for a table that was copied as of
/// `snapshot_lsn`: the stream has it from there on. Whether it was still being copied. The holder of its slot.
pub(in crate::postgres) fn set_caught_up(
    mirror: &str,
    relid: pg_sys::Oid,
    snapshot_lsn: Lsn,
    lsn: Lsn,
) -> bool {
    query::run(
        "UPDATE dbmazz.mirror_table SET state = 's', snapshot_lsn = $3, catch_up_lsn = $4, catch_up = $5,
             last_error = NULL
         WHERE mirror = $1 AND relid = $2 AND state = 'd'",
        &[
            mirror.into(),
            relid.into(),
            LsnDatum(snapshot_lsn).into(),
            LsnDatum(lsn).into(),
            CatchUp::Behind.to_string().into(),
        ],
    ) == 1
}

/// Writes down that the stream has passed the position at which a table comes into step. Mirror worker.
pub(in crate::postgres) fn set_in_step(mirror: &str, relid: pg_sys::Oid) {
    query::run(
        "UPDATE dbmazz.mirror_table SET state = 'r', catch_up_lsn = NULL, catch_up = NULL
         WHERE mirror = $1 AND relid = $2 AND state = 's'",
        &[mirror.into(), relid.into()],
    );
}

/// Writes down what the stream will have to do for a table whose copy is later than the slot. Mirror worker.
pub(in crate::postgres) fn write_catch_up(mirror: &str, relid: pg_sys::Oid, until: Lsn, catch_up: &CatchUp) {
    query::run(
        "UPDATE dbmazz.mirror_table SET catch_up_lsn = $3, catch_up = $4, snapshot_lsn = $3
         WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into(), LsnDatum(until).into(), catch_up.to_string().into()],
    );
}

/// Writes down that a table has to be copied from its beginning, and forgets the copy so far. Says whether the table is
/// there and not in error. Any process.
pub(in crate::postgres) fn begin_anew(mirror: &str, relid: pg_sys::Oid) -> bool {
    super::chunk::clear_of(mirror, relid);
    query::run(
        "UPDATE dbmazz.mirror_table SET state = 'i', catch_up_lsn = NULL, catch_up = NULL, snapshot_lsn = NULL
         WHERE mirror = $1 AND relid = $2 AND state <> 'e'",
        &[mirror.into(), relid.into()],
    ) == 1
}

/// Writes down the columns that the target was made for. Whoever leads the copy.
pub(in crate::postgres) fn write_definition(
    mirror: &str,
    relid: pg_sys::Oid,
    definition: &str,
    layout: Layout,
) {
    query::run(
        "UPDATE dbmazz.mirror_table SET definition = $3, natts = $4, relfilenode = $5, defined_commit = NULL,
             defined_change = NULL, altering = NULL
         WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into(), definition.into(), layout.natts.into(), layout.file.into()],
    );
}

/// Writes down the columns that the target is about to have, and how it gets them. A process that decodes for the mirror
/// waits for this.
pub(in crate::postgres) fn write_new_definition(mirror: &str, new: &NewDefinition) {
    query::run(
        "UPDATE dbmazz.mirror_table SET definition = $3, natts = $4, relfilenode = $5, defined_commit = $6,
             defined_change = $7, altering = $8
         WHERE mirror = $1 AND relid = $2",
        &[
            mirror.into(),
            new.relid.into(),
            new.definition.as_str().into(),
            new.layout.natts.into(),
            new.layout.file.into(),
            LsnDatum(new.at.commit).into(),
            LsnDatum(new.at.change).into(),
            new.steps.as_str().into(),
        ],
    );
}

/// Writes down that the target has the columns of its definition. Mirror worker.
pub(in crate::postgres) fn set_altered(mirror: &str, relid: pg_sys::Oid, source_name: &str) {
    query::run(
        "UPDATE dbmazz.mirror_table SET altering = NULL WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into()],
    );
    let message = format!("the target of table \"{source_name}\" has been altered as the source was");
    Event { relid: Some(relid), ..Event::of(mirror, Severity::Info, &message) }.record();
}

/// Writes down that the stream cannot follow a table, and its rows have to be copied again. Workers that decode.
pub(in crate::postgres) fn copy_again_because(
    mirror: &str,
    relid: pg_sys::Oid,
    source_name: &str,
    reason: &str,
) {
    if begin_anew(mirror, relid) {
        let message = format!("table \"{source_name}\" will be copied again: {reason}");
        Event { relid: Some(relid), ..Event::of(mirror, Severity::Warning, &message) }.record();
        log!("mirror \"{mirror}\": {message}");
    }
}

/// Adds to the figures of a table. Workers.
pub(in crate::postgres) fn add_counters(mirror: &str, relid: pg_sys::Oid, counters: &Counters) {
    let bigint = u64::cast_signed;
    query::run(
        "UPDATE dbmazz.mirror_table SET inserts = inserts + $3, updates = updates + $4, deletes = deletes + $5,
             truncates = truncates + $6, rows_loaded = rows_loaded + $7, bytes_loaded = bytes_loaded + $8,
             last_load_at = CASE WHEN $7 > 0 THEN pg_catalog.clock_timestamp() ELSE last_load_at END
         WHERE mirror = $1 AND relid = $2",
        &[
            mirror.into(),
            relid.into(),
            bigint(counters.inserts).into(),
            bigint(counters.updates).into(),
            bigint(counters.deletes).into(),
            bigint(counters.truncates).into(),
            bigint(counters.rows_loaded).into(),
            bigint(counters.bytes_loaded).into(),
        ],
    );
}

/// How the tables of a mirror stand, as of now, whatever the transaction's snapshot (unless it has written); none when
/// the mirror is gone. Any process.
pub(in crate::postgres) fn standing(mirror: &str) -> Option<Standing> {
    query::latest_row(
        "SELECT coalesce(bool_or(t.state = 'e'), false), coalesce(bool_and(t.state = 'r'), true)
         FROM dbmazz.mirror m LEFT JOIN dbmazz.mirror_table t USING (mirror) WHERE m.mirror = $1 GROUP BY m.mirror",
        &[mirror.into()],
        |row| Standing { in_error: row.must(1), all_ready: row.must(2) },
    )
}

fn from_row(row: &Row<'_>) -> MirrorTableRow {
    MirrorTableRow {
        relid: row.must(1),
        source_name: row.must(2),
        target: TargetTable { database: row.must(3), table: row.must(4) },
        filtered: row.must(5),
        definition: row.get(6),
        state: TableState::of(row.must(7)),
        catch_up: row.get::<LsnDatum>(8).zip(row.get::<String>(9)).map(|(lsn, text)| {
            let catch_up = CatchUp::parse(&text).unwrap_or_else(|problem| error!("{problem}"));
            (lsn.0, catch_up)
        }),
        defined_at: DefinedAt {
            commit: row.get::<LsnDatum>(10).map_or(Lsn::INVALID, |lsn| lsn.0),
            change: row.get::<LsnDatum>(11).map_or(Lsn::INVALID, |lsn| lsn.0),
        },
        layout: Layout {
            natts: row.get(12).unwrap_or_default(),
            file: row.get(13).unwrap_or(pg_sys::InvalidOid),
        },
        altering: row.get::<String>(14).map_or_else(Vec::new, |steps| {
            serde_json::from_str(&steps).unwrap_or_else(|problem| error!("could not read steps: {problem}"))
        }),
    }
}
