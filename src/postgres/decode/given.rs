//! What rows that were there already have in a column that was added later.
//!
//! PostgreSQL keeps a constant default of an added column in the catalog (`attmissingval`), and no row is written. Whatever
//! else can have given values to those rows (a rewrite, a column that was computed before) is not in the log either.

use std::ffi::CStr;

use pgrx::{PgTupleDesc, pg_sys};

use super::super::catalog::table::Layout;
use super::super::tuple::DatumReader;
use super::mirrored::Seen;
use crate::definition::AlterStep;
use crate::encode::Value;
use crate::table::{Column, Kind};

/// The steps, those that add a column with what the rows have that are there.
///
/// # Errors
///
/// Why that is not known, or cannot be said to the target.
///
/// # Safety
///
/// `open` is the open relation that `seen` was made from, or a partition of it: a partitioned table has no rows to be given
/// anything, and its partitions are all given the same.
pub(super) unsafe fn with_defaults(
    open: pg_sys::Relation,
    seen: &Seen,
    earlier: Layout,
    mut steps: Vec<AlterStep>,
) -> Result<Vec<AlterStep>, String> {
    for step in &mut steps {
        let AlterStep::Add { column: name, default, .. } = step else { continue };
        let Some(column) = seen.spec.columns.iter().find(|column| column.name == *name) else { continue };
        if earlier.file != seen.layout.file || column.source.attnum <= earlier.natts {
            return Err(format!(
                "column \"{name}\" has been added, and rows may have been given values in it"
            ));
        }
        // SAFETY: the caller vouches for the relation.
        *default = unsafe { missing_value(open, column) }?;
    }
    Ok(steps)
}

/// # Safety
///
/// As [`with_defaults`].
unsafe fn missing_value(open: pg_sys::Relation, column: &Column) -> Result<Option<String>, String> {
    let name = column.source.name.as_bytes();
    let mut is_null = true;
    // SAFETY: the attribute is one of the open relation's descriptor. The value is in the relation's own memory.
    let datum = unsafe {
        let descriptor = (*open).rd_att;
        let found = PgTupleDesc::from_pg_unchecked(descriptor);
        let is_meant = |attribute: &&pg_sys::FormData_pg_attribute| {
            !attribute.attisdropped && CStr::from_ptr(attribute.attname.data.as_ptr()).to_bytes() == name
        };
        let Some(attribute) = found.iter().find(is_meant).filter(|attribute| attribute.atthasmissing) else {
            return Ok(None);
        };
        let attnum = attribute.attnum;
        pg_sys::getmissingattr(descriptor, i32::from(attnum), &raw mut is_null)
    };
    if is_null {
        return Ok(None);
    }
    let reader = DatumReader::new(column);
    // SAFETY: the datum is of the column's type, and not NULL.
    let text = unsafe { reader.with_value(datum, |value| literal(column.kind, value)) };
    text.map(Some).ok_or_else(|| {
        format!("column \"{}\" has been added with a default that the target cannot have", column.name)
    })
}

/// The value as the target takes it for a default. None where that may be another one, or it takes none, as for BOOLEAN and
/// JSON.
fn literal(kind: Kind, value: Value<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Int, Value::Int(number)) => Some(number.to_string()),
        (Kind::Text, Value::Text(text)) => {
            let text = std::str::from_utf8(text).ok()?;
            let is_plain = text.len() <= LONGEST_TEXT && !text.contains(|c: char| c.is_control());
            is_plain.then(|| text.to_owned())
        }
        _ => None,
    }
}

/// Longer defaults are not what anybody's servers are tried with.
const LONGEST_TEXT: usize = 255;
