//! Large values in a TOAST table, read by the piece: neither the value nor its compressed form is in memory as a whole.

use pgrx::pg_sys;
use pgrx::varlena;

use super::rows::WriteError;
use crate::export::blob::BlobSource;
use crate::export::destination::StoreError;
use crate::export::toast::{ToastCompression, ToastError, decompress};

/// Bytes that are fetched at once.
const PIECE: u64 = 1 << 20;

/// Below this a value is fetched whole.
pub(super) const LARGE: u64 = 1 << 20;

/// A value in a TOAST table.
pub(super) struct Toasted {
    pointer: pg_sys::varatt_external,
}

impl Toasted {
    /// The large value that a datum points to; none when it is not in a TOAST table, or not large.
    ///
    /// # Safety
    ///
    /// `datum` is a varlena.
    pub(super) unsafe fn large(datum: *const pg_sys::varlena) -> Option<Self> {
        // SAFETY: the caller vouches for the varlena; one with this tag has a pointer in it, of no particular alignment
        // (detoast.h, VARATT_EXTERNAL_GET_POINTER: it comes after the header of two bytes).
        unsafe {
            if !varlena::varatt_is_1b_e(datum)
                || u32::from(varlena::vartag_external(datum)) != pg_sys::vartag_external::VARTAG_ONDISK
            {
                return None;
            }
            let pointer = datum.cast::<u8>().add(2).cast::<pg_sys::varatt_external>().read_unaligned();
            let value = Self { pointer };
            (value.raw_bytes() > LARGE).then_some(value)
        }
    }

    /// How long the value is.
    pub(super) fn raw_bytes(&self) -> u64 {
        u64::try_from(self.pointer.va_rawsize).unwrap_or_default().saturating_sub(pg_sys::VARHDRSZ as u64)
    }

    /// How many bytes of it are in the TOAST table.
    fn stored_bytes(&self) -> u64 {
        u64::from(self.pointer.va_extinfo & ((1 << 30) - 1))
    }

    fn compression(&self) -> Option<ToastCompression> {
        if self.stored_bytes() >= self.raw_bytes() {
            return None;
        }
        Some(if self.pointer.va_extinfo >> 30 == 0 { ToastCompression::Pglz } else { ToastCompression::Lz4 })
    }

    /// Gives all bytes of the value to `take`, piece by piece. A snapshot is active.
    pub(super) fn each(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        // SAFETY: the table of a value that a snapshot sees is there; it is closed below, or with the transaction.
        let table = unsafe {
            pg_sys::relation_open(self.pointer.va_toastrelid, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
        };
        let mut fetch = Fetch::new(table, &self.pointer, self.stored_bytes());
        let result = match self.compression() {
            None => fetch.each_from(0, &mut take),
            // Before the compressed bytes there is a header of four, which the pointer has repeated.
            Some(compression) => {
                let mut at = 4;
                let read = |piece: &mut Vec<u8>| {
                    piece.clear();
                    let bytes = fetch.piece(at);
                    at += bytes.len() as u64;
                    piece.extend_from_slice(bytes);
                    Ok(())
                };
                decompress(compression, self.raw_bytes(), read, &mut take).map_err(|problem| match problem {
                    ToastError::Corrupt => WriteError::Corrupt,
                    ToastError::Other(problem) => problem,
                })
            }
        };
        // SAFETY: opened above and used no more.
        unsafe { pg_sys::relation_close(table, pg_sys::NoLock as pg_sys::LOCKMODE) };
        result
    }
}

impl BlobSource for Toasted {
    type Error = WriteError;

    fn each_piece(
        &mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), WriteError> {
        self.each(|piece| Ok(take(piece)?))
    }
}

/// A value in memory.
pub(super) struct InMemory<'a>(pub(super) &'a [u8]);

impl BlobSource for InMemory<'_> {
    type Error = WriteError;

    fn each_piece(
        &mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), WriteError> {
        self.0.chunks(PIECE as usize).try_for_each(|piece| Ok(take(piece)?))
    }
}

struct Fetch {
    table: pg_sys::Relation,
    value: pg_sys::Oid,
    stored: u64,
    /// A varlena: its header, which nobody looks at, and room for a piece. Of words, for its alignment.
    buffer: Vec<u32>,
}

impl Fetch {
    fn new(table: pg_sys::Relation, pointer: &pg_sys::varatt_external, stored: u64) -> Self {
        let words = 1 + (PIECE.min(stored) as usize).div_ceil(4);
        Self { table, value: pointer.va_valueid, stored, buffer: vec![0; words] }
    }

    /// The stored bytes from `at` on, as many as make a piece; none at the end.
    fn piece(&mut self, at: u64) -> &[u8] {
        let length = self.stored.saturating_sub(at).min(PIECE);
        if length == 0 {
            return &[];
        }
        super::super::latch::serve_interrupts();
        let (table, value, stored) = (self.table, self.value, self.stored as i32);
        let result = self.buffer.as_mut_ptr().cast::<pg_sys::varlena>();
        // SAFETY: the table is open, and of an access method that keeps values; the buffer has room for the header and the
        // piece, which the function fills (toast_internals.c's callers do the same). The closure owns nothing that
        // needs dropping.
        unsafe {
            if let Some(fetch) = (*(*table).rd_tableam).relation_fetch_toast_slice {
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    fetch(table, value, stored, at as i32, length as i32, result);
                });
            }
            std::slice::from_raw_parts(result.cast::<u8>().add(pg_sys::VARHDRSZ), length as usize)
        }
    }

    fn each_from(
        &mut self,
        from: u64,
        take: &mut impl FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut at = from;
        loop {
            let piece = self.piece(at);
            if piece.is_empty() {
                return Ok(());
            }
            at += piece.len() as u64;
            take(piece)?;
        }
    }
}
