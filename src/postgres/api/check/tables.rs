//! Which tables a mirror has: those that were named, those of a publication, or all of the database.

use std::collections::{BTreeMap, HashSet};

use pgrx::{PgSqlErrorCode, pg_sys};

use super::table::{self, Candidate};
use super::{Preflight, Request};
use crate::options::Options;
use crate::postgres::api::failure::Failure;
use crate::postgres::catalog::mirror::MirrorRow;
use crate::postgres::catalog::publication::{self, Publication};
use crate::postgres::catalog::table::{NewTable, list, with_target};
use crate::postgres::catalog::{as_extension, partition, server, source};
use crate::postgres::guc;
use crate::table::TableSpec;

const INVALID: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;

/// Finds the tables and looks at each of them.
pub(super) fn check(request: &Request<'_>, database: &str, options: &Options, preflight: &mut Preflight) {
    let candidates = match candidates(request) {
        Ok(candidates) => candidates,
        Err(failure) => return preflight.note("tables", Err(failure)),
    };
    for failure in overlaps(&candidates, &[]) {
        preflight.note("table", Err(failure));
    }
    let takes_all = request.tables.is_none() && request.publication.is_none();
    let mut specs = vec![];
    for candidate in &candidates {
        match table::describe(candidate, database, options, request.role) {
            Ok(spec) => specs.push((spec, candidate)),
            Err(failure) if takes_all => preflight.left_out.push(failure),
            Err(failure) => preflight.note("table", Err(failure)),
        }
    }
    if specs.is_empty() && candidates.len() == preflight.left_out.len() {
        return preflight.note("tables", Err(no_tables(request)));
    }
    for failure in clashes(&specs, request.server, None) {
        preflight.note("target table", Err(failure));
    }
    for failure in unused_entries(&specs, options) {
        preflight.note("options", Err(failure));
    }
    for (spec, candidate) in specs {
        preflight.note("table", Ok(summary(&spec)));
        preflight.tables.push(new_table(spec, candidate));
    }
}

fn candidates(request: &Request<'_>) -> Result<Vec<Candidate>, Failure> {
    match (&request.tables, request.publication) {
        (Some(_), Some(_)) => {
            Err(Failure::new(INVALID, "arguments \"tables\" and \"publication\" cannot be given together")
                .hint("Name the tables, or the publication that has them."))
        }
        (Some(tables), None) => Ok(distinct(tables).map(Candidate::whole).collect()),
        (None, Some(name)) => as_extension(|| publication::read(name))
            .map(|publication| published(&publication))
            .ok_or_else(|| no_publication(name)),
        (None, None) => Ok(as_extension(source::user_tables).into_iter().map(Candidate::whole).collect()),
    }
}

/// A table that is to join a mirror, or to be copied again: it must be fit like those of a start.
pub(in crate::postgres::api) fn one_table(
    name: &str,
    mirror: &MirrorRow,
    relid: pg_sys::Oid,
) -> Result<NewTable, Failure> {
    let candidate = match mirror.publication.as_deref() {
        None => Candidate::whole(relid),
        Some(publication) => member(publication, relid)?,
    };
    let others: Vec<_> = as_extension(|| list(name)).into_iter().map(|table| table.relid).collect();
    if let Some(overlap) = overlaps(std::slice::from_ref(&candidate), &others).into_iter().next() {
        return Err(overlap);
    }
    look_at(name, mirror, &candidate)
}

/// A table that has just been created, for a mirror of all tables.
pub(in crate::postgres::api) fn created_table(
    name: &str,
    mirror: &MirrorRow,
    relid: pg_sys::Oid,
) -> Result<NewTable, Failure> {
    look_at(name, mirror, &Candidate::whole(relid))
}

fn look_at(name: &str, mirror: &MirrorRow, candidate: &Candidate) -> Result<NewTable, Failure> {
    let relid = candidate.relid;
    let options = guc::defaults().merged(&mirror.options)?;
    let database = server::config(&mirror.server, mirror.owner)?.database;
    let spec = table::describe(candidate, &database, &options, mirror.owner)?;
    let specs = [(spec, candidate)];
    if let Some(clash) = clashes(&specs, &mirror.server, Some((name, relid))).into_iter().next() {
        return Err(clash);
    }
    let [(spec, _)] = specs;
    Ok(new_table(spec, candidate))
}

fn new_table(spec: TableSpec, candidate: &Candidate) -> NewTable {
    let relid = spec.relid.into();
    let is_partitioned = partition::relkind(relid) == pg_sys::RELKIND_PARTITIONED_TABLE;
    let Candidate { filtered, published, .. } = candidate;
    NewTable {
        relid,
        source_name: spec.source_name,
        target: spec.target,
        filtered: *filtered,
        is_partitioned,
        published: published.clone(),
    }
}

/// Tables that are wanted twice: by themselves, and as partitions of another one. `others` are tables of the mirror already.
fn overlaps(candidates: &[Candidate], others: &[pg_sys::Oid]) -> Vec<Failure> {
    let asked: HashSet<pg_sys::Oid> = candidates.iter().map(|candidate| candidate.relid).collect();
    let wanted: HashSet<pg_sys::Oid> = asked.iter().chain(others).copied().collect();
    let mut overlaps = vec![];
    for relid in candidates.iter().map(|candidate| &candidate.relid).chain(others) {
        let root = partition::ancestors(*relid).into_iter().rev().find(|root| wanted.contains(root));
        if let Some(root) = root.filter(|root| asked.contains(relid) || asked.contains(root)) {
            overlaps.push(overlap(*relid, root));
        }
    }
    overlaps
}

fn overlap(partition: pg_sys::Oid, root: pg_sys::Oid) -> Failure {
    let (leaf, root) = (partition::name(partition), partition::name(root));
    let message = format!("table \"{leaf}\" is a partition of table \"{root}\", and both are to be mirrored");
    Failure::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, message)
        .detail("The rows of the partition go where those of the partitioned table go.")
        .hint("Name the partitioned table for one target table, or partitions for one each.")
}

/// A table of a publication. A filtered one joins its publication first, committed.
fn member(publication: &str, relid: pg_sys::Oid) -> Result<Candidate, Failure> {
    let found = as_extension(|| publication::read(publication)).ok_or_else(|| no_publication(publication))?;
    published(&found).into_iter().find(|candidate| candidate.relid == relid).ok_or_else(|| {
        let message =
            format!("the table is not part of publication \"{publication}\", which the mirror follows");
        let quoted = pgrx::spi::quote_identifier(publication);
        Failure::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint(format!("First: ALTER PUBLICATION {quoted} ADD TABLE …."))
    })
}

fn distinct(tables: &[pg_sys::Oid]) -> impl Iterator<Item = pg_sys::Oid> {
    tables
        .iter()
        .enumerate()
        .filter(|(at, relid)| !tables.iter().take(*at).any(|other| other == *relid))
        .map(|(_, relid)| *relid)
}

fn published(publication: &Publication) -> Vec<Candidate> {
    let candidate = |table: &publication::Published| Candidate {
        relid: table.relid,
        filtered: publication.filters(table),
        columns: table.columns.clone(),
        listed_partition: table.partitions.iter().find(|it| it.columns.is_some()).map(|it| it.relid),
        published: Some(publication.terms(table)),
    };
    publication.tables.iter().map(candidate).collect()
}

fn no_publication(name: &str) -> Failure {
    let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
    let quoted = pgrx::spi::quote_identifier(name);
    Failure::new(code, format!("publication \"{name}\" does not exist")).hint(format!(
        "CREATE PUBLICATION {quoted} FOR TABLE …, or name the tables; a publication is not needed."
    ))
}

fn no_tables(request: &Request<'_>) -> Failure {
    let message = match (&request.tables, request.publication) {
        (Some(_), _) => "no tables to mirror were named".to_owned(),
        (None, Some(name)) => format!("publication \"{name}\" has no tables"),
        (None, None) => "the database has no table that can be mirrored".to_owned(),
    };
    Failure::new(INVALID, message).hint("A mirror needs at least one table.")
}

/// Tables that would be mirrored into the same table, here or by another mirror of this database; a table that is mirrored
/// already is no clash with itself.
fn clashes(
    specs: &[(TableSpec, &Candidate)],
    server: &str,
    itself: Option<(&str, pg_sys::Oid)>,
) -> Vec<Failure> {
    let mut by_target = BTreeMap::new();
    let mut failures = vec![];
    for (spec, _) in specs {
        let source = spec.source_name.clone();
        let other = by_target
            .insert(spec.target.to_string(), source.clone())
            .map(|other| format!("table \"{other}\""))
            .or_else(|| {
                as_extension(|| with_target(&spec.target, server, itself))
                    .map(|(mirror, other)| format!("table \"{other}\" of mirror \"{mirror}\""))
            });
        if let Some(other) = other {
            let message = format!("table \"{source}\" and {other} have the same target \"{}\"", spec.target);
            let map = format!("{{\"table_map\": {{\"{source}\": \"{}\"}}}}", source.replace('.', "_"));
            failures.push(
                Failure::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, message)
                    .hint(format!("Choose another name with the option table_map: '{map}'.")),
            );
        }
    }
    failures
}

/// Entries of the maps that say something about no table of the mirror: most likely a name is misspelled.
fn unused_entries(specs: &[(TableSpec, &Candidate)], options: &Options) -> Vec<Failure> {
    let tables =
        options.table_map.keys().filter(|key| specs.iter().all(|(spec, _)| spec.source_name != **key));
    let has_column = |key: &str| {
        specs
            .iter()
            .flat_map(|(spec, _)| spec.columns.iter().map(|column| (&spec.source_name, &column.source.name)))
            .any(|(table, column)| {
                key.strip_prefix(table.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(column)
            })
    };
    let columns = options.column_map.keys().filter(|key| !has_column(key));
    let tables = tables.map(|key| ("table_map", key, "schema.table"));
    let columns = columns.map(|key| ("column_map", key, "schema.table.column"));
    tables
        .chain(columns)
        .map(|(option, key, form)| {
            Failure::new(
                INVALID,
                format!("option \"{option}\" names \"{key}\", which the mirror does not have"),
            )
            .hint(format!("Write the name as {form}, without quotes."))
        })
        .collect()
}

fn summary(spec: &TableSpec) -> String {
    let key: Vec<&str> = spec.key().iter().map(|column| column.name.as_str()).collect();
    let appended = if spec.is_appended() {
        "  It has no key: rows are only added, and an UPDATE or DELETE puts it into error."
    } else {
        ""
    };
    format!("Table \"{}\" goes to \"{}\", key ({}).{appended}", spec.source_name, spec.target, key.join(", "))
}
