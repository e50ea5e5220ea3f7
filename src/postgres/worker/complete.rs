//! Reads rows from the source that the log does not have whole (`decode::Incomplete`), and puts them into the pipeline.
//!
//! Called between records, by the worker that decodes. It is the one place where such a worker opens a user's table, so it
//! does that with the catalogs of the present, and with the rights of the mirror's owner: an operator of the key may be
//! anybody's. It waits for nobody's lock: a table that is locked is tried again in a moment.

use std::time::Duration;

use pgrx::pg_sys;

use super::super::catalog::{self, lookup::Lookup};
use super::super::decode::Feed;
use super::super::scan::{self, RowFilter};
use super::super::tuple::RowMemory;
use super::super::{failpoint, session};
use super::source::{Source, Unreadable};
use super::start::Mirror;

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

type Keys = Vec<Box<[u8]>>;

/// Reads the rows of some keys; gives the keys back when somebody has the table locked.
fn complete(mirror: &Mirror, feed: &mut Feed, relid: u32, keys: Keys) -> Result<(), Keys> {
    let oid = pg_sys::Oid::from(relid);
    let Some(table) = mirror.table(oid) else { return Ok(()) };
    let Some(relation) = scan::open_table_unless_locked(oid) else { return Err(keys) };
    // SAFETY: just opened and locked, until the end of the transaction; closed below.
    let taken = unsafe {
        let taken = match Source::of(relation, table, mirror) {
            // The stream may still be at rows of an earlier definition.
            Ok(source) if feed.writes_columns_of(&source.spec) => {
                read(mirror, feed, relation, &source, &keys)
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
/// The relation is open and locked, and `source` was made from it.
unsafe fn read(
    mirror: &Mirror,
    feed: &mut Feed,
    relation: pg_sys::Relation,
    source: &Source,
    keys: &[Box<[u8]>],
) -> Result<(), String> {
    let lookup = Lookup::new(&source.spec, relation)?;
    let mut memory = RowMemory::new();
    // SAFETY: the text is the catalog's, and the transaction is open until the filter is freed.
    let mut filter =
        unsafe { mirror.row_filter_of(source.spec.relid.into()).map(|node| RowFilter::new(node)) };
    let mut result = Ok(());
    for key in keys {
        let tid = catalog::with_rights_of(mirror.row.owner, || lookup.find(key))?;
        let Some(tid) = tid else { continue };
        // SAFETY: the caller vouches for the relation; the row is used before the slot is dropped.
        result = unsafe {
            scan::with_row(relation, tid, |slot| {
                if filter.as_mut().is_some_and(|filter| !filter.passes(slot)) {
                    return Ok(());
                }
                memory.scoped(|| feed.completed(source.spec.relid, &source.reader.slot_row(slot)))
            })
        };
        if result.is_err() {
            break;
        }
    }
    if let Some(filter) = filter {
        // SAFETY: of this transaction, and used no more.
        unsafe { filter.free() };
    }
    result
}
