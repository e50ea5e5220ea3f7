-- What an administrator looks at. Tables hold what survives, shared memory (dbmazz.live_mirrors) what is true right now.

CREATE VIEW dbmazz_stat_mirror AS
SELECT
    m.mirror,
    -- A disabled mirror is what its row says; for any other its worker knows better, once there is one.
    CASE
        -- The database was copied with the mirror's rows in it; the mirror runs in the other one.
        WHEN l.pid IS NULL AND i.database_oid <> d.oid THEN 'paused'
        WHEN m.enabled THEN coalesce(l.state, m.state)
        ELSE m.state
    END AS state,
    l.pid,
    m.server,
    'dbmazz_' || m.mirror AS slot_name,
    coalesce(l.confirmed_lsn, c.confirmed_lsn) AS confirmed_lsn,
    coalesce(l.received_lsn, l.confirmed_lsn, c.confirmed_lsn) AS received_lsn,
    CASE WHEN w.lsn <= p.lsn THEN 0 ELSE pg_catalog.pg_wal_lsn_diff(w.lsn, p.lsn)::bigint END AS lag_bytes,
    CASE
        -- Nothing is streamed yet, so there is no last commit to be behind of.
        WHEN m.enabled AND coalesce(l.state, m.state) IN ('starting', 'snapshot') THEN NULL
        WHEN l.pid IS NOT NULL AND coalesce(l.durable_commit_time >= l.received_commit_time, true)
            AND (l.received_commit_time IS NULL OR l.durable_commit_time IS NOT NULL) THEN '0'::interval
        WHEN p.at >= pg_catalog.clock_timestamp() THEN '0'::interval
        ELSE pg_catalog.clock_timestamp() - p.at
    END AS lag,
    (SELECT count(*) FROM dbmazz.mirror_table t WHERE t.mirror = m.mirror)::integer AS tables,
    coalesce(l.rows_per_second, 0) AS rows_per_second,
    coalesce(l.rows_total, 0) AS rows_total,
    coalesce(l.bytes_total, 0) AS bytes_total,
    coalesce(l.loads_total, 0) AS loads_total,
    coalesce(l.queued_bytes, 0) AS queued_bytes,
    coalesce(l.last_error, m.last_error) AS last_error,
    CASE WHEN l.last_error IS NULL THEN m.last_error_at ELSE l.last_error_at END AS last_error_at,
    l.started_at,
    CASE WHEN s.restart_lsn IS NULL OR w.lsn <= s.restart_lsn THEN 0
        ELSE pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn)::bigint END AS retained_bytes,
    l.snapshot_xmin_age
FROM dbmazz.mirror m
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
LEFT JOIN dbmazz.identity i ON i.mirror = m.mirror
LEFT JOIN dbmazz.live_mirrors() l ON l.mirror = m.mirror AND l.database = d.oid
LEFT JOIN dbmazz.checkpoint c ON c.mirror = m.mirror
LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = 'dbmazz_' || m.mirror AND s.datoid = d.oid
-- How far the log goes, and how far the target is known to have come; greatest() passes over NULL.
CROSS JOIN (
    SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END AS lsn
) w
CROSS JOIN LATERAL (
    SELECT greatest(l.durable_lsn, l.confirmed_lsn, c.confirmed_lsn) AS lsn,
           greatest(l.durable_commit_time, c.confirmed_at) AS at
) p;
COMMENT ON VIEW dbmazz_stat_mirror IS 'mirrors of this database and how they stand';
COMMENT ON COLUMN dbmazz_stat_mirror.mirror IS 'name of the mirror';
COMMENT ON COLUMN dbmazz_stat_mirror.state IS 'starting, snapshot, streaming, paused, retrying, error or needs_resync';
COMMENT ON COLUMN dbmazz_stat_mirror.pid IS 'process of the mirror''s worker; null when it has none';
COMMENT ON COLUMN dbmazz_stat_mirror.server IS 'foreign server that the rows go to';
COMMENT ON COLUMN dbmazz_stat_mirror.slot_name IS 'replication slot of the mirror';
COMMENT ON COLUMN dbmazz_stat_mirror.confirmed_lsn IS 'the checkpoint: all that committed before is visible at the target and would survive a crash';
COMMENT ON COLUMN dbmazz_stat_mirror.received_lsn IS 'position up to which the log is decoded';
COMMENT ON COLUMN dbmazz_stat_mirror.lag_bytes IS 'bytes of log whose changes are not known to be visible at the target; null before the first checkpoint';
COMMENT ON COLUMN dbmazz_stat_mirror.lag IS 'age of the last commit that is visible at the target; zero when all that was decoded is visible, null before the mirror streams';
COMMENT ON COLUMN dbmazz_stat_mirror.tables IS 'number of tables';
COMMENT ON COLUMN dbmazz_stat_mirror.rows_per_second IS 'rows loaded during the last measured second';
COMMENT ON COLUMN dbmazz_stat_mirror.rows_total IS 'rows loaded since the worker''s start';
COMMENT ON COLUMN dbmazz_stat_mirror.bytes_total IS 'bytes loaded since the worker''s start, before compression';
COMMENT ON COLUMN dbmazz_stat_mirror.loads_total IS 'loads finished since the worker''s start';
COMMENT ON COLUMN dbmazz_stat_mirror.queued_bytes IS 'bytes encoded or queued and not yet acknowledged';
COMMENT ON COLUMN dbmazz_stat_mirror.last_error IS 'why the mirror is in trouble, or was last';
COMMENT ON COLUMN dbmazz_stat_mirror.last_error_at IS 'when that was';
COMMENT ON COLUMN dbmazz_stat_mirror.started_at IS 'start of the running worker';
COMMENT ON COLUMN dbmazz_stat_mirror.retained_bytes IS 'bytes of log that the slot keeps';
COMMENT ON COLUMN dbmazz_stat_mirror.snapshot_xmin_age IS 'transactions begun since the snapshot of the copy was taken: vacuum removes no row version that died since; null when none is held';

CREATE VIEW dbmazz_stat_table AS
SELECT
    t.mirror,
    t.relid::regclass AS relation,
    t.target_database || '.' || t.target_table AS target,
    t.state,
    t.snapshot_lsn,
    t.inserts,
    t.updates,
    t.deletes,
    t.truncates,
    t.rows_loaded,
    t.bytes_loaded,
    t.last_load_at,
    t.last_error,
    t.unrecorded + (SELECT count(*) FROM dbmazz.rejected_row r WHERE r.mirror = t.mirror AND r.relid = t.relid
            AND NOT r.skipped)
        AS rejected
FROM dbmazz.mirror_table t;
COMMENT ON VIEW dbmazz_stat_table IS 'tables of the mirrors and how far each has come; figures count since the mirror''s start';
COMMENT ON COLUMN dbmazz_stat_table.mirror IS 'name of the mirror';
COMMENT ON COLUMN dbmazz_stat_table.relation IS 'the table';
COMMENT ON COLUMN dbmazz_stat_table.target IS 'database and table that its rows go to';
COMMENT ON COLUMN dbmazz_stat_table.state IS 'i known, d being copied, s copied and catching up, r in step, e in error';
COMMENT ON COLUMN dbmazz_stat_table.snapshot_lsn IS 'position of the snapshot that was copied; null when no rows were';
COMMENT ON COLUMN dbmazz_stat_table.inserts IS 'rows inserted at the source';
COMMENT ON COLUMN dbmazz_stat_table.updates IS 'rows updated at the source';
COMMENT ON COLUMN dbmazz_stat_table.deletes IS 'rows deleted at the source';
COMMENT ON COLUMN dbmazz_stat_table.truncates IS 'times that the source was truncated';
COMMENT ON COLUMN dbmazz_stat_table.rows_loaded IS 'rows loaded by the copy and since';
COMMENT ON COLUMN dbmazz_stat_table.bytes_loaded IS 'bytes loaded by the copy and since, before compression';
COMMENT ON COLUMN dbmazz_stat_table.last_load_at IS 'when rows were last loaded';
COMMENT ON COLUMN dbmazz_stat_table.last_error IS 'why the table is in error';
COMMENT ON COLUMN dbmazz_stat_table.rejected IS 'rows that were refused and are not at the target; dbmazz_rejected_row has them';

CREATE VIEW dbmazz_progress_snapshot AS
SELECT
    p.mirror,
    p.relation,
    p.chunks_total,
    p.chunks_done,
    p.rows_done,
    p.bytes_done,
    p.bytes_total,
    CASE WHEN p.seconds > 0 THEN p.rows_done / p.seconds ELSE 0 END AS rows_per_second,
    CASE WHEN p.bytes_done > 0 AND p.seconds > 0
        THEN p.now + pg_catalog.make_interval(secs => (p.bytes_total - p.bytes_done) * p.seconds / p.bytes_done)
    END AS eta
FROM (
    SELECT
        c.mirror,
        c.relid::regclass AS relation,
        count(*)::integer AS chunks_total,
        count(*) FILTER (WHERE c.state = 'r')::integer AS chunks_done,
        sum(c.rows_done)::bigint AS rows_done,
        coalesce(sum(c.bytes) FILTER (WHERE c.state = 'r'), 0)::bigint AS bytes_done,
        sum(c.bytes)::bigint AS bytes_total,
        pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - min(c.started_at)) AS seconds,
        pg_catalog.clock_timestamp() AS now
    FROM dbmazz.snapshot_chunk c
    JOIN dbmazz.mirror_table t ON t.mirror = c.mirror AND t.relid = c.relid
    WHERE t.state IN ('i', 'd')
    GROUP BY c.mirror, c.relid
) p;
COMMENT ON VIEW dbmazz_progress_snapshot IS 'tables that are being copied';
COMMENT ON COLUMN dbmazz_progress_snapshot.mirror IS 'name of the mirror';
COMMENT ON COLUMN dbmazz_progress_snapshot.relation IS 'the table';
COMMENT ON COLUMN dbmazz_progress_snapshot.chunks_total IS 'chunks of the table';
COMMENT ON COLUMN dbmazz_progress_snapshot.chunks_done IS 'chunks whose rows are all visible at the target';
COMMENT ON COLUMN dbmazz_progress_snapshot.rows_done IS 'rows copied';
COMMENT ON COLUMN dbmazz_progress_snapshot.bytes_done IS 'heap and TOAST bytes of the chunks that are done';
COMMENT ON COLUMN dbmazz_progress_snapshot.bytes_total IS 'heap and TOAST bytes of the table';
COMMENT ON COLUMN dbmazz_progress_snapshot.rows_per_second IS 'rows per second since the first chunk was begun';
COMMENT ON COLUMN dbmazz_progress_snapshot.eta IS 'when the copy will be done if it goes on like this; null until the first chunk is done';

CREATE VIEW dbmazz_event AS
SELECT e.at, e.mirror, e.relid::regclass AS relation, e.severity, e.message, e.detail, e.hint
FROM dbmazz.event e
ORDER BY e.id DESC;
COMMENT ON VIEW dbmazz_event IS 'what happened to the mirrors, newest first; kept for 30 days';
COMMENT ON COLUMN dbmazz_event.at IS 'when it happened';
COMMENT ON COLUMN dbmazz_event.mirror IS 'the mirror that it happened to';
COMMENT ON COLUMN dbmazz_event.relation IS 'the table that it happened to; null when it is about the mirror as a whole';
COMMENT ON COLUMN dbmazz_event.severity IS 'info, warning or error';
COMMENT ON COLUMN dbmazz_event.message IS 'what happened';
COMMENT ON COLUMN dbmazz_event.detail IS 'facts';
COMMENT ON COLUMN dbmazz_event.hint IS 'advice';

CREATE VIEW dbmazz_rejected_row AS
SELECT r.mirror, r.relid::regclass AS relation, r.lsn, r.key, r.reason, r."row"
FROM dbmazz.rejected_row r
WHERE NOT r.skipped
ORDER BY r.id;
COMMENT ON VIEW dbmazz_rejected_row IS 'rows that the target refused';
COMMENT ON COLUMN dbmazz_rejected_row.mirror IS 'name of the mirror';
COMMENT ON COLUMN dbmazz_rejected_row.relation IS 'the table';
COMMENT ON COLUMN dbmazz_rejected_row.lsn IS 'position of the commit that brought the row; null for a copied one';
COMMENT ON COLUMN dbmazz_rejected_row.key IS 'key of the row, as JSON; null where it cannot be told';
COMMENT ON COLUMN dbmazz_rejected_row.reason IS 'what the target, or the mirror itself, said';
COMMENT ON COLUMN dbmazz_rejected_row."row" IS 'the row as it was sent, long values cut; the deletion of a row has its key alone';
