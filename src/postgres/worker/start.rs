//! What a worker of a mirror needs to know before it can do anything, and what it must make sure of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::mirror::MirrorRow;
use super::super::catalog::publication::Published;
use super::super::catalog::relation::{self, Columns};
use super::super::catalog::table::{Layout, MirrorTableRow};
use super::super::loader::Loader;
use super::super::shmem::MirrorState;
use super::super::{catalog, failpoint, guc, latch, scan, session, shmem};
use crate::options::Options;
use crate::sink::starrocks::StarRocksConfig;
use crate::sink::{Job, Label, LoadError, Outcome};
use crate::table::TableSpec;

/// A mirror as its tables define it.
pub(super) struct Mirror {
    pub(super) name: String,
    pub(super) database: pg_sys::Oid,
    pub(super) row: MirrorRow,
    pub(super) options: Options,
    pub(super) tables: Vec<MirrorTableRow>,
    /// Which version of the list that is at least ([`shmem::tables_changed`]).
    pub(super) tables_version: u64,
    pub(super) config: StarRocksConfig,
    /// Whether the stream has begun, so that whatever is copied is copied beside it.
    streams: bool,
    /// What the publication publishes, by table; empty without one.
    published: HashMap<pg_sys::Oid, Published>,
}

impl Mirror {
    /// Reads the definition. None when there is no such mirror, or it is not meant to run.
    pub(super) fn read(name: &str, database: pg_sys::Oid) -> Option<Self> {
        let tables_version = version_of_tables(name);
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
            let streams = catalog::checkpoint::read(name).is_some();
            Some(Self {
                name: name.to_owned(),
                database,
                row,
                options,
                tables,
                tables_version,
                config,
                streams,
                published,
            })
        })
    }

    /// Reads the list of tables again, and what is written down of each.
    pub(super) fn read_tables(&mut self) {
        self.tables_version = version_of_tables(&self.name);
        self.tables = session::transaction(|| catalog::table::list(&self.name));
    }

    /// Takes over what is newer of the tables. Server and options stay as they were when the worker began.
    pub(super) fn follow(&mut self, newer: Self) {
        self.tables = newer.tables;
        self.tables_version = newer.tables_version;
        self.published = newer.published;
    }

    /// A table of the mirror.
    pub(super) fn table(&self, relid: pg_sys::Oid) -> Option<&MirrorTableRow> {
        self.tables.iter().find(|table| table.relid == relid)
    }

    /// The state that the mirror is in while tables are copied.
    pub(super) const fn phase_of_copy(&self) -> MirrorState {
        if self.streams { MirrorState::Streaming } else { MirrorState::Snapshot }
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

/// The version of the list of tables; to be asked for before the list is read, so that a change is never missed.
fn version_of_tables(mirror: &str) -> u64 {
    shmem::find(mirror).map_or(0, |slot| slot.tables_version)
}

/// How often a mirror whose target cannot be reached looks whether its definition was mended.
const MEND_CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// While the target cannot be reached, a worker looks now and then whether server or user mapping were changed: it
/// knows them as they were when it began.
pub(super) struct DefinitionWatch {
    looked_at: Instant,
}

impl DefinitionWatch {
    pub(super) fn new() -> Self {
        Self { looked_at: Instant::now() }
    }

    /// Whether it is time to look, for a target that has not been reached for so long.
    pub(super) fn is_due(&mut self, trouble_lasts: Duration) -> bool {
        if trouble_lasts < MEND_CHECK_INTERVAL || self.looked_at.elapsed() < MEND_CHECK_INTERVAL {
            return false;
        }
        self.looked_at = Instant::now();
        true
    }

    /// For a worker that does not stream: looks if it is time, and ends the process when the definition was mended. What
    /// it was about to do is begun anew by the next worker. Not inside a transaction.
    pub(super) fn begin_anew_if_mended(&mut self, mirror: &Mirror, trouble_lasts: Duration) {
        session::leave_if_unwanted(&mirror.name);
        if !self.is_due(trouble_lasts) || !mirror.config_has_changed() {
            return;
        }
        log_restart(&mirror.name);
        shmem::update(&mirror.name, |slot| slot.restart_at_once = true);
        // SAFETY: ends the process in the server's own way; its callbacks give everything back.
        unsafe { pg_sys::proc_exit(0) }
    }
}

/// Says why a worker ends that is started again at once.
pub(super) fn log_restart(mirror: &str) {
    log!("dbmazz worker of mirror \"{mirror}\" will restart because of a parameter change");
}

/// A table as the present catalogs describe it.
pub(super) struct Described {
    pub(super) spec: Arc<TableSpec>,
    pub(super) definition: String,
    pub(super) layout: Layout,
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
    // SAFETY: as above.
    let layout = unsafe { relation::layout(relation) };
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
    Ok(Described { definition: relation::definition(&spec), spec: Arc::new(spec), layout })
}

/// Asks the target for every label that a worker which is gone may have used, all but those of the `living`, until the fate of each is known: a load
/// that is still on its way must not arrive after newer rows.
pub(super) fn settle_earlier_labels(mirror: &Mirror, loader: &mut Loader, living: &[u64]) {
    let mut unsettled = session::transaction(|| catalog::incarnation::unsettled(&mirror.name));
    unsettled.retain(|earlier| !living.contains(&earlier.incarnation));
    let mut definition = DefinitionWatch::new();
    for earlier in unsettled {
        session::report_activity(&format!("mirror {}: settling labels of an earlier worker", mirror.name));
        // The lowest numbers are those that can be on their way. They are asked last: a load that a busy backend has
        // received and not begun yet has a moment more to become known.
        let jobs = (earlier.settled_until..earlier.reserved_until).rev().map(|number| Job::Settle {
            database: mirror.config.database.clone(),
            label: Label { mirror: mirror.name.as_str().into(), incarnation: earlier.incarnation, number },
        });
        for outcome in loader.run_all(jobs, |trouble| definition.begin_anew_if_mended(mirror, trouble)) {
            if let Outcome::Settle(label, Err(problem)) = outcome
                && problem != LoadError::NoFrontend
            {
                error!("could not settle label \"{label}\": {problem}");
            }
        }
        failpoint::hit("labels_settled");
        session::transaction(|| catalog::incarnation::remove(&mirror.name, earlier.incarnation));
    }
}

/// Ends the helpers of an earlier worker. Only when they are gone can their labels be settled.
pub(super) fn end_earlier_helpers(mirror: &str) {
    let mut turns = 0u32;
    loop {
        let pids: Vec<i32> =
            shmem::find(mirror).map(|slot| slot.helpers.pids().collect()).unwrap_or_default();
        if pids.is_empty() {
            return;
        }
        if turns.is_multiple_of(50) {
            for pid in pids {
                // SAFETY: a helper takes its number out of shared memory before its process ends.
                unsafe { libc::kill(pid, libc::SIGTERM) };
            }
        }
        turns += 1;
        latch::wait(None, Duration::from_millis(20));
    }
}
