//! A file of rows goes into its table by PostgreSQL's own COPY, inside the server.
//!
//! ```text
//! destination ─► digest ─► decompress ─► values from outside put back ─► CopyFrom
//! ```
//!
//! The digest is known at the end of the file: rows of a file that is not what was written are in the table by then, and the
//! error takes them back with the transaction.

use std::cell::RefCell;
use std::ffi::{CString, c_int, c_void};
use std::io::{self, Read};
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};

use super::attempt::{refuse, refuse_with};
use super::place;
use super::table::Place;
use crate::export::blob_read::Inlined;
use crate::export::checked::{CheckedFile, Stop};
use crate::export::chunk::Format;
use crate::export::destination::Destination;
use crate::export::manifest::{Blobs, Chunk, Column, Options};
use crate::postgres::catalog::query;

/// What the export as a whole says about its files.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Exported {
    /// As in the manifest.
    pub(super) options: Options,
    /// The encoding of all texts.
    pub(super) encoding: String,
    /// Digest of the manifest.
    pub(super) manifest: String,
}

/// A file and what is in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ChunkToLoad {
    pub(super) format: Format,
    pub(super) columns: Vec<Column>,
    pub(super) chunk: Chunk,
}

/// Loads a chunk into a relation, whose qualified and quoted name is given; returns how many rows it was. Raises an error
/// when the table is not fit for them, the user may not, or the file is not what was written.
pub(super) fn load(
    store: &Arc<dyn Destination>,
    exported: &Exported,
    relation: &str,
    place: Option<Place>,
    load: &ChunkToLoad,
) -> u64 {
    let target = Target::look_up(relation);
    target.check_rights(relation);
    target.check_place(relation, place);
    target.check_columns(relation, load);
    let file = CheckedFile::open(&**store, &load.chunk.file, exported.options.checksum, &Stop::default())
        .unwrap_or_else(|problem| fail(load, &problem.to_string()));
    let content =
        file.content(exported.options.compression).and_then(|content| -> io::Result<Box<dyn Read>> {
            let external: Vec<bool> = load.columns.iter().map(|column| column.external).collect();
            if exported.options.blobs == Blobs::Inline || !external.contains(&true) {
                return Ok(Box::new(content));
            }
            let compression = exported.options.compression;
            Ok(Box::new(Inlined::new(content, external, Arc::clone(store), compression)?))
        });
    let content = content.unwrap_or_else(|problem| fail(load, &problem.to_string()));
    FILE.set(Some(load.chunk.file.file.clone()));
    SOURCE.set(Some(content));
    let rows = copy_from(target.relid, &load.columns, load.format);
    SOURCE.set(None);
    FILE.set(None);
    file.finish().unwrap_or_else(|difference| fail(load, &difference.to_string()));
    if rows != load.chunk.rows {
        fail(load, &format!("has {rows} rows instead of {}", load.chunk.rows));
    }
    rows
}

fn fail(load: &ChunkToLoad, problem: &str) -> ! {
    let file = &load.chunk.file.file;
    refuse(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("could not import file \"{file}\": {problem}"))
}

/// A table that rows come into.
struct Target {
    relid: pg_sys::Oid,
    kind: i8,
    /// Rules of its own for whoever writes: they are passed over, which takes its owner.
    is_guarded: bool,
    is_owned: bool,
    may_insert: bool,
    has_active_policies: bool,
}

impl Target {
    fn look_up(relation: &str) -> Self {
        let found = query::row(
            "SELECT c.oid, c.relkind, c.relhastriggers, pg_catalog.pg_has_role(c.relowner, 'USAGE'),
                 pg_catalog.has_table_privilege(c.oid, 'INSERT'), pg_catalog.row_security_active(c.oid)
             FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)",
            &[relation.into()],
            |row| Self {
                relid: row.must(1),
                kind: row.must(2),
                is_guarded: row.must(3),
                is_owned: row.must(4),
                may_insert: row.must(5),
                has_active_policies: row.must(6),
            },
        );
        found.unwrap_or_else(|| {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE;
            refuse_with(code, format!("relation {relation} does not exist"), "", place::START_OVER)
        })
    }

    fn check_rights(&self, relation: &str) {
        let deny = |what: &str| {
            let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
            refuse(code, format!("permission denied to import into {relation}: {what}"))
        };
        if !matches!(u8::try_from(self.kind), Ok(b'r' | b'p')) {
            let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
            refuse(code, format!("{relation} is not a table"))
        }
        if !self.may_insert {
            deny("it takes the privilege INSERT");
        }
        if self.has_active_policies {
            deny("it has row-level security");
        }
        if self.is_guarded && !self.is_owned {
            deny("its triggers do not fire for imported rows, which takes its owner");
        }
    }

    /// Rows go into the table that the first rows went into, which nobody empties any more.
    fn check_place(&self, relation: &str, place: Option<Place>) {
        // SAFETY: the lock that the rows take is taken a little earlier; it goes with the transaction.
        unsafe { pg_sys::LockRelationOid(self.relid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) };
        if place.is_none() || place != place::of(self.relid) {
            refuse_with(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{relation} was truncated, rewritten or replaced since the import has begun"),
                "",
                place::START_OVER,
            );
        }
    }

    /// The bytes of a binary file are those of the types that were exported.
    fn check_columns(&self, relation: &str, load: &ChunkToLoad) {
        let there = query::rows(
            "SELECT a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, NULL),
                 pg_catalog.format_type(a.atttypid, a.atttypmod)
             FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
            &[self.relid.into()],
            |row| (row.must::<String>(1), row.must::<String>(2), row.must::<String>(3)),
        );
        for column in &load.columns {
            let (name, wanted) = (&column.name, &column.type_name);
            let misfit = |what: String| {
                let code = PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH;
                refuse(code, format!("could not import into {relation}: {what}"))
            };
            match there.iter().find(|(there, ..)| there == name) {
                None => misfit(format!("column \"{name}\" does not exist")),
                Some((_, bare, full)) => {
                    if load.format == Format::Binary && full != wanted && *bare != without_modifier(wanted) {
                        misfit(format!("column \"{name}\" is of type {full}, the file has {wanted}"));
                    }
                }
            }
        }
    }
}

/// `character varying(10)` without `(10)`, and `timestamp(3) with time zone` without `(3)`.
fn without_modifier(type_name: &str) -> String {
    match (type_name.find('('), type_name.find(')')) {
        (Some(begin), Some(end)) if begin < end && !type_name.contains('"') => {
            format!("{}{}", &type_name[..begin], &type_name[end + 1..])
        }
        _ => type_name.to_owned(),
    }
}

thread_local! {
    /// What COPY reads: its callback has no argument.
    static SOURCE: RefCell<Option<Box<dyn Read>>> = const { RefCell::new(None) };
    /// Whose content that is: errors of COPY do not say.
    static FILE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What an error says, with the file that was being read.
pub(super) fn with_file(message: &str) -> String {
    FILE.take()
        .map_or_else(|| message.to_owned(), |file| format!("could not import file \"{file}\": {message}"))
}

/// Runs COPY into a table, from [`SOURCE`] (tablesync.c, `copy_table`).
fn copy_from(relid: pg_sys::Oid, columns: &[Column], format: Format) -> u64 {
    // SAFETY: inside a transaction with a snapshot. The relation is opened, locked and closed here; lists and strings are made
    // in the transaction's memory.
    unsafe {
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(relid, lock);
        let parse = pg_sys::make_parsestate(std::ptr::null_mut());
        pg_sys::addRangeTableEntryForRelation(parse, relation, lock, std::ptr::null_mut(), false, false);
        let mut names = std::ptr::null_mut();
        for column in columns {
            names = pg_sys::lappend(names, string_node(&column.name));
        }
        let word = if format == Format::Binary { "binary" } else { "csv" };
        let option = pg_sys::makeDefElem(c"format".as_ptr().cast_mut(), string_node(word).cast(), -1);
        let options = pg_sys::lappend(std::ptr::null_mut(), option.cast());
        let copy = pg_sys::BeginCopyFrom(
            parse,
            relation,
            std::ptr::null_mut(),
            std::ptr::null(),
            false,
            Some(read_source),
            names,
            options,
        );
        let rows = pg_sys::CopyFrom(copy);
        pg_sys::EndCopyFrom(copy);
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        rows
    }
}

/// # Safety
///
/// Inside a transaction, whose memory the node is in.
unsafe fn string_node(text: &str) -> *mut c_void {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the string is copied.
    unsafe { pg_sys::makeString(pg_sys::pstrdup(text.as_ptr())).cast() }
}

#[pg_guard]
unsafe extern "C-unwind" fn read_source(buffer: *mut c_void, least: c_int, most: c_int) -> c_int {
    let most = usize::try_from(most).unwrap_or(0);
    // SAFETY: COPY gives a buffer with room for `most` bytes.
    let room = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), most) };
    let read = SOURCE.with_borrow_mut(|source| {
        let source = source.as_mut().ok_or_else(|| io::Error::other("nothing is open"))?;
        let mut filled = 0;
        while let Some(rest @ [_, ..]) = room.get_mut(filled..) {
            match source.read(rest) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => return Err(problem),
            }
            if c_int::try_from(filled).is_ok_and(|filled| filled >= least) {
                break;
            }
        }
        Ok(filled)
    });
    match read {
        Ok(filled) => c_int::try_from(filled).unwrap_or(c_int::MAX),
        Err(problem) => {
            refuse(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("could not read file: {problem}"))
        }
    }
}
