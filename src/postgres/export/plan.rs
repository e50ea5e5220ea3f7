//! Which relations an export has, who may read them, and into which chunks they are divided.

use pgrx::{PgSqlErrorCode, pg_sys};

use super::super::api::failure::Failure;
use super::super::catalog::export::{ChunkPlan, ExportTable, Kind, Unsendable};
use super::super::catalog::{self, as_extension};
use super::super::{encoding, scan};
use super::argument;
use super::send::Send;
use crate::export::chunk::Format;
use crate::export::manifest::Blobs;
use crate::export::options::ExportOptions;
use crate::snapshot::plan_chunks;

/// `pg_largeobject_metadata` and `pg_largeobject`.
const LARGE_OBJECTS: u32 = 2995;
pub(super) const LARGE_OBJECT_PAGES: u32 = 2613;

/// What an export has, as the active snapshot sees it: the relations that are named, partitioned ones by their leaves, or
/// all of the database. Those that are gone are left out.
///
/// # Errors
///
/// When one of them cannot be exported, or not by `role`, or not in this format.
pub(super) fn relations(
    named: Option<&[pg_sys::Oid]>,
    role: pg_sys::Oid,
    format: Format,
) -> Result<Vec<ExportTable>, Failure> {
    let relids = as_extension(|| relids(named));
    as_extension(|| check_names(&relids, named.is_none()))?;
    let mut tables = Vec::with_capacity(relids.len());
    for (table, relkind, persistence) in as_extension(|| catalog::export::relations(&relids)) {
        check_kind(&table, relkind, persistence)?;
        check_readable(&table, role)?;
        tables.push(table);
    }
    if format == Format::Binary {
        check_binary(as_extension(|| catalog::export::unsendable(&relids)))?;
    }
    if named.is_none() {
        tables.extend(large_objects(role)?);
    }
    Ok(tables)
}

/// The numbers of these relations, without the system's own that large objects are in.
fn relids(named: Option<&[pg_sys::Oid]>) -> Vec<pg_sys::Oid> {
    named.map_or_else(catalog::export::whole_database, catalog::export::leaves)
}

/// What must not be rewritten while it is read: these relations, and large objects with a whole database.
pub(super) fn to_be_locked(named: Option<&[pg_sys::Oid]>) -> Vec<pg_sys::Oid> {
    let of_large_objects =
        named.is_none().then(|| [LARGE_OBJECTS, LARGE_OBJECT_PAGES].map(pg_sys::Oid::from));
    relids(named).into_iter().chain(of_large_objects.into_iter().flatten()).collect()
}

/// What is named must be there.
///
/// # Errors
///
/// When it is not, or when nothing is named: that would be an export without a row.
pub(super) fn check_named(named: &[pg_sys::Oid]) -> Result<(), Failure> {
    if named.is_empty() {
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        return Err(Failure::new(code, "argument \"tables\" names no table")
            .hint("Name at least one table, or leave the argument out: NULL means the whole database."));
    }
    match named.iter().find(|relid| is_gone(**relid)) {
        None => Ok(()),
        Some(relid) => {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE;
            Err(Failure::new(code, format!("relation with OID {} does not exist", relid.to_u32())))
        }
    }
}

fn is_gone(relid: pg_sys::Oid) -> bool {
    // SAFETY: looks into the system cache.
    unsafe { pg_sys::get_rel_relkind(relid) == 0 }
}

/// Names become parts of files' names, of the manifest, and arguments of pg_dump, all in UTF-8.
fn check_names(relids: &[pg_sys::Oid], whole: bool) -> Result<(), Failure> {
    if !encoding::needs_conversion() {
        return Ok(());
    }
    match catalog::export::name_beyond_ascii(relids, whole) {
        None => Ok(()),
        Some(name) => Err(argument::beyond_ascii(&format!("name \"{name}\""))
            .hint("Rename it, or export other tables by naming them.")),
    }
}

fn check_binary(problem: Option<Unsendable>) -> Result<(), Failure> {
    let Some(Unsendable { schema, table, column, type_name }) = problem else { return Ok(()) };
    let code = PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION;
    let message = format!("column \"{column}\" of table \"{schema}.{table}\" has no binary form");
    Err(Failure::new(code, message)
        .detail(format!("Type {type_name} has no send function."))
        .hint("Export with the option \"format\": \"csv\", which takes the texts of all types."))
}

/// What belongs to large objects, if the database has any.
///
/// # Errors
///
/// When `role` is not a superuser: nobody else can read all of them.
fn large_objects(role: pg_sys::Oid) -> Result<Vec<ExportTable>, Failure> {
    if !as_extension(catalog::export::has_large_objects) {
        return Ok(Vec::new());
    }
    // SAFETY: looks into the system caches.
    if !unsafe { pg_sys::superuser_arg(role) } {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        return Err(Failure::new(code, "permission denied for large objects")
            .detail("The database has large objects, which only a superuser can read all of.")
            .hint("Name the tables to be exported: then large objects are left out."));
    }
    let relation = |relid: pg_sys::Oid, name: &str, kind| ExportTable {
        relid,
        schema: "pg_catalog".to_owned(),
        name: name.to_owned(),
        kind,
        columns: Vec::new(),
        attnums: Vec::new(),
        relfilenode: None,
    };
    Ok(vec![
        relation(LARGE_OBJECTS.into(), "pg_largeobject_metadata", Kind::LargeObjects),
        relation(LARGE_OBJECT_PAGES.into(), "pg_largeobject", Kind::LargeObjectPages),
    ])
}

fn check_kind(table: &ExportTable, relkind: i8, persistence: i8) -> Result<(), Failure> {
    let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
    let refuse = |what: &str| {
        Err(Failure::new(code, format!("cannot export \"{}.{}\"", table.schema, table.name))
            .detail(format!("It is {what}.")))
    };
    match (relkind.cast_unsigned(), persistence.cast_unsigned()) {
        (_, b't') => refuse("a temporary table, which only its own session can read"),
        (b'r' | b'm', _) => Ok(()),
        (b'f', _) => refuse("a foreign table: its rows are not here"),
        (b'v', _) => refuse("a view: it has no rows of its own"),
        _ => refuse("no table"),
    }
}

/// Rows are read past all checks, so these are made here.
pub(super) fn check_readable(table: &ExportTable, role: pg_sys::Oid) -> Result<(), Failure> {
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    // A snapshot may still see it. Who opens it finds out.
    if is_gone(table.relid) {
        return Ok(());
    }
    // SAFETY: looks into the system caches.
    let (is_readable, row_security) = unsafe {
        let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
        (
            pg_sys::pg_class_aclcheck(table.relid, role, select) == pg_sys::AclResult::ACLCHECK_OK,
            pg_sys::check_enable_rls(table.relid, role, true),
        )
    };
    if !is_readable {
        let name = format!("permission denied for table \"{}.{}\"", table.schema, table.name);
        return Err(Failure::new(code, name).hint("An export takes SELECT on every table."));
    }
    if row_security == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
        let name = format!("row-level security of table \"{}.{}\" hides rows", table.schema, table.name);
        return Err(Failure::new(code, name)
            .detail("An export is of whole tables.")
            .hint("Let a role export that bypasses row-level security."));
    }
    Ok(())
}

/// Why a relation has no plan.
pub(super) enum NoPlan {
    /// It is gone.
    Dropped,
    /// The snapshot does not see the file that is there now.
    Rewritten,
}

impl NoPlan {
    /// The reason, about this relation.
    pub(super) fn of(&self, table: &ExportTable) -> String {
        let ExportTable { schema, name, .. } = table;
        let what = match self {
            Self::Dropped => "dropped",
            Self::Rewritten => "rewritten or truncated",
        };
        format!("table \"{schema}.{name}\" was {what} while the snapshot was taken; resume the export")
    }
}

/// Divides a relation into chunks, under the export's snapshot, which is active.
pub(super) fn plan(
    table: &ExportTable,
    options: &ExportOptions,
) -> Result<(ExportTable, Vec<ChunkPlan>), NoPlan> {
    let relation = scan::open_table(table.relid).ok_or(NoPlan::Dropped)?;
    // SAFETY: just opened, in this transaction, and closed at once.
    let (size, has_ranges) = unsafe {
        let size = scan::size_of(relation);
        let has_ranges = scan::has_ranges(relation);
        scan::close_table(relation);
        (size, has_ranges)
    };
    let outside = options.blobs == Blobs::External && !table.kind.is_of_large_objects();
    let (relfilenode, columns) =
        catalog::export::describe(table.relid, |oid| outside && is_external(oid)).ok_or(NoPlan::Dropped)?;
    if relfilenode != size.relfilenode {
        return Err(NoPlan::Rewritten);
    }
    let (attnums, columns) = columns.into_iter().unzip();
    let table = ExportTable { columns, attnums, relfilenode: Some(relfilenode), ..table.clone() };
    let is_whole = !has_ranges || matches!(table.kind, Kind::MaterializedView | Kind::LargeObjects);
    let chunk_bytes = if is_whole { u64::MAX } else { chunk_bytes(options, size) };
    Ok((table.clone(), chunks_of(&table, size, chunk_bytes)))
}

fn is_external(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: looks into the system cache.
    Send::may_be_external(unsafe { pg_sys::getBaseType(type_oid) })
}

/// A table has so many chunks per worker at least: with three chunks for two workers one of them would be idle for a
/// third of the time.
const CHUNKS_PER_WORKER: u64 = 4;

/// Chunks are not made smaller than this for it.
const SMALLEST_SHARE: u64 = 16 << 20;

/// As many as the option says, or fewer, so that all workers are busy until the end.
fn chunk_bytes(options: &ExportOptions, size: scan::TableSize) -> u64 {
    let workers = u64::try_from(options.workers).unwrap_or(1).max(1);
    let share = (heap_bytes(size) + size.toast_bytes) / (workers * CHUNKS_PER_WORKER);
    options.chunk_bytes.min(share.max(SMALLEST_SHARE))
}

fn heap_bytes(size: scan::TableSize) -> u64 {
    u64::from(size.blocks) * u64::from(pg_sys::BLCKSZ)
}

fn chunks_of(table: &ExportTable, size: scan::TableSize, chunk_bytes: u64) -> Vec<ChunkPlan> {
    let heap_bytes = heap_bytes(size);
    let chunks = plan_chunks(size.blocks, heap_bytes, size.toast_bytes, chunk_bytes);
    let blocks = u64::from(size.blocks.max(1));
    let plan = |(number, chunk): (i32, &crate::snapshot::Chunk)| {
        let end = chunk.end_block.unwrap_or(size.blocks).max(chunk.first_block);
        let part = u128::from(end - chunk.first_block) * u128::from(heap_bytes + size.toast_bytes);
        ChunkPlan {
            relid: table.relid,
            chunk: number,
            first_block: chunk.first_block,
            end_block: chunk.end_block,
            plan_bytes: u64::try_from(part / u128::from(blocks)).unwrap_or(u64::MAX),
        }
    };
    (1..).zip(&chunks).map(plan).collect()
}
