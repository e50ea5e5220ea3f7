//! Follows the publication of a mirror: tables that join it are copied beside the stream, tables that leave it are let go, and
//! those of which other rows, columns or operations are published by now are copied again.
//!
//! Nothing is lost by that being noticed late. What joins is copied as it is by then, and the stream has it from there on; a
//! table that has left and come back in between counts as another one.
//!
//! Every such change invalidates the relations that it is about, here as in any process, so as long as none is invalidated
//! nobody asks.
//!
//! Users add and remove tables of the mirror as well (`dbmazz_add_table`). A list of tables that is later than the publication it
//! is compared with has some that seem to have left, so both are read while nobody else may change the list; if somebody is at it,
//! in a transaction that may last, the stream does not wait for its end, but looks later.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::super::catalog::event::{Event, Severity};
use super::super::catalog::publication::{self, Publication, Published};
use super::super::catalog::table::{MirrorTableRow, NewTable};
use super::super::{catalog, decode, failpoint, session, shmem};
use super::start::Mirror;
use crate::table::TargetTable;

/// Looks are at least so far apart.
const INTERVAL: Duration = Duration::from_secs(2);
/// So often is looked after an invalidation: it may come before its transaction is over for others.
const LOOKS: u32 = 2;

/// What is known of the publication.
pub(super) struct PublicationWatch {
    /// How often relations had been invalidated at the last look.
    seen: u64,
    /// Looks that are left.
    looks: u32,
    not_before: Instant,
}

impl PublicationWatch {
    pub(super) fn new() -> Self {
        Self { seen: 0, looks: LOOKS, not_before: Instant::now() }
    }

    /// Looks, if there is reason to, and writes down what follows. Between records.
    pub(super) fn look(&mut self, mirror: &Mirror) {
        let Some(name) = mirror.row.publication.as_deref() else { return };
        if self.seen != decode::invalidations() {
            self.seen = decode::invalidations();
            self.looks = LOOKS;
        }
        if self.looks == 0 || Instant::now() < self.not_before {
            return;
        }
        let before = decode::invalidations();
        let followed = session::with_present_catalogs(|| {
            catalog::mirror::transaction_alone(&mirror.name, || follow(mirror, name))
        });
        if followed == Some(true) {
            failpoint::hit("publication_followed");
            shmem::tables_changed(&mirror.name);
        }
        // More than the look's own may be of a change that it did not see.
        self.seen = before + session::INVALIDATIONS_OF_PRESENT_CATALOGS;
        self.looks -= u32::from(followed.is_some());
        self.not_before = Instant::now() + INTERVAL;
    }
}

/// Compares the publication with the tables of the mirror. Returns whether these are others by now. A publication that was
/// dropped changes nothing: pgoutput says so when it is needed. Nobody else may add or remove tables meanwhile.
fn follow(mirror: &Mirror, name: &str) -> bool {
    let Some(publication) = publication::read(name) else { return false };
    failpoint::hit("publication_read");
    let present = catalog::table::list(&mirror.name);
    let mut has_changed = false;
    for table in &present {
        let published = publication.tables.iter().find(|published| published.relid == table.relid);
        has_changed |= match published {
            None => let_go(mirror, table, name),
            Some(published) => keep(mirror, table, &publication, published),
        };
    }
    for published in &publication.tables {
        if !present.iter().any(|table| table.relid == published.relid) {
            take_in(mirror, &publication, published);
            has_changed = true;
        }
    }
    has_changed
}

fn let_go(mirror: &Mirror, table: &MirrorTableRow, publication: &str) -> bool {
    catalog::table::remove(&mirror.name, table.relid);
    let message = format!("table \"{}\" has left publication \"{publication}\"", table.source_name);
    record(mirror, table.relid, Severity::Info, &message);
    true
}

fn keep(mirror: &Mirror, table: &MirrorTableRow, publication: &Publication, published: &Published) -> bool {
    let terms = publication.terms(published);
    if table.published.as_deref() == Some(terms.as_str()) {
        return false;
    }
    let filtered = publication.filters(published);
    catalog::table::copy_again(&mirror.name, table.relid, filtered, Some(&terms));
    let message =
        format!("table \"{}\" will be copied again: other rows of it are published now", table.source_name);
    record(mirror, table.relid, Severity::Info, &message);
    true
}

/// A table that joins. Whether it can be mirrored is found out by its copy; that another one has its target, here.
fn take_in(mirror: &Mirror, publication: &Publication, published: &Published) {
    let source_name = catalog::partition::name(published.relid);
    let table = match mirror.options.table_map.get(&source_name) {
        Some(chosen) => chosen.clone(),
        None => source_name.split_once('.').map_or("", |(_, table)| table).to_owned(),
    };
    let target = TargetTable { database: mirror.config.database.clone(), table };
    let taken =
        catalog::table::with_target(&target, &mirror.row.server, Some((&mirror.name, published.relid)));
    let relkind = catalog::partition::relkind(published.relid);
    let new = NewTable {
        relid: published.relid,
        source_name,
        target,
        filtered: publication.filters(published),
        is_partitioned: relkind == pg_sys::RELKIND_PARTITIONED_TABLE,
        published: Some(publication.terms(published)),
    };
    catalog::table::insert(&mirror.name, &new);
    match taken {
        None => {
            let message = format!("table \"{}\" has joined the publication", new.source_name);
            record(mirror, new.relid, Severity::Info, &message);
        }
        Some((_, other)) => {
            let reason = format!("table \"{other}\" has the same target \"{}\"", new.target);
            catalog::table::fail(&mirror.name, new.relid, &new.source_name, &reason);
        }
    }
}

fn record(mirror: &Mirror, relid: pg_sys::Oid, severity: Severity, message: &str) {
    Event { relid: Some(relid), ..Event::of(&mirror.name, severity, message) }.record();
}
