//! Reads rows from the source that the log does not have whole (`decode::Incomplete`), and puts them into the pipeline.
//!
//! Called between records, by the worker that decodes. It is the one place where such a worker opens a user's table, so it
//! does that with the catalogs of the present, and with the rights of the mirror's owner: an operator of the key may be
//! anybody's. It waits for nobody's lock: a table that is locked is tried again in a moment.

use std::collections::HashMap;
use std::time::Duration;

use pgrx::pg_sys;

use super::super::catalog::table::MirrorTableRow;
use super::super::catalog::{self, lookup::Lookup};
use super::super::decode::{Feed, IncompleteKey};
use super::super::scan::{self, RowFilter};
use super::super::tuple::RowMemory;
use super::super::{failpoint, session};
use super::source::{Opened, Source, Unreadable};
use super::start::Mirror;
use crate::encode::Stamp;

/// So many rows are read in one transaction.
const ROWS_AT_A_TIME: usize = 500;
/// How long a commit that is in the log and not seen yet is waited for before anything else is done.
const GLANCE: Duration = Duration::from_millis(2);

/// Completes what can be completed now. Until all of it is, nothing that came with it is durable.
pub(super) fn complete_rows(mirror: &Mirror, feed: &mut Feed) {
    if feed.incomplete().is_empty() {
        return;
    }
    failpoint::hit("rows_to_complete");
    if feed.incomplete().transactions().any(is_in_progress) {
        return feed.wait(GLANCE);
    }
    session::with_present_catalogs(|| {
        while let Some((relid, mut keys)) = feed.incomplete().take_table() {
            while !keys.is_empty() {
                let some = keys.split_off(keys.len().saturating_sub(ROWS_AT_A_TIME));
                if let Err(locked) = session::transaction(|| complete(mirror, feed, relid, some)) {
                    keys.extend(locked);
                    return feed.incomplete().put_back(relid, keys);
                }
                feed.make_room();
            }
        }
    });
    if feed.incomplete().is_empty() {
        feed.release_incomplete();
        failpoint::hit("rows_completed");
    }
}

/// A commit record is in the log before the transaction is over for others.
fn is_in_progress(xid: u32) -> bool {
    // SAFETY: looks into shared memory.
    unsafe { pg_sys::TransactionIdIsInProgress(pg_sys::TransactionId::from(xid)) }
}

type Keys = Vec<IncompleteKey>;

/// Reads the rows of some keys; gives the keys back when somebody has the table locked.
fn complete(mirror: &Mirror, feed: &mut Feed, relid: u32, keys: Keys) -> Result<(), Keys> {
    let oid = pg_sys::Oid::from(relid);
    let Some(table) = mirror.table(oid) else { return Ok(()) };
    let Some(relation) = scan::open_table_unless_locked(oid) else { return Err(keys) };
    if table.is_partitioned && !scan::lock_partitions_unless_locked(oid) {
        // SAFETY: just opened, and used no more.
        unsafe { scan::close_table(relation) };
        return Err(keys);
    }
    // SAFETY: just opened and locked, until the end of the transaction; closed below.
    let taken = unsafe {
        let opened = Opened { table: relation, rows: relation };
        let source = Source::of(opened, table, mirror);
        if source.is_ok() {
            feed.look_if_never_seen(relid, relation, mirror.columns_of(oid));
        }
        let taken = match source {
            // The stream may still be at rows of an earlier definition.
            Ok(source) if feed.writes_columns_of(&source.spec) => {
                read(mirror, feed, table, opened, source, &keys)
            }
            Ok(_) | Err(Unreadable::Changed) => {
                feed.give_up_following(
                    relid,
                    "its definition has changed, and rows that the log does not have whole cannot be read from it \
                     any more"
                        .to_owned(),
                );
                Ok(())
            }
            Err(Unreadable::Unfit(reason)) => Err(reason),
        };
        scan::close_table(relation);
        taken
    };
    if let Err(reason) = taken {
        feed.fail_table(relid, reason);
    }
    Ok(())
}

/// # Safety
///
/// The relations are open and locked, those of partitions too, and `source` was made from them.
unsafe fn read(
    mirror: &Mirror,
    feed: &mut Feed,
    table: &MirrorTableRow,
    opened: Opened,
    source: Source,
    keys: &[IncompleteKey],
) -> Result<(), String> {
    let lookup = Lookup::new(&source.spec, opened.table)?;
    let mut places = Places { mirror, table, opened, known: HashMap::new(), memory: RowMemory::new() };
    // SAFETY: the caller vouches for both.
    unsafe { places.add(opened, source) };
    let mut result = Ok(());
    for (key, stamp) in keys {
        let found = catalog::with_rights_of(mirror.row.owner, || lookup.find(key))?;
        let Some((relid, tid)) = found else {
            feed.is_missing(places.spec_relid(), key);
            continue;
        };
        // SAFETY: the caller vouches for the relations.
        result = unsafe { places.read(feed, (key, *stamp), relid, tid) };
        if result.is_err() {
            break;
        }
    }
    // SAFETY: of this transaction, and used no more.
    unsafe { places.close() };
    result
}

/// The relations that have rows of one table.
struct Places<'a> {
    mirror: &'a Mirror,
    table: &'a MirrorTableRow,
    opened: Opened,
    known: HashMap<pg_sys::Oid, Place>,
    memory: RowMemory,
}

struct Place {
    opened: Opened,
    source: Source,
    filter: Option<RowFilter>,
}

impl Places<'_> {
    /// The table of the mirror.
    fn spec_relid(&self) -> u32 {
        self.table.relid.to_u32()
    }

    /// # Safety
    ///
    /// The relations are open and locked, and `source` was made from them.
    unsafe fn add(&mut self, opened: Opened, source: Source) -> &mut Place {
        // SAFETY: the caller vouches for the relations; the transaction is open until the filter is freed. A partitioned
        // table itself has no rows.
        let (filter, relid) = unsafe { (self.mirror.row_filter(opened), (*opened.rows).rd_id) };
        self.known.entry(relid).insert_entry(Place { opened, source, filter }).into_mut()
    }

    /// Reads the row of a place, which is this table's or one of its partitions', and puts it into the pipeline.
    ///
    /// # Safety
    ///
    /// The table and its partitions are locked.
    unsafe fn read(
        &mut self,
        feed: &mut Feed,
        (key, stamp): (&[u8], Stamp),
        relid: pg_sys::Oid,
        tid: pg_sys::ItemPointerData,
    ) -> Result<(), String> {
        if !self.known.contains_key(&relid) {
            let Some(rows) = scan::open_table(relid) else { return Ok(()) };
            let opened = Opened { table: self.opened.table, rows };
            // SAFETY: the caller vouches for the table; the partition was just opened.
            unsafe {
                match Source::of(opened, self.table, self.mirror) {
                    Ok(source) => self.add(opened, source),
                    Err(problem) => return Err(problem.reason()),
                };
            }
        }
        let Self { known, memory, .. } = self;
        let Some(Place { opened, source, filter }) = known.get_mut(&relid) else { return Ok(()) };
        source.reader.stamp(stamp);
        // SAFETY: the caller vouches for the relation; the row is used before the slot is dropped.
        unsafe {
            scan::with_row(opened.rows, tid, |slot| {
                if filter.as_mut().is_some_and(|filter| !filter.passes(slot)) {
                    feed.is_missing(source.spec.relid, key);
                    return Ok(());
                }
                memory.scoped(|| feed.completed(source.spec.relid, &source.reader.slot_row(slot)));
                Ok(())
            })
        }
    }

    /// Closes the partitions.
    ///
    /// # Safety
    ///
    /// Nothing of them is used any more.
    unsafe fn close(self) {
        for place in self.known.into_values() {
            // SAFETY: the caller vouches.
            unsafe {
                if let Some(filter) = place.filter {
                    filter.free();
                }
                if place.opened.rows != self.opened.table {
                    scan::close_table(place.opened.rows);
                }
            }
        }
    }
}
