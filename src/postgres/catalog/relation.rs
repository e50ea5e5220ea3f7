//! What a table of the source looks like: an open relation becomes a [`TableSpec`].
//!
//! Reads the relation's descriptor, its key's index and the system caches, nothing else: no lock is taken, no query is
//! run. So it may be called from anywhere that has the relation open: a backend, a snapshot worker, and the callbacks
//! of decoding, where the catalogs are those of the change (and user tables are out of bounds).

use std::ffi::CStr;

use pgrx::PgTupleDesc;
use pgrx::pg_sys;

use super::super::{compat, encoding};
use super::partition;
use super::table::Layout;
use crate::definition::Definition;
use crate::options::{OnDelete, Options};
use crate::sink::starrocks::{ColumnUse, kind_for_chosen_type, map_type};
use crate::table::{
    APPENDED_ATTRIBUTES, APPENDED_KEY, AddedColumn, Column, Kind, SourceColumn, TableSpec, TargetTable,
};

mod partitioned;
mod problem;

pub(in crate::postgres) use partitioned::describe_partition;
pub(in crate::postgres) use problem::{Identity, RelationProblem};

/// Which columns of a table are mirrored.
#[derive(Clone, Copy, Debug)]
pub(in crate::postgres) enum Columns<'a> {
    /// All, but for dropped and generated ones.
    All,
    /// The column list of a publication: `attnum` of each.
    Listed(&'a [i16]),
}

impl Columns<'_> {
    fn contain(self, attnum: i16) -> bool {
        match self {
            Self::All => true,
            Self::Listed(list) => list.contains(&attnum),
        }
    }
}

/// Describes an open relation and the table of the target that it is mirrored into.
///
/// The key is the replica identity's index: the one that was chosen, or the primary key; with FULL, the primary key. A table
/// that has none of these is appended to: its key is one that only the target has. A partitioned table has no changes of its
/// own, so what counts of it is the index, and its partitions are compared with that ([`describe_partition`]). The options
/// mean it by the name `known_as`, which is its own unless it was renamed since it joined a mirror.
///
/// # Errors
///
/// The first reason why the table cannot be mirrored.
///
/// # Safety
///
/// `relation` is open and stays so for the call, which happens inside a transaction.
pub(in crate::postgres) unsafe fn describe(
    relation: pg_sys::Relation,
    target: TargetTable,
    known_as: Option<&str>,
    options: &Options,
    columns: Columns<'_>,
) -> Result<TableSpec, RelationProblem> {
    // SAFETY: the caller vouches for the relation; its `rd_rel` is set for as long as it is open.
    let (form, relid) = unsafe { (&*(*relation).rd_rel, (*relation).rd_id) };
    // SAFETY: as above.
    let key = unsafe {
        match key_attributes(relation)? {
            none if none.is_empty() && partition::is_partitioned(relation) => {
                partitioned::key_of_partitions(relation)?
            }
            key => key,
        }
    };
    let is_appended = key.is_empty();
    let source_name = source_name(form)?;
    let known_as = known_as.unwrap_or(&source_name).to_owned();
    // SAFETY: as above; the descriptor lives as long as the relation is open, and is not released here.
    let descriptor = unsafe { PgTupleDesc::from_pg_unchecked((*relation).rd_att) };

    let key_len = if is_appended { APPENDED_KEY.len() } else { key.len() };
    let mut spec = TableSpec { relid: relid.to_u32(), source_name, target, columns: vec![], key_len };
    if is_appended {
        let key = APPENDED_KEY.into_iter().zip(APPENDED_ATTRIBUTES);
        spec.columns.extend(key.map(|(name, attnum)| appended_key_column(name, attnum)));
    }
    for &attnum in &key {
        let attribute = attribute(&descriptor, attnum).ok_or(RelationProblem::NoKey(identity(form)))?;
        let name = published_key_name(attribute, columns)?;
        spec.columns.push(describe_column(attribute, name, ColumnUse::Key, &known_as, options)?);
    }
    for attribute in descriptor.iter() {
        let attnum = attribute.attnum;
        if attribute.attisdropped
            || attribute.attgenerated != 0
            || key.contains(&attnum)
            || !columns.contain(attnum)
        {
            continue;
        }
        let name = name_of(&attribute.attname)?;
        if is_appended && APPENDED_KEY.contains(&name.to_lowercase().as_str()) {
            return Err(RelationProblem::NameOfAdded { column: name });
        }
        let column = describe_column(attribute, name, ColumnUse::Value, &known_as, options)?;
        spec.columns.push(column);
    }
    add_columns(&mut spec, options)?;
    check_names(&spec.columns)?;
    Ok(spec)
}

/// The name of a column of the key, which must come with every change.
fn published_key_name(
    attribute: &pg_sys::FormData_pg_attribute,
    columns: Columns<'_>,
) -> Result<String, RelationProblem> {
    let column = name_of(&attribute.attname)?;
    if attribute.attgenerated != 0 {
        return Err(RelationProblem::GeneratedKey { column });
    }
    if !columns.contain(attribute.attnum) {
        return Err(RelationProblem::KeyNotPublished { column });
    }
    Ok(column)
}

/// Appends the columns that the mirror adds. The key of a table without one has a position already.
fn add_columns(spec: &mut TableSpec, options: &Options) -> Result<(), RelationProblem> {
    let is_wanted = |added: &AddedColumn| match added {
        AddedColumn::Deleted => options.on_delete == OnDelete::Mark,
        AddedColumn::Lsn => options.metadata_columns && !spec.is_appended(),
        AddedColumn::CommittedAt => options.metadata_columns,
    };
    let added: Vec<AddedColumn> = AddedColumn::ALL.into_iter().filter(is_wanted).collect();
    let is_taken = |column: &&Column| added.iter().any(|added| added.name() == column.name.to_lowercase());
    if let Some(column) = spec.columns.iter().find(is_taken) {
        return Err(RelationProblem::NameOfAdded { column: column.name.clone() });
    }
    spec.columns.extend(added.into_iter().map(AddedColumn::column));
    Ok(())
}

/// `attnum` of the columns whose names are wanted.
///
/// # Safety
///
/// As [`describe`].
pub(in crate::postgres) unsafe fn attribute_numbers(
    relation: pg_sys::Relation,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<i16> {
    // SAFETY: the caller vouches for the relation; the descriptor lives as long as it is open, and is not released here.
    let descriptor = unsafe { PgTupleDesc::from_pg_unchecked((*relation).rd_att) };
    let live = descriptor.iter().filter(|attribute| !attribute.attisdropped);
    live.filter(|attribute| name_of(&attribute.attname).is_ok_and(|name| is_wanted(&name)))
        .map(|attribute| attribute.attnum)
        .collect()
}

/// The columns of a table as a text that changes exactly when rows would have to be written in another way.
pub(in crate::postgres) fn definition(spec: &TableSpec) -> String {
    Definition::of(spec).to_string()
}

/// Whether the log has whole rows of a relation.
///
/// # Safety
///
/// As [`describe`].
pub(in crate::postgres) unsafe fn identity_is_full(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller vouches for the relation.
    identity(unsafe { &*(*relation).rd_rel }) == Identity::Full
}

/// Whatever its access method is called: what writes the log as heap does can be decoded, and scanned by blocks.
///
/// # Safety
///
/// As [`describe`].
pub(in crate::postgres) unsafe fn is_like_heap(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller vouches for the relation; the other one is a constant of the server.
    unsafe { (*relation).rd_tableam == pg_sys::GetHeapamTableAmRoutine() }
}

/// How a relation is laid out.
///
/// # Safety
///
/// As [`describe`].
pub(in crate::postgres) unsafe fn layout(relation: pg_sys::Relation) -> Layout {
    // SAFETY: the caller vouches for the relation.
    unsafe {
        let natts = i16::try_from((*(*relation).rd_att).natts).unwrap_or(i16::MAX);
        Layout { natts, file: compat::relfilenode(relation) }
    }
}

/// `schema.table` of a relation, without quotes.
fn source_name(form: &pg_sys::FormData_pg_class) -> Result<String, RelationProblem> {
    // SAFETY: looks into the system cache; the answer is null or a C string in the current memory context.
    let schema = unsafe {
        let schema = pg_sys::get_namespace_name(form.relnamespace);
        if schema.is_null() {
            return Err(RelationProblem::Gone);
        }
        in_utf8(CStr::from_ptr(schema).to_bytes().to_vec())?
    };
    Ok(format!("{schema}.{}", name_of(&form.relname)?))
}

/// `attnum` of each column of the key, in the key's order; none for a table without a key.
///
/// # Safety
///
/// As [`describe`].
unsafe fn key_attributes(relation: pg_sys::Relation) -> Result<Vec<i16>, RelationProblem> {
    // SAFETY: the caller vouches for the relation.
    let (identity, index) = unsafe {
        let identity = identity(&*(*relation).rd_rel);
        let index = match identity {
            Identity::Default | Identity::Full | Identity::Nothing if partition::is_partitioned(relation) => {
                compat::primary_key(relation)
            }
            Identity::Nothing => pg_sys::InvalidOid,
            Identity::Full => compat::primary_key(relation),
            Identity::Default | Identity::Index => pg_sys::RelationGetReplicaIndex(relation),
        };
        (identity, index)
    };
    if index == pg_sys::InvalidOid {
        return Ok(vec![]);
    }
    // SAFETY: an index that the relation has just named; it is closed below, and no error is raised in between.
    let attributes = unsafe {
        let index = pg_sys::RelationIdGetRelation(index);
        if index.is_null() {
            return Err(RelationProblem::NoKey(identity));
        }
        let form = &*(*index).rd_index;
        let count = usize::try_from(form.indnkeyatts).unwrap_or(0);
        let attributes = form.indkey.values.as_slice(count).to_vec();
        pg_sys::RelationClose(index);
        attributes
    };
    if attributes.is_empty() { Err(RelationProblem::NoKey(identity)) } else { Ok(attributes) }
}

fn identity(form: &pg_sys::FormData_pg_class) -> Identity {
    match form.relreplident.cast_unsigned() {
        pg_sys::REPLICA_IDENTITY_NOTHING => Identity::Nothing,
        pg_sys::REPLICA_IDENTITY_FULL => Identity::Full,
        pg_sys::REPLICA_IDENTITY_INDEX => Identity::Index,
        _ => Identity::Default,
    }
}

fn appended_key_column(name: &str, attnum: i16) -> Column {
    let source =
        SourceColumn { attnum, name: name.to_owned(), type_oid: pg_sys::INT8OID.to_u32(), typmod: -1 };
    Column { source, name: name.to_owned(), kind: Kind::Int, target_type: "BIGINT".to_owned() }
}

/// The attribute of a number; none when there is no such column any more.
fn attribute<'a>(descriptor: &'a PgTupleDesc<'_>, attnum: i16) -> Option<&'a pg_sys::FormData_pg_attribute> {
    let position = usize::try_from(attnum).ok()?.checked_sub(1)?;
    descriptor.get(position).filter(|attribute| !attribute.attisdropped)
}

fn name_of(name: &pg_sys::NameData) -> Result<String, RelationProblem> {
    let bytes: Vec<u8> =
        name.data.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    in_utf8(bytes)
}

/// A name of the catalog. Where texts are converted names would have to be as well, on every way to and from the catalogs.
fn in_utf8(name: Vec<u8>) -> Result<String, RelationProblem> {
    if !name.is_ascii() && encoding::needs_conversion() {
        return Err(RelationProblem::NameNotAscii);
    }
    String::from_utf8(name).map_err(|_| RelationProblem::NameNotUtf8)
}

fn describe_column(
    attribute: &pg_sys::FormData_pg_attribute,
    name: String,
    column_use: ColumnUse,
    known_as: &str,
    options: &Options,
) -> Result<Column, RelationProblem> {
    let mut typmod = attribute.atttypmod;
    // SAFETY: looks into the system cache and writes the domain's modifier, if it is one, to `typmod`.
    let base = unsafe { pg_sys::getBaseTypeAndTypmod(attribute.atttypid, &raw mut typmod) };
    let source =
        SourceColumn { attnum: attribute.attnum, name: name.clone(), type_oid: base.to_u32(), typmod };
    let (kind, target_type) = map_type(&source, column_use).map_err(RelationProblem::UnsupportedKey)?;
    let Some(chosen) = options.column_map.get(&format!("{known_as}.{name}")) else {
        return Ok(Column { source, name, kind, target_type });
    };
    let kind = kind_for_chosen_type(kind, chosen, column_use);
    Ok(Column { source, name, kind, target_type: chosen.clone() })
}

/// Names that StarRocks takes for the same, or keeps for itself (`FeNameFormat.java`).
fn check_names(columns: &[Column]) -> Result<(), RelationProblem> {
    for (position, column) in columns.iter().enumerate() {
        let folded = column.name.to_lowercase();
        if is_reserved(&folded) {
            return Err(RelationProblem::ReservedName { column: column.name.clone() });
        }
        let earlier = columns.iter().take(position).find(|other| other.name.to_lowercase() == folded);
        if let Some(other) = earlier {
            return Err(RelationProblem::NamesDifferByCase {
                first: other.name.clone(),
                second: column.name.clone(),
            });
        }
    }
    Ok(())
}

fn is_reserved(folded: &str) -> bool {
    const NAMES: [&str; 2] = ["__op", "__row"];
    const PREFIXES: [&str; 2] = ["__starrocks_shadow_", "__generated_partition_column_"];
    NAMES.contains(&folded)
        || PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
        || folded.contains(['=', '<', '>', '!', '*'])
        // These no load could name.
        || folded.contains(|c: char| c.is_control())
}
