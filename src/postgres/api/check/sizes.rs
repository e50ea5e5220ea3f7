//! Whether a table has values that the target would refuse for their length: what ANALYZE and a sample show of it, so that
//! most such tables are found before anything is copied. What they do not show is noticed by the rows themselves.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::encode::OutOfRange;
use crate::options::Options;
use crate::postgres::api::failure::Failure;
use crate::postgres::catalog::as_extension;
use crate::postgres::catalog::partition::{self, Partitions};
use crate::postgres::catalog::sizes::{longest_in_sample, longest_in_statistics};
use crate::table::{Column, Kind, MAX_TEXT_BYTES, TableSpec};

/// `primary_key_limit_size` of a backend, unless its configuration says otherwise.
const MAX_KEY_BYTES: i64 = 128;

/// So many partitions of a table are looked at.
const SAMPLED_PARTITIONS: usize = 20;

const TOO_LONG: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;

/// Looks at the key and at the texts.
pub(super) fn check(spec: &TableSpec, options: &Options) -> Result<(), Failure> {
    key(spec)?;
    if options.on_out_of_range == OutOfRange::Error { texts(spec) } else { Ok(()) }
}

fn key(spec: &TableSpec) -> Result<(), Failure> {
    let columns = names(spec.key().iter().filter(|column| matches!(column.kind, Kind::Text | Kind::Numeric)));
    let found = as_extension(|| longest_in_statistics(spec.relid.into(), &columns));
    let Some(longest) = found.filter(|longest| longest.bytes > MAX_KEY_BYTES) else { return Ok(()) };
    let message = format!(
        "cannot mirror table \"{}\": column \"{}\" of its key has values of {} bytes",
        spec.source_name, longest.column, longest.bytes
    );
    Err(Failure::new(TOO_LONG, message)
        .detail(format!("StarRocks refuses keys of more than {MAX_KEY_BYTES} bytes."))
        .hint("Make a unique index on shorter columns and ALTER TABLE … REPLICA IDENTITY USING INDEX …."))
}

fn texts(spec: &TableSpec) -> Result<(), Failure> {
    let columns = names(spec.columns.iter().skip(spec.key_len).filter(|column| may_be_too_long(column)));
    let found = as_extension(|| {
        let relations = relations_of(spec.relid);
        let samples = relations.into_iter().filter_map(|relid| longest_in_sample(relid.into(), &columns));
        samples.max_by_key(|longest| longest.bytes)
    });
    let limit = i64::try_from(MAX_TEXT_BYTES).unwrap_or(i64::MAX);
    let Some(longest) = found.filter(|longest| longest.bytes > limit) else { return Ok(()) };
    let message = format!(
        "cannot mirror table \"{}\": column \"{}\" has values of {} bytes",
        spec.source_name, longest.column, longest.bytes
    );
    Err(Failure::new(TOO_LONG, message)
        .detail(format!("StarRocks takes at most {MAX_TEXT_BYTES} bytes per value."))
        .hint("Choose what becomes of them with the option on_out_of_range: 'clamp' cuts them, 'null' leaves them out."))
}

/// What has the rows of a table: itself, or partitions, of which some stand for all.
fn relations_of(relid: u32) -> Vec<u32> {
    let mut leaves = match partition::relkind(relid.into()) {
        pg_sys::RELKIND_PARTITIONED_TABLE => Partitions::of(relid.into()).leaves,
        _ => vec![relid],
    };
    leaves.truncate(SAMPLED_PARTITIONS);
    leaves
}

/// Types whose length is read without the value, and that are not limited to less.
fn may_be_too_long(column: &Column) -> bool {
    let source = &column.source;
    let is_text = matches!(
        pg_sys::Oid::from(source.type_oid),
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::BYTEAOID
    );
    // No encoding has more than four bytes for a character; a column without a limit has a negative modifier.
    let limit = usize::try_from(source.typmod).unwrap_or(usize::MAX);
    is_text && limit.saturating_mul(4) > MAX_TEXT_BYTES
}

fn names<'a>(columns: impl Iterator<Item = &'a Column>) -> Vec<String> {
    columns.map(|column| column.source.name.clone()).collect()
}
