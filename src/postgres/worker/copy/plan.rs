//! Tables become chunks; and what counts of a copy that was interrupted (`snapshot::catch_up`).

use pgrx::pg_sys;

use super::super::super::catalog::chunk::Chunk;
use super::super::super::catalog::table::{MirrorTableRow, TableState};
use super::super::super::{catalog, scan, session};
use super::super::source::Source;
use super::super::start::Mirror;
use super::holding::Held;
use crate::lsn::Lsn;
use crate::snapshot::{CatchUp, Resumed, VisibleIn, plan_chunks};

/// What is known of a table under the snapshot.
struct Planned {
    relid: pg_sys::Oid,
    chunks: Vec<Chunk>,
}

/// Divides tables into chunks, by their size under the snapshot, and writes the plan down together with what `body` writes.
pub(in super::super) fn plan(mirror: &Mirror, held: &Held, tables: &[pg_sys::Oid], body: impl FnOnce()) {
    let plans: Vec<Planned> = scan::under_snapshot(&held.snapshot, || {
        tables.iter().filter_map(|relid| plan_of(mirror, *relid)).collect()
    });
    session::transaction(|| {
        for plan in &plans {
            catalog::chunk::clear_of(&mirror.name, plan.relid);
            catalog::chunk::insert_plan(&mirror.name, &plan.chunks);
            catalog::table::write_state(&mirror.name, plan.relid, TableState::Copying, None);
        }
        body();
    });
}

fn plan_of(mirror: &Mirror, relid: pg_sys::Oid) -> Option<Planned> {
    let relation = scan::open_table(relid)?;
    // SAFETY: just opened, in this transaction, and closed at once.
    let size = unsafe {
        let size = scan::size_of(relation);
        scan::close_table(relation);
        size
    };
    let heap_bytes = u64::from(size.blocks) * u64::from(pg_sys::BLCKSZ);
    let chunks = plan_chunks(size.blocks, heap_bytes, size.toast_bytes, mirror.options.snapshot_chunk_bytes);
    let all = u64::try_from(chunks.len()).unwrap_or(1).max(1);
    let chunks = chunks.iter().zip(1..).map(|(chunk, number)| Chunk {
        relid,
        chunk: number,
        first_block: chunk.first_block,
        end_block: chunk.end_block,
        bytes: (heap_bytes + size.toast_bytes) / all,
        relfilenode: size.relfilenode,
    });
    Some(Planned { relid, chunks: chunks.collect() })
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
    session::transaction(|| {
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

/// Whether a table still has the file that its chunks are counted in, and the columns of its target.
fn is_unchanged(mirror: &Mirror, table: &MirrorTableRow) -> bool {
    let Some(relation) = scan::open_table(table.relid) else { return false };
    let planned = catalog::chunk::relfilenode(&mirror.name, table.relid);
    // SAFETY: opened just now, in this transaction, and used no more once it is closed.
    unsafe {
        let same_file = planned == Some(scan::relfilenode_of(relation));
        // Rows without a key that were read twice, from two places, would be there twice.
        let same_columns = Source::of(relation, table, mirror).is_ok_and(|source| !source.spec.is_appended());
        scan::close_table(relation);
        same_file && same_columns
    }
}
