//! What a worker of a mirror needs to know before it can do anything, and what it must make sure of.

use std::collections::HashMap;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::mirror::MirrorRow;
use super::super::catalog::publication::Published;
use super::super::catalog::relation::{self, Columns};
use super::super::catalog::table::{MirrorTableRow, TableState};
use super::super::loader::Loader;
use super::super::{catalog, guc, scan, session, shmem};
use crate::options::Options;
use crate::pipeline::LabelSequence;
use crate::sink::starrocks::StarRocksConfig;
use crate::sink::{Job, Label, LoadError, Outcome};
use crate::table::TableSpec;

/// Numbers of labels that are reserved at a time.
pub(in crate::postgres) const LABEL_BLOCK: u64 = 1000;

/// A mirror as its tables define it.
pub(super) struct Mirror {
    pub(super) name: String,
    pub(super) database: pg_sys::Oid,
    pub(super) row: MirrorRow,
    pub(super) options: Options,
    pub(super) tables: Vec<MirrorTableRow>,
    pub(super) config: StarRocksConfig,
    /// What the publication publishes, by table; empty without one.
    published: HashMap<pg_sys::Oid, Published>,
}

impl Mirror {
    /// Reads the definition. None when there is no such mirror, or it is not meant to run.
    pub(super) fn read(name: &str, database: pg_sys::Oid) -> Option<Self> {
        session::transaction(|| {
            let row = catalog::mirror::read(name).filter(|row| row.enabled)?;
            let options = guc::defaults()
                .merged(&row.options)
                .unwrap_or_else(|problem| error!("could not read options of mirror \"{name}\": {problem}"));
            let config = catalog::server::config(&row.server, row.owner)
                .unwrap_or_else(|problem| error!("could not read server of mirror \"{name}\": {problem}"));
            let tables = catalog::table::list(name);
            let publication = row.publication.as_deref().and_then(catalog::publication::read);
            let published = publication.map(|publication| publication.tables).unwrap_or_default();
            let published = published.into_iter().map(|table| (table.relid, table)).collect();
            Some(Self { name: name.to_owned(), database, row, options, tables, config, published })
        })
    }

    /// Which columns of a table are mirrored.
    pub(super) fn columns_of(&self, relid: pg_sys::Oid) -> Columns<'_> {
        let list = self.published.get(&relid).and_then(|published| published.columns.as_deref());
        list.map_or(Columns::All, Columns::Listed)
    }

    /// Which rows of a table are mirrored: the text of an expression tree, none for all.
    pub(super) fn row_filter_of(&self, relid: pg_sys::Oid) -> Option<&str> {
        self.published.get(&relid).and_then(|published| published.row_filter.as_deref())
    }

    /// Whether server or user mapping say something else by now.
    pub(super) fn config_has_changed(&self) -> bool {
        let now = session::transaction(|| catalog::server::config(&self.row.server, self.row.owner));
        !now.is_ok_and(|now| now == self.config)
    }

    /// The name of its replication slot.
    pub(super) fn slot_name(&self) -> String {
        format!("dbmazz_{}", self.name)
    }
}

/// A table as the present catalogs describe it.
pub(super) struct Described {
    pub(super) spec: Arc<TableSpec>,
    pub(super) definition: String,
}

/// Describes a table for a copy: its columns, and whether the mirror's owner may read all of its rows. A scan of blocks
/// would ask nobody.
///
/// # Errors
///
/// The reason why the table cannot be copied, as a sentence without its end.
pub(super) fn describe_for_copy(mirror: &Mirror, table: &MirrorTableRow) -> Result<Described, String> {
    let Some(relation) = scan::open_table(table.relid) else {
        return Err("the table does not exist".to_owned());
    };
    // SAFETY: the relation was just opened, in this transaction, and is closed below.
    let described = unsafe {
        relation::describe(relation, table.target.clone(), &mirror.options, mirror.columns_of(table.relid))
    };
    // SAFETY: as above; looks into system caches only.
    let (may_read, has_row_security) = unsafe {
        let may_read =
            pg_sys::pg_class_aclcheck(table.relid, mirror.row.owner, pg_sys::ACL_SELECT as pg_sys::AclMode);
        let row_security = pg_sys::check_enable_rls(table.relid, mirror.row.owner, true);
        (
            may_read == pg_sys::AclResult::ACLCHECK_OK,
            row_security != pg_sys::CheckEnableRlsResult::RLS_NONE as i32,
        )
    };
    // SAFETY: opened above and used no more.
    unsafe { scan::close_table(relation) };
    if !may_read {
        return Err("the owner of the mirror has no right to read the table".to_owned());
    }
    if has_row_security {
        return Err("row-level security would hide rows from the owner of the mirror".to_owned());
    }
    let spec = described.map_err(|problem| format!("it cannot be mirrored: {problem}"))?;
    Ok(Described { definition: relation::definition(&spec), spec: Arc::new(spec) })
}

/// Puts a table into error, where the views show it. Inside a transaction.
pub(in crate::postgres) fn fail_table(mirror: &str, relid: pg_sys::Oid, source_name: &str, reason: &str) {
    use catalog::event::{Event, Severity};
    catalog::table::write_state(mirror, relid, TableState::Error, Some(reason));
    let message = format!("table \"{source_name}\" has been put into error: {reason}");
    let hint = "Mend the cause, drop the mirror and start it again to copy the table anew.";
    Event { relid: Some(relid), hint: Some(hint), ..Event::of(mirror, Severity::Error, &message) }.record();
    warning!("mirror \"{mirror}\": {message}");
    shmem::note_error(mirror, &message);
}

/// Draws a new incarnation and reserves its first block of numbers.
pub(super) fn open_incarnation(mirror: &Mirror) -> LabelSequence {
    let incarnation = random_number();
    let mut labels = LabelSequence::new(mirror.name.as_str().into(), incarnation);
    session::transaction(|| catalog::incarnation::open(&mirror.name, incarnation, LABEL_BLOCK + 1));
    labels.extend(LABEL_BLOCK);
    labels
}

/// Reserves another block when the present one is nearly used up. Not inside a transaction.
pub(in crate::postgres) fn top_up(mirror: &str, labels: &mut LabelSequence) {
    if labels.remaining() < LABEL_BLOCK / 2 {
        let until = labels.reserved_until() + LABEL_BLOCK;
        // The table holds the first number that is *not* reserved.
        session::transaction(|| catalog::incarnation::reserve(mirror, labels.incarnation(), until + 1));
        labels.extend(until);
    }
}

fn random_number() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: fills exactly the room it is given.
    let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    if !filled {
        error!("could not generate a random incarnation");
    }
    u64::from_ne_bytes(bytes)
}

/// Asks the target for every label that an earlier worker may have used, until the fate of each is known: a load
/// that is still on its way must not arrive after newer rows.
pub(super) fn settle_earlier_labels(mirror: &Mirror, loader: &mut Loader, own: Option<u64>) {
    let mut unsettled = session::transaction(|| catalog::incarnation::unsettled(&mirror.name));
    unsettled.retain(|earlier| Some(earlier.incarnation) != own);
    for earlier in unsettled {
        session::report_activity(&format!("mirror {}: settling labels of an earlier worker", mirror.name));
        let jobs = (earlier.settled_until..earlier.reserved_until).map(|number| Job::Settle {
            database: mirror.config.database.clone(),
            label: Label { mirror: mirror.name.as_str().into(), incarnation: earlier.incarnation, number },
        });
        for outcome in loader.run_all(jobs) {
            if let Outcome::Settle(label, Err(problem)) = outcome
                && problem != LoadError::NoFrontend
            {
                error!("could not settle label \"{label}\": {problem}");
            }
        }
        session::transaction(|| catalog::incarnation::remove(&mirror.name, earlier.incarnation));
    }
}

/// Whether the mirror is still meant to run; a worker that finds it is not ends at once.
pub(in crate::postgres) fn leave_if_unwanted(mirror: &str) {
    let wanted = shmem::find(mirror).is_some_and(|slot| slot.wanted == shmem::Wanted::Run);
    if !wanted || !guc::enabled() {
        log!("dbmazz worker of mirror \"{mirror}\" will stop because the mirror was disabled");
        // SAFETY: ends the process in the server's own way; its callbacks give everything back.
        unsafe { pg_sys::proc_exit(0) }
    }
}
