//! `dbmazz.import` and `dbmazz.import_step`.
//!
//! Plain statements; the caller has the rights of the extension (`catalog::as_extension`).

use pgrx::datum::DatumWithOid;
use pgrx::{JsonB, pg_sys};

use crate::postgres::catalog::query;

/// An import as it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Import {
    pub(super) id: i64,
    pub(super) source: String,
    pub(super) server: Option<String>,
    pub(super) owner: pg_sys::Oid,
    pub(super) tables: Option<Vec<String>>,
    pub(super) options: String,
    /// `manifest.options` and the encoding, as JSON; none until it is planned.
    pub(super) exported: Option<String>,
    pub(super) state: String,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) step: i32,
    pub(super) phase: i32,
    pub(super) kind: Kind,
    /// Qualified and quoted.
    pub(super) relation: Option<String>,
    pub(super) statement: Option<String>,
    pub(super) settings: String,
    /// A `copy::ChunkToLoad`.
    pub(super) chunk: Option<String>,
    pub(super) bytes: i64,
}

/// How a step is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Statement,
    Chunk,
    MustBeEmpty,
    LargeObjects,
    MustFindNothing,
}

impl Kind {
    const LETTERS: [(u8, Self); 5] = [
        (b's', Self::Statement),
        (b'c', Self::Chunk),
        (b'e', Self::MustBeEmpty),
        (b'l', Self::LargeObjects),
        (b'v', Self::MustFindNothing),
    ];

    fn letter(self) -> i8 {
        Self::LETTERS.iter().find(|(_, kind)| *kind == self).map_or(b's', |(letter, _)| *letter).cast_signed()
    }

    fn from_letter(letter: i8) -> Self {
        let found = Self::LETTERS.iter().find(|(known, _)| known.cast_signed() == letter);
        found.map_or(Self::Statement, |(_, kind)| *kind)
    }
}

const COLUMNS: &str =
    "import_id, source, server, owner, tables, options::pg_catalog.text, exported::pg_catalog.text, state";

/// Writes down a new import; returns its number.
pub(super) fn insert(
    source: &str,
    server: Option<&str>,
    owner: pg_sys::Oid,
    tables: Option<Vec<String>>,
    options: JsonB,
) -> i64 {
    query::run_returning(
        "INSERT INTO dbmazz.import (source, server, owner, tables, options) VALUES ($1, $2, $3, $4, $5)
         RETURNING import_id",
        &[source.into(), server.into(), owner.into(), tables.into(), options.into()],
        |row| row.must(1),
    )
    .unwrap_or_default()
}

/// The last import that was asked for in the same way and is not done.
pub(super) fn unfinished(
    source: &str,
    owner: pg_sys::Oid,
    tables: Option<Vec<String>>,
    options: JsonB,
) -> Option<i64> {
    query::row(
        "SELECT import_id FROM dbmazz.import
         WHERE source = $1 AND owner = $2 AND tables IS NOT DISTINCT FROM $3 AND options = $4 AND state <> 'done'
         ORDER BY import_id DESC LIMIT 1",
        &[source.into(), owner.into(), tables.into(), options.into()],
        |row| row.must(1),
    )
}

/// An import.
pub(super) fn read(id: i64) -> Option<Import> {
    query::row(&format!("SELECT {COLUMNS} FROM dbmazz.import WHERE import_id = $1"), &[id.into()], |row| {
        Import {
            id: row.must(1),
            source: row.must(2),
            server: row.get(3),
            owner: row.must(4),
            tables: row.get::<Vec<String>>(5),
            options: row.must(6),
            exported: row.get(7),
            state: row.must(8),
        }
    })
}

/// State and last error as of now, also in a transaction that sees the past.
pub(super) fn present_state(id: i64) -> Option<(String, Option<String>)> {
    query::latest_row(
        "SELECT state, last_error FROM dbmazz.import WHERE import_id = $1",
        &[id.into()],
        |row| (row.must(1), row.get(2)),
    )
}

/// The state of an import, and why it is in it.
pub(super) fn set_state(id: i64, state: &str, reason: Option<&str>) {
    query::run(
        "UPDATE dbmazz.import SET state = $2, last_error = $3,
             finished_at = CASE WHEN $2 IN ('starting', 'running') THEN NULL ELSE pg_catalog.clock_timestamp() END
         WHERE import_id = $1",
        &[id.into(), state.into(), reason.into()],
    );
}

/// The import fails, unless it has failed or was cancelled already: the first reason stays.
pub(super) fn fail(id: i64, reason: &str) {
    query::run(
        "UPDATE dbmazz.import SET state = 'failed', last_error = $2, finished_at = pg_catalog.clock_timestamp()
         WHERE import_id = $1 AND state IN ('starting', 'running')",
        &[id.into(), reason.into()],
    );
}

/// Writes down the plan.
pub(super) fn plan(id: i64, exported: &str, steps: &[Step]) {
    query::run(
        "UPDATE dbmazz.import SET exported = $2::pg_catalog.jsonb WHERE import_id = $1",
        &[id.into(), exported.into()],
    );
    for step in steps {
        query::run(
            "INSERT INTO dbmazz.import_step
                 (import_id, step, phase, kind, relation, statement, settings, chunk, bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8::pg_catalog.jsonb, $9)",
            &[
                id.into(),
                step.step.into(),
                step.phase.into(),
                step.kind.letter().into(),
                step.relation.clone().into(),
                step.statement.clone().into(),
                step.settings.clone().into(),
                step.chunk.clone().into(),
                step.bytes.into(),
            ],
        );
    }
}

/// Takes a step that nobody has, for as long as the transaction is open; none when none is left, or the import does not
/// go on.
pub(super) fn take_step(id: i64, phase: i32) -> Option<Step> {
    query::run_returning(
        "SELECT s.step, s.phase, s.kind, s.relation, s.statement, s.settings, s.chunk::pg_catalog.text, s.bytes
         FROM dbmazz.import_step s JOIN dbmazz.import i USING (import_id)
         WHERE s.import_id = $1 AND s.phase = $2 AND s.state = 'i' AND i.state = 'running'
         ORDER BY s.bytes DESC, s.step LIMIT 1 FOR UPDATE OF s SKIP LOCKED",
        &[id.into(), phase.into()],
        |row| Step {
            step: row.must(1),
            phase: row.must(2),
            kind: Kind::from_letter(row.must(3)),
            relation: row.get(4),
            statement: row.get(5),
            settings: row.must(6),
            chunk: row.get(7),
            bytes: row.must(8),
        },
    )
}

/// A step is done, in the transaction that does it.
pub(super) fn complete(id: i64, step: i32, rows: u64, note: Option<&str>) {
    query::run(
        "UPDATE dbmazz.import_step SET state = 'r', rows_done = $3, note = $4,
             done_at = pg_catalog.clock_timestamp()
         WHERE import_id = $1 AND step = $2",
        &[id.into(), step.into(), rows.cast_signed().into(), note.into()],
    );
}

/// How many steps of a phase are left.
pub(super) fn steps_left(id: i64, phase: i32) -> usize {
    let count = query::row(
        "SELECT pg_catalog.count(*) FROM dbmazz.import_step WHERE import_id = $1 AND phase = $2 AND state = 'i'",
        &[id.into(), phase.into()],
        |row| row.must::<i64>(1),
    );
    usize::try_from(count.unwrap_or_default()).unwrap_or(usize::MAX)
}

/// Takes the lock that says that an import has a leader, until the process ends; false when another one has it.
pub(super) fn become_leader(id: i64) -> bool {
    query::row("SELECT pg_catalog.pg_try_advisory_lock($1)", &[lock_key(id)], |row| row.must(1))
        .unwrap_or_default()
}

/// Whether an import has a leader.
pub(super) fn has_leader(id: i64) -> bool {
    query::exists(
        "SELECT FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND (l.classid::bigint << 32 | l.objid::bigint) = $1",
        &[lock_key(id)],
    )
}

/// Numbers of imports are small; the upper half keeps them apart from what applications lock.
fn lock_key(id: i64) -> DatumWithOid<'static> {
    (0x0064_626d_0000_0000_i64 | id).into()
}
