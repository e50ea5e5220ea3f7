//! `dbmazz_estimate_export`: how large an export would be.
//!
//! Blocks from all over each table are encoded and compressed as an export would do it, to nowhere. What all of it would
//! take is compared with the free space of a destination, if one is named.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, PgTupleDesc, name, pg_sys};
use serde_json::{Map, Value};

use super::super::api::arguments::{current_role, not_null};
use super::super::api::failure::Failure;
use super::super::catalog::export::{ExportTable, Kind};
use super::super::catalog::{self, as_extension};
use super::super::scan::{self, Position, RangeScan};
use super::super::store::{self, Access};
use super::super::tuple::RowMemory;
use super::super::{encoding, latch};
use super::process::must;
use super::rows::{RowWriter, WriteError, fields_of};
use super::send::Functions;
use super::worker::writing;
use super::{argument, plan};
use crate::export::destination::{Existing, Nowhere};
use crate::export::file::ExportFile;
use crate::export::options::ExportOptions;
use crate::options::show_size;

/// So many ranges of a table are looked at, of so many blocks each.
const RANGES: u32 = 8;
const RANGE_BLOCKS: u32 = 16;

/// Of a range so many bytes are encoded; the other rows are only weighed.
const ENOUGH: u64 = 8 << 20;

/// Sizes of tables, and of the files that an export would make of them. Of a destination that is named, a notice says how much is
/// free there, or a warning that it is not enough.
///
/// # Errors
///
/// As `dbmazz_export`.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // The columns of a result.
fn dbmazz_estimate_export(
    tables: Option<Vec<Option<pg_sys::Oid>>>,
    options: Option<JsonB>,
    destination: Option<&[u8]>,
    server: Option<&[u8]>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(relation, pg_sys::Oid),
            name!(heap_bytes, i64),
            name!(toast_bytes, i64),
            name!(rows_estimate, i64),
            name!(chunks, i32),
            name!(bytes_estimate, i64),
        ),
    >,
    ErrorReport,
> {
    let options = options.map_or_else(|| Value::Object(Map::new()), |options| options.0);
    let options = ExportOptions::parse(&options).map_err(Failure::from)?;
    let tables = not_null(tables)?;
    let role = current_role();
    let destination = destination.map(|it| argument::text("destination", it)).transpose()?;
    let server = server.map(|it| argument::text("server", it)).transpose()?;
    let store = destination.map(|destination| store::open(destination, server, role, Access::Write));
    let store = store.transpose().map_err(Failure::from)?;
    tables.as_deref().map_or(Ok(()), plan::check_named)?;
    let mut relations = plan::relations(tables.as_deref(), role, options.format)?;
    // Their list is small beside their pages.
    relations.retain(|table| table.kind != Kind::LargeObjects);
    let mut sampler = Sampler { functions: Functions::default(), memory: RowMemory::new() };
    let mut rows = Vec::with_capacity(relations.len());
    for table in &relations {
        if let Some(row) = sampler.estimate(table, &options)? {
            rows.push(row);
        }
    }
    if let (Some(store), Some(destination)) = (store, destination) {
        let wanted = rows.iter().fold(0_i64, |sum, row| sum.saturating_add(row.5)).unsigned_abs();
        tell_free_space(destination, must(store.free_bytes()), wanted);
    }
    Ok(TableIterator::new(rows))
}

/// Says what is free at a destination: `free` bytes, or as many as one likes.
fn tell_free_space(destination: &str, free: Option<u64>, wanted: u64) {
    let destination = encoding::own_text(destination);
    let wanted_text = rounded(wanted);
    let Some(free) = free else {
        return notice!(
            "\"{destination}\" has no limit that is known; the export would take about {wanted_text}"
        );
    };
    let free_text = rounded(free);
    if free >= wanted {
        notice!("\"{destination}\" has {free_text} free; the export would take about {wanted_text}");
        return;
    }
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("\"{destination}\" has only {free_text} free; the export would take about {wanted_text}"),
        "dbmazz",
    )
    .set_hint("Export to another place, or compress more.")
    .report(PgLogLevel::WARNING);
}

/// A size for people: whole megabytes, or kilobytes of a small one.
fn rounded(bytes: u64) -> String {
    let unit = if bytes < 10 << 20 { 10 } else { 20 };
    show_size(bytes.div_ceil(1 << unit) << unit)
}

type Estimate = (pg_sys::Oid, i64, i64, i64, i32, i64);

struct Sampler {
    functions: Functions,
    memory: RowMemory,
}

/// What came of the sample.
#[derive(Default)]
struct Sample {
    blocks: u64,
    rows: u64,
    written: u64,
    /// Bytes of the values of all rows.
    weight: u64,
    /// Of those that were encoded.
    encoded: u64,
}

impl Sample {
    /// What would have been written of all rows.
    fn all_written(&self) -> u64 {
        let all = u128::from(self.written) * u128::from(self.weight) / u128::from(self.encoded.max(1));
        u64::try_from(all).unwrap_or(u64::MAX).max(self.written)
    }
}

impl Sampler {
    fn estimate(
        &mut self,
        table: &ExportTable,
        options: &ExportOptions,
    ) -> Result<Option<Estimate>, Failure> {
        let planned = as_extension(|| plan::plan(table, options));
        let Ok((table, chunks)) = planned else { return Ok(None) };
        let Some(relation) = scan::open_table(table.relid) else { return Ok(None) };
        // SAFETY: just opened and locked; the statement's snapshot is active.
        let (size, sample) = unsafe {
            let size = scan::size_of(relation);
            let sample = self.sample(relation, &table, size.blocks, options);
            scan::close_table(relation);
            (size, sample)
        };
        let sample = sample.map_err(|problem| {
            Failure::new(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not take a sample: {problem}"))
        })?;
        let heap = u64::from(size.blocks) * u64::from(pg_sys::BLCKSZ);
        let scaled = |part: u64| {
            let all = u128::from(part) * u128::from(size.blocks) / u128::from(sample.blocks.max(1));
            i64::try_from(all).unwrap_or(i64::MAX)
        };
        let (tuples, pages) = as_extension(|| catalog::export::reltuples(table.relid));
        let rows = if tuples >= 0.0 && pages > 0 {
            (f64::from(tuples) / f64::from(pages) * f64::from(size.blocks)) as i64
        } else {
            scaled(sample.rows)
        };
        let chunks = i32::try_from(chunks.len()).unwrap_or(i32::MAX);
        let bytes = scaled(sample.all_written());
        Ok(Some((table.relid, heap.cast_signed(), size.toast_bytes.cast_signed(), rows, chunks, bytes)))
    }

    /// # Safety
    ///
    /// `relation` is open and locked; a snapshot is active.
    unsafe fn sample(
        &mut self,
        relation: pg_sys::Relation,
        table: &ExportTable,
        blocks: u32,
        options: &ExportOptions,
    ) -> Result<Sample, WriteError> {
        let nowhere = Nowhere::default();
        let externals = vec![false; table.attnums.len()];
        // SAFETY: the caller vouches for the relation, whose columns have just been looked up.
        let fields =
            unsafe { fields_of(relation, &table.attnums, options.format, &externals, &mut self.functions) };
        let file = ExportFile::create(&nowhere, "sample", Existing::Replace, writing(options))?;
        let total = std::cell::Cell::new(0);
        let mut meter = |_, bytes| {
            total.set(bytes);
            latch::serve_interrupts();
        };
        let mut writer = RowWriter::new(file, options.format, &fields, None, &mut meter);
        let mut sample = Sample::default();
        // SAFETY: the caller vouches for the relation.
        let has_ranges = unsafe { scan::has_ranges(relation) };
        // SAFETY: the caller vouches for the relation.
        let descriptor = unsafe { PgTupleDesc::from_pg_unchecked((*relation).rd_att) };
        for (first, end) in ranges(blocks, has_ranges) {
            let before = total.get();
            let mut last = end.unwrap_or(blocks);
            // SAFETY: the caller vouches for relation and snapshot; each row is used before the next one is asked for.
            unsafe {
                let mut rows = RangeScan::open(relation, Position::start_of(first), end);
                let mut take = |slot| {
                    let weight = weight(&descriptor, slot);
                    (sample.rows, sample.weight) = (sample.rows + 1, sample.weight + weight);
                    if total.get() - before > ENOUGH {
                        return Ok(());
                    }
                    sample.encoded += weight;
                    self.memory.scoped(|| writer.row(slot))
                };
                while rows.next_rows(1, &mut take)? {
                    latch::serve_interrupts();
                    if end.is_none() && total.get() - before > ENOUGH {
                        last = (rows.position().block + 1).clamp(first, last);
                        break;
                    }
                }
                rows.close();
            }
            sample.blocks += u64::from(last - first);
        }
        writer.finish()?;
        sample.written = nowhere.bytes();
        Ok(sample)
    }
}

/// Bytes of the values of a row. None is fetched: of a large one its pointer says how many it has.
///
/// # Safety
///
/// The slot has a row of this descriptor, deformed.
unsafe fn weight(descriptor: &PgTupleDesc<'_>, slot: *mut pg_sys::TupleTableSlot) -> u64 {
    let bytes = |(at, column): (usize, &pg_sys::FormData_pg_attribute)| {
        // SAFETY: the caller vouches: the slot's arrays have an element for each column, of the column's type.
        unsafe {
            match (*(*slot).tts_isnull.add(at), column.attlen) {
                (true, _) => 1,
                (false, -1) => pg_sys::toast_raw_datum_size(*(*slot).tts_values.add(at)) as u64,
                (false, length) => u64::try_from(length).unwrap_or(8),
            }
        }
    };
    descriptor.iter().enumerate().map(bytes).sum()
}

/// Block ranges that are looked at. Of a table that cannot be scanned by ranges it is the beginning.
fn ranges(blocks: u32, has_ranges: bool) -> Vec<(u32, Option<u32>)> {
    if !has_ranges {
        return vec![(0, None)];
    }
    let step = (blocks / RANGES).max(RANGE_BLOCKS);
    let firsts = (0..RANGES).map(|range| range.saturating_mul(step)).take_while(|first| *first < blocks);
    firsts.map(|first| (first, Some(first.saturating_add(RANGE_BLOCKS).min(blocks)))).collect()
}
