//! `dbmazz export`: writes chunks until none is left.
//!
//! For each chunk a transaction that imports the snapshot, reads, and makes the file durable; then another one that marks
//! the chunk as done. An error ends the worker and the export; the file has no name then.

use std::sync::Arc;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::export::{ChunkDone, ChunkPlan, ExportRow, ExportTable, Kind};
use super::super::scan::{self, Position, RangeScan};
use super::super::store::{self, Access};
use super::super::tuple::RowMemory;
use super::super::{catalog, clock, failpoint, latch, session};
use super::process::{self, Identity};
use super::rows::{Outside, RowWriter, WriteError, Written, fields_of};
use super::send::Functions;
use super::{plan, shared};
use crate::export::blob::BlobStore;
use crate::export::chunk::{Content, Format, file_name, large_objects_file};
use crate::export::destination::{Destination, Existing};
use crate::export::file::{ExportFile, Writing};
use crate::export::manifest::Blobs;
use crate::export::options::ExportOptions;
use crate::lsn::Lsn;
use crate::pace;

/// Main function of `dbmazz export`.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_export_main(argument: pg_sys::Datum) {
    let Some(me) = process::enter(argument) else { return };
    let Some(place) = shared::join(me.id, me.database, me.generation, me.pid) else { return };
    process::run(
        me,
        move || {
            let found = session::transaction(|| {
                let row = catalog::export::read(me.id)?;
                let destination = open(&row);
                Some((row, catalog::export::tables(me.id), destination))
            });
            if let Some((row, tables, destination)) = found {
                Worker::new(me, place, row, tables, destination).run();
            }
        },
        |_| (),
    );
}

/// The destination of an export, with the rights of whoever started it.
pub(super) fn open(row: &ExportRow) -> Arc<dyn Destination> {
    let server = row.server.as_deref();
    match store::open(&row.destination, server, row.owner, Access::Write) {
        Ok(destination) => destination,
        Err(problem) => {
            ereport!(PgLogLevel::ERROR, problem.sqlstate(), problem.to_string());
            unreachable!("an ERROR does not return")
        }
    }
}

/// How the files of an export are written.
pub(super) fn writing(options: &ExportOptions) -> Writing {
    Writing { compression: options.compression, level: options.compression_level, checksum: options.checksum }
}

/// Rows that are written between two looks at anything else; the pieces of the file are such looks too.
const ROWS_AT_ONCE: usize = 1_000;

struct Worker {
    meter: Meter,
    row: ExportRow,
    options: ExportOptions,
    tables: Vec<ExportTable>,
    destination: Arc<dyn Destination>,
    snapshot: String,
    lsn: Lsn,
    outside: Option<Outside>,
    functions: Functions,
    memory: RowMemory,
}

impl Worker {
    fn new(
        me: Identity,
        place: usize,
        row: ExportRow,
        tables: Vec<ExportTable>,
        destination: Arc<dyn Destination>,
    ) -> Self {
        let options = ExportOptions::parse(&row.options).unwrap_or_else(|problem| error!("{problem}"));
        let held = shared::find(me.id, me.database).map(|place| place.held).unwrap_or_default();
        let outside = (options.blobs == Blobs::External).then(|| Outside {
            store: BlobStore::new(Arc::clone(&destination), writing(&options)),
            threshold: options.blob_threshold,
        });
        Self {
            meter: Meter { me, place, max_rate: options.max_rate, bytes: 0 },
            row,
            options,
            tables,
            destination,
            snapshot: held.snapshot.as_str().to_owned(),
            lsn: held.lsn,
            outside,
            functions: Functions::default(),
            memory: RowMemory::new(),
        }
    }

    fn run(mut self) {
        while let Some(chunk) = session::transaction(|| catalog::export::claim(self.row.id)) {
            failpoint::hit("export_chunk_claimed");
            let Some(table) = self.tables.iter().find(|table| table.relid == chunk.relid).cloned() else {
                error!("could not find the table of a chunk");
            };
            session::report_activity(&format!(
                "export {}: writing chunk {} of {}.{}",
                self.row.id, chunk.chunk, table.schema, table.name
            ));
            let written = self.write(&table, chunk);
            failpoint::hit("export_chunk_durable");
            let done = ChunkDone {
                plan: chunk,
                file: written.file,
                rows: written.rows,
                blobs: written.blobs,
                snapshot_lsn: self.lsn,
            };
            self.meter.forget();
            session::transaction(|| catalog::export::complete(self.row.id, &done));
        }
    }

    fn write(&mut self, table: &ExportTable, chunk: ChunkPlan) -> Written {
        let owner = self.row.owner;
        let snapshot = self.snapshot.clone();
        let result = scan::under_snapshot(&snapshot, || {
            catalog::with_rights_of(owner, || {
                let Some(relation) = scan::open_table(table.relid) else {
                    error!("table \"{}.{}\" has been dropped during its export", table.schema, table.name);
                };
                // SAFETY: just opened and locked, and the imported snapshot active, until this closure is done.
                unsafe {
                    check(relation, table, owner);
                    self.meter.begin(table.relid);
                    let result = self.write_rows(relation, table, chunk);
                    pg_sys::pgstat_progress_end_command();
                    scan::close_table(relation);
                    result
                }
            })
        });
        match result {
            Ok(written) => written,
            Err(WriteError::Store(problem)) => process::raise(&problem),
            Err(problem @ WriteError::Corrupt) => {
                ereport!(
                    PgLogLevel::ERROR,
                    PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                    format!("could not read table \"{}.{}\": {problem}", table.schema, table.name)
                );
                unreachable!("an ERROR does not return")
            }
        }
    }

    /// # Safety
    ///
    /// `relation` is open and locked, and the snapshot active.
    unsafe fn write_rows(
        &mut self,
        relation: pg_sys::Relation,
        table: &ExportTable,
        chunk: ChunkPlan,
    ) -> Result<Written, WriteError> {
        let of_large_objects = table.kind.is_of_large_objects();
        let format = if of_large_objects { Format::Binary } else { self.options.format };
        let number = u32::try_from(chunk.chunk).unwrap_or_default();
        let compression = self.options.compression;
        let name = match table.kind {
            Kind::LargeObjects => large_objects_file(compression),
            Kind::LargeObjectPages => file_name(Content::LargeObjectPages, number, format, compression),
            Kind::Table | Kind::MaterializedView => {
                let content = Content::Table { schema: &table.schema, name: &table.name };
                file_name(content, number, format, compression)
            }
        };
        // What an earlier attempt has left under this name is not known to the catalog.
        let file = ExportFile::create(&*self.destination, &name, Existing::Replace, writing(&self.options))?;
        let externals: Vec<bool> = table.columns.iter().map(|column| column.external).collect();
        // SAFETY: the caller vouches for the relation, whose columns have been compared.
        let fields = unsafe { fields_of(relation, &table.attnums, format, &externals, &mut self.functions) };
        let meter = &mut self.meter;
        let mut count = |rows, bytes| meter.count(rows, bytes);
        let mut writer = RowWriter::new(file, format, &fields, self.outside.as_mut(), &mut count);
        let (is_list, memory) = (table.kind == Kind::LargeObjects, &mut self.memory);
        // SAFETY: the caller vouches for relation and snapshot; each row is used before the next one is asked for.
        unsafe {
            let mut rows = RangeScan::open(relation, Position::start_of(chunk.first_block), chunk.end_block);
            let mut write = |slot| {
                memory.scoped(|| if is_list { large_object(&mut writer, slot) } else { writer.row(slot) })
            };
            while rows.next_rows(ROWS_AT_ONCE, &mut write)? {}
            rows.close();
        }
        writer.finish()
    }
}

/// The table must be what was planned, and still be readable.
///
/// # Safety
///
/// `relation` is open.
unsafe fn check(relation: pg_sys::Relation, table: &ExportTable, owner: pg_sys::Oid) {
    // SAFETY: the caller vouches.
    let relfilenode = unsafe { scan::relfilenode_of(relation) };
    if table.relfilenode != Some(relfilenode) {
        ereport!(
            PgLogLevel::ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "table \"{}.{}\" has been rewritten since its chunks were planned",
                table.schema, table.name
            ),
            "Resume the export: the table is planned anew."
        );
    }
    if !table.kind.is_of_large_objects()
        && let Err(failure) = plan::check_readable(table, owner)
    {
        ereport!(PgLogLevel::ERROR, failure.code, failure.message);
    }
}

/// Writes a large object down: its number, the name of its owner, its privileges, its comment.
///
/// # Safety
///
/// The slot holds a row of `pg_largeobject_metadata`.
unsafe fn large_object(
    writer: &mut RowWriter<'_>,
    slot: *mut pg_sys::TupleTableSlot,
) -> Result<(), WriteError> {
    // SAFETY: the caller vouches for the columns: oid, lomowner, lomacl. Texts are in the memory of this row.
    unsafe {
        let value = |at: usize| (*(*slot).tts_values.add(at), *(*slot).tts_isnull.add(at));
        let oid = value(0).0.value() as u32;
        let owner = catalog::server::role_name(pg_sys::Oid::from(value(1).0.value() as u32));
        let (acl, has_none) = value(2);
        let acl = (!has_none).then(|| {
            let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_ARRAY_OUT), acl);
            std::ffi::CStr::from_ptr(text).to_bytes()
        });
        let comment = pg_sys::GetComment(pg_sys::Oid::from(oid), plan::LARGE_OBJECT_PAGES.into(), 0);
        let comment = (!comment.is_null()).then(|| std::ffi::CStr::from_ptr(comment).to_bytes());
        writer.values(&[Some(&oid.to_be_bytes()), Some(owner.as_bytes()), acl, comment])
    }
}

/// Counts what is written, and keeps to the rate.
struct Meter {
    me: Identity,
    place: usize,
    max_rate: u64,
    bytes: u64,
}

impl Meter {
    /// A chunk begins.
    fn begin(&mut self, relid: pg_sys::Oid) {
        self.bytes = 0;
        // SAFETY: reports to shared memory; the parameters are those of COPY TO.
        unsafe {
            pg_sys::pgstat_progress_start_command(pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY, relid);
            let report = |parameter: u32, value: u32| {
                pg_sys::pgstat_progress_update_param(parameter as i32, i64::from(value));
            };
            report(pg_sys::PROGRESS_COPY_COMMAND, pg_sys::PROGRESS_COPY_COMMAND_TO);
            report(pg_sys::PROGRESS_COPY_TYPE, pg_sys::PROGRESS_COPY_TYPE_FILE);
        }
    }

    /// Its figures are in the catalog from now on.
    fn forget(&self) {
        self.note(0, 0);
    }

    fn note(&self, rows: u64, bytes: u64) {
        shared::update(self.me.id, self.me.database, |place| {
            if let Some(helper) = place.helpers.get_mut(self.place) {
                helper.figures = shared::Figures { rows, bytes, written: 0 };
            }
        });
    }

    /// After each piece: figures, interrupts, the leader, the rate.
    fn count(&mut self, rows: u64, bytes: u64) {
        self.note(rows, bytes);
        // SAFETY: reports to shared memory.
        unsafe {
            let report = |parameter: u32, value: u64| {
                pg_sys::pgstat_progress_update_param(parameter as i32, value.cast_signed());
            };
            report(pg_sys::PROGRESS_COPY_BYTES_PROCESSED, bytes);
            report(pg_sys::PROGRESS_COPY_TUPLES_PROCESSED, rows);
        }
        failpoint::hit("export_piece_written");
        latch::serve_interrupts();
        let is_led = shared::find(self.me.id, self.me.database)
            .is_some_and(|place| place.leader_pid != 0 && place.generation == self.me.generation);
        if !is_led {
            error!("the export has no leader any more");
        }
        if self.max_rate > 0 {
            self.keep_to_rate(bytes.saturating_sub(self.bytes));
        }
        self.bytes = bytes;
    }

    /// Waits until the bytes may have been written, together with those of all other workers.
    fn keep_to_rate(&self, bytes: u64) {
        let now = clock::now();
        let until = shared::update(self.me.id, self.me.database, |place| {
            place.next_free = pace::book(place.next_free, now, bytes, self.max_rate);
            place.next_free
        });
        while let Some(left) = until.map(|until| until - clock::now()).filter(|left| *left > 0) {
            let left = Duration::from_micros(left.cast_unsigned()).min(Duration::from_millis(100));
            latch::wait(None, left);
        }
    }
}
