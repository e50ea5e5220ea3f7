//! What Relation messages have said.
//!
//! pgoutput sends one before the first row of a table and again after each change of the table. The columns of a
//! mirrored table are found in it by name: the message has no attribute numbers.

use hashbrown::HashMap;

use super::message::Relation;
use crate::table::{Kind, TableSpec};

/// The relations that rows can come for.
#[derive(Debug, Default)]
pub struct RelationCache {
    relations: HashMap<u32, KnownRelation>,
}

/// A relation as its last Relation message had it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownRelation {
    /// Its schema; empty for `pg_catalog`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relreplident`.
    pub replica_identity: u8,
    /// Its published columns, in the order of its tuples.
    pub columns: Vec<KnownColumn>,
    map: Option<ColumnMap>,
}

/// A column of a [`KnownRelation`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownColumn {
    /// Whether it is part of the replica identity (with FULL: always).
    pub is_key: bool,
    /// Its name.
    pub name: String,
    /// `pg_type.oid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub typmod: i32,
}

impl RelationCache {
    /// Takes in a Relation message. Returns whether the relation is new or differs from before; then it is bound to no
    /// table until [`Self::bind`].
    pub fn update(&mut self, message: &Relation<'_>) -> bool {
        let relation = KnownRelation::from(message);
        let same = |known: &KnownRelation| {
            known.columns == relation.columns
                && known.schema == relation.schema
                && known.name == relation.name
                && known.replica_identity == relation.replica_identity
        };
        if self.relations.get(&message.id).is_some_and(same) {
            return false;
        }
        self.relations.insert(message.id, relation);
        true
    }

    /// The relation with this `pg_class.oid`.
    pub fn relation(&self, id: u32) -> Option<&KnownRelation> {
        self.relations.get(&id)
    }

    /// Finds the columns of `spec` in the relation.
    ///
    /// # Errors
    ///
    /// A column of the table is not published, or the relation is not known.
    pub fn bind(&mut self, id: u32, spec: &TableSpec) -> Result<&ColumnMap, MissingColumn> {
        let relation = self.relations.get_mut(&id).ok_or_else(|| MissingColumn::any_of(spec))?;
        let map = ColumnMap::new(relation, spec)?;
        Ok(relation.map.insert(map))
    }

    /// What [`Self::bind`] found, if nothing has changed since.
    pub fn map(&self, id: u32) -> Option<&ColumnMap> {
        self.relations.get(&id)?.map.as_ref()
    }
}

impl From<&Relation<'_>> for KnownRelation {
    fn from(message: &Relation<'_>) -> Self {
        let columns = message.columns.map(|column| KnownColumn {
            is_key: column.is_key,
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            typmod: column.typmod,
        });
        Self {
            schema: message.schema.to_owned(),
            name: message.name.to_owned(),
            replica_identity: message.replica_identity,
            columns: columns.collect(),
            map: None,
        }
    }
}

/// Where the columns of a table stand in the tuples of a relation, and what they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ColumnMap {
    /// `None` for a column that is not the source's (its attribute number is not positive).
    columns: Vec<Option<(usize, Kind)>>,
}

impl ColumnMap {
    fn new(relation: &KnownRelation, spec: &TableSpec) -> Result<Self, MissingColumn> {
        let find = |column: &crate::table::Column| {
            if column.source.attnum <= 0 {
                return Ok(None);
            }
            let place = relation.columns.iter().position(|known| known.name == column.source.name);
            place.map(|place| Some((place, column.kind))).ok_or_else(|| MissingColumn {
                table: spec.source_name.clone(),
                column: Some(column.source.name.clone()),
            })
        };
        Ok(Self { columns: spec.columns.iter().map(find).collect::<Result<_, _>>()? })
    }

    /// Place and kind of a column of the table.
    #[inline]
    pub(super) fn get(&self, column: usize) -> Option<(usize, Kind)> {
        self.columns.get(column).copied().flatten()
    }
}

/// A column of a mirrored table is not among those that are published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingColumn {
    /// The table.
    pub table: String,
    /// The column; `None` when nothing is known of the relation.
    pub column: Option<String>,
}

impl MissingColumn {
    fn any_of(spec: &TableSpec) -> Self {
        Self { table: spec.source_name.clone(), column: None }
    }
}

impl std::fmt::Display for MissingColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.column {
            Some(column) => write!(f, "column \"{column}\" of table \"{}\" is not published", self.table),
            None => write!(f, "table \"{}\" has not been described by the publisher", self.table),
        }
    }
}

impl std::error::Error for MissingColumn {}
