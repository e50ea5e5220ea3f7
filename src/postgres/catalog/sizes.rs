//! How long the values of a table are, as far as that can be known in a moment. For backends, through
//! [`super::as_extension`]: no code of a user's is run.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

use super::query;

/// So many blocks of a table are looked at.
const SAMPLED_BLOCKS: i64 = 128;

/// A column and the longest value that was found in it, in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Longest {
    pub(in crate::postgres) column: String,
    pub(in crate::postgres) bytes: i64,
}

/// The longest of the values that ANALYZE has kept, in the text form that a load has.
pub(in crate::postgres) fn longest_in_statistics(relid: pg_sys::Oid, columns: &[String]) -> Option<Longest> {
    query::row(
        "SELECT s.attname::pg_catalog.text, max(pg_catalog.octet_length(v))::pg_catalog.int8
         FROM pg_catalog.pg_stats s
             JOIN pg_catalog.pg_class c ON c.relname = s.tablename
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname,
             LATERAL pg_catalog.unnest(pg_catalog.array_cat(
                 s.histogram_bounds::pg_catalog.text::pg_catalog.text[],
                 s.most_common_vals::pg_catalog.text::pg_catalog.text[])) v
         WHERE c.oid = $1 AND s.inherited = (c.relkind = 'p') AND s.attname = ANY ($2)
         GROUP BY s.attname ORDER BY 2 DESC LIMIT 1",
        &[relid.into(), columns.to_vec().into()],
        |row| Longest { column: row.must(1), bytes: row.must(2) },
    )
}

/// The longest of the values in a sample of the table. Columns of text types and bytea only: of these the length is read
/// without the value. Nothing when the table has no large values at all.
pub(in crate::postgres) fn longest_in_sample(relid: pg_sys::Oid, columns: &[String]) -> Option<Longest> {
    if columns.is_empty() {
        return None;
    }
    let size = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
             pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int8
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1 AND c.relkind = 'r' AND c.reltoastrelid <> 0
             AND pg_catalog.pg_relation_size(c.reltoastrelid) > 0";
    let read = |row: &query::Row<'_>| (row.must(1), row.must(2), row.must(3));
    let (schema, table, blocks): (String, String, i64) = query::row(size, &[relid.into()], read)?;
    let percent =
        if blocks <= SAMPLED_BLOCKS { 100.0 } else { 100.0 * SAMPLED_BLOCKS as f64 / blocks as f64 };
    let lengths: Vec<_> = columns
        .iter()
        .map(|name| format!("max(pg_catalog.octet_length({}))", quote_identifier(name)))
        .collect();
    let sql = format!(
        "SELECT ARRAY[{}]::pg_catalog.int8[] FROM ONLY {} TABLESAMPLE SYSTEM ($1)",
        lengths.join(", "),
        quote_qualified_identifier(schema, table)
    );
    let percent: [DatumWithOid<'_>; 1] = [percent.into()];
    let found: Vec<Option<i64>> = query::row(&sql, &percent, |row| row.must(1))?;
    let lengths = found.into_iter().zip(columns).filter_map(|(bytes, name)| Some((bytes?, name)));
    lengths.max().map(|(bytes, column)| Longest { column: column.clone(), bytes })
}
