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
use super::super::scan::RowFilter;
use super::super::shmem::MirrorState;
use super::super::{catalog, failpoint, guc, labels, latch, scan, session, shmem};
use super::source::Opened;
use crate::options::{OnStatement, Options};
use crate::sink::starrocks::StarRocksConfig;
use crate::sink::{LoadError, Outcome};
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
    /// Whether the target has tables of copies that nobody wants any more.
    pub(super) has_abandoned_copies: bool,
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
            let has_abandoned_copies = catalog::table::has_abandoned_copies(name);
            Some(Self {
                name: name.to_owned(),
                database,
                row,
                options,
                tables,
                tables_version,
                config,
                has_abandoned_copies,
                streams,
                published,
            })
        })
    }

    /// Reads the list of tables again, and what is written down of each.
    pub(super) fn read_tables(&mut self) {
        self.tables_version = version_of_tables(&self.name);
        (self.tables, self.has_abandoned_copies) = session::transaction(|| {
            (catalog::table::list(&self.name), catalog::table::has_abandoned_copies(&self.name))
        });
    }

    /// Takes over what is newer of the tables. Server and options stay as they were when the worker began.
    pub(super) fn follow(&mut self, newer: Self) {
        self.tables = newer.tables;
        self.tables_version = newer.tables_version;
        self.has_abandoned_copies = newer.has_abandoned_copies;
        self.published = newer.published;
    }

    /// A table of the mirror.
    pub(super) fn table(&self, relid: pg_sys::Oid) -> Option<&MirrorTableRow> {
        self.tables.iter().find(|table| table.relid == relid)
    }

    /// Whether a table waits for a copy that can be made. One that follows a dropped table of the same name waits until that
    /// has left: its last rows must not come on top. One that was refused because the target was taken has none.
    pub(super) fn can_be_copied(&self, table: &MirrorTableRow) -> bool {
        let is_earlier = |other: &MirrorTableRow| {
            other.relid != table.relid
                && other.target == table.target
                && !other.wants_copy()
                && other.has_begun()
        };
        table.wants_copy() && !self.tables.iter().any(is_earlier)
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

    /// Which of the rows are mirrored that a table has in these relations: none for all. Lives in the transaction.
    ///
    /// # Safety
    ///
    /// The relations are open.
    pub(super) unsafe fn row_filter(&self, opened: Opened) -> Option<RowFilter> {
        let Opened { table, rows } = opened;
        // SAFETY: the caller vouches for the relations.
        let (table_id, rows_id) = unsafe { ((*table).rd_id, (*rows).rd_id) };
        let published = self.published.get(&table_id)?;
        let own = published.partitions.iter().find(|partition| partition.relid == rows_id);
        let (node, columns_of) = match own {
            Some(partition) => (partition.row_filter.as_deref()?, rows),
            None => (published.row_filter.as_deref()?, table),
        };
        // SAFETY: as above; the text is the catalog's.
        Some(unsafe { RowFilter::new(node, columns_of, rows) })
    }

    /// Why what is published of a table cannot be mirrored, if so.
    fn unfit_terms(&self, relid: pg_sys::Oid) -> Option<String> {
        let published = self.published.get(&relid)?;
        let listed = published.partitions.iter().find(|partition| partition.columns.is_some())?;
        Some(format!(
            "partition \"{}\" has a column list of its own in the publication",
            catalog::partition::name(listed.relid)
        ))
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
/// The reason why the table cannot be copied, as a sentence without its end; none when it has been dropped.
pub(super) fn describe_for_copy(
    mirror: &Mirror,
    table: &MirrorTableRow,
) -> Result<Described, Option<String>> {
    let Some(relation) = scan::open_table(table.relid) else { return Err(None) };
    // SAFETY: the relation was just opened, in this transaction, and is closed below.
    let described = unsafe {
        let (target, columns) = (table.target.clone(), mirror.columns_of(table.relid));
        relation::describe(relation, target, Some(&table.known_as), &mirror.options, columns)
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
        return Err(Some("the owner of the mirror has no right to read the table".to_owned()));
    }
    if has_row_security {
        return Err(Some("row-level security would hide rows from the owner of the mirror".to_owned()));
    }
    let unfit = |problem| Some(format!("it cannot be mirrored: {problem}"));
    let spec = described.map_err(unfit)?;
    if table.is_partitioned {
        scan::check_partitions(&spec).map_err(unfit)?;
    }
    if table.filtered && spec.is_appended() {
        return Err(Some("it has no key, and not all of its changes are published".to_owned()));
    }
    if let Some(reason) = mirror.unfit_terms(table.relid) {
        return Err(Some(reason));
    }
    Ok(Described { definition: relation::definition(&spec), spec: Arc::new(spec), layout })
}

/// A table that was about to be copied has been dropped. The stream may not have come so far, or be behind it.
pub(super) fn let_go_of_dropped(mirror: &Mirror, relid: pg_sys::Oid) {
    match mirror.options.on_ddl {
        OnStatement::Apply | OnStatement::Ignore => catalog::table::let_go(&mirror.name, relid),
        OnStatement::Error => {
            let source_name = mirror.table(relid).map_or("", |table| table.source_name.as_str());
            catalog::table::fail(&mirror.name, relid, source_name, DROPPED);
        }
    }
}

/// Why a table has no rows any more.
pub(super) const DROPPED: &str = "it has been dropped";

/// Settles the labels of every worker that is gone, all but those of the `living` ([`labels::settle`]).
pub(super) fn settle_earlier_labels(mirror: &Mirror, loader: &mut Loader, living: &[u64]) {
    let mut unsettled = session::transaction(|| catalog::incarnation::unsettled(&mirror.name));
    unsettled.retain(|earlier| !living.contains(&earlier.incarnation));
    for earlier in unsettled {
        session::report_activity(&format!("mirror {}: settling labels of an earlier worker", mirror.name));
        let mut definition = DefinitionWatch::new();
        let run = |jobs| {
            let mut outcomes =
                loader.run_all(jobs, |trouble| definition.begin_anew_if_mended(mirror, trouble));
            // Where there is nobody to ask nothing is known.
            outcomes.retain(|outcome| !matches!(outcome, Outcome::Settle(_, Err(LoadError::NoFrontend))));
            Ok(outcomes)
        };
        if let Err(problem) = labels::settle(&mirror.name, &mirror.config.database, &earlier, run) {
            error!("{problem}");
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
