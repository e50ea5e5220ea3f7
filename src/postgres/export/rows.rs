//! Rows become bytes of COPY, binary or CSV.
//!
//! Bytes are collected until there are enough for the file; of a large value no more than a piece is in memory. After each
//! piece other processes have their say: cancels, the rate, the figures.

use std::fmt::{self, Write as _};

use pgrx::varlena;
use pgrx::{PgTupleDesc, pg_sys};

use super::send::{Function, Functions, Send, push_numeric};
use super::toasted::{InMemory, Toasted};
use crate::export::blob::BlobStore;
use crate::export::chunk::{BINARY_HEADER, BINARY_TRAILER, Format, REFERENCE_PREFIX, looks_like_reference};
use crate::export::destination::StoreError;
use crate::export::file::ExportFile;
use crate::export::manifest::File;

/// Bytes that go to the file at once.
const PIECE: usize = 256 << 10;

/// Why a row could not be written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The destination's reason.
    Store(StoreError),
    /// A value's compressed bytes make no sense.
    Corrupt,
}

impl From<StoreError> for WriteError {
    fn from(problem: StoreError) -> Self {
        Self::Store(problem)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(problem) => problem.fmt(f),
            Self::Corrupt => f.write_str("compressed data of a value is corrupt"),
        }
    }
}

/// A column of a chunk.
pub(super) struct Field {
    /// Where it is in a row.
    pub(super) attribute: usize,
    /// How it is written.
    pub(super) send: Send,
    /// Whether large values are stored outside.
    pub(super) external: bool,
}

/// Values that are stored outside, and from which length on.
pub(super) struct Outside {
    pub(super) store: BlobStore,
    pub(super) threshold: u64,
}

/// What was written of a chunk.
pub(super) struct Written {
    pub(super) file: File,
    pub(super) rows: u64,
    pub(super) blobs: u64,
}

/// The file of a chunk being written.
pub(super) struct RowWriter<'a> {
    file: ExportFile,
    format: Format,
    fields: &'a [Field],
    outside: Option<&'a mut Outside>,
    buffer: Vec<u8>,
    rows: u64,
    blobs: u64,
    /// Called with rows and bytes so far.
    meter: &'a mut dyn FnMut(u64, u64),
}

impl<'a> RowWriter<'a> {
    /// Begins with the format's header.
    pub(super) fn new(
        file: ExportFile,
        format: Format,
        fields: &'a [Field],
        outside: Option<&'a mut Outside>,
        meter: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        let mut buffer = Vec::with_capacity(PIECE + (64 << 10));
        if format == Format::Binary {
            buffer.extend_from_slice(BINARY_HEADER);
        }
        Self { file, format, fields, outside, buffer, rows: 0, blobs: 0, meter }
    }

    /// Ends with the format's trailer and makes the file durable.
    pub(super) fn finish(mut self) -> Result<Written, WriteError> {
        if self.format == Format::Binary {
            self.buffer.extend_from_slice(BINARY_TRAILER);
        }
        self.flush()?;
        Ok(Written { file: self.file.finish()?, rows: self.rows, blobs: self.blobs })
    }

    /// Writes the row of a slot.
    ///
    /// # Safety
    ///
    /// The slot's attributes have been deformed, and are those that the fields were made for. What the row needs is
    /// allocated in the current memory context.
    #[inline]
    pub(super) unsafe fn row(&mut self, slot: *mut pg_sys::TupleTableSlot) -> Result<(), WriteError> {
        let fields = self.fields;
        if self.format == Format::Binary {
            self.buffer.extend_from_slice(&(fields.len() as u16).to_be_bytes());
        }
        for (number, field) in fields.iter().enumerate() {
            // SAFETY: the caller vouches for the slot: its arrays have an element for the attribute.
            let (datum, is_null) = unsafe {
                (*(*slot).tts_values.add(field.attribute), *(*slot).tts_isnull.add(field.attribute))
            };
            match (self.format, is_null) {
                (Format::Binary, true) => self.buffer.extend_from_slice(&(-1_i32).to_be_bytes()),
                // SAFETY: the datum is of the field's type and not NULL.
                (Format::Binary, false) => unsafe { self.binary(field, datum)? },
                (Format::Csv, _) => {
                    if number > 0 {
                        self.buffer.push(b',');
                    }
                    if !is_null {
                        // SAFETY: as above.
                        unsafe { self.csv(field, datum)? };
                    }
                }
            }
        }
        if self.format == Format::Csv {
            self.buffer.push(b'\n');
        }
        self.end_of_row()
    }

    /// Writes a row of texts that need no conversion, in the binary format.
    pub(super) fn values(&mut self, values: &[Option<&[u8]>]) -> Result<(), WriteError> {
        self.buffer.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                None => self.buffer.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(bytes) => self.counted(bytes)?,
            }
        }
        self.end_of_row()
    }

    #[inline]
    fn end_of_row(&mut self) -> Result<(), WriteError> {
        self.rows += 1;
        if self.buffer.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.file.write(&self.buffer)?;
        self.buffer.clear();
        (self.meter)(self.rows, self.file.bytes());
        Ok(())
    }

    /// Appends bytes, through the file when they are many.
    fn push(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if bytes.len() < PIECE {
            self.buffer.extend_from_slice(bytes);
            return if self.buffer.len() >= PIECE { self.flush() } else { Ok(()) };
        }
        self.flush()?;
        for piece in bytes.chunks(4 * PIECE) {
            self.file.write(piece)?;
            (self.meter)(self.rows, self.file.bytes());
        }
        Ok(())
    }

    #[inline]
    fn counted(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.buffer.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        self.push(bytes)
    }

    /// Appends a value in the binary format.
    ///
    /// # Safety
    ///
    /// `datum` is of the field's type and not NULL.
    #[inline]
    unsafe fn binary(&mut self, field: &Field, datum: pg_sys::Datum) -> Result<(), WriteError> {
        let bits = datum.value();
        let out = &mut self.buffer;
        match &field.send {
            Send::Bool => out.extend_from_slice(&[0, 0, 0, 1, (bits & 1) as u8]),
            Send::Int2 => {
                out.extend_from_slice(&[0, 0, 0, 2]);
                out.extend_from_slice(&(bits as u16).to_be_bytes());
            }
            Send::Int4 => out.extend_from_slice(&(4 << 32 | u64::from(bits as u32)).to_be_bytes()),
            Send::Int8 => {
                out.extend_from_slice(&[0, 0, 0, 8]);
                out.extend_from_slice(&(bits as u64).to_be_bytes());
            }
            // SAFETY: the caller vouches for the type.
            Send::Interval => unsafe {
                let interval = &*datum.cast_mut_ptr::<pg_sys::Interval>();
                out.extend_from_slice(&[0, 0, 0, 16]);
                out.extend_from_slice(&interval.time.to_be_bytes());
                out.extend_from_slice(&interval.day.to_be_bytes());
                out.extend_from_slice(&interval.month.to_be_bytes());
            },
            Send::Uuid => {
                out.extend_from_slice(&[0, 0, 0, 16]);
                // SAFETY: the caller vouches for the type, which is 16 bytes.
                out.extend_from_slice(unsafe { &*datum.cast_mut_ptr::<[u8; 16]>() });
            }
            Send::Name => {
                // SAFETY: the caller vouches for the type, which ends with a zero.
                let name = unsafe { std::ffi::CStr::from_ptr(datum.cast_mut_ptr()) };
                return self.counted(name.to_bytes());
            }
            // SAFETY: the caller vouches for the type.
            Send::Numeric(function) => unsafe {
                if !push_numeric(out, contents(datum)) {
                    return self.counted(function.send(datum));
                }
            },
            // SAFETY: as above.
            Send::Text | Send::Bytea => return unsafe { self.varlena(field, datum) },
            // SAFETY: as above.
            Send::Function(function) => return unsafe { self.counted(function.send(datum)) },
        }
        Ok(())
    }

    /// Appends a varlena whose bytes are the value, or a reference to it.
    ///
    /// # Safety
    ///
    /// `datum` is such a varlena.
    #[inline]
    unsafe fn varlena(&mut self, field: &Field, datum: pg_sys::Datum) -> Result<(), WriteError> {
        // SAFETY: the caller vouches for the datum.
        unsafe {
            if let Some(mut large) = Toasted::large(datum.cast_mut_ptr()) {
                return self.large(field, datum, &mut large);
            }
            let bytes = contents(datum);
            if field.external && self.is_to_be_outside(bytes.len() as u64, bytes) {
                let reference = self.store(&mut InMemory(bytes))?;
                return self.counted(reference.as_bytes());
            }
            self.counted(bytes)
        }
    }

    /// # Safety
    ///
    /// `datum` is the varlena that `large` was made of.
    #[cold]
    unsafe fn large(
        &mut self,
        field: &Field,
        datum: pg_sys::Datum,
        large: &mut Toasted,
    ) -> Result<(), WriteError> {
        // SAFETY: the caller vouches.
        if field.external && unsafe { self.is_large_to_be_outside(datum, large) } {
            let reference = self.store(large)?;
            return self.counted(reference.as_bytes());
        }
        let length = large.raw_bytes() as i32;
        self.buffer.extend_from_slice(&length.to_be_bytes());
        large.each(|piece| self.push(piece))
    }

    /// # Safety
    ///
    /// `datum` is the varlena that `large` was made of.
    unsafe fn is_large_to_be_outside(&self, datum: pg_sys::Datum, large: &Toasted) -> bool {
        // SAFETY: the caller vouches. The beginning is fetched and decompressed alone.
        let beginning = unsafe {
            let slice =
                pg_sys::pg_detoast_datum_slice(datum.cast_mut_ptr(), 0, REFERENCE_PREFIX.len() as i32);
            std::slice::from_raw_parts(
                varlena::vardata_any(slice).cast::<u8>(),
                varlena::varsize_any_exhdr(slice),
            )
        };
        self.is_to_be_outside(large.raw_bytes(), beginning)
    }

    fn is_to_be_outside(&self, bytes: u64, beginning: &[u8]) -> bool {
        self.outside
            .as_ref()
            .is_some_and(|outside| bytes > outside.threshold || looks_like_reference(beginning))
    }

    /// Stores a value outside; what the chunk has in its place.
    fn store<S>(&mut self, source: &mut S) -> Result<String, WriteError>
    where
        S: crate::export::blob::BlobSource<Error = WriteError>,
    {
        let Some(outside) = self.outside.as_mut() else { return Err(WriteError::Corrupt) };
        let (reference, _) = outside.store.store(source)?;
        self.blobs += 1;
        (self.meter)(self.rows, self.file.bytes());
        Ok(reference.to_string())
    }

    /// Appends a value in CSV.
    ///
    /// # Safety
    ///
    /// `datum` is of the field's type and not NULL.
    unsafe fn csv(&mut self, field: &Field, datum: pg_sys::Datum) -> Result<(), WriteError> {
        match &field.send {
            // SAFETY: the caller vouches for the type.
            Send::Function(function) => unsafe { self.quoted(output(function, datum)) },
            // SAFETY: as above.
            _ => unsafe { self.csv_varlena(field, datum) },
        }
    }

    /// # Safety
    ///
    /// `datum` is a varlena whose bytes are the value.
    unsafe fn csv_varlena(&mut self, field: &Field, datum: pg_sys::Datum) -> Result<(), WriteError> {
        let is_text = !matches!(field.send, Send::Bytea);
        // SAFETY: the caller vouches for the datum.
        unsafe {
            if let Some(mut large) = Toasted::large(datum.cast_mut_ptr()) {
                if field.external && self.is_large_to_be_outside(datum, &large) {
                    let reference = self.store(&mut large)?;
                    return self.push(reference.as_bytes());
                }
                if is_text {
                    self.push(b"\"")?;
                    large.each(|piece| self.doubling_quotes(piece))?;
                    return self.push(b"\"");
                }
                self.push(b"\\x")?;
                return large.each(|piece| self.hex(piece));
            }
            let bytes = contents(datum);
            if field.external && self.is_to_be_outside(bytes.len() as u64, bytes) {
                let reference = self.store(&mut InMemory(bytes))?;
                return self.push(reference.as_bytes());
            }
            if is_text {
                return self.quoted(bytes);
            }
            self.push(b"\\x")?;
            self.hex(bytes)
        }
    }

    /// A field of CSV, in quotes where COPY needs them: an empty one, since NULL is nothing at all, and one that could be
    /// taken for the end of the data.
    fn quoted(&mut self, text: &[u8]) -> Result<(), WriteError> {
        let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
        if !text.is_empty() && text != b"\\." && !text.iter().any(special) {
            return self.push(text);
        }
        self.push(b"\"")?;
        self.doubling_quotes(text)?;
        self.push(b"\"")
    }

    fn doubling_quotes(&mut self, text: &[u8]) -> Result<(), WriteError> {
        let mut rest = text;
        while let Some(at) = memchr::memchr(b'"', rest) {
            let (before, after) = rest.split_at(at + 1);
            self.push(before)?;
            self.push(b"\"")?;
            rest = after;
        }
        self.push(rest)
    }

    fn hex(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for piece in bytes.chunks(PIECE / 2) {
            for byte in piece {
                self.buffer.push(DIGITS[usize::from(byte >> 4)]);
                self.buffer.push(DIGITS[usize::from(byte & 15)]);
            }
            if self.buffer.len() >= PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }
}

/// The bytes of a varlena, fetched and decompressed when need be, in the current memory context.
///
/// # Safety
///
/// `datum` is a varlena.
#[inline]
unsafe fn contents<'v>(datum: pg_sys::Datum) -> &'v [u8] {
    let mut pointer = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: the caller vouches for the datum. What is made is in the current memory context, which outlives the row.
    unsafe {
        if varlena::varatt_is_1b_e(pointer) || varlena::varatt_is_4b_c(pointer) {
            pointer = pg_sys::pg_detoast_datum_packed(pointer);
        }
        std::slice::from_raw_parts(
            varlena::vardata_any(pointer).cast::<u8>(),
            varlena::varsize_any_exhdr(pointer),
        )
    }
}

/// # Safety
///
/// As of [`Function::output`].
unsafe fn output(function: &Function, datum: pg_sys::Datum) -> &[u8] {
    // SAFETY: the caller vouches.
    unsafe { function.output(datum) }
}

/// The fields of an open relation.
///
/// # Safety
///
/// `relation` is open and has these columns.
pub(super) unsafe fn fields_of(
    relation: pg_sys::Relation,
    attnums: &[i16],
    format: Format,
    externals: &[bool],
    functions: &mut Functions,
) -> Vec<Field> {
    let field = |(attnum, external): (&i16, &bool)| {
        let attribute = usize::try_from(attnum - 1).unwrap_or_default();
        // SAFETY: the caller vouches for the relation, whose descriptor lives as long as it is open.
        let descriptor = unsafe { PgTupleDesc::from_pg_unchecked((*relation).rd_att) };
        let type_oid = descriptor.get(attribute).map_or(pg_sys::InvalidOid, |column| column.atttypid);
        Field { attribute, send: functions.send_of(type_oid, format), external: *external }
    };
    attnums.iter().zip(externals).map(field).collect()
}

/// The position of a row in its table, as `tid` prints it.
pub(super) fn ctid(block: u32, offset: u16) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "({block},{offset})");
    text
}
