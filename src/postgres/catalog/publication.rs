//! Publications: which tables they have, and which rows, columns and operations of them.
//!
//! A table here is one that is mirrored: of a partitioned table that is published it is the root, whether the publication sends
//! changes as those of the root (`publish_via_partition_root`) or of the partitions, which may have filters of their own then.
//!
//! Asks the source's catalogs by query: for backends and for workers that do not decode. Only [`truncates_roots`] is for the
//! callbacks of decoding as well.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::super::compat;
use super::query;

/// A publication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Publication {
    /// INSERT, UPDATE, DELETE, TRUNCATE: which of them it has.
    operations: [bool; 4],
    /// Whether changes of partitions are sent as those of the published table that they are partitions of.
    pub(in crate::postgres) via_root: bool,
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
    /// Its partitions that have a filter or a list of their own, and are sent by themselves.
    pub(in crate::postgres) partitions: Vec<PublishedPartition>,
    /// What brought it in, by number: another one when it has left in between.
    member: String,
}

/// A partition with a filter or a list of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct PublishedPartition {
    /// The partition.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// Its row filter.
    pub(in crate::postgres) row_filter: Option<String>,
    /// Its column list.
    pub(in crate::postgres) columns: Option<Vec<i16>>,
    member: String,
}

impl Publication {
    /// Whether pgoutput has to decode the table, because not all of its changes, rows and columns are published.
    pub(in crate::postgres) fn filters(&self, table: &Published) -> bool {
        self.operations.contains(&false)
            || table.row_filter.is_some()
            || table.columns.is_some()
            || !table.partitions.is_empty()
    }

    /// What is published of a table, as a text that changes when what has been copied of it is not that any more.
    pub(in crate::postgres) fn terms(&self, table: &Published) -> String {
        let Published { row_filter, columns, partitions, member, .. } = table;
        let mut terms = format!("{member} {:?} {row_filter:?} {columns:?}", self.operations);
        for PublishedPartition { relid, row_filter, columns, member } in partitions {
            terms.push_str(&format!("\n{} {member} {row_filter:?} {columns:?}", relid.to_u32()));
        }
        terms
    }
}

/// A publication by name.
pub(in crate::postgres) fn read(publication: &str) -> Option<Publication> {
    let (operations, via_root) = query::row(
        "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
         FROM pg_catalog.pg_publication WHERE pubname = $1::pg_catalog.text",
        &[publication.into()],
        |row| ([row.must(1), row.must(2), row.must(3), row.must(4)], row.must(5)),
    )?;
    Some(Publication { operations, via_root, tables: tables(publication) })
}

/// Whether a publication has TRUNCATE among its operations, and changes of partitions as those of their root. In a callback
/// of decoding the answer is that of the change.
pub(in crate::postgres) fn truncates_roots(publication: &CStr) -> bool {
    // SAFETY: looks into the system cache; the answer is null, or lives as long as the transaction's memory.
    let found = unsafe { pg_sys::GetPublicationByName(publication.as_ptr(), true).as_ref() };
    found.is_some_and(|found| found.pubviaroot && found.pubactions.pubtruncate)
}

/// A row of the query: a relation whose changes are sent, and the table that it is mirrored with.
struct Sent {
    table: pg_sys::Oid,
    relation: pg_sys::Oid,
    row_filter: Option<String>,
    columns: Option<Vec<i16>>,
    member: String,
}

fn tables(publication: &str) -> Vec<Published> {
    let mut tables: Vec<Published> = Vec::new();
    for sent in relations(publication) {
        let Sent { table, relation, row_filter, columns, member } = sent;
        if tables.last().is_none_or(|last| last.relid != table) {
            let partitions = Vec::new();
            let member = member.clone();
            tables.push(Published { relid: table, row_filter: None, columns: None, partitions, member });
        }
        let Some(last) = tables.last_mut() else { continue };
        if relation == table {
            (last.row_filter, last.columns) = (row_filter, columns);
        } else if row_filter.is_some() || columns.is_some() {
            last.partitions.push(PublishedPartition { relid: relation, row_filter, columns, member });
        }
    }
    tables
}

/// The function gives each relation once, whatever brought it in: with `publish_via_partition_root` the tables themselves,
/// without it partitions in place of partitioned tables. Of these the topmost table is looked for that is published as well;
/// one without partitions is not among them. A publication of all tables has those of the extension, which nobody wants.
///
/// The function looks at the catalogs of this moment, the query at those of its snapshot. A relation that has come in between is
/// left out: its filter is not known.
fn relations(publication: &str) -> Vec<Sent> {
    let of_schema = compat::PUBLISHED_BY_SCHEMA;
    let filters = compat::PUBLICATION_FILTERS;
    let sql = format!(
        "WITH p AS (SELECT oid, puballtables, pubviaroot FROM pg_catalog.pg_publication
                    WHERE pubname = $1::pg_catalog.text),
         named AS (
             SELECT c.oid AS relid, c.relkind FROM p, pg_catalog.pg_class c
             WHERE c.relkind = 'p' AND c.relpersistence = 'p' AND (p.puballtables
                 OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
                 OR {of_schema} IS NOT NULL)),
         sent AS (
             SELECT t.relid FROM pg_catalog.pg_get_publication_tables($1) t
             UNION SELECT n.relid FROM named n, p WHERE NOT p.pubviaroot)
         SELECT coalesce(root.relid, s.relid), s.relid, {filters},
             pg_catalog.concat(c.relkind = 'p' AND p.pubviaroot, ' ', r.oid, ' ', {of_schema})
         FROM p CROSS JOIN sent s
         CROSS JOIN LATERAL (
             SELECT (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(s.relid) WITH ORDINALITY a(relid, n)
                     JOIN named n ON n.relid = a.relid ORDER BY a.n DESC LIMIT 1) AS relid) root
         JOIN pg_catalog.pg_class c ON c.oid = coalesce(root.relid, s.relid)
         LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = s.relid
         WHERE c.relnamespace <> (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'dbmazz')
             AND (p.puballtables OR coalesce(r.oid, root.relid, {of_schema}) IS NOT NULL)
         ORDER BY 1, s.relid <> c.oid, s.relid"
    );
    query::rows(&sql, &[publication.into()], |row| Sent {
        table: row.must(1),
        relation: row.must(2),
        row_filter: row.get(3),
        columns: row.get::<String>(4).map(|list| attribute_numbers(&list)),
        member: row.must(5),
    })
}

/// `int2vector` as text: numbers with blanks between.
fn attribute_numbers(list: &str) -> Vec<i16> {
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}
