//! Tables become chunks; and what counts of a copy that was interrupted (`snapshot::catch_up`).

use pgrx::pg_sys;

use super::super::super::catalog::chunk::Chunk;
use super::super::super::catalog::partition::Partitions;
use super::super::super::catalog::table::{MirrorTableRow, TableState};
use super::super::super::{catalog, scan};
use super::super::source::{Opened, Source};
use super::super::start::Mirror;
use super::holding::Held;
use crate::lsn::Lsn;
use crate::snapshot::{CatchUp, Resumed, VisibleIn, plan_chunks, shared_chunk_bytes};

/// What is known of a table under the snapshot.
struct Planned {
    relid: pg_sys::Oid,
    chunks: Vec<Chunk>,
}

/// So many relations are measured in one transaction.
const RELATIONS_AT_A_TIME: usize = 100;

/// Divides tables into chunks, by their size under the snapshot, and writes the plan down together with what `body` writes first.
pub(in super::super) fn plan(mirror: &Mirror, held: &Held, tables: &[pg_sys::Oid], body: impl FnOnce()) {
    let plans: Vec<Planned> =
        tables.iter().filter_map(|relid| Some(plan_of(mirror, held, mirror.table(*relid)?))).collect();
    catalog::mirror::transaction(&mirror.name, || {
        body();
        for plan in &plans {
            catalog::chunk::clear_of(&mirror.name, plan.relid);
            catalog::chunk::insert_plan(&mirror.name, &plan.chunks);
            catalog::table::write_state(&mirror.name, plan.relid, TableState::Copying, None);
        }
    });
}

fn plan_of(mirror: &Mirror, held: &Held, table: &MirrorTableRow) -> Planned {
    let mut chunks = Vec::new();
    let relations = relations_of(held, table);
    for some in relations.chunks(RELATIONS_AT_A_TIME) {
        scan::under_snapshot(&held.snapshot, || {
            for relid in some {
                add_chunks_of(*relid, mirror, table, &mut chunks);
            }
        });
    }
    Planned { relid: table.relid, chunks }
}

/// The relations that have the rows of a table. A partitioned table without partitions is its own, so that it has a plan.
fn relations_of(held: &Held, table: &MirrorTableRow) -> Vec<pg_sys::Oid> {
    let leaves = if table.is_partitioned {
        scan::under_snapshot(&held.snapshot, || Partitions::of(table.relid).leaves)
    } else {
        Vec::new()
    };
    if leaves.is_empty() { vec![table.relid] } else { leaves.into_iter().map(Into::into).collect() }
}

/// The chunks of one relation. One that is gone by now has none; the stream tells what follows from that.
fn add_chunks_of(leaf: pg_sys::Oid, mirror: &Mirror, table: &MirrorTableRow, chunks: &mut Vec<Chunk>) {
    let Some(relation) = scan::open_table(leaf) else { return };
    // SAFETY: just opened, in this transaction, and closed at once.
    let size = unsafe {
        let size = scan::size_of(relation);
        scan::close_and_unlock(relation);
        size
    };
    let heap_bytes = u64::from(size.blocks) * u64::from(pg_sys::BLCKSZ);
    let options = &mirror.options;
    let chunk_bytes = shared_chunk_bytes(
        heap_bytes + size.toast_bytes,
        options.snapshot_workers,
        options.snapshot_chunk_bytes,
    );
    let planned = plan_chunks(size.blocks, heap_bytes, size.toast_bytes, chunk_bytes);
    let all = u64::try_from(planned.len()).unwrap_or(1).max(1);
    let first = i32::try_from(chunks.len()).unwrap_or(i32::MAX).saturating_add(1);
    chunks.extend(planned.iter().zip(first..).map(|(chunk, number)| Chunk {
        relid: table.relid,
        leaf,
        chunk: number,
        first_block: chunk.first_block,
        end_block: chunk.end_block,
        bytes: (heap_bytes + size.toast_bytes) / all,
        relfilenode: file_or(leaf, size.relfilenode),
    }));
}

/// A partitioned table has no file: its own number stands for one.
fn file_or(relid: pg_sys::Oid, file: pg_sys::Oid) -> pg_sys::Oid {
    if file == pg_sys::InvalidOid { relid } else { file }
}

/// What a snapshot has seen.
pub(super) fn seen_by(held: &Held) -> VisibleIn {
    let text = scan::under_snapshot(&held.snapshot, catalog::current_snapshot);
    VisibleIn::parse(&text).unwrap_or_else(|problem| pgrx::error!("{problem}"))
}

/// Decides for each table that is in the midst of its copy, when another snapshot has been taken whose transactions have all
/// committed before `until`: either its chunks count, or it is copied from its beginning.
pub(super) fn take_stock(mirror: &Mirror, until: Lsn) {
    let copying: Vec<&MirrorTableRow> =
        mirror.tables.iter().filter(|table| table.state == TableState::Copying).collect();
    catalog::mirror::transaction(&mirror.name, || {
        for table in copying {
            let (chunks, done) = catalog::chunk::counts(&mirror.name, table.relid);
            match Resumed::of(done, chunks, is_unchanged(mirror, table)) {
                Resumed::Whole => {}
                Resumed::Kept => {
                    let before = table.catch_up.clone().map(|(_, catch_up)| catch_up);
                    let catch_up = CatchUp::completing(before);
                    catalog::table::write_catch_up(&mirror.name, table.relid, until, &catch_up);
                }
                Resumed::Restarted => {
                    catalog::table::begin_anew(&mirror.name, table.relid);
                }
            }
        }
    });
}

/// Whether a table still has the files that its chunks are counted in, and the columns of its target.
fn is_unchanged(mirror: &Mirror, table: &MirrorTableRow) -> bool {
    let Some(open) = scan::open_table(table.relid) else { return false };
    let planned = catalog::chunk::files(&mirror.name, table.relid);
    // SAFETY: opened just now, in this transaction, and used no more once it is closed.
    unsafe {
        let opened = Opened { table: open, rows: open };
        let same_files = files_of(table) == planned;
        // Rows without a key that were read twice, from two places, would be there twice.
        let same_columns = Source::of(opened, table, mirror).is_ok_and(|source| !source.spec.is_appended());
        opened.close();
        same_files && same_columns
    }
}

/// The relations that have the rows of a table now, and their files. None of them stays locked but the table itself.
fn files_of(table: &MirrorTableRow) -> Vec<(pg_sys::Oid, pg_sys::Oid)> {
    let leaves = if table.is_partitioned { Partitions::of(table.relid).leaves } else { Vec::new() };
    let relids = if leaves.is_empty() { vec![table.relid.to_u32()] } else { leaves };
    let file = |relid: u32| {
        let open = scan::open_table(relid.into())?;
        // SAFETY: opened just now, and used no more once it is closed.
        unsafe {
            let file = scan::relfilenode_of(open);
            scan::close_and_unlock(open);
            Some((relid.into(), file_or(relid.into(), file)))
        }
    };
    relids.into_iter().filter_map(file).collect()
}
