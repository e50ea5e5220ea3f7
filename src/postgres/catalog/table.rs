//! `dbmazz.mirror_table`: the tables of the mirrors, how far each has come, and what was done for it.

mod copies;
mod row;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::event::{Event, Severity};
use super::query;
use crate::lsn::Lsn;
use crate::postgres::encoding::own_text;
use crate::postgres::lsn_datum::LsnDatum;
use crate::postgres::shmem;
use crate::snapshot::CatchUp;
use crate::table::TargetTable;

pub(in crate::postgres) use self::copies::{
    abandoned_copies, copies, forget_abandoned_copy, has_abandoned_copies, write_copy,
};
use self::row::from_row;
pub(in crate::postgres) use self::row::{
    CopyTable, Counters, DefinedAt, Layout, MirrorTableRow, NewDefinition, NewTable, Standing, TableState,
};

/// The tables of a mirror, in the order of their names. Any process.
pub(in crate::postgres) fn list(mirror: &str) -> Vec<MirrorTableRow> {
    query::rows(
        "SELECT relid, source_name, target_database, target_table, filtered, definition, state, catch_up_lsn, catch_up,
             defined_commit, defined_change, natts, relfilenode, altering, known_as, copy_table, copy_mark, partitioned,
             published
         FROM dbmazz.mirror_table WHERE mirror = $1 ORDER BY source_name, relid",
        &[mirror.into()],
        from_row,
    )
}

/// Adds a table to a mirror. Backends, mirror worker.
pub(in crate::postgres) fn insert(mirror: &str, new: &NewTable) {
    query::run(
        "INSERT INTO dbmazz.mirror_table (mirror, relid, source_name, known_as, target_database, target_table, filtered,
             partitioned, published)
         VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8)",
        &[
            mirror.into(),
            new.relid.into(),
            new.source_name.as_str().into(),
            new.target.database.as_str().into(),
            new.target.table.as_str().into(),
            new.filtered.into(),
            new.is_partitioned.into(),
            new.published.as_deref().into(),
        ],
    );
}

/// The table of this database's mirrors that has the same target, by name of mirror and source; not `itself`, of this
/// mirror. One of the same mirror that has been dropped does not count: who follows waits until it has been let go. Backends,
/// mirror worker.
pub(in crate::postgres) fn with_target(
    target: &TargetTable,
    server: &str,
    itself: Option<(&str, pg_sys::Oid)>,
) -> Option<(String, String)> {
    let (mirror, relid) = itself.unzip();
    query::row(
        "SELECT t.mirror, t.source_name FROM dbmazz.mirror_table t JOIN dbmazz.mirror m USING (mirror)
         WHERE t.target_database = $1 AND t.target_table = $2 AND m.server = $3 AND t.relid IS DISTINCT FROM $4
             AND (t.mirror IS DISTINCT FROM $5 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.relid))",
        &[
            target.database.as_str().into(),
            target.table.as_str().into(),
            server.into(),
            relid.into(),
            mirror.into(),
        ],
        |row| (row.must(1), row.must(2)),
    )
}

/// Takes a table out of a mirror. Backends, mirror worker.
pub(in crate::postgres) fn remove(mirror: &str, relid: pg_sys::Oid) {
    super::chunk::clear_of(mirror, relid);
    super::rejected::clear(mirror, relid);
    copies::abandon(mirror, relid);
    query::run(
        "DELETE FROM dbmazz.mirror_table WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into()],
    );
}

/// Takes a table out of its mirror that has been dropped at the source. Workers.
pub(in crate::postgres) fn let_go(mirror: &str, relid: pg_sys::Oid) {
    copies::abandon(mirror, relid);
    let gone = query::run_returning(
        "DELETE FROM dbmazz.mirror_table WHERE mirror = $1 AND relid = $2
         RETURNING source_name, target_database || '.' || target_table",
        &[mirror.into(), relid.into()],
        |row| (row.must::<String>(1), row.must::<String>(2)),
    );
    let Some((source_name, target)) = gone else { return };
    super::chunk::clear_of(mirror, relid);
    let message = format!("table \"{source_name}\" has been dropped, and has left the mirror");
    let detail = format!("The target table \"{target}\" stays as it is.");
    let event = Event { relid: Some(relid), ..Event::of(mirror, Severity::Info, &message) };
    Event { detail: Some(&detail), ..event }.record();
    log!("mirror \"{mirror}\": {message}");
}

/// Writes down that a table is called otherwise at the source. Workers.
pub(in crate::postgres) fn rename(mirror: &str, relid: pg_sys::Oid, name: &str) {
    let renamed = query::run(
        "UPDATE dbmazz.mirror_table SET source_name = $3
         WHERE mirror = $1 AND relid = $2 AND source_name IS DISTINCT FROM $3",
        &[mirror.into(), relid.into(), name.into()],
    );
    if renamed == 1 {
        let message = format!("a table is called \"{name}\" from now on");
        let detail = "Its target table keeps its name.";
        let event = Event { relid: Some(relid), ..Event::of(mirror, Severity::Info, &message) };
        Event { detail: Some(detail), ..event }.record();
    }
}

/// Writes down that a table is wanted anew, also one in error, and what is published of it. Backends, mirror worker.
pub(in crate::postgres) fn copy_again(
    mirror: &str,
    relid: pg_sys::Oid,
    filtered: bool,
    published: Option<&str>,
) {
    super::chunk::clear_of(mirror, relid);
    super::rejected::clear(mirror, relid);
    query::run(
        "UPDATE dbmazz.mirror_table SET state = 'i', filtered = $3, published = $4, last_error = NULL,
             catch_up_lsn = NULL, catch_up = NULL, snapshot_lsn = NULL
         WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into(), filtered.into(), published.into()],
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
    let hint = if super::rejected::exist(mirror, relid) {
        "The rows refused are in dbmazz_rejected_row.  Mend the cause, then copy the table again with dbmazz_resync_table."
    } else {
        "Mend the cause, then copy the table again with dbmazz_resync_table."
    };
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
             last_error = NULL, copy_table = NULL, copy_mark = NULL
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
    super::rejected::clear(mirror, relid);
    query::run(
        "UPDATE dbmazz.mirror_table SET state = 'i', catch_up_lsn = NULL, catch_up = NULL, snapshot_lsn = NULL
         WHERE mirror = $1 AND relid = $2 AND state <> 'e'",
        &[mirror.into(), relid.into()],
    ) == 1
}

/// Writes down the columns that the target was made for, and where the copy goes. Whoever leads the copy.
pub(in crate::postgres) fn write_definition(
    mirror: &str,
    relid: pg_sys::Oid,
    definition: &str,
    layout: Layout,
    copy: Option<&CopyTable>,
) {
    let (table, mark) = copy.map(|copy| (copy.table.as_str(), copy.mark.as_str())).unzip();
    query::run(
        "UPDATE dbmazz.mirror_table SET definition = $3, natts = $4, relfilenode = $5, defined_commit = NULL,
             defined_change = NULL, altering = NULL, copy_table = $6, copy_mark = $7
         WHERE mirror = $1 AND relid = $2",
        &[
            mirror.into(),
            relid.into(),
            definition.into(),
            layout.natts.into(),
            layout.file.into(),
            table.into(),
            mark.into(),
        ],
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
