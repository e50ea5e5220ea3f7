//! `dbmazz.export`, `dbmazz.export_table`, `dbmazz.export_chunk`: what is exported, and how far it is.
//!
//! * [`table`]: the relations of an export, and their plans.
//! * [`chunk`]: block ranges, and the files that they have become.
//! * [`source`]: what the database that is exported says of itself.

mod chunk;
mod source;
mod table;

use pgrx::JsonB;
use pgrx::pg_sys;
use serde_json::Value;

use super::query::{self, Row};
use crate::export::manifest::{File, Sequence};
use crate::lsn::Lsn;

pub(in crate::postgres) use chunk::{
    ChunkDone, ChunkPlan, claim, complete, counts, done_chunks, has_chunks_left, has_done_chunks,
    release_chunk, release_claims,
};
pub(in crate::postgres) use source::{
    Unsendable, describe, families, has_large_objects, leaves, name_beyond_ascii, relations, reltuples,
    sequences, server_facts, standing, unsendable, whole_database,
};
pub(in crate::postgres) use table::{ExportTable, Kind, tables, write_plan, write_tables};

/// A row of `dbmazz.export`.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct ExportRow {
    /// Its number.
    pub(in crate::postgres) id: i64,
    /// Where it goes.
    pub(in crate::postgres) destination: String,
    /// Through which foreign server.
    pub(in crate::postgres) server: Option<String>,
    /// Whose rights count.
    pub(in crate::postgres) owner: pg_sys::Oid,
    /// The relations that were named; none when it is of the whole database.
    pub(in crate::postgres) named: Option<Vec<pg_sys::Oid>>,
    /// As they were given.
    pub(in crate::postgres) options: Value,
    /// `starting`, `running`, `done`, `failed`, `cancelled`.
    pub(in crate::postgres) state: String,
    /// The slot that was made for it.
    pub(in crate::postgres) slot_name: Option<String>,
    /// Positions of the snapshots so far.
    pub(in crate::postgres) snapshot_lsns: Vec<Lsn>,
    /// The section's file, once it is there.
    pub(in crate::postgres) pre_data: Option<File>,
    /// Likewise.
    pub(in crate::postgres) post_data: Option<File>,
    /// The position of the snapshot that the sections were written under.
    pub(in crate::postgres) definitions_lsn: Option<Lsn>,
    /// Where sequences stood.
    pub(in crate::postgres) sequences: Option<Vec<Sequence>>,
    /// Whether there are chunks.
    pub(in crate::postgres) planned: bool,
    /// For the manifest.
    pub(in crate::postgres) started_at: String,
}

/// What a new export is.
pub(in crate::postgres) struct NewExport<'a> {
    pub(in crate::postgres) destination: &'a str,
    pub(in crate::postgres) server: Option<&'a str>,
    pub(in crate::postgres) owner: pg_sys::Oid,
    pub(in crate::postgres) named: Option<&'a [pg_sys::Oid]>,
    pub(in crate::postgres) options: &'a Value,
}

/// Writes an export down. Returns its number.
pub(in crate::postgres) fn insert(new: &NewExport<'_>) -> Option<i64> {
    query::run_returning(
        "INSERT INTO dbmazz.export (destination, server, owner, named, options) VALUES ($1, $2, $3, $4, $5)
         RETURNING export_id",
        &[
            new.destination.into(),
            new.server.into(),
            new.owner.into(),
            new.named.map(<[pg_sys::Oid]>::to_vec).into(),
            JsonB(new.options.clone()).into(),
        ],
        |row| row.must(1),
    )
}

/// An export by number.
pub(in crate::postgres) fn read(id: i64) -> Option<ExportRow> {
    query::row(&format!("{SELECT} WHERE export_id = $1"), &[id.into()], from_row)
}

/// Likewise, and nobody else changes it until the transaction ends.
pub(in crate::postgres) fn lock(id: i64) -> Option<ExportRow> {
    query::run_returning(&format!("{SELECT} WHERE export_id = $1 FOR UPDATE"), &[id.into()], from_row)
}

const SELECT: &str = "SELECT export_id, destination, server, owner, named, options, state, slot_name,
         snapshot_lsns::pg_catalog.text[], pre_data, post_data, sequences, planned,
         pg_catalog.to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
         definitions_lsn::pg_catalog.text
     FROM dbmazz.export";

fn from_row(row: &Row<'_>) -> ExportRow {
    let lsns: Vec<Option<String>> = row.must(9);
    ExportRow {
        id: row.must(1),
        destination: row.must(2),
        server: row.get(3),
        owner: row.must(4),
        named: row.get::<Vec<Option<pg_sys::Oid>>>(5).map(|named| named.into_iter().flatten().collect()),
        options: row.must::<JsonB>(6).0,
        state: row.must(7),
        slot_name: row.get(8),
        snapshot_lsns: lsns.into_iter().flatten().filter_map(|lsn| lsn.parse().ok()).collect(),
        pre_data: parsed(row, 10),
        post_data: parsed(row, 11),
        definitions_lsn: row.get::<String>(15).and_then(|lsn| lsn.parse().ok()),
        sequences: parsed(row, 12),
        planned: row.must(13),
        started_at: row.must(14),
    }
}

/// State and last error as of now, also in a transaction that sees the past.
pub(in crate::postgres) fn present_state(id: i64) -> Option<(String, Option<String>)> {
    query::latest_row(
        "SELECT state, last_error FROM dbmazz.export WHERE export_id = $1",
        &[id.into()],
        |row| (row.must(1), row.get(2)),
    )
}

/// An export that is not at its end and goes to the same place.
pub(in crate::postgres) fn other_to(destination: &str) -> Vec<i64> {
    query::rows(
        "SELECT export_id FROM dbmazz.export WHERE destination = $1 AND state IN ('starting', 'running')",
        &[destination.into()],
        |row| row.must(1),
    )
}

/// Whether an export cannot go on.
pub(in crate::postgres) fn is_hopeless(id: i64) -> bool {
    query::exists("SELECT FROM dbmazz.export WHERE export_id = $1 AND is_hopeless", &[id.into()])
}

/// Writes down that an export has failed by something that will be in its way again.
pub(in crate::postgres) fn set_hopeless(id: i64) {
    query::run("UPDATE dbmazz.export SET is_hopeless = true WHERE export_id = $1", &[id.into()]);
}

/// Writes a state down.
pub(in crate::postgres) fn set_state(id: i64, state: &str, error: Option<&str>) {
    query::run(
        "UPDATE dbmazz.export SET state = $2, last_error = $3, is_hopeless = false,
             resumed_at = CASE WHEN $2 = 'starting' THEN pg_catalog.clock_timestamp() ELSE resumed_at END,
             finished_at = CASE WHEN $2 IN ('starting', 'running') THEN NULL ELSE pg_catalog.clock_timestamp() END
         WHERE export_id = $1",
        &[id.into(), state.into(), error.into()],
    );
}

/// Writes down that another snapshot was taken, and the slot that came with it.
pub(in crate::postgres) fn add_snapshot(id: i64, lsn: Lsn, slot_name: Option<&str>) {
    query::run(
        "UPDATE dbmazz.export SET snapshot_lsns = snapshot_lsns || $2::pg_catalog.text::pg_catalog.pg_lsn,
             slot_name = coalesce($3, slot_name)
         WHERE export_id = $1",
        &[id.into(), lsn.to_string().into(), slot_name.into()],
    );
}

/// Which of pg_dump's sections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Section {
    /// Before the rows.
    PreData,
    /// After them.
    PostData,
}

/// Writes down that a section is there, under which snapshot ever.
pub(in crate::postgres) fn set_section(id: i64, section: Section, file: &File, lsn: Lsn) {
    let column = match section {
        Section::PreData => "pre_data",
        Section::PostData => "post_data",
    };
    query::run(
        &format!(
            "UPDATE dbmazz.export SET {column} = $2, definitions_lsn = $3::pg_catalog.text::pg_catalog.pg_lsn
             WHERE export_id = $1"
        ),
        &[id.into(), json(file).into(), lsn.to_string().into()],
    );
}

/// Forgets all that was found out under a snapshot that nothing was read under.
pub(in crate::postgres) fn begin_anew(id: i64) {
    table::write_tables(id, &[]);
    query::run(
        "UPDATE dbmazz.export SET planned = false, slot_name = NULL, pre_data = NULL, post_data = NULL,
             definitions_lsn = NULL, sequences = NULL
         WHERE export_id = $1",
        &[id.into()],
    );
}

/// Forgets the files of definitions: a table has other columns by now than they say.
pub(in crate::postgres) fn forget_definitions(id: i64) {
    query::run(
        "UPDATE dbmazz.export SET pre_data = NULL, post_data = NULL WHERE export_id = $1",
        &[id.into()],
    );
}

/// Writes down where sequences stood.
pub(in crate::postgres) fn set_sequences(id: i64, sequences: &[Sequence]) {
    query::run(
        "UPDATE dbmazz.export SET sequences = $2 WHERE export_id = $1",
        &[id.into(), json(&sequences).into()],
    );
}

/// Writes down that all tables have been planned.
pub(in crate::postgres) fn set_planned(id: i64) {
    query::run("UPDATE dbmazz.export SET planned = true WHERE export_id = $1", &[id.into()]);
}

/// The name of the slot of an export of this database. Numbers of exports are the database's own, names of slots are the
/// cluster's.
pub(in crate::postgres) fn slot_name(id: i64) -> String {
    // SAFETY: set before a backend runs its first statement or a worker its body, and not changed afterwards.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    format!("dbmazz_export_{database}_{id}")
}

/// Makes a slot that begins where that of an export does. Returns that position.
pub(in crate::postgres) fn copy_slot(id: i64, name: &str) -> Lsn {
    query::row(
        "SELECT lsn::pg_catalog.text
         FROM pg_catalog.pg_copy_logical_replication_slot($1::pg_catalog.text::pg_catalog.name, $2::pg_catalog.text::pg_catalog.name, false)",
        &[slot_name(id).into(), name.into()],
        |row| row.must::<String>(1).parse().unwrap_or_default(),
    )
    .unwrap_or_default()
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, position: usize) -> Option<T> {
    row.get::<JsonB>(position).and_then(|json| serde_json::from_value(json.0).ok())
}

fn json<T: serde::Serialize>(value: &T) -> JsonB {
    JsonB(serde_json::to_value(value).unwrap_or_default())
}
