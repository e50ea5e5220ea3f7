//! Publications: which tables they have, and which rows, columns and operations of them.
//!
//! Asks the source's catalogs by query: for backends and for workers that do not decode.

use pgrx::pg_sys;

use super::super::compat;
use super::query;

/// A publication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Publication {
    /// Whether it leaves out INSERT, UPDATE, DELETE or TRUNCATE.
    pub(in crate::postgres) leaves_out_operations: bool,
    /// Its tables.
    pub(in crate::postgres) tables: Vec<Published>,
}

/// A table of a publication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Published {
    /// The table.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// The row filter, as the text of its expression tree; none for all rows.
    pub(in crate::postgres) row_filter: Option<String>,
    /// The column list (`attnum` of each); none for all columns.
    pub(in crate::postgres) columns: Option<Vec<i16>>,
}

impl Publication {
    /// Whether pgoutput has to decode the table, because not all of its changes, rows and columns are published.
    pub(in crate::postgres) const fn filters(&self, table: &Published) -> bool {
        self.leaves_out_operations || table.row_filter.is_some() || table.columns.is_some()
    }
}

/// A publication by name.
pub(in crate::postgres) fn read(publication: &str) -> Option<Publication> {
    let leaves_out_operations = query::row(
        "SELECT NOT (pubinsert AND pubupdate AND pubdelete AND pubtruncate)
         FROM pg_catalog.pg_publication WHERE pubname = $1::pg_catalog.text",
        &[publication.into()],
        |row| row.must(1),
    )?;
    Some(Publication { leaves_out_operations, tables: tables(publication) })
}

fn tables(publication: &str) -> Vec<Published> {
    // The function gives each table once, whatever brought it in.
    let sql = format!(
        "SELECT t.relid, {}
         FROM pg_catalog.pg_get_publication_tables($1) t
         JOIN pg_catalog.pg_publication p ON p.pubname = $1
         LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = t.relid
         ORDER BY t.relid",
        compat::PUBLICATION_FILTERS
    );
    query::rows(&sql, &[publication.into()], |row| Published {
        relid: row.must(1),
        row_filter: row.get(2),
        columns: row.get::<String>(3).map(|list| attribute_numbers(&list)),
    })
}

/// `int2vector` as text: numbers with blanks between.
fn attribute_numbers(list: &str) -> Vec<i16> {
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}
