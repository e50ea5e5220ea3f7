//! Tables that pgoutput decodes, because their publication has a row filter, a column list, or leaves operations out.
//!
//! pgoutput's own change callback runs for them, and writes its messages through ours. From a Relation message the names
//! of the published columns are taken; everything else about them (attribute numbers, the key) comes from the relation
//! of the change, which is open while pgoutput runs.

use hashbrown::HashMap;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::relation::{self, Columns};
use super::feed::{self, Feed, Update};
use super::mirrored::Route;
use crate::lsn::Lsn;
use crate::pgoutput::{ColumnMap, Message, OldTuple, PgoutputRow, RelationCache, Tuple, TupleIndex};
use crate::pipeline::Change;

/// What the messages said so far.
#[derive(Default)]
pub(super) struct Filtered {
    relations: RelationCache,
    /// The attribute numbers of the published columns, by relation.
    listed: HashMap<u32, Vec<i16>>,
    new: TupleIndex,
    old: TupleIndex,
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
                let is_news = self.filtered.relations.update(&relation);
                (relation.id, if is_news { self.look_at_published_columns(relation.id) } else { Ok(()) })
            }
            Message::Insert { relation, new } => (relation, self.row(relation, |row| row.insert(new))),
            Message::Update { relation, old, new } => {
                (relation, self.row(relation, |row| row.update(old, new)))
            }
            Message::Delete { relation, old } => (relation, self.row(relation, |row| row.delete(old))),
            Message::Truncate { relations, .. } => {
                for relid in relations {
                    if self.route(relid) == Route::Pgoutput {
                        self.truncate(relid);
                    }
                }
                return;
            }
            Message::Begin { .. }
            | Message::Commit { .. }
            | Message::Origin { .. }
            | Message::Type { .. }
            | Message::Logical { .. } => return,
        };
        if let Err(reason) = taken {
            self.stop_at_change(relid, reason);
        }
    }

    /// Finds the published columns in the open relation and compares them with what the target table was made for.
    fn look_at_published_columns(&mut self, relid: u32) -> Result<(), String> {
        let Some(open) = self.filtered.open else {
            return Err("its columns came without a change".to_owned());
        };
        let known = self.filtered.relations.relation(relid);
        let published =
            |name: &str| known.is_some_and(|known| known.columns.iter().any(|it| it.name == name));
        // SAFETY: the relation of the running change callback is open.
        let listed = unsafe { relation::attribute_numbers(open, published) };
        self.filtered.listed.insert(relid, listed);
        self.look_at_columns(relid, open)?;
        if self.route(relid) != Route::Pgoutput {
            return Ok(());
        }
        let Some(columnar) = self.tables.get(&relid).and_then(|table| table.columnar.as_ref()) else {
            return Ok(());
        };
        self.filtered.relations.bind(relid, &columnar.spec).map(|_| ()).map_err(|problem| problem.to_string())
    }

    fn look_at_columns(&mut self, relid: u32, open: pg_sys::Relation) -> Result<(), String> {
        let Some(listed) = self.filtered.listed.get(&relid).cloned() else { return Ok(()) };
        // SAFETY: the relation of the running change callback is open, and it is this table's. The place of the change does
        // not matter: what is decoded by pgoutput is never altered.
        unsafe { self.follow(open, Columns::Listed(&listed), Lsn::INVALID) };
        Ok(())
    }

    /// Takes in a row of a table that is still mirrored.
    fn row(
        &mut self,
        relid: u32,
        take: impl FnOnce(RowTaker<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.route(relid) != Route::Pgoutput {
            return Ok(());
        }
        if self.tables.get(&relid).is_some_and(super::mirrored::Mirrored::is_stale)
            && let Some(open) = self.filtered.open
        {
            self.look_at_columns(relid, open)?;
            if self.route(relid) != Route::Pgoutput {
                return Ok(());
            }
        }
        let Self { tables, filtered, pipeline, incomplete, xid, .. } = self;
        let Filtered { relations, new, old, .. } = filtered;
        let map = relations.map(relid).ok_or("pgoutput did not describe the table before its rows")?;
        let table = tables.get(&relid).ok_or("the table is not mirrored")?;
        let columnar = table.columnar.as_ref().ok_or("the columns of the table are not known")?;
        let update = Update {
            pipeline,
            incomplete,
            encoder: &columnar.encoder,
            relid,
            xid: *xid,
            index: columnar.index,
            key_len: columnar.spec.key_len,
            columns: columnar.spec.columns.len(),
            completes: table.completes,
        };
        take(RowTaker { update, map, new_index: new, old_index: old })
    }
}

/// The table that a message is about, and what is needed to take its row in.
struct RowTaker<'a> {
    update: Update<'a>,
    map: &'a ColumnMap,
    new_index: &'a mut TupleIndex,
    old_index: &'a mut TupleIndex,
}

impl RowTaker<'_> {
    fn insert(self, new: Tuple<'_>) -> Result<(), String> {
        self.new_index.fill(&new);
        let row = PgoutputRow::new(self.map, new, self.new_index);
        let Update { pipeline, index, .. } = self.update;
        pipeline.upsert(index, Change::Insert, &row).map_err(feed::reason)
    }

    fn update(self, old: Option<OldTuple<'_>>, new: Tuple<'_>) -> Result<(), String> {
        self.new_index.fill(&new);
        let row = PgoutputRow::new(self.map, new, self.new_index);
        let Some(old) = old else {
            return self.update.take_in(None::<&PgoutputRow<'_>>, &row);
        };
        let (OldTuple::Key(tuple) | OldTuple::Whole(tuple)) = old;
        self.old_index.fill(&tuple);
        let old_row = PgoutputRow::new(self.map, tuple, self.old_index);
        let row = if matches!(old, OldTuple::Whole(_)) { row.or_from(tuple, self.old_index) } else { row };
        self.update.take_in(Some(&old_row), &row)
    }

    fn delete(self, old: OldTuple<'_>) -> Result<(), String> {
        let (OldTuple::Key(tuple) | OldTuple::Whole(tuple)) = old;
        self.old_index.fill(&tuple);
        let row = PgoutputRow::new(self.map, tuple, self.old_index);
        let Update { pipeline, index, .. } = self.update;
        pipeline.delete(index, &row).map_err(feed::reason)
    }
}
