//! The extension's own tables, and what the source's catalogs say about relations, servers and publications.
//!
//! * [`mirror`], [`table`], [`checkpoint`], [`identity`], [`incarnation`], [`chunk`], [`event`], [`rejected`]: the tables of the schema `dbmazz`.
//!   Plain columns only, so that the decoding worker may use them: nothing there fills its caches with the present
//!   state of a user's table.
//! * [`relation`]: an open relation becomes a [`crate::table::TableSpec`]. Reads descriptor and system caches only.
//! * [`partition`]: which tables are partitions of which.
//! * [`server`], [`publication`], [`source`], [`sizes`]: foreign servers with their user mappings, publications, what the
//!   server says about itself, and how long values are.
//!
//! Transactions are the caller's business: everything here runs inside one. Workers are superusers; a backend goes
//! through [`as_extension`], since users have no rights on the tables.

use pgrx::pg_sys;

use super::session;

pub(super) mod checkpoint;
pub(super) mod chunk;
pub(super) mod event;
pub(super) mod export;
pub(super) mod identity;
pub(super) mod incarnation;
pub(super) mod lookup;
pub(super) mod mirror;
pub(super) mod partition;
pub(super) mod publication;
pub(in crate::postgres) mod query;
pub(super) mod rejected;
pub(super) mod relation;
pub(super) mod server;
pub(super) mod sizes;
pub(super) mod source;
pub(super) mod table;

/// Runs `body` with the rights of the extension instead of the user's, and with a search path in which nobody else
/// can have put an operator.
///
/// For backends. `body` must only run the statements of this module: whatever else it did, it would do as superuser.
pub(super) fn as_extension<T>(body: impl FnOnce() -> T) -> T {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: called inside a transaction, which restores user and settings by itself when `body` raises an error.
    let nest_level = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let nest_level = pg_sys::NewGUCNestLevel();
        session::set_for(pg_sys::GucAction::GUC_ACTION_SAVE, c"search_path", c"pg_catalog, pg_temp");
        let local = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        pg_sys::SetUserIdAndSecContext(pg_sys::BOOTSTRAP_SUPERUSERID.into(), local);
        nest_level
    };
    let result = body();
    // SAFETY: gives back what was read above, at the nesting level that was opened above.
    unsafe {
        pg_sys::SetUserIdAndSecContext(user, context);
        pg_sys::AtEOXact_GUC(true, nest_level);
    }
    result
}

/// Runs `body` with the rights of a role, and nothing more: what it calls cannot change the session (worker.c does the same
/// for what it applies). For workers.
pub(super) fn with_rights_of<T>(role: pg_sys::Oid, body: impl FnOnce() -> T) -> T {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: called inside a transaction, which restores the user by itself when `body` raises an error.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32);
    }
    let result = body();
    // SAFETY: gives back what was read above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    result
}

/// Whether this database has the extension. For workers that come to a database without knowing.
pub(super) fn is_installed() -> bool {
    query::exists("SELECT FROM pg_catalog.pg_extension WHERE extname = 'dbmazz'", &[])
}

/// The snapshot of the transaction, as `xmin:xmax:xip,…`. Not for a worker that decodes.
pub(super) fn current_snapshot() -> String {
    query::row("SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text", &[], |row| row.must(1))
        .unwrap_or_default()
}

/// Exports the snapshot of the transaction for others to import. Not for a worker that decodes.
pub(super) fn export_snapshot() -> String {
    query::row("SELECT pg_catalog.pg_export_snapshot()", &[], |row| row.must(1)).unwrap_or_default()
}

/// Who holds up the creation of a slot: the oldest transaction, prepared ones too. Not for a worker that decodes.
pub(super) fn oldest_transaction() -> Option<String> {
    query::row(
        "SELECT who FROM (
             SELECT pg_catalog.format('the transaction of process %s, which began at %s', pid, xact_start), xact_start
             FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL
             UNION ALL
             SELECT pg_catalog.format('prepared transaction %L of %s', gid, prepared), prepared
             FROM pg_catalog.pg_prepared_xacts) AS t (who, since)
         ORDER BY since LIMIT 1",
        &[],
        |row| row.must(1),
    )
}
