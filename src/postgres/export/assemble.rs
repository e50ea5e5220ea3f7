//! The manifest, from what the catalog says when everything is there.

use std::collections::{BTreeSet, HashMap};

use pgrx::pg_sys;

use super::super::catalog::export::{ChunkDone, ExportRow, ExportTable, Kind};
use super::super::catalog::{self, server};
use super::super::encoding;
use super::rows::ctid;
use crate::export::manifest::{
    Chunk, LargeObjects, Manifest, SchemaFiles, Server, Table, TableKind, VERSION,
};
use crate::export::options::ExportOptions;
use crate::lsn::Lsn;

/// The manifest of an export all of whose files are there; none while one is missing.
pub(super) fn manifest(row: &ExportRow, options: &ExportOptions) -> Option<Manifest> {
    let tables = catalog::export::tables(row.id);
    let mut chunks: HashMap<u32, Vec<ChunkDone>> = HashMap::new();
    let mut lsns = BTreeSet::new();
    for chunk in catalog::export::done_chunks(row.id) {
        lsns.insert(chunk.snapshot_lsn);
        chunks.entry(chunk.plan.relid.to_u32()).or_default().push(chunk);
    }
    // Rows and definitions of two moments do not belong together either.
    lsns.extend(row.definitions_lsn);
    if lsns.is_empty() {
        lsns.extend(row.snapshot_lsns.last());
    }
    let first = lsns.first().copied().unwrap_or(Lsn::INVALID);
    let (version, version_num, now) = catalog::export::server_facts();
    let mut of = |table: &ExportTable| chunks.remove(&table.relid.to_u32()).unwrap_or_default();
    let large_objects = large_objects(&tables, &mut of);
    let tables = tables.iter().filter(|it| !it.kind.is_of_large_objects());
    Some(Manifest {
        version: VERSION,
        dbmazz_version: env!("CARGO_PKG_VERSION").to_owned(),
        export_id: row.id,
        started_at: row.started_at.clone(),
        finished_at: now,
        consistent: lsns.len() <= 1,
        snapshot_lsn: first.to_string(),
        snapshot_lsns: lsns.iter().map(Lsn::to_string).collect(),
        slot: options.slot.then(|| catalog::export::slot_name(row.id)),
        server: Server {
            version,
            version_num,
            system_identifier: system_identifier(),
            database: server::current_database(),
            encoding: encoding::name(),
        },
        options: options.for_manifest(),
        schema: SchemaFiles { pre_data: row.pre_data.clone()?, post_data: row.post_data.clone()? },
        tables: tables.map(|table| manifest_table(table, of(table))).collect(),
        sequences: row.sequences.clone().unwrap_or_default(),
        large_objects,
    })
}

/// Whether that is this very database.
pub(super) fn is_of_this_database(other: &Server) -> bool {
    other.system_identifier == system_identifier() && other.database == server::current_database()
}

fn system_identifier() -> String {
    // SAFETY: reads what the server has read from its control file.
    unsafe { pg_sys::GetSystemIdentifier() }.to_string()
}

fn manifest_table(table: &ExportTable, chunks: Vec<ChunkDone>) -> Table {
    let kind = match table.kind {
        Kind::MaterializedView => TableKind::MaterializedView,
        _ => TableKind::Table,
    };
    Table {
        schema: table.schema.clone(),
        name: table.name.clone(),
        oid: table.relid.to_u32(),
        kind,
        columns: table.columns.clone(),
        chunks: chunks.into_iter().map(manifest_chunk).collect(),
    }
}

fn manifest_chunk(chunk: ChunkDone) -> Chunk {
    let last = chunk.plan.end_block.map(|end| ctid(end.saturating_sub(1), u16::MAX));
    Chunk {
        file: chunk.file,
        chunk: u32::try_from(chunk.plan.chunk).unwrap_or_default(),
        first_ctid: Some(ctid(chunk.plan.first_block, 1)),
        last_ctid: last,
        rows: chunk.rows,
        blobs: chunk.blobs,
        snapshot_lsn: chunk.snapshot_lsn.to_string(),
    }
}

fn large_objects(
    tables: &[ExportTable],
    of: &mut impl FnMut(&ExportTable) -> Vec<ChunkDone>,
) -> Option<LargeObjects> {
    let list = tables.iter().find(|table| table.kind == Kind::LargeObjects)?;
    let pages = tables.iter().find(|table| table.kind == Kind::LargeObjectPages)?;
    Some(LargeObjects {
        objects: of(list).into_iter().next().map(manifest_chunk)?,
        pages: of(pages).into_iter().map(manifest_chunk).collect(),
        // large_object.h, LOBLKSIZE.
        page_bytes: pg_sys::BLCKSZ / 4,
    })
}
