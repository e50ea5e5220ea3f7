//! `dbmazz.snapshot_chunk`: block ranges of the tables being copied, and who has done which.

use pgrx::pg_sys;

use super::query::{self, Row};

/// A row of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Chunk {
    /// The mirrored table.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// Whose blocks these are: the table itself, or a partition of it.
    pub(in crate::postgres) leaf: pg_sys::Oid,
    /// Its number within the table, from 0 or 1 as the plan has it.
    pub(in crate::postgres) chunk: i32,
    /// The first block.
    pub(in crate::postgres) first_block: u32,
    /// The first block that is no longer part of it; none for the last one, which has no end.
    pub(in crate::postgres) end_block: Option<u32>,
    /// Heap and TOAST bytes, roughly.
    pub(in crate::postgres) bytes: u64,
    /// The file that the blocks are counted in; another one after the table was rewritten.
    pub(in crate::postgres) relfilenode: pg_sys::Oid,
}

/// Writes down the chunks of a table. Holder or mirror worker.
pub(in crate::postgres) fn insert_plan(mirror: &str, chunks: &[Chunk]) {
    for chunk in chunks {
        query::run(
            "INSERT INTO dbmazz.snapshot_chunk (mirror, relid, chunk, first_block, end_block, bytes, relfilenode,
                 leaf)
             VALUES ($1, $2, $3, $4, $5, $6, $7::oid, $8)",
            &[
                mirror.into(),
                chunk.relid.into(),
                chunk.chunk.into(),
                i64::from(chunk.first_block).into(),
                chunk.end_block.map(i64::from).into(),
                chunk.bytes.cast_signed().into(),
                // Zero for a table without rows of its own; as an OID that would be NULL.
                i64::from(chunk.relfilenode.to_u32()).into(),
                chunk.leaf.into(),
            ],
        );
    }
}

/// Takes a chunk that nobody has, of a table that is not in error. Snapshot workers, in a transaction of its own.
pub(in crate::postgres) fn claim(mirror: &str) -> Option<Chunk> {
    query::run_returning(
        // Materialized: as a part of the join the inner query could be run again, and find another row each time.
        "WITH free AS MATERIALIZED (
             SELECT w.relid, w.chunk
             FROM dbmazz.snapshot_chunk w JOIN dbmazz.mirror_table t USING (mirror, relid)
             WHERE w.mirror = $1 AND w.state = 'i' AND t.state <> 'e'
             ORDER BY w.relid, w.chunk LIMIT 1
             FOR UPDATE OF w SKIP LOCKED)
         UPDATE dbmazz.snapshot_chunk c SET state = 'd', started_at = pg_catalog.clock_timestamp(), rows_done = 0
         FROM free WHERE c.mirror = $1 AND c.relid = free.relid AND c.chunk = free.chunk
         RETURNING c.relid, c.chunk, c.first_block, c.end_block, c.bytes, c.relfilenode, c.leaf",
        &[mirror.into()],
        from_row,
    )
}

/// Takes another chunk of a table that nobody has, if there is one of at most so many bytes. Snapshot workers, in the
/// transaction of [`claim`].
pub(in crate::postgres) fn claim_another(mirror: &str, relid: pg_sys::Oid, most_bytes: u64) -> Option<Chunk> {
    query::run_returning(
        "WITH free AS MATERIALIZED (
             SELECT relid, chunk FROM dbmazz.snapshot_chunk
             WHERE mirror = $1 AND relid = $2 AND state = 'i' AND bytes <= $3
             ORDER BY relid, chunk LIMIT 1
             FOR UPDATE SKIP LOCKED)
         UPDATE dbmazz.snapshot_chunk c SET state = 'd', started_at = pg_catalog.clock_timestamp(), rows_done = 0
         FROM free WHERE c.mirror = $1 AND c.relid = free.relid AND c.chunk = free.chunk
         RETURNING c.relid, c.chunk, c.first_block, c.end_block, c.bytes, c.relfilenode, c.leaf",
        &[mirror.into(), relid.into(), i64::try_from(most_bytes).unwrap_or(i64::MAX).into()],
        from_row,
    )
}

/// Gives back the chunks that workers had claimed and not completed; returns how many. Mirror worker, when no
/// snapshot worker runs.
pub(in crate::postgres) fn release_claims(mirror: &str) -> usize {
    query::run(
        "UPDATE dbmazz.snapshot_chunk SET state = 'i', rows_done = 0, started_at = NULL
         WHERE mirror = $1 AND state = 'd'",
        &[mirror.into()],
    )
}

/// Adds rows to a chunk that is being copied, for the views. Snapshot workers.
pub(in crate::postgres) fn add_rows(mirror: &str, relid: pg_sys::Oid, chunk: i32, rows: u64) {
    query::run(
        "UPDATE dbmazz.snapshot_chunk SET rows_done = rows_done + $4
         WHERE mirror = $1 AND relid = $2 AND chunk = $3",
        &[mirror.into(), relid.into(), chunk.into(), rows.cast_signed().into()],
    );
}

/// Writes down that all rows of chunks, `rows` of them, are visible at the target. Of several the first one counts them.
/// Snapshot workers.
pub(in crate::postgres) fn complete(mirror: &str, relid: pg_sys::Oid, chunks: &[i32], rows: u64) {
    query::run(
        "UPDATE dbmazz.snapshot_chunk SET state = 'r', done_at = pg_catalog.clock_timestamp(),
             rows_done = CASE WHEN chunk = ($3)[1] THEN $4 ELSE 0 END
         WHERE mirror = $1 AND relid = $2 AND chunk = ANY ($3)",
        &[mirror.into(), relid.into(), chunks.to_vec().into(), rows.cast_signed().into()],
    );
}

/// How many chunks are not copied yet, but for those of tables in error. Any process.
pub(in crate::postgres) fn count_left(mirror: &str) -> usize {
    let count = query::row(
        "SELECT count(*) FROM dbmazz.snapshot_chunk c JOIN dbmazz.mirror_table t USING (mirror, relid)
         WHERE c.mirror = $1 AND c.state <> 'r' AND t.state <> 'e'",
        &[mirror.into()],
        |row| row.must::<i64>(1),
    );
    usize::try_from(count.unwrap_or_default()).unwrap_or(usize::MAX)
}

/// How many chunks a table has, and how many of them are done. Mirror worker.
pub(in crate::postgres) fn counts(mirror: &str, relid: pg_sys::Oid) -> (usize, usize) {
    let count = |number: i64| usize::try_from(number).unwrap_or_default();
    query::row(
        "SELECT count(*), count(*) FILTER (WHERE state = 'r') FROM dbmazz.snapshot_chunk
         WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into()],
        |row| (count(row.must(1)), count(row.must(2))),
    )
    .unwrap_or_default()
}

/// The relations that the chunks of a table are of, and the files that they are counted in, in the order of their numbers.
/// Mirror worker.
pub(in crate::postgres) fn files(mirror: &str, relid: pg_sys::Oid) -> Vec<(pg_sys::Oid, pg_sys::Oid)> {
    query::rows(
        "SELECT DISTINCT leaf, relfilenode FROM dbmazz.snapshot_chunk
         WHERE mirror = $1 AND relid = $2 ORDER BY leaf",
        &[mirror.into(), relid.into()],
        |row| (row.must(1), row.must(2)),
    )
}

/// Forgets the chunks of a table. Any process.
pub(in crate::postgres) fn clear_of(mirror: &str, relid: pg_sys::Oid) {
    query::run(
        "DELETE FROM dbmazz.snapshot_chunk WHERE mirror = $1 AND relid = $2",
        &[mirror.into(), relid.into()],
    );
}

/// Forgets all chunks of a mirror. Mirror worker.
pub(in crate::postgres) fn clear(mirror: &str) {
    query::run("DELETE FROM dbmazz.snapshot_chunk WHERE mirror = $1", &[mirror.into()]);
}

fn from_row(row: &Row<'_>) -> Chunk {
    // Blocks are 32 bits wide, and nobody but this module writes the table.
    let block = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    Chunk {
        relid: row.must(1),
        chunk: row.must(2),
        first_block: block(row.must(3)),
        end_block: row.get(4).map(block),
        bytes: row.must::<i64>(5).cast_unsigned(),
        relfilenode: row.must(6),
        leaf: row.must(7),
    }
}
