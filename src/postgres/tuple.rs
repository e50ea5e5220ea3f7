//! A tuple becomes values. The stream gives heap tuples from the reorder buffer, the copy gives slots of a scan;
//! both are read here, by the same code, for the same [`TableSpec`].

use std::cell::UnsafeCell;
use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::varlena;

use crate::encode::{Added, Row, Stamp, Value};
use crate::table::{Column, Kind, TableSpec};

use super::encoding::{Conversion, NoConversion};
use super::ffi;

/// What a TOAST pointer in a tuple means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Toast {
    /// Decoding: the value was not written by this change and is not in the log. Never fetched, because the TOAST
    /// table of the past may be gone.
    Unchanged,
    /// A scan: the value is in the TOAST table, under the scan's own snapshot.
    Fetch,
}

/// How the datum of one column is read.
enum Read {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Date,
    Timestamp,
    Time,
    Uuid,
    Numeric,
    Bytes,
    Json,
    Text,
    Name,
    /// jsonb has no text of its own.
    JsonOutput(Output),
    /// Every other type is what its output function prints.
    TextOutput(Output),
    /// Characters of a database whose encoding is not UTF8.
    Converted(Box<(Read, Conversion)>),
}

/// A type's output function, looked up once.
struct Output {
    function: Box<UnsafeCell<pg_sys::FmgrInfo>>,
    is_varlena: bool,
}

impl Output {
    /// Looks the function up in the catalogs; `type_oid` exists.
    fn of(type_oid: pg_sys::Oid) -> Self {
        let mut function = Box::new(UnsafeCell::new(pg_sys::FmgrInfo::default()));
        let mut oid = pg_sys::InvalidOid;
        let mut is_varlena = false;
        // SAFETY: the out-parameters are local; the function's own data goes into a context that lives as long as
        // the process, because the reader may.
        unsafe {
            pg_sys::getTypeOutputInfo(type_oid, &raw mut oid, &raw mut is_varlena);
            pg_sys::fmgr_info_cxt(oid, function.get_mut(), pg_sys::TopMemoryContext);
        }
        Self { function, is_varlena }
    }

    /// The text of a datum, in the current memory context.
    ///
    /// # Safety
    ///
    /// `datum` is of the type that this function was looked up for, and not NULL.
    unsafe fn call(&self, datum: pg_sys::Datum) -> &[u8] {
        // SAFETY: the caller vouches for the datum. The server calls nothing that comes back here, so the function's
        // data is borrowed once. The text stays until the caller resets the current memory context.
        unsafe {
            let text = pg_sys::OutputFunctionCall(self.function.get(), datum);
            CStr::from_ptr(text).to_bytes()
        }
    }
}

/// One column of the table's spec: where it is in a tuple and how to read it.
struct ColumnReader {
    attribute: usize,
    read: Read,
}

/// Reads tuples of one table.
pub(super) struct TupleReader {
    columns: Box<[ColumnReader]>,
    /// Columns behind those.
    added: Added,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl TupleReader {
    /// A reader for tuples of the descriptor that `spec` was made from, and what its rows have in columns that are not the
    /// source's. Looks output functions up in the catalogs.
    pub(super) fn new(spec: &TableSpec, natts: usize, added: Added) -> Self {
        let columns = spec.columns.iter().take(spec.source_columns()).map(|column| ColumnReader {
            attribute: usize::try_from(column.source.attnum - 1).unwrap_or_default(),
            read: in_utf8(read_of(pg_sys::Oid::from(column.source.type_oid), column.kind)),
        });
        Self {
            columns: columns.collect(),
            added,
            values: vec![pg_sys::Datum::null(); natts],
            nulls: vec![true; natts],
        }
    }

    /// Rows are as of this commit from now on.
    #[inline]
    pub(super) fn stamp(&mut self, stamp: Stamp) {
        self.added.stamp(stamp);
    }

    /// Takes a heap tuple apart.
    ///
    /// # Safety
    ///
    /// `tuple` conforms to `descriptor`, which has as many attributes as this reader was made for. The row must not
    /// outlive the tuple.
    pub(super) unsafe fn heap_row(
        &mut self,
        tuple: pg_sys::HeapTuple,
        descriptor: pg_sys::TupleDesc,
        toast: Toast,
    ) -> TupleRow<'_> {
        // SAFETY: the caller vouches for the tuple; the room was made for this descriptor.
        unsafe { ffi::deform_heap_tuple(tuple, descriptor, &mut self.values, &mut self.nulls) };
        let Self { columns, added, values, nulls } = self;
        TupleRow { columns, added, values, nulls, toast }
    }

    /// The row in a slot all of whose attributes have been deformed.
    ///
    /// # Safety
    ///
    /// The slot has as many attributes as this reader was made for, and keeps its tuple while the row is used.
    pub(super) unsafe fn slot_row(&self, slot: *mut pg_sys::TupleTableSlot) -> TupleRow<'_> {
        // SAFETY: the caller vouches for the slot: its arrays have that many elements.
        let (values, nulls) = unsafe {
            (
                std::slice::from_raw_parts((*slot).tts_values, self.values.len()),
                std::slice::from_raw_parts((*slot).tts_isnull, self.nulls.len()),
            )
        };
        TupleRow { columns: &self.columns, added: &self.added, values, nulls, toast: Toast::Fetch }
    }
}

/// The values of one tuple.
///
/// Values that must be decompressed or printed are made in the current memory context, which the owner of the
/// reader resets after each row (see [`RowMemory`]).
pub(super) struct TupleRow<'a> {
    columns: &'a [ColumnReader],
    added: &'a Added,
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    toast: Toast,
}

impl Row for TupleRow<'_> {
    // Always: written where a value is made, it is not looked at twice what it is.
    #[inline(always)]
    fn value(&self, column: usize) -> Value<'_> {
        let Some(reader) = self.columns.get(column) else {
            return self.added.value(column - self.columns.len());
        };
        let (Some(&datum), Some(false)) =
            (self.values.get(reader.attribute), self.nulls.get(reader.attribute))
        else {
            return Value::Null;
        };
        // SAFETY: the datum is of the column's type, because the reader was made from the tuple's own descriptor,
        // and it is not NULL.
        unsafe { self.read(&reader.read, datum) }
    }
}

impl TupleRow<'_> {
    /// Reads a datum.
    ///
    /// # Safety
    ///
    /// `datum` is not NULL and of the type that `read` was made for.
    #[inline(always)]
    unsafe fn read<'v>(&'v self, read: &'v Read, datum: pg_sys::Datum) -> Value<'v> {
        let bits = datum.value();
        match read {
            Read::Bool => Value::Bool(bits & 1 != 0),
            Read::Int2 => Value::Int(i64::from(bits as i16)),
            Read::Int4 => Value::Int(i64::from(bits as i32)),
            Read::Int8 => Value::Int(bits as i64),
            Read::Oid => Value::Int(i64::from(bits as u32)),
            Read::Float4 => Value::Float4(f32::from_bits(bits as u32)),
            Read::Float8 => Value::Float8(f64::from_bits(bits as u64)),
            Read::Date => Value::Date(bits as i32),
            Read::Timestamp => Value::Timestamp(bits as i64),
            Read::Time => Value::Time(bits as i64),
            // SAFETY: the caller vouches for the type; a uuid is 16 bytes, a name is terminated by a zero.
            Read::Uuid => Value::Uuid(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() }),
            // SAFETY: as above.
            Read::Name => Value::Text(unsafe { CStr::from_ptr(datum.cast_mut_ptr()).to_bytes() }),
            // SAFETY: the caller vouches for the type, which is a varlena in all of these.
            Read::Numeric => self.varlena(unsafe { self.bytes(datum) }, Value::Numeric),
            // SAFETY: as above.
            Read::Bytes => self.varlena(unsafe { self.bytes(datum) }, Value::Bytes),
            // SAFETY: as above.
            Read::Json => self.varlena(unsafe { self.bytes(datum) }, Value::Json),
            // SAFETY: as above.
            Read::Text => self.varlena(unsafe { self.bytes(datum) }, Value::Text),
            // SAFETY: the caller vouches for the type.
            Read::JsonOutput(output) => self.varlena(unsafe { self.print(output, datum) }, Value::Json),
            // SAFETY: as above.
            Read::TextOutput(output) => self.varlena(unsafe { self.print(output, datum) }, Value::Text),
            // SAFETY: as above.
            Read::Converted(converted) => unsafe { self.converted(converted, datum) },
        }
    }

    /// Reads a datum and converts its characters.
    ///
    /// # Safety
    ///
    /// As [`Self::read`].
    #[cold]
    unsafe fn converted<'v>(
        &'v self,
        (read, conversion): &'v (Read, Conversion),
        datum: pg_sys::Datum,
    ) -> Value<'v> {
        // SAFETY: the caller vouches for the datum.
        match unsafe { self.read(read, datum) } {
            Value::Text(text) => conversion.to_utf8(text).map_or(Value::NotUtf8, Value::Text),
            Value::Json(text) => conversion.to_utf8(text).map_or(Value::NotUtf8, Value::Json),
            value => value,
        }
    }

    #[inline]
    fn varlena<'v>(&self, bytes: Option<&'v [u8]>, wrap: impl FnOnce(&'v [u8]) -> Value<'v>) -> Value<'v> {
        bytes.map_or(Value::Unchanged, wrap)
    }

    /// The contents of a varlena, decompressed when need be; none when they are not in the log.
    ///
    /// # Safety
    ///
    /// `datum` points to a varlena.
    #[inline]
    unsafe fn bytes(&self, datum: pg_sys::Datum) -> Option<&[u8]> {
        let mut pointer = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: the caller vouches for the pointer. What is detoasted is in the current memory context, which
        // outlives the row.
        unsafe {
            if varlena::varatt_is_1b_e(pointer) {
                if self.is_unchanged(pointer) {
                    return None;
                }
                pointer = pg_sys::pg_detoast_datum_packed(pointer);
            } else if varlena::varatt_is_4b_c(pointer) {
                pointer = pg_sys::pg_detoast_datum_packed(pointer);
            }
            let data = varlena::vardata_any(pointer).cast::<u8>();
            Some(std::slice::from_raw_parts(data, varlena::varsize_any_exhdr(pointer)))
        }
    }

    /// What the type's output function prints; none when the value is not in the log.
    ///
    /// # Safety
    ///
    /// `datum` is of the type of `output` and not NULL.
    unsafe fn print<'v>(&'v self, output: &'v Output, datum: pg_sys::Datum) -> Option<&'v [u8]> {
        // SAFETY: the caller vouches for the type.
        unsafe {
            if output.is_varlena {
                let pointer = datum.cast_mut_ptr::<pg_sys::varlena>();
                if varlena::varatt_is_1b_e(pointer) && self.is_unchanged(pointer) {
                    return None;
                }
            }
            Some(output.call(datum))
        }
    }

    /// Whether an external varlena is a TOAST pointer that must not be followed.
    ///
    /// # Safety
    ///
    /// `pointer` is an external varlena.
    unsafe fn is_unchanged(&self, pointer: *const pg_sys::varlena) -> bool {
        // SAFETY: the caller vouches that this varlena has a tag.
        let tag = unsafe { varlena::vartag_external(pointer) };
        self.toast == Toast::Unchanged && u32::from(tag) == pg_sys::vartag_external::VARTAG_ONDISK
    }
}

/// Reads single datums of one column.
pub(super) struct DatumReader(Read);

impl DatumReader {
    /// A reader for values of the column. Looks output functions up in the catalogs.
    pub(super) fn new(column: &Column) -> Self {
        Self(in_utf8(read_of(pg_sys::Oid::from(column.source.type_oid), column.kind)))
    }

    /// What `body` makes of a datum.
    ///
    /// # Safety
    ///
    /// `datum` is of the column's type and not NULL.
    pub(super) unsafe fn with_value<T>(&self, datum: pg_sys::Datum, body: impl FnOnce(Value<'_>) -> T) -> T {
        let row =
            TupleRow { columns: &[], added: &Added::NONE, values: &[], nulls: &[], toast: Toast::Unchanged };
        // SAFETY: the caller vouches for the datum.
        body(unsafe { row.read(&self.0, datum) })
    }
}

/// The datum layout of a type, or its output function.
fn read_of(type_oid: pg_sys::Oid, kind: Kind) -> Read {
    match type_oid {
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Read::Text,
        pg_sys::NAMEOID => Read::Name,
        pg_sys::TIMEOID => Read::Time,
        // json is stored as text.
        pg_sys::JSONOID if kind == Kind::Text => Read::Text,
        other if kind == Kind::Text => Read::TextOutput(Output::of(other)),
        pg_sys::BOOLOID => Read::Bool,
        pg_sys::INT2OID => Read::Int2,
        pg_sys::INT4OID => Read::Int4,
        pg_sys::INT8OID => Read::Int8,
        pg_sys::OIDOID => Read::Oid,
        pg_sys::FLOAT4OID => Read::Float4,
        pg_sys::FLOAT8OID => Read::Float8,
        pg_sys::DATEOID => Read::Date,
        pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Read::Timestamp,
        pg_sys::UUIDOID => Read::Uuid,
        pg_sys::NUMERICOID => Read::Numeric,
        pg_sys::BYTEAOID => Read::Bytes,
        pg_sys::JSONOID => Read::Json,
        pg_sys::JSONBOID => Read::JsonOutput(Output::of(type_oid)),
        other => Read::TextOutput(Output::of(other)),
    }
}

/// The same, in UTF-8 when the database has another encoding. Whether it can be converted was asked at the start of the
/// mirror.
fn in_utf8(read: Read) -> Read {
    let has_characters =
        matches!(read, Read::Json | Read::Text | Read::Name | Read::JsonOutput(_) | Read::TextOutput(_));
    match Conversion::of_database() {
        Ok(Some(conversion)) if has_characters => Read::Converted(Box::new((read, conversion))),
        Ok(_) => read,
        Err(NoConversion) => error!("cannot convert the encoding of the database to UTF8"),
    }
}

/// Memory for the values of one row. Resetting it costs nothing when the row needed none.
pub(super) struct RowMemory {
    context: pg_sys::MemoryContext,
}

impl RowMemory {
    /// A context of its own that lives as long as the process.
    pub(super) fn new() -> Self {
        // SAFETY: the parent always exists; the name is a constant, as the server demands.
        let context = unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::TopMemoryContext,
                c"dbmazz row".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Self { context }
    }

    /// Runs `body` with allocations going to this context, then frees them. When `body` raises an error the process
    /// ends, and the context with it.
    #[inline]
    pub(super) fn scoped<T>(&mut self, body: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives as long as the process. What `body` returns holds nothing of it: it is made of
        // numbers and of bytes copied into a batch.
        unsafe {
            let previous = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            let result = body();
            pg_sys::CurrentMemoryContext = previous;
            if !(*self.context).isReset {
                pg_sys::MemoryContextReset(self.context);
            }
            result
        }
    }
}
