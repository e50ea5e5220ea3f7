//! Questions to the catalogs and views of the source server. For backends, and for workers that do not decode.

use pgrx::pg_sys;

use super::query;

/// A replication slot as others see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Slot {
    /// Its database; none for a physical slot.
    pub(in crate::postgres) database: Option<pg_sys::Oid>,
    /// The process that holds it.
    pub(in crate::postgres) active_pid: Option<i32>,
}

/// Name of the slot of a mirror.
pub(in crate::postgres) fn slot_name(mirror: &str) -> String {
    format!("dbmazz_{mirror}")
}

/// A slot by name.
pub(in crate::postgres) fn slot(name: &str) -> Option<Slot> {
    query::row(
        "SELECT datoid, active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::pg_catalog.text",
        &[name.into()],
        |row| Slot { database: row.get(1), active_pid: row.get(2) },
    )
}

/// The mirrors of a database, any one, by the names of their slots.
pub(in crate::postgres) fn mirrors_with_slot_in(database: pg_sys::Oid) -> Vec<String> {
    query::rows(
        "SELECT pg_catalog.substr(slot_name, 8) FROM pg_catalog.pg_replication_slots
         WHERE slot_type = 'logical' AND datoid = $1 AND slot_name ~ '^dbmazz_'",
        &[database.into()],
        |row| row.must(1),
    )
}

/// How many slots there are.
pub(in crate::postgres) fn slot_count() -> i64 {
    query::row("SELECT count(*) FROM pg_catalog.pg_replication_slots", &[], |row| row.must(1)).unwrap_or(0)
}

/// How many processes take one of `max_worker_processes`. Needs the right to see other users' processes.
pub(in crate::postgres) fn background_worker_count() -> i64 {
    query::row(
        "SELECT count(*) FROM pg_catalog.pg_stat_activity
         WHERE backend_type NOT IN ('client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer',
             'checkpointer', 'startup', 'walreceiver', 'walsender', 'walwriter', 'archiver', 'logger',
             'standalone backend', 'slotsync worker', 'walsummarizer', 'io worker')",
        &[],
        |row| row.must(1),
    )
    .unwrap_or(0)
}

/// Asks a process of the server to end, if there is one. Needs the right to do so.
pub(in crate::postgres) fn terminate(pid: i32) {
    query::row("SELECT pg_catalog.pg_terminate_backend($1)", &[pid.into()], |_| ());
}

/// Whether two replication slots can be created.
pub(in crate::postgres) fn has_free_slots() -> bool {
    query::exists(
        "SELECT FROM pg_catalog.pg_replication_slots
         HAVING count(*) + 2 <= pg_catalog.current_setting('max_replication_slots')::int",
        &[],
    )
}

/// Changes something that counts as one of the catalogs: whoever decodes the log makes a new view of them.
pub(in crate::postgres) fn change_catalogs() {
    query::run("UPDATE dbmazz.new_view SET views = views + 1", &[]);
}

/// Writes a message to the log, of no use but that its end is a position at which the log can be flushed.
pub(in crate::postgres) fn emit_message() -> crate::lsn::Lsn {
    query::row("SELECT pg_catalog.pg_logical_emit_message(false, 'dbmazz', '')", &[], |row| {
        row.must::<crate::postgres::lsn_datum::LsnDatum>(1).0
    })
    .unwrap_or_default()
}

/// Permanent tables of the database, in the order of their names: ordinary and partitioned ones, no partitions; none of
/// the system's and none that an extension brought.
pub(in crate::postgres) fn user_tables() -> Vec<pg_sys::Oid> {
    query::rows(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
             AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
         ORDER BY n.nspname, c.relname",
        &[],
        |row| row.must(1),
    )
}

/// Whether the primary key of a table is checked at commit only, so that it identifies no row before.
pub(in crate::postgres) fn has_deferrable_key(relid: pg_sys::Oid) -> bool {
    query::exists(
        "SELECT FROM pg_catalog.pg_index WHERE indrelid = $1 AND indisprimary AND NOT indimmediate",
        &[relid.into()],
    )
}
