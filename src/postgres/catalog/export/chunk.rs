//! `dbmazz.export_chunk`: block ranges of exported tables, and the files that they have become.

use pgrx::pg_sys;

use super::super::query::{self, Row};
use crate::export::manifest::File;
use crate::lsn::Lsn;

/// A range of blocks to be written, or that has been.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct ChunkPlan {
    /// The relation.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// Its number within the relation, from 1.
    pub(in crate::postgres) chunk: i32,
    /// The first block.
    pub(in crate::postgres) first_block: u32,
    /// The first block behind it.
    pub(in crate::postgres) end_block: Option<u32>,
    /// Heap and TOAST bytes, roughly.
    pub(in crate::postgres) plan_bytes: u64,
}

/// What a chunk has become.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct ChunkDone {
    /// The plan.
    pub(in crate::postgres) plan: ChunkPlan,
    /// The file.
    pub(in crate::postgres) file: File,
    /// Its rows.
    pub(in crate::postgres) rows: u64,
    /// References in it.
    pub(in crate::postgres) blobs: u64,
    /// The snapshot's position.
    pub(in crate::postgres) snapshot_lsn: Lsn,
}

/// Takes the largest chunk that nobody has. In a transaction of its own.
pub(in crate::postgres) fn claim(id: i64) -> Option<ChunkPlan> {
    query::run_returning(
        // Materialized: as a part of the join the inner query could be run again, and find another row each time.
        "WITH free AS MATERIALIZED (
             SELECT w.relid, w.chunk FROM dbmazz.export_chunk w
             WHERE w.export_id = $1 AND w.state = 'i'
             ORDER BY w.plan_bytes DESC, w.relid, w.chunk LIMIT 1
             FOR UPDATE SKIP LOCKED)
         UPDATE dbmazz.export_chunk c SET state = 'd', started_at = pg_catalog.clock_timestamp()
         FROM free WHERE c.export_id = $1 AND c.relid = free.relid AND c.chunk = free.chunk
         RETURNING c.relid, c.chunk, c.first_block, c.end_block, c.plan_bytes",
        &[id.into()],
        plan_from_row,
    )
}

fn plan_from_row(row: &Row<'_>) -> ChunkPlan {
    // Blocks are 32 bits wide, and nobody but this module writes the table.
    let block = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    ChunkPlan {
        relid: row.must(1),
        chunk: row.must(2),
        first_block: block(row.must(3)),
        end_block: row.get(4).map(block),
        plan_bytes: row.must::<i64>(5).cast_unsigned(),
    }
}

/// Writes down that the file of a chunk is there.
pub(in crate::postgres) fn complete(id: i64, done: &ChunkDone) {
    query::run(
        "UPDATE dbmazz.export_chunk SET state = 'r', file = $4, rows = $5, bytes = $6, compressed_bytes = $7, blobs = $8,
             checksum = $9, snapshot_lsn = $10::pg_catalog.text::pg_catalog.pg_lsn, done_at = pg_catalog.clock_timestamp()
         WHERE export_id = $1 AND relid = $2 AND chunk = $3",
        &[
            id.into(),
            done.plan.relid.into(),
            done.plan.chunk.into(),
            done.file.file.as_str().into(),
            done.rows.cast_signed().into(),
            done.file.bytes.cast_signed().into(),
            done.file.compressed_bytes.cast_signed().into(),
            done.blobs.cast_signed().into(),
            done.file.checksum.as_str().into(),
            done.snapshot_lsn.to_string().into(),
        ],
    );
}

/// The chunks that are done.
pub(in crate::postgres) fn done_chunks(id: i64) -> Vec<ChunkDone> {
    query::rows(
        "SELECT relid, chunk, first_block, end_block, plan_bytes, file, rows, bytes, compressed_bytes, blobs, checksum,
             snapshot_lsn::pg_catalog.text
         FROM dbmazz.export_chunk WHERE export_id = $1 AND state = 'r' ORDER BY relid, chunk",
        &[id.into()],
        |row| ChunkDone {
            plan: plan_from_row(row),
            file: File {
                file: row.must(6),
                bytes: row.must::<i64>(8).cast_unsigned(),
                compressed_bytes: row.must::<i64>(9).cast_unsigned(),
                checksum: row.must(11),
            },
            rows: row.must::<i64>(7).cast_unsigned(),
            blobs: row.must::<i64>(10).cast_unsigned(),
            snapshot_lsn: row.must::<String>(12).parse().unwrap_or_default(),
        },
    )
}

/// Whether anything of an export is done.
pub(in crate::postgres) fn has_done_chunks(id: i64) -> bool {
    query::exists(
        "SELECT FROM dbmazz.export_chunk WHERE export_id = $1 AND state = 'r' LIMIT 1",
        &[id.into()],
    )
}

/// How many chunks are not done, and how many of them nobody has claimed.
pub(in crate::postgres) fn counts(id: i64) -> (i64, i64) {
    query::row(
        "SELECT count(*), count(*) FILTER (WHERE state = 'i') FROM dbmazz.export_chunk
         WHERE export_id = $1 AND state <> 'r'",
        &[id.into()],
        |row| (row.must(1), row.must(2)),
    )
    .unwrap_or_default()
}

/// Whether a relation has chunks that are not done.
pub(in crate::postgres) fn has_chunks_left(id: i64, relid: pg_sys::Oid) -> bool {
    query::exists(
        "SELECT FROM dbmazz.export_chunk WHERE export_id = $1 AND relid = $2 AND state <> 'r'",
        &[id.into(), relid.into()],
    )
}

/// Gives back what workers had claimed and not completed. Nobody may be writing.
pub(in crate::postgres) fn release_claims(id: i64) {
    query::run(
        "UPDATE dbmazz.export_chunk SET state = 'i', started_at = NULL WHERE export_id = $1 AND state = 'd'",
        &[id.into()],
    );
}

/// A chunk is to be written again.
pub(in crate::postgres) fn release_chunk(id: i64, relid: pg_sys::Oid, chunk: i32) {
    query::run(
        "UPDATE dbmazz.export_chunk SET state = 'i', started_at = NULL, file = NULL
         WHERE export_id = $1 AND relid = $2 AND chunk = $3",
        &[id.into(), relid.into(), chunk.into()],
    );
}
