//! A partitioned table and its partitions: the columns are those of the table, found by their names, and so is the key.

use std::collections::HashMap;

use pgrx::{PgTupleDesc, pg_sys};

use super::super::partition::{self, Partitions};
use super::{
    Identity, RelationProblem, attribute, attribute_numbers, identity, is_like_heap, key_attributes, name_of,
    source_name,
};
use crate::table::TableSpec;

/// A table as [`super::describe`] has it, for the rows of a partition of it: its columns are found by their names, since they may
/// stand in another order.
///
/// # Errors
///
/// Why the rows of the partition cannot go where those of its root go.
///
/// # Safety
///
/// As [`super::describe`].
pub(in crate::postgres) unsafe fn describe_partition(
    partition: pg_sys::Relation,
    root: &TableSpec,
) -> Result<TableSpec, RelationProblem> {
    // SAFETY: the caller vouches for the relation; the descriptor lives as long as it is open, and is not released here.
    let (form, descriptor) =
        unsafe { (&*(*partition).rd_rel, PgTupleDesc::from_pg_unchecked((*partition).rd_att)) };
    let name = source_name(form)?;
    // SAFETY: the caller vouches for the relation.
    let (relid, is_like_heap) = unsafe { ((*partition).rd_id, is_like_heap(partition)) };
    let other_method = (!is_like_heap).then_some("has an access method that does not work like heap");
    if let Some(what) = partition::unlogged(relid).or(other_method) {
        return Err(RelationProblem::NotLogged { partition: name, what });
    }
    // SAFETY: as above.
    unsafe { check_identity(partition, form, &descriptor, root, &name) }?;
    let mut names = HashMap::new();
    for attribute in descriptor.iter().filter(|attribute| !attribute.attisdropped) {
        names.insert(name_of(&attribute.attname)?, attribute.attnum);
    }
    let mut spec = root.clone();
    for column in spec.columns.iter_mut().filter(|column| column.source.attnum > 0) {
        let missing =
            || RelationProblem::NoSuchColumn { partition: name.clone(), column: column.source.name.clone() };
        column.source.attnum = *names.get(&column.source.name).ok_or_else(missing)?;
    }
    Ok(spec)
}

/// The log must name rows of a partition by the key of its root.
///
/// # Safety
///
/// As [`super::describe`]; the others are the relation's own.
unsafe fn check_identity(
    partition: pg_sys::Relation,
    form: &pg_sys::FormData_pg_class,
    descriptor: &PgTupleDesc<'_>,
    root: &TableSpec,
    name: &str,
) -> Result<(), RelationProblem> {
    if root.is_appended() || identity(form) == Identity::Full {
        return Ok(());
    }
    // SAFETY: the caller vouches for the relation.
    let attributes = unsafe { key_attributes(partition) }?;
    let attributes = attributes.iter().filter_map(|attnum| attribute(descriptor, *attnum));
    let columns = attributes.map(|it| name_of(&it.attname)).collect::<Result<Vec<_>, _>>()?;
    let key = root.key();
    let is_same = columns.len() == key.len() && key.iter().all(|it| columns.contains(&it.source.name));
    if is_same {
        return Ok(());
    }
    Err(RelationProblem::OtherIdentity { partition: name.to_owned(), columns })
}

/// `attnum` of each column of the key of a partitioned table that has none itself, but whose partitions have one that names a
/// row among all of them: it has the columns by which they are told apart. It is that of the first partition, which the
/// others are compared with like with any key.
///
/// # Safety
///
/// As [`super::describe`].
pub(super) unsafe fn key_of_partitions(root: pg_sys::Relation) -> Result<Vec<i16>, RelationProblem> {
    // SAFETY: the caller vouches for the relation.
    let root_id = unsafe { (*root).rd_id };
    let Partitions { leaves, inner } = Partitions::of(root_id);
    let Some(first) = leaves.first() else { return Ok(vec![]) };
    // SAFETY: a relation that the catalogs have just named; it is closed below.
    let key = unsafe {
        let open = pg_sys::RelationIdGetRelation((*first).into());
        if open.is_null() {
            return Ok(vec![]);
        }
        let key = key_attributes(open);
        pg_sys::RelationClose(open);
        key?
    };
    let key: Vec<String> =
        key.iter().map(|attnum| partition::column_name((*first).into(), *attnum)).collect();
    let is_in_key = |table: u32, attnum: i16| key.contains(&partition::column_name(table.into(), attnum));
    let names_all = inner.iter().all(|table| {
        partition::divided_by((*table).into()).iter().all(|attnum| *attnum > 0 && is_in_key(*table, *attnum))
    });
    if !names_all {
        return Ok(vec![]);
    }
    // SAFETY: the caller vouches for the relation.
    let numbers = |name: &String| unsafe { attribute_numbers(root, |it| it == name) };
    Ok(key.iter().flat_map(numbers).collect())
}
