//! Which imports have processes: each holds an advisory lock for as long as it lives, however it ends.

use pgrx::datum::DatumWithOid;

use crate::postgres::catalog::query;

/// Takes the lock that says that an import has a leader, until the process ends; false when another one has it.
pub(super) fn become_leader(id: i64) -> bool {
    query::row("SELECT pg_catalog.pg_try_advisory_lock($1)", &[lock_key(id)], |row| row.must(1))
        .unwrap_or_default()
}

/// Says, until the process ends, that an import has a worker: it may be in the middle of a step when its leader has gone.
pub(super) fn become_worker(id: i64) {
    query::exists("SELECT pg_catalog.pg_advisory_lock_shared($1)", &[(WORKER_KEYS | id).into()]);
}

/// Whether an import has a leader.
pub(super) fn has_leader(id: i64) -> bool {
    query::exists(
        "SELECT FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND (l.classid::bigint << 32 | l.objid::bigint) = $1",
        &[lock_key(id)],
    )
}

/// Numbers of imports are small; the upper half keeps them apart from what applications lock.
fn lock_key(id: i64) -> DatumWithOid<'static> {
    (LEADER_KEYS | id).into()
}

const LEADER_KEYS: i64 = 0x0064_626d_0000_0000;
const WORKER_KEYS: i64 = 0x0064_626e_0000_0000;

/// Another import that has processes at work on a table that this one has rows for.
pub(super) struct Rival {
    pub(super) id: i64,
    pub(super) relation: String,
    /// Whether it goes on, rather than coming to its end.
    pub(super) is_running: bool,
}

/// A rival of an import; one that waits for its turn to start is none.
pub(super) fn rival(id: i64) -> Option<Rival> {
    query::row(
        "WITH alive AS MATERIALIZED (
             SELECT DISTINCT l.objid::bigint AS import_id FROM pg_catalog.pg_locks l
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
               AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
               AND l.classid::bigint << 32 IN ($2, $3)),
         own AS (SELECT DISTINCT relation FROM dbmazz.import_step WHERE import_id = $1 AND kind = 'c')
         SELECT i.import_id, s.relation, i.state = 'running'
         FROM alive JOIN dbmazz.import i USING (import_id)
         JOIN dbmazz.import_step s USING (import_id) JOIN own USING (relation)
         WHERE i.import_id <> $1 AND i.state <> 'starting' AND s.kind = 'c'
         ORDER BY i.state = 'running' DESC, i.import_id, s.relation LIMIT 1",
        &[id.into(), LEADER_KEYS.into(), WORKER_KEYS.into()],
        |row| Rival { id: row.must(1), relation: row.must(2), is_running: row.must(3) },
    )
}
