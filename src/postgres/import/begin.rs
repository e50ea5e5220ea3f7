//! An import begins, or goes on: whatever has changed since it was asked for is found before anything is done.

use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::attempt::refuse_with;
use super::copy::Exported;
use super::options::ImportOptions;
use super::source::Source;
use super::table::{self, Import};
use super::{place, plan, presence};
use crate::postgres::latch;

/// Makes the plan, or sees that the one that is there still holds, and has the import running. All in one transaction of the
/// leader: what an import that is refused has planned is forgotten, because the other one changes what it was planned upon.
pub(super) fn begin(import: &Import, options: &ImportOptions) {
    one_at_a_time();
    let source = Source::open(import);
    match &import.exported {
        None => plan::write_down(&source, import, options),
        Some(exported) => {
            refuse_another_export(import, exported, &source);
            refuse_other_tables(import);
            table::retry_failed_steps(import.id);
        }
    }
    refuse_rival(import);
    if !table::advance(import.id, "starting", "running") {
        error!("import {} was given up before it has begun", import.id);
    }
}

/// Two imports into one table must not both find that nobody else is at it.
fn one_at_a_time() {
    // SAFETY: called inside a transaction, with which the lock goes. There is no foreign server two, so nobody else locks it.
    unsafe {
        let (class, mode) = (pg_sys::ForeignServerRelationId, pg_sys::ExclusiveLock as pg_sys::LOCKMODE);
        pg_sys::LockDatabaseObject(class, pg_sys::Oid::from(2), 0, mode);
    }
}

fn refuse_another_export(import: &Import, exported: &str, source: &Source) {
    let exported: Exported = serde_json::from_str(exported).unwrap_or_else(|problem| error!("{problem}"));
    if exported.manifest != source.digest() {
        let message = format!(
            "the export at \"{}\" is not the one that import {} has begun with",
            import.source, import.id
        );
        refuse_with(CODE, message, "", place::START_OVER);
    }
}

fn refuse_other_tables(import: &Import) {
    if let Some(change) = place::changed(import.id) {
        let message = format!("import {} cannot go on: {change} since it was filled", import.id);
        refuse_with(CODE, message, "", place::START_OVER);
    }
}

/// Refuses when another import fills one of the tables. One that comes to its end is given a few seconds.
fn refuse_rival(import: &Import) {
    for attempt in 0.. {
        let Some(rival) = presence::rival(import.id) else { return };
        if rival.is_running || attempt == MOST_GLANCES {
            let id = rival.id;
            let message = format!("import {id} is filling {}", rival.relation);
            let hint = format!(
                "Wait for it with dbmazz_wait_export({id}), or stop it with dbmazz_cancel_export({id})."
            );
            refuse_with(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, message, "", &hint);
        }
        latch::wait(None, GLANCE);
    }
}

const CODE: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
const GLANCE: Duration = Duration::from_millis(50);
const MOST_GLANCES: usize = 100;
