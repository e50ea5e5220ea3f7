-- Exports: tables as files. The numbers of exports and imports come from one sequence, so that dbmazz_wait_export takes both.

CREATE SEQUENCE dbmazz.export_id;
COMMENT ON SEQUENCE dbmazz.export_id IS 'numbers of exports and imports';

CREATE TABLE dbmazz.export (
    export_id   bigint PRIMARY KEY DEFAULT pg_catalog.nextval('dbmazz.export_id'),
    destination text NOT NULL,
    server      text,
    owner       oid NOT NULL,
    named       oid[],
    options     jsonb NOT NULL,
    state       text NOT NULL DEFAULT 'starting' CHECK (state IN ('starting', 'running', 'done', 'failed', 'cancelled')),
    last_error  text,
    is_hopeless boolean NOT NULL DEFAULT false,
    slot_name   text,
    snapshot_lsns pg_lsn[] NOT NULL DEFAULT '{}',
    pre_data    jsonb,
    post_data   jsonb,
    definitions_lsn pg_lsn,
    sequences   jsonb,
    planned     boolean NOT NULL DEFAULT false,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    resumed_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz
);
COMMENT ON TABLE dbmazz.export IS 'exports of this database';
COMMENT ON COLUMN dbmazz.export.named IS 'tables that were asked for, partitioned ones by themselves; null for the whole database, with large objects and all sequences';
COMMENT ON COLUMN dbmazz.export.is_hopeless IS 'whether what it failed by will be in its way again';
COMMENT ON COLUMN dbmazz.export.snapshot_lsns IS 'positions of the snapshots that were taken for it, in their order; a second one makes it inconsistent if chunks were read under both';
COMMENT ON COLUMN dbmazz.export.pre_data IS 'the file of that section, once it is written';
COMMENT ON COLUMN dbmazz.export.definitions_lsn IS 'position of the snapshot that the sections are of';
COMMENT ON COLUMN dbmazz.export.planned IS 'whether the tables have been divided into chunks';

CREATE TABLE dbmazz.export_table (
    export_id   bigint NOT NULL REFERENCES dbmazz.export ON DELETE CASCADE,
    relid       oid NOT NULL,
    schema_name text NOT NULL,
    table_name  text NOT NULL,
    kind        "char" NOT NULL CHECK (kind IN ('r', 'm', 'o', 'p')),
    columns     jsonb,
    attnums     smallint[],
    relfilenode oid,
    PRIMARY KEY (export_id, relid)
);
COMMENT ON TABLE dbmazz.export_table IS 'tables of the exports, as of the snapshot';
COMMENT ON COLUMN dbmazz.export_table.kind IS 'r table, m materialized view, o the list of large objects, p their pages';
COMMENT ON COLUMN dbmazz.export_table.attnums IS 'columns of the chunks, by number';
COMMENT ON COLUMN dbmazz.export_table.relfilenode IS 'file that the blocks are counted in; after a rewrite of the table the plan is void';

CREATE TABLE dbmazz.export_chunk (
    export_id    bigint NOT NULL,
    relid        oid NOT NULL,
    chunk        integer NOT NULL,
    first_block  bigint NOT NULL,
    end_block    bigint,
    plan_bytes   bigint NOT NULL,
    state        "char" NOT NULL DEFAULT 'i' CHECK (state IN ('i', 'd', 'r')),
    file         text,
    rows         bigint,
    bytes        bigint,
    compressed_bytes bigint,
    blobs        bigint,
    checksum     text,
    snapshot_lsn pg_lsn,
    started_at   timestamptz,
    done_at      timestamptz,
    PRIMARY KEY (export_id, relid, chunk),
    FOREIGN KEY (export_id, relid) REFERENCES dbmazz.export_table ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX export_chunk_waiting ON dbmazz.export_chunk (export_id, plan_bytes DESC, relid, chunk) WHERE state = 'i';
COMMENT ON TABLE dbmazz.export_chunk IS 'block ranges of exported tables, and the files that they have become';
COMMENT ON COLUMN dbmazz.export_chunk.end_block IS 'first block that is no longer part of the chunk; null for the last one, which has no end';
COMMENT ON COLUMN dbmazz.export_chunk.plan_bytes IS 'heap and TOAST bytes, roughly';
COMMENT ON COLUMN dbmazz.export_chunk.state IS 'i waiting, d being written, r its file is complete and durable';

CREATE FUNCTION dbmazz_ctid_chunks(relation regclass, chunk_size text DEFAULT '128MB')
RETURNS TABLE (chunk integer, first_ctid tid, last_ctid tid, bytes bigint)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_ctid_chunks_wrapper';
COMMENT ON FUNCTION dbmazz_ctid_chunks(regclass, text) IS
    'divides a table into ranges of physical places of about chunk_size each, TOAST included; the last one has no end';

CREATE FUNCTION dbmazz_estimate_export(
    tables regclass[] DEFAULT NULL,
    options jsonb DEFAULT '{}',
    destination text DEFAULT NULL,
    server text DEFAULT NULL)
RETURNS TABLE (relation regclass, heap_bytes bigint, toast_bytes bigint, rows_estimate bigint, chunks integer, bytes_estimate bigint)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_estimate_export_wrapper';
COMMENT ON FUNCTION dbmazz_estimate_export(regclass[], jsonb, text, text) IS
    'how large an export would be, by a sample of each table that is encoded and compressed; tells the free space of a destination';

CREATE FUNCTION dbmazz_export(
    destination text,
    tables regclass[] DEFAULT NULL,
    server text DEFAULT NULL,
    options jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_export_wrapper';
COMMENT ON FUNCTION dbmazz_export(text, regclass[], text, jsonb) IS
    'writes tables, or the whole database, to files; takes effect at commit and returns the number of the export';

CREATE FUNCTION dbmazz_resume_export(export_id bigint)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_resume_export_wrapper';
COMMENT ON FUNCTION dbmazz_resume_export(bigint) IS
    'goes on with an export that failed, was cancelled, or ended with the server; finished chunks are kept';

CREATE FUNCTION dbmazz_cancel_export(export_id bigint)
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_cancel_export_wrapper';
COMMENT ON FUNCTION dbmazz_cancel_export(bigint) IS
    'stops an export, at once and not at commit; dbmazz_resume_export goes on with it';

CREATE FUNCTION dbmazz_wait_export(export_id bigint, timeout interval DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_wait_export_wrapper';
COMMENT ON FUNCTION dbmazz_wait_export(bigint, interval) IS
    'waits until an export or import is done; false after the timeout, an error if it failed';

CREATE FUNCTION dbmazz.live_exports()
RETURNS TABLE (
    export_id bigint,
    pid integer,
    rows_done bigint,
    bytes_done bigint,
    bytes_written bigint,
    last_error text)
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
ROWS 4
AS 'MODULE_PATHNAME', 'live_exports_wrapper';
COMMENT ON FUNCTION dbmazz.live_exports() IS
    'exports of this database that have a process; figures are of the chunks that are being written';

CREATE VIEW dbmazz_progress_export AS
SELECT e.export_id,
       CASE WHEN e.state IN ('starting', 'running') AND l.export_id IS NULL THEN 'interrupted' ELSE e.state END AS state,
       c.chunks_total,
       c.chunks_done,
       c.rows_done + coalesce(l.rows_done, 0) AS rows_done,
       c.bytes_done + coalesce(l.bytes_done, 0) AS bytes_done,
       c.bytes_written + coalesce(l.bytes_written, 0) AS bytes_written,
       CASE WHEN c.bytes_written > 0 THEN pg_catalog.round((c.bytes_done / c.bytes_written::numeric), 2) END AS compression_ratio,
       CASE WHEN e.state IN ('starting', 'running') AND l.export_id IS NOT NULL AND c.plan_done > 0
            THEN (pg_catalog.clock_timestamp() - e.resumed_at)
                 * (c.plan_left::double precision / c.plan_done) END AS eta,
       CASE WHEN e.state <> 'starting' THEN
           (c.bytes_since + coalesce(l.bytes_done, 0))
           / greatest(extract(epoch FROM coalesce(e.finished_at, pg_catalog.clock_timestamp()) - e.resumed_at), 0.001)::double precision
       END AS bytes_per_second,
       l.pid,
       e.destination,
       e.started_at,
       e.finished_at,
       coalesce(e.last_error, l.last_error) AS last_error
FROM dbmazz.export e
     LEFT JOIN dbmazz.live_exports() l USING (export_id),
     LATERAL (SELECT count(*) AS chunks_total,
                     count(*) FILTER (WHERE k.state = 'r') AS chunks_done,
                     coalesce(sum(k.rows) FILTER (WHERE k.state = 'r'), 0)::bigint AS rows_done,
                     coalesce(sum(k.bytes) FILTER (WHERE k.state = 'r'), 0)::bigint AS bytes_done,
                     coalesce(sum(k.bytes) FILTER (WHERE k.state = 'r' AND k.done_at >= e.resumed_at), 0)::bigint AS bytes_since,
                     coalesce(sum(k.compressed_bytes) FILTER (WHERE k.state = 'r'), 0)::bigint AS bytes_written,
                     coalesce(sum(k.plan_bytes) FILTER (WHERE k.state = 'r' AND k.done_at >= e.resumed_at), 0)::bigint AS plan_done,
                     coalesce(sum(k.plan_bytes) FILTER (WHERE k.state <> 'r'), 0)::bigint AS plan_left
              FROM dbmazz.export_chunk k WHERE k.export_id = e.export_id) c;
COMMENT ON VIEW dbmazz_progress_export IS 'exports, running and done';

REVOKE ALL ON dbmazz_progress_export FROM PUBLIC;
REVOKE ALL ON FUNCTION
    dbmazz_ctid_chunks(regclass, text),
    dbmazz_estimate_export(regclass[], jsonb, text, text),
    dbmazz_export(text, regclass[], text, jsonb),
    dbmazz_resume_export(bigint),
    dbmazz_cancel_export(bigint),
    dbmazz_wait_export(bigint, interval),
    dbmazz.live_exports()
    FROM PUBLIC;
-- A plan says no more than the size of a table, which everybody may ask for.
GRANT EXECUTE ON FUNCTION dbmazz_ctid_chunks(regclass, text) TO PUBLIC;
-- Who may write files of the server, or use a server of dbmazz_s3, is asked by the function itself.
GRANT EXECUTE ON FUNCTION
    dbmazz_estimate_export(regclass[], jsonb, text, text),
    dbmazz_export(text, regclass[], text, jsonb),
    dbmazz_resume_export(bigint),
    dbmazz_cancel_export(bigint),
    dbmazz_wait_export(bigint, interval)
    TO pg_database_owner, pg_write_server_files;
GRANT EXECUTE ON FUNCTION dbmazz.live_exports() TO pg_monitor, pg_database_owner, pg_write_server_files;
GRANT SELECT ON dbmazz_progress_export TO pg_monitor, pg_database_owner, pg_write_server_files;
