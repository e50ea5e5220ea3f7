//! Foreign keys that were there before the rows came: triggers do not fire for imported rows, so each is asked for rows that
//! have nothing to refer to.
//!
//! The query compares as the constraint does: with its operators and the referenced column's collation, whatever the search path,
//! and with MATCH FULL a row that is NULL in part refers to nothing. With PERIOD, the referenced rows together must cover it. Of a
//! reference to a partitioned table there is a constraint for each partition besides, which no row needs to satisfy.

use crate::postgres::catalog::query;

/// What is wrong with the rows of a relation, whose qualified and quoted name is given; nothing when all references hold.
pub(super) fn broken(relation: &str) -> Option<String> {
    let broken: Vec<String> = constraints(relation)
        .into_iter()
        .filter(|(_, search)| query::exists(&format!("{search} LIMIT 1"), &[]))
        .map(|(constraint, search)| {
            format!(
                "imported rows of {relation} violate foreign key {constraint}: they are committed, and the constraint still \
                 counts as valid; \"{search}\" finds them"
            )
        })
        .collect();
    (!broken.is_empty()).then(|| broken.join("; "))
}

/// Names of foreign keys, each with the query that finds what violates it.
fn constraints(relation: &str) -> Vec<(String, String)> {
    query::rows(
        "SELECT pg_catalog.quote_ident(k.conname),
             pg_catalog.format(
                 CASE pg_catalog.to_jsonb(k) ->> 'conperiod'
                     WHEN 'true' THEN 'SELECT f.* FROM ONLY %1$s f WHERE (%2$s) AND NOT EXISTS (
                         SELECT FROM (SELECT p.%6$I AS period FROM %3$s%4$s p WHERE %5$s) p
                         HAVING f.%7$I OPERATOR(pg_catalog.<@) pg_catalog.range_agg(p.period))'
                     ELSE 'SELECT f.* FROM ONLY %1$s f WHERE (%2$s) AND NOT EXISTS (SELECT FROM %3$s%4$s p WHERE %5$s)'
                 END,
                 k.conrelid::pg_catalog.regclass, columns.given, CASE t.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END,
                 k.confrelid::pg_catalog.regclass, columns.equal, columns.other_last, columns.own_last)
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class t ON t.oid = k.confrelid, LATERAL (
             SELECT pg_catalog.string_agg(
                     pg_catalog.format('f.%I IS NOT NULL', a.attname),
                     CASE k.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END ORDER BY u.at) AS given,
                 pg_catalog.string_agg(
                     pg_catalog.format(
                         'p.%I%s OPERATOR(%I.%s) f.%I%s%s',
                         r.attname, pg_catalog.format(
                             CASE WHEN lt.typtype <> 'p' AND lt.oid <> r.atttypid THEN '::%I.%I' ELSE '' END, ln.nspname, lt.typname),
                         n.nspname, o.oprname, a.attname, pg_catalog.format(
                             CASE WHEN rt.typtype <> 'p' AND rt.oid <> a.atttypid THEN '::%I.%I' ELSE '' END, rn.nspname, rt.typname),
                         CASE WHEN c.oid IS NOT NULL AND a.attcollation <> r.attcollation
                             THEN pg_catalog.format(' COLLATE %I.%I', cn.nspname, c.collname) ELSE '' END),
                     ' AND ' ORDER BY u.at) AS equal,
                 (pg_catalog.array_agg(r.attname ORDER BY u.at DESC))[1] AS other_last,
                 (pg_catalog.array_agg(a.attname ORDER BY u.at DESC))[1] AS own_last
             FROM ROWS FROM (
                 pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey), pg_catalog.unnest(k.conpfeqop)
             ) WITH ORDINALITY AS u (own, other, operator, at)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.own
             JOIN pg_catalog.pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = u.other
             JOIN pg_catalog.pg_operator o ON o.oid = u.operator
             JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
             JOIN pg_catalog.pg_type lt ON lt.oid = o.oprleft
             JOIN pg_catalog.pg_namespace ln ON ln.oid = lt.typnamespace
             JOIN pg_catalog.pg_type rt ON rt.oid = o.oprright
             JOIN pg_catalog.pg_namespace rn ON rn.oid = rt.typnamespace
             LEFT JOIN pg_catalog.pg_collation c ON c.oid = r.attcollation
             LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = c.collnamespace
         ) columns
         WHERE k.conrelid = pg_catalog.to_regclass($1) AND k.contype = 'f' AND k.convalidated
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_constraint whole
               WHERE whole.oid = k.conparentid AND whole.conrelid = k.conrelid)
         ORDER BY 1",
        &[relation.into()],
        |row| (row.must(1), row.must(2)),
    )
}
