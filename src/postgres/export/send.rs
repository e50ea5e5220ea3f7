//! How the values of a type are written: frequent types from their datums, all others by the type's own function.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::varlena;

use crate::export::chunk::Format;

/// How a value is written.
#[derive(Clone)]
pub(super) enum Send {
    Bool,
    Int2,
    /// Also `oid`, `date` and `real`, whose bits are sent.
    Int4,
    /// Also timestamps, `time` and `double precision`.
    Int8,
    Interval,
    Uuid,
    Name,
    /// `numeric` in the binary format.
    Numeric(Rc<Function>),
    /// A varlena whose bytes are the value, for both formats.
    Text,
    /// Likewise; in CSV they are written as hexadecimal digits.
    Bytea,
    /// The type's send function, or its output function for CSV.
    Function(Rc<Function>),
}

impl Send {
    /// Whether large values may be stored outside.
    pub(super) fn may_be_external(type_oid: pg_sys::Oid) -> bool {
        matches!(type_oid, pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BYTEAOID)
    }
}

/// A send or output function, looked up once per process.
pub(super) struct Function {
    info: Box<UnsafeCell<pg_sys::FmgrInfo>>,
}

impl Function {
    /// Looks a function up. What it keeps for itself lives as long as the process.
    fn new(oid: pg_sys::Oid) -> Self {
        let mut info = Box::new(UnsafeCell::new(pg_sys::FmgrInfo::default()));
        // SAFETY: the function exists, since its type does.
        unsafe { pg_sys::fmgr_info_cxt(oid, info.get_mut(), pg_sys::TopMemoryContext) };
        Self { info }
    }

    /// The binary form of a value, in the current memory context.
    ///
    /// # Safety
    ///
    /// This is the send function of the type of `datum`, which is not NULL.
    pub(super) unsafe fn send(&self, datum: pg_sys::Datum) -> &[u8] {
        // SAFETY: the caller vouches for the datum. The server calls nothing that comes back here, so the function's data
        // is borrowed once.
        unsafe {
            let bytes = pg_sys::SendFunctionCall(self.info.get(), datum);
            std::slice::from_raw_parts(varlena::vardata_any(bytes).cast(), varlena::varsize_any_exhdr(bytes))
        }
    }

    /// The text of a value, in the current memory context.
    ///
    /// # Safety
    ///
    /// This is the output function of the type of `datum`, which is not NULL.
    pub(super) unsafe fn output(&self, datum: pg_sys::Datum) -> &[u8] {
        // SAFETY: as above.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(self.info.get(), datum)).to_bytes() }
    }
}

/// Functions that have been looked up.
#[derive(Default)]
pub(super) struct Functions {
    known: HashMap<(pg_sys::Oid, bool), Rc<Function>>,
}

impl Functions {
    /// How values of a type are written.
    pub(super) fn send_of(&mut self, type_oid: pg_sys::Oid, format: Format) -> Send {
        // SAFETY: looks into the system cache.
        let base = unsafe { pg_sys::getBaseType(type_oid) };
        match (base, format) {
            (pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::JSONOID, _) => Send::Text,
            (pg_sys::BYTEAOID, _) => Send::Bytea,
            (_, Format::Csv) => Send::Function(self.function(base, format)),
            (pg_sys::BOOLOID, _) => Send::Bool,
            (pg_sys::INT2OID, _) => Send::Int2,
            (pg_sys::INT4OID | pg_sys::OIDOID | pg_sys::FLOAT4OID | pg_sys::DATEOID, _) => Send::Int4,
            (
                pg_sys::INT8OID
                | pg_sys::FLOAT8OID
                | pg_sys::TIMESTAMPOID
                | pg_sys::TIMESTAMPTZOID
                | pg_sys::TIMEOID,
                _,
            ) => Send::Int8,
            (pg_sys::INTERVALOID, _) => Send::Interval,
            (pg_sys::UUIDOID, _) => Send::Uuid,
            (pg_sys::NAMEOID, _) => Send::Name,
            (pg_sys::NUMERICOID, _) => Send::Numeric(self.function(base, format)),
            _ => Send::Function(self.function(base, format)),
        }
    }

    pub(super) fn function(&mut self, type_oid: pg_sys::Oid, format: Format) -> Rc<Function> {
        let is_binary = format == Format::Binary;
        let find = || {
            let (mut oid, mut is_varlena) = (pg_sys::InvalidOid, false);
            // SAFETY: the out-parameters are local. A type without such a function raises an error that names it.
            unsafe {
                if is_binary {
                    pg_sys::getTypeBinaryOutputInfo(type_oid, &raw mut oid, &raw mut is_varlena);
                } else {
                    pg_sys::getTypeOutputInfo(type_oid, &raw mut oid, &raw mut is_varlena);
                }
            }
            Rc::new(Function::new(oid))
        };
        Rc::clone(self.known.entry((type_oid, is_binary)).or_insert_with(find))
    }
}

/// Appends the binary form of a `numeric` that is a number, from its bytes in a tuple (numeric.c, `NumericData` and
/// `numeric_send`). False for the rest, which the type's function knows.
pub(super) fn push_numeric(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let head = u16::from_ne_bytes(*head);
    let (sign, scale, weight, digits) = match head >> 14 {
        // Short: sign, six bits of scale, seven bits of weight with its sign.
        2 => {
            let weight = (head & 0x3f).cast_signed() - if head & 0x40 == 0 { 0 } else { 0x40 };
            let sign = if head & 0x2000 == 0 { 0 } else { 0x4000_u16 };
            (sign, (head & 0x1f80) >> 7, weight, rest)
        }
        // Not a number, or an infinity.
        3 => return false,
        _ => {
            let Some((weight, digits)) = rest.split_first_chunk::<2>() else { return false };
            (head & 0xc000, head & 0x3fff, i16::from_ne_bytes(*weight), digits)
        }
    };
    let count = (digits.len() / 2) as u16;
    out.extend_from_slice(&(8 + 2 * i32::from(count)).to_be_bytes());
    for word in [count, weight.cast_unsigned(), sign, scale] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for digit in digits.as_chunks::<2>().0 {
        out.extend_from_slice(&u16::from_ne_bytes(*digit).to_be_bytes());
    }
    true
}
