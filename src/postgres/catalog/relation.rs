//! What a table of the source looks like: an open relation becomes a [`TableSpec`].
//!
//! Reads the relation's descriptor, its key's index and the system caches, nothing else: no lock is taken, no query is
//! run. So it may be called from anywhere that has the relation open: a backend, a snapshot worker, and the callbacks
//! of decoding, where the catalogs are those of the change (and user tables are out of bounds).

use std::ffi::CStr;
use std::fmt;

use pgrx::PgTupleDesc;
use pgrx::pg_sys;

use super::super::{compat, encoding};
use super::table::Layout;
use crate::definition::Definition;
use crate::options::Options;
use crate::sink::starrocks::{ColumnUse, UnsupportedKey, kind_for_chosen_type, map_type};
use crate::table::{APPENDED_ATTRIBUTES, APPENDED_KEY, Column, Kind, SourceColumn, TableSpec, TargetTable};

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

/// What `ALTER TABLE … REPLICA IDENTITY` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Identity {
    /// The primary key.
    Default,
    /// An index.
    Index,
    /// The whole row.
    Full,
    /// Nothing.
    Nothing,
}

/// Why a table cannot be mirrored as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum RelationProblem {
    /// The log does not say which row an UPDATE or DELETE is about, or the target would have no key.
    NoKey(Identity),
    /// The target cannot have such a key.
    UnsupportedKey(UnsupportedKey),
    /// A column of the key is computed.
    GeneratedKey {
        /// The column.
        column: String,
    },
    /// The publication leaves out a column of the key.
    KeyNotPublished {
        /// The column.
        column: String,
    },
    /// The target does not tell these two columns apart.
    NamesDifferByCase {
        /// The one that comes first.
        first: String,
        /// The other one.
        second: String,
    },
    /// The target keeps this name, or a character in it, for itself.
    ReservedName {
        /// The column.
        column: String,
    },
    /// A name is not valid in UTF-8.
    NameNotUtf8,
    /// A name is not ASCII, in a database that is not UTF8.
    NameNotAscii,
    /// The table is on its way out.
    Gone,
}

impl RelationProblem {
    /// What the table's owner can do about it: a full sentence. `table` is its name, quoted where it must be.
    pub(in crate::postgres) fn hint(&self, table: &str) -> String {
        match self {
            Self::NoKey(Identity::Nothing) => {
                format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT, and give it a primary key.")
            }
            Self::NoKey(_) => format!(
                "ALTER TABLE {table} ADD PRIMARY KEY (…), or ALTER TABLE {table} REPLICA IDENTITY USING INDEX …."
            ),
            Self::UnsupportedKey(_) | Self::GeneratedKey { .. } => {
                format!("Choose another unique index: ALTER TABLE {table} REPLICA IDENTITY USING INDEX ….")
            }
            Self::KeyNotPublished { .. } => {
                format!("ALTER PUBLICATION … SET TABLE {table} with a column list that has the key.")
            }
            Self::NamesDifferByCase { .. } | Self::ReservedName { .. } => {
                format!("ALTER TABLE {table} RENAME COLUMN …, or leave the table out of the mirror.")
            }
            Self::NameNotUtf8 | Self::NameNotAscii | Self::Gone => {
                "Leave the table out of the mirror.".to_owned()
            }
        }
    }
}

impl fmt::Display for RelationProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(Identity::Nothing) => f.write_str("its replica identity is NOTHING"),
            Self::NoKey(Identity::Full) => {
                f.write_str("its replica identity is FULL and it has no primary key")
            }
            Self::NoKey(_) => f.write_str("it has no primary key and no replica identity index"),
            Self::UnsupportedKey(problem) => problem.fmt(f),
            Self::GeneratedKey { column } => write!(f, "column \"{column}\" of its key is generated"),
            Self::KeyNotPublished { column } => {
                write!(f, "column \"{column}\" of its key is not in the column list of the publication")
            }
            Self::NamesDifferByCase { first, second } => {
                write!(f, "columns \"{first}\" and \"{second}\" differ only by case, which StarRocks ignores")
            }
            Self::ReservedName { column } => {
                write!(f, "StarRocks does not allow \"{column}\" as the name of a column")
            }
            Self::NameNotUtf8 => f.write_str("a name in it is not valid UTF-8"),
            Self::NameNotAscii => f.write_str(
                "a name in it has characters beyond ASCII, and the encoding of the database is not UTF8",
            ),
            Self::Gone => f.write_str("its schema does not exist any more"),
        }
    }
}

impl std::error::Error for RelationProblem {}

/// Describes an open relation and the table of the target that it is mirrored into.
///
/// The key is the replica identity's index: the one that was chosen, or the primary key; with FULL, the primary key. A table
/// that has none of these is appended to: its key is one that only the target has.
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
    options: &Options,
    columns: Columns<'_>,
) -> Result<TableSpec, RelationProblem> {
    // SAFETY: the caller vouches for the relation; its `rd_rel` is set for as long as it is open.
    let (form, relid) = unsafe { (&*(*relation).rd_rel, (*relation).rd_id) };
    // SAFETY: as above.
    let key = unsafe { key_attributes(relation) }?;
    let is_appended = key.is_empty();
    let source_name = source_name(form)?;
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
        let name = name_of(&attribute.attname)?;
        if attribute.attgenerated != 0 {
            return Err(RelationProblem::GeneratedKey { column: name });
        }
        if !columns.contain(attnum) {
            return Err(RelationProblem::KeyNotPublished { column: name });
        }
        let column = describe_column(attribute, name, ColumnUse::Key, &spec.source_name, options)?;
        spec.columns.push(column);
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
            return Err(RelationProblem::ReservedName { column: name });
        }
        let column = describe_column(attribute, name, ColumnUse::Value, &spec.source_name, options)?;
        spec.columns.push(column);
    }
    check_names(&spec.columns)?;
    Ok(spec)
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
    source_name: &str,
    options: &Options,
) -> Result<Column, RelationProblem> {
    let mut typmod = attribute.atttypmod;
    // SAFETY: looks into the system cache and writes the domain's modifier, if it is one, to `typmod`.
    let base = unsafe { pg_sys::getBaseTypeAndTypmod(attribute.atttypid, &raw mut typmod) };
    let source =
        SourceColumn { attnum: attribute.attnum, name: name.clone(), type_oid: base.to_u32(), typmod };
    let (kind, target_type) = map_type(&source, column_use).map_err(RelationProblem::UnsupportedKey)?;
    let Some(chosen) = options.column_map.get(&format!("{source_name}.{name}")) else {
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
}
