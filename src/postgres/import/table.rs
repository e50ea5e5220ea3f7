//! `dbmazz.import` and `dbmazz.import_step`.
//!
//! Plain statements; the caller has the rights of the extension (`catalog::as_extension`).

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
    /// The table that rows go into, as it was when the first rows came; none for other steps, and in a plan.
    pub(super) place: Option<Place>,
}

/// A table as it is: another one when it was dropped and made again, truncated, or rewritten.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) relid: pg_sys::Oid,
    pub(super) filenode: pg_sys::Oid,
}

/// How a step has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// It is done, and has brought so many rows.
    Done(u64),
    /// It is done, but not quite as the export has it; the reason.
    Otherwise(String),
    /// Nothing could or had to be done; the reason.
    PassedOver(String),
    /// It could not be done, which keeps no other step from being done: the import says so at its end. The reason.
    Failed(String),
}

/// How a step is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Statement,
    /// A statement that creates a table, or a materialized view.
    CreateTable,
    Chunk,
    MustBeEmpty,
    LargeObjects,
    /// Foreign keys that were there before the rows must hold.
    References,
    /// A materialized view is filled.
    Refresh,
}

impl Kind {
    const LETTERS: [(u8, Self); 7] = [
        (b's', Self::Statement),
        (b't', Self::CreateTable),
        (b'c', Self::Chunk),
        (b'e', Self::MustBeEmpty),
        (b'l', Self::LargeObjects),
        (b'v', Self::References),
        (b'm', Self::Refresh),
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

/// Imports of the same tables of a source that are not done, as of now; the first is the one to go on with: one that has a
/// plan rather than one that was refused before it had. Without options, those with any.
pub(super) fn unfinished(
    source: &str,
    owner: pg_sys::Oid,
    tables: Option<Vec<String>>,
    options: Option<JsonB>,
) -> Vec<i64> {
    query::rows(
        "SELECT import_id FROM dbmazz.import
         WHERE source = $1 AND owner = $2 AND tables IS NOT DISTINCT FROM $3
           AND ($4 IS NULL OR options - 'restart' = $4 - 'restart') AND state NOT IN ('done', 'replaced')
         ORDER BY exported IS NULL, import_id DESC",
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

/// The state of an import, why it is in it, and what mends that.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) state: String,
    pub(super) error: Option<String>,
    pub(super) hint: Option<String>,
}

/// The state as of now, also in a transaction that sees the past.
pub(super) fn present_state(id: i64) -> Option<State> {
    query::latest_row(
        "SELECT state, last_error, last_hint FROM dbmazz.import WHERE import_id = $1",
        &[id.into()],
        |row| State { state: row.must(1), error: row.get(2), hint: row.get(3) },
    )
}

/// An import comes into another state.
pub(super) fn set_state(id: i64, state: &str) {
    query::run(
        "UPDATE dbmazz.import SET state = $2, last_error = NULL, last_hint = NULL,
             finished_at = CASE WHEN $2 IN ('starting', 'running') THEN NULL ELSE pg_catalog.clock_timestamp() END
         WHERE import_id = $1",
        &[id.into(), state.into()],
    );
}

/// An import is to go on. One that is about to start does anyway, and is left alone: its leader may do so at this moment.
pub(super) fn ask_again(id: i64) {
    query::run(
        "UPDATE dbmazz.import SET state = 'starting', last_error = NULL, last_hint = NULL, finished_at = NULL
         WHERE import_id = $1 AND state NOT IN ('starting', 'done')",
        &[id.into()],
    );
}

/// An import goes from one state to the next; false when it is in another one, because it was cancelled or replaced.
pub(super) fn advance(id: i64, from: &str, to: &str) -> bool {
    let advanced = query::run_returning(
        "UPDATE dbmazz.import SET state = $3,
             finished_at = CASE WHEN $3 = 'done' THEN pg_catalog.clock_timestamp() END
         WHERE import_id = $1 AND state = $2 RETURNING true",
        &[id.into(), from.into(), to.into()],
        |_| (),
    );
    advanced.is_some()
}

/// The import fails, unless it has failed or was cancelled already: the first reason stays.
pub(super) fn fail(id: i64, reason: &str, hint: Option<&str>) {
    query::run(
        "UPDATE dbmazz.import SET state = 'failed', last_error = $2, last_hint = $3,
             finished_at = pg_catalog.clock_timestamp()
         WHERE import_id = $1 AND state IN ('starting', 'running')",
        &[id.into(), reason.into(), hint.into()],
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
        "SELECT s.step, s.phase, s.kind, s.relation, s.statement, s.settings, s.chunk::pg_catalog.text, s.bytes,
             s.relid, s.filenode
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
            place: row.get(9).zip(row.get(10)).map(|(relid, filenode)| Place { relid, filenode }),
        },
    )
}

/// A step has ended, in the transaction that does it. Of a table that it has created it is written down which one.
pub(super) fn complete(id: i64, step: i32, ending: &Ending) {
    let (state, rows, note) = match ending {
        Ending::Done(rows) => ("r", *rows, None),
        Ending::Otherwise(reason) | Ending::PassedOver(reason) => ("r", 0, Some(reason)),
        Ending::Failed(reason) => ("f", 0, Some(reason)),
    };
    let has_created = matches!(ending, Ending::Done(_) | Ending::Otherwise(_));
    query::run(
        "UPDATE dbmazz.import_step SET state = $3::\"char\", rows_done = $4, note = $5,
             relid = CASE WHEN kind = 't' AND $6 THEN pg_catalog.to_regclass(relation) ELSE relid END,
             done_at = pg_catalog.clock_timestamp()
         WHERE import_id = $1 AND step = $2",
        &[
            id.into(),
            step.into(),
            state.into(),
            rows.cast_signed().into(),
            note.cloned().into(),
            has_created.into(),
        ],
    );
}

/// Steps that have failed are tried again.
pub(super) fn retry_failed_steps(id: i64) {
    query::run(
        "UPDATE dbmazz.import_step SET state = 'i', note = NULL WHERE import_id = $1 AND state = 'f'",
        &[id.into()],
    );
}

/// Why steps have failed that keep no others from being done.
pub(super) fn failures(id: i64) -> Vec<String> {
    query::rows(
        "SELECT note FROM dbmazz.import_step WHERE import_id = $1 AND state = 'f' ORDER BY phase, step",
        &[id.into()],
        |row| row.must(1),
    )
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
