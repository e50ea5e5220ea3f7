-- The functions of the extension. Who may call them is in grants.sql.
--
-- None is STRICT where NULL has a meaning or deserves an error of its own; none may run in a parallel worker, since all
-- of them write, wait, or look at what the leader's transaction has done.

CREATE FUNCTION dbmazz_start_mirror(
    mirror text,
    server text,
    tables regclass[] DEFAULT NULL,
    publication text DEFAULT NULL,
    snapshot boolean DEFAULT true,
    options jsonb DEFAULT '{}')
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_start_mirror_wrapper';
COMMENT ON FUNCTION dbmazz_start_mirror(text, text, regclass[], text, boolean, jsonb) IS
    'starts to mirror tables into a foreign server: those named, those of a publication, or all of the database';

CREATE FUNCTION dbmazz_pause_mirror(mirror text)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_pause_mirror_wrapper';
COMMENT ON FUNCTION dbmazz_pause_mirror(text) IS
    'stops the workers of a mirror; its slot keeps the changes';

CREATE FUNCTION dbmazz_resume_mirror(mirror text)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_resume_mirror_wrapper';
COMMENT ON FUNCTION dbmazz_resume_mirror(text) IS
    'lets a mirror go on that was paused, or stopped by an error';

CREATE FUNCTION dbmazz_drop_mirror(mirror text, if_exists boolean DEFAULT false)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_drop_mirror_wrapper';
COMMENT ON FUNCTION dbmazz_drop_mirror(text, boolean) IS
    'removes a mirror with its workers and its slot; the target tables stay';

CREATE FUNCTION dbmazz_add_table(mirror text, relation regclass)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_add_table_wrapper';
COMMENT ON FUNCTION dbmazz_add_table(text, regclass) IS
    'adds a table to a mirror: its rows are copied, then it streams with the others';

CREATE FUNCTION dbmazz_remove_table(mirror text, relation regclass)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_remove_table_wrapper';
COMMENT ON FUNCTION dbmazz_remove_table(text, regclass) IS
    'takes a table out of a mirror; the target table stays';

CREATE FUNCTION dbmazz_resync_table(mirror text, relation regclass)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_resync_table_wrapper';
COMMENT ON FUNCTION dbmazz_resync_table(text, regclass) IS
    'copies a table of a mirror again, while the others stream on; also one that is in error';

CREATE FUNCTION dbmazz_check_mirror(
    server text,
    tables regclass[] DEFAULT NULL,
    publication text DEFAULT NULL,
    options jsonb DEFAULT '{}')
RETURNS TABLE (check_name text, ok boolean, detail text, hint text)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_check_mirror_wrapper';
COMMENT ON FUNCTION dbmazz_check_mirror(text, regclass[], text, jsonb) IS
    'looks at everything that must hold before a mirror can be started, and tells what mends the rest';

CREATE FUNCTION dbmazz_wait_mirror(
    mirror text,
    lsn pg_lsn DEFAULT pg_catalog.pg_current_wal_insert_lsn(),
    timeout interval DEFAULT '1 min')
RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_wait_mirror_wrapper';
COMMENT ON FUNCTION dbmazz_wait_mirror(text, pg_lsn, interval) IS
    'waits until everything that committed before lsn is visible at the target; false after the timeout, or when a table of the mirror is in error';

CREATE FUNCTION dbmazz_retry_rejected(mirror text, relation regclass DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_retry_rejected_wrapper';
COMMENT ON FUNCTION dbmazz_retry_rejected(text, regclass) IS
    'reads rows that were refused from the source again and loads them, copies tables in error again; returns how many rows are no longer rejected';

CREATE FUNCTION dbmazz_skip_rejected(mirror text, relation regclass DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_skip_rejected_wrapper';
COMMENT ON FUNCTION dbmazz_skip_rejected(text, regclass) IS
    'forgets rows that were refused; returns how many';
-- The event trigger of new tables calls it, as the owner of the extension; nobody else may.
CREATE FUNCTION dbmazz.add_new_table(relation oid)
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'add_new_table_wrapper';
COMMENT ON FUNCTION dbmazz.add_new_table(oid) IS
    'adds a table that has just been created to the mirrors of all tables that want it; whether there was one';

-- The event triggers of a rewrite: the first one looks at the statement, the second one asks what it saw.
CREATE FUNCTION dbmazz.look_at_rewrite()
RETURNS event_trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'dbmazz_look_at_rewrite';
COMMENT ON FUNCTION dbmazz.look_at_rewrite() IS
    'remembers whether a rewrite gives columns other types and nothing else';

CREATE FUNCTION dbmazz.rewrite_is_of_types_alone()
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rewrite_is_of_types_alone_wrapper';
COMMENT ON FUNCTION dbmazz.rewrite_is_of_types_alone() IS
    'whether the rewrite at hand gives columns other types and nothing else';

-- The event triggers of a changed type, in the same way.
CREATE FUNCTION dbmazz.look_at_type()
RETURNS event_trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'dbmazz_look_at_type';
COMMENT ON FUNCTION dbmazz.look_at_type() IS
    'remembers whether values of a type that is altered are printed otherwise from now on';

CREATE FUNCTION dbmazz.values_of_type_change()
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'values_of_type_change_wrapper';
COMMENT ON FUNCTION dbmazz.values_of_type_change() IS
    'whether values of the type at hand are printed otherwise from now on';

-- PostgreSQL calls it when the options of a server or user mapping are written; nobody else has to.
CREATE FUNCTION dbmazz_starrocks_validator(text[], oid)
RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dbmazz_starrocks_validator_wrapper';
COMMENT ON FUNCTION dbmazz_starrocks_validator(text[], oid) IS
    'checks the options of servers and user mappings of dbmazz_starrocks';

CREATE FUNCTION dbmazz_s3_validator(text[], oid)
RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dbmazz_s3_validator_wrapper';
COMMENT ON FUNCTION dbmazz_s3_validator(text[], oid) IS
    'checks the options of servers and user mappings of dbmazz_s3';

-- Shared memory belongs to the server, so the rows are the same in every process; they change at any time.
CREATE FUNCTION dbmazz.live_mirrors()
RETURNS TABLE (
    mirror text,
    database oid,
    pid integer,
    state text,
    confirmed_lsn pg_lsn,
    received_lsn pg_lsn,
    durable_lsn pg_lsn,
    durable_commit_time timestamptz,
    received_commit_time timestamptz,
    rows_per_second double precision,
    rows_total bigint,
    bytes_total bigint,
    loads_total bigint,
    queued_bytes bigint,
    last_error text,
    last_error_at timestamptz,
    started_at timestamptz,
    snapshot_xmin_age integer)
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
ROWS 4
AS 'MODULE_PATHNAME', 'live_mirrors_wrapper';
COMMENT ON FUNCTION dbmazz.live_mirrors() IS
    'mirrors of all databases as shared memory knows them; figures count since the start of the worker';
