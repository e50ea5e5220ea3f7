//! `pg_lsn` as an argument, a result and a parameter of statements.

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum, IntoDatum};
use pgrx::pg_sys;

use crate::lsn::Lsn;

/// An [`Lsn`] that PostgreSQL knows as `pg_lsn`: 64 bits, passed by value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LsnDatum(pub(super) Lsn);

pgrx::impl_sql_translatable!(LsnDatum, "pg_lsn");

impl FromDatum for LsnDatum {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then(|| Self(Lsn(datum.value() as u64)))
    }
}

impl IntoDatum for LsnDatum {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::PG_LSNOID
    }
}

// SAFETY: the argument is read by the `FromDatum` above, which looks at nothing but the datum's bits.
unsafe impl<'fcx> ArgAbi<'fcx> for LsnDatum {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the SQL declaration says `pg_lsn`, and the function that has such an argument is STRICT or takes
        // an `Option`.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Self(Lsn::INVALID))
    }
}

// SAFETY: the value is boxed as the pass-by-value datum that the SQL declaration promises.
unsafe impl BoxRet for LsnDatum {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: a value passed by value lives as long as anyone likes.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0.0)) }
    }
}
