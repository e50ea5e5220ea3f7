//! Tables that pgoutput decodes, because their publication has a row filter, a column list, or leaves operations out.
//!
//! pgoutput's own change callback runs for them, and writes its messages through ours. From a Relation message the names
//! of the published columns are taken; everything else about them (attribute numbers, the key) comes from the relation
//! of the change, which is open while pgoutput runs. Messages about changes of partitions are those of the partition, or of
//! the published table that it is a partition of (`publish_via_partition_root`); either way rows go where the root's go. Of
//! these no message says that a single partition was truncated: that is taken from the callback itself.

use std::ffi::CString;
use std::sync::Arc;

use hashbrown::HashMap;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::relation::{self, Columns};
use super::super::encoding::Conversion;
use super::feed::Feed;
use super::intake::{Intake, With};
use super::mirrored::Route;
use super::rejected::Trouble;
use super::removal::Removal;
use crate::definition::Evidence;
use crate::encode::{Added, Row, Stamp, Value, WithAdded};
use crate::lsn::Lsn;
use crate::options::OnStatement;
use crate::pgoutput::{ColumnMap, Message, OldTuple, PgoutputRow, RelationCache, Tuple, TupleIndex};
use crate::table::TableSpec;

/// What the messages said so far.
#[derive(Default)]
pub(super) struct Filtered {
    /// The publication of the mirror.
    pub(super) publication: Option<CString>,
    relations: RelationCache,
    /// The columns that were found in the messages, by their relation.
    bound: HashMap<u32, Arc<TableSpec>>,
    new: TupleIndex,
    old: TupleIndex,
    /// From the encoding of the database; not looked up yet, or none is needed.
    conversion: Option<Option<Conversion>>,
    /// The relation of the change that pgoutput is working on.
    open: Option<pg_sys::Relation>,
}

impl Feed {
    /// pgoutput is about to be called for a change of this relation.
    pub(super) fn expect_messages_about(&mut self, open: pg_sys::Relation) {
        self.filtered.open = Some(open);
    }

    /// A message that pgoutput has written.
    pub(super) fn message_of_pgoutput(&mut self, bytes: &[u8]) {
        let message = Message::parse(bytes)
            .unwrap_or_else(|problem| error!("could not read a message of pgoutput: {problem}"));
        let (relid, taken) = match message {
            Message::Relation(relation) => {
                // What it says is looked at when a row of it comes: of partitions whose rows are sent as those of their root
                // there is a message as well, with columns that are not theirs.
                if self.filtered.relations.update(&relation) {
                    self.filtered.bound.remove(&relation.id);
                }
                return;
            }
            Message::Insert { relation, new } => (relation, self.row(relation, |row| row.insert(new))),
            Message::Update { relation, old, new } => {
                (relation, self.row(relation, |row| row.update(old, new)))
            }
            Message::Delete { relation, old } => (relation, self.row(relation, |row| row.delete(old))),
            Message::Truncate { relations, .. } => return self.truncated_by_message(relations.collect()),
            Message::Begin { .. }
            | Message::Commit { .. }
            | Message::Origin { .. }
            | Message::Type { .. }
            | Message::Logical { .. } => return,
        };
        if let Err(trouble) = taken {
            let table = self.table_of_message(relid);
            self.take_trouble(table, trouble);
        }
    }

    /// The mirrored table that a message is about: it may be one of a partition.
    fn table_of_message(&mut self, relid: u32) -> u32 {
        if !self.partitions.has_roots() {
            return relid;
        }
        self.root_of(relid).unwrap_or(relid)
    }

    fn truncated_by_message(&mut self, relations: Vec<u32>) {
        let mut by_table: HashMap<u32, Vec<u32>> = HashMap::new();
        for relid in relations {
            let table = self.table_of_message(relid);
            if self.route(table) == Route::Pgoutput {
                by_table.entry(table).or_default().push(relid);
            }
        }
        for (table, truncated) in by_table {
            if truncated.contains(&table) {
                self.truncate(table);
            } else {
                self.truncate_partitions(table, &truncated);
            }
        }
    }

    /// Looks at the columns of a table as far as they are published, and finds them in the messages of a relation.
    fn look_at_columns(&mut self, relid: u32, table: u32, open: pg_sys::Relation) -> Result<(), Trouble> {
        let known = self.filtered.relations.relation(relid);
        let published =
            |name: &str| known.is_some_and(|known| known.columns.iter().any(|it| it.name == name));
        // SAFETY: the relation of the running change callback is open.
        let listed = unsafe { attribute_numbers(table, open, published) };
        // The place of the change does not matter: what is decoded by pgoutput is never altered.
        let (columns, place) = (Columns::Listed(&listed), Lsn::INVALID);
        // SAFETY: as above, and it is this table's or a partition's of it.
        unsafe {
            if (*open).rd_id.to_u32() == table {
                self.follow(open, open, columns, place, Evidence::Row);
            } else {
                self.look_at_partition(open, table, columns, place)?;
            }
        }
        if self.route(table) != Route::Pgoutput {
            return Ok(());
        }
        let columnar = self.tables.get(&table).and_then(|table| table.columnar.as_ref());
        let Some(spec) = columnar.map(|columnar| columnar.spec.clone()) else { return Ok(()) };
        self.filtered.relations.bind(relid, &spec).map_err(|problem| problem.to_string())?;
        self.filtered.bound.insert(relid, spec);
        Ok(())
    }

    /// The definition of a table may be another one: if it is, the table is copied again, or what `on_ddl` says. Which columns
    /// are published pgoutput says with the next row only; until then a table that had all of them has all of them.
    ///
    /// # Safety
    ///
    /// `open` is the relation, open in the reorder buffer's transaction.
    pub(super) unsafe fn compare_published_columns(&mut self, relid: u32, open: pg_sys::Relation) {
        let Some(table) = self.tables.get(&relid) else { return };
        let Some(present) = &table.definition else { return };
        // SAFETY: the caller vouches for the relation.
        let seen = unsafe {
            let live = relation::attribute_numbers(open, |_| true);
            let has_all = |listed: &[i16]| {
                let earlier = live.iter().filter(|attnum| **attnum <= table.layout.natts);
                earlier.clone().all(|attnum| listed.contains(attnum))
            };
            let had: Vec<i16> = present.columns.iter().map(|column| column.attnum).collect();
            let listed = if has_all(&had) { live } else { had };
            table.look(open, Columns::Listed(&listed), &self.options)
        };
        let reason = match seen {
            Ok(seen) if seen.definition == *present => return,
            Ok(_) => "its definition has changed".to_owned(),
            Err(reason) => reason,
        };
        match self.options.on_ddl {
            OnStatement::Apply => self.copy_table_again(relid, reason),
            OnStatement::Error => self.stop_at_change(relid, reason),
            OnStatement::Ignore => {}
        }
    }

    /// Whether nothing has changed since the columns of a table were found in the messages of a relation.
    fn is_bound(&self, relid: u32, table: u32, open: pg_sys::Relation) -> bool {
        let Some(mirrored) = self.tables.get(&table).filter(|table| !table.is_stale()) else { return false };
        let spec = mirrored.columnar.as_ref().map(|columnar| &columnar.spec);
        let bound = self.filtered.bound.get(&relid);
        let is_same = spec.zip(bound).is_some_and(|(spec, bound)| Arc::ptr_eq(spec, bound));
        // SAFETY: the relation of the running change callback is open.
        let rows = unsafe { (*open).rd_id.to_u32() };
        is_same && (rows == table || spec.is_some_and(|spec| self.partitions.has_seen(rows, spec)))
    }

    /// Takes in a row of a table that is still mirrored.
    fn row(
        &mut self,
        relid: u32,
        take: impl FnOnce(RowTaker<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let table = self.table_of_message(relid);
        if self.route(table) != Route::Pgoutput {
            return Ok(());
        }
        if let Some(open) = self.filtered.open
            && !self.is_bound(relid, table, open)
        {
            self.look_at_columns(relid, table, open)?;
            if self.route(table) != Route::Pgoutput {
                return Ok(());
            }
        }
        let Self { tables, filtered, pipeline, incomplete, news, memory, options, xid, stamp, .. } = self;
        let Filtered { relations, new, old, conversion, .. } = filtered;
        let missing = |what: &str| Trouble::Table(what.to_owned());
        let map = relations
            .map(relid)
            .ok_or_else(|| missing("pgoutput did not describe the table before its rows"))?;
        let mirrored = tables.get_mut(&table).ok_or_else(|| missing("the table is not mirrored"))?;
        let news = &mut news.rejected;
        let with =
            With { pipeline, incomplete, news, on_reject: options.on_reject, xid: *xid, stamp: *stamp };
        let of_table =
            with.table(mirrored).ok_or_else(|| missing("the columns of the table are not known"))?;
        let (intake, spec, added) = (of_table.tuples.intake, of_table.spec, of_table.added);
        added.stamp(*stamp);
        if conversion.is_none() {
            let of_database = Conversion::of_database();
            *conversion =
                Some(of_database.map_err(|_| missing("the encoding of the database cannot be converted"))?);
        }
        let conversion = conversion.as_ref().and_then(Option::as_ref);
        memory.scoped(|| {
            take(RowTaker { intake, map, conversion, new_index: new, old_index: old, spec, added })
        })
    }
}

/// The attribute numbers that columns have in a table, of which `rows` is a partition, if it is not the table itself.
///
/// # Safety
///
/// `rows` is the open relation of the change at hand.
unsafe fn attribute_numbers(
    table: u32,
    rows: pg_sys::Relation,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<i16> {
    // SAFETY: the caller vouches for the relation. Its root is opened as of the change, and closed again.
    unsafe {
        if (*rows).rd_id.to_u32() == table {
            return relation::attribute_numbers(rows, is_wanted);
        }
        let root = pg_sys::RelationIdGetRelation(table.into());
        if root.is_null() {
            return Vec::new();
        }
        let numbers = relation::attribute_numbers(root, is_wanted);
        pg_sys::RelationClose(root);
        numbers
    }
}

/// What rows have in columns that are not the source's.
pub(super) struct AddedToRows {
    source_columns: usize,
    live: Added,
    deleted: Added,
}

impl AddedToRows {
    pub(super) fn new(spec: &TableSpec) -> Self {
        Self { source_columns: spec.source_columns(), live: Added::live(spec), deleted: Added::deleted(spec) }
    }

    pub(super) fn stamp(&mut self, stamp: Stamp) {
        self.live.stamp(stamp);
        self.deleted.stamp(stamp);
    }

    fn to_live<'a, R>(&'a self, row: &'a R) -> WithAdded<'a, R> {
        WithAdded { row, source_columns: self.source_columns, added: &self.live }
    }

    fn to_deleted<'a, R>(&'a self, row: &'a R) -> WithAdded<'a, R> {
        WithAdded { row, source_columns: self.source_columns, added: &self.deleted }
    }
}

/// The table that a message is about, and what is needed to take its row in.
struct RowTaker<'a> {
    intake: Intake<'a>,
    map: &'a ColumnMap,
    conversion: Option<&'a Conversion>,
    new_index: &'a mut TupleIndex,
    old_index: &'a mut TupleIndex,
    spec: &'a TableSpec,
    added: &'a AddedToRows,
}

impl RowTaker<'_> {
    fn insert(self, new: Tuple<'_>) -> Result<(), Trouble> {
        self.new_index.fill(&new);
        let row = PgoutputRow::new(self.map, new, self.new_index);
        self.intake.let_in(&self.added.to_live(&InUtf8 { row, conversion: self.conversion }))
    }

    fn update(mut self, old: Option<OldTuple<'_>>, new: Tuple<'_>) -> Result<(), Trouble> {
        let conversion = self.conversion;
        self.new_index.fill(&new);
        let row = PgoutputRow::new(self.map, new, self.new_index);
        let Some(old) = old else {
            let row = InUtf8 { row, conversion };
            return self.intake.update(None::<&InUtf8<'_>>, &self.added.to_live(&row));
        };
        let (OldTuple::Key(tuple) | OldTuple::Whole(tuple)) = old;
        self.old_index.fill(&tuple);
        let old_row = PgoutputRow::new(self.map, tuple, self.old_index);
        let row = if matches!(old, OldTuple::Whole(_)) { row.or_from(tuple, self.old_index) } else { row };
        let (old_row, row) = (InUtf8 { row: old_row, conversion }, InUtf8 { row, conversion });
        self.intake.removal = Removal::of(self.spec, matches!(old, OldTuple::Whole(_)));
        self.intake.update(Some(&self.added.to_deleted(&old_row)), &self.added.to_live(&row))
    }

    fn delete(mut self, old: OldTuple<'_>) -> Result<(), Trouble> {
        let (OldTuple::Key(tuple) | OldTuple::Whole(tuple)) = old;
        self.old_index.fill(&tuple);
        let row = PgoutputRow::new(self.map, tuple, self.old_index);
        let row = InUtf8 { row, conversion: self.conversion };
        self.intake.removal = Removal::of(self.spec, matches!(old, OldTuple::Whole(_)));
        self.intake.delete(&self.added.to_deleted(&row))
    }
}

/// A row whose texts are in the encoding of the database.
struct InUtf8<'a> {
    row: PgoutputRow<'a>,
    conversion: Option<&'a Conversion>,
}

impl Row for InUtf8<'_> {
    #[inline]
    fn value(&self, column: usize) -> Value<'_> {
        match (self.row.value(column), self.conversion) {
            (Value::Text(text), Some(conversion)) => {
                conversion.to_utf8(text).map_or(Value::NotUtf8, Value::Text)
            }
            (Value::Json(text), Some(conversion)) => {
                conversion.to_utf8(text).map_or(Value::NotUtf8, Value::Json)
            }
            (value, _) => value,
        }
    }
}
