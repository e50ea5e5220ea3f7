-- Imports: exported tables back into a database. Their numbers come from the sequence of the exports.

CREATE TABLE dbmazz.import (
    import_id   bigint PRIMARY KEY DEFAULT pg_catalog.nextval('dbmazz.export_id'),
    source      text NOT NULL,
    server      text,
    owner       oid NOT NULL,
    tables      text[],
    options     jsonb NOT NULL,
    exported    jsonb,
    state       text NOT NULL DEFAULT 'starting' CHECK (state IN ('starting', 'running', 'done', 'failed', 'cancelled', 'replaced')),
    last_error  text,
    last_hint   text,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz
);
COMMENT ON TABLE dbmazz.import IS 'imports into this database';
COMMENT ON COLUMN dbmazz.import.exported IS 'what the manifest says of the export as a whole, and its digest; null until the import is planned';
COMMENT ON COLUMN dbmazz.import.state IS 'starting, running, done, failed, cancelled, or replaced by one that has started over';

CREATE TABLE dbmazz.import_step (
    import_id bigint NOT NULL REFERENCES dbmazz.import ON DELETE CASCADE,
    step      integer NOT NULL,
    phase     integer NOT NULL,
    kind      "char" NOT NULL CHECK (kind IN ('s', 't', 'c', 'e', 'l', 'v', 'm')),
    relation  text,
    statement text,
    settings  text NOT NULL DEFAULT '',
    chunk     jsonb,
    bytes     bigint NOT NULL DEFAULT 0,
    state     "char" NOT NULL DEFAULT 'i' CHECK (state IN ('i', 'r', 'f')),
    rows_done bigint NOT NULL DEFAULT 0,
    note      text,
    relid     oid,
    filenode  oid,
    done_at   timestamptz,
    PRIMARY KEY (import_id, step)
) WITH (fillfactor = 70);
CREATE INDEX import_step_waiting ON dbmazz.import_step (import_id, phase, bytes DESC, step) WHERE state = 'i';
COMMENT ON TABLE dbmazz.import_step IS 'what an import consists of; a step is marked done in the transaction that does it, so it is done once';
COMMENT ON COLUMN dbmazz.import_step.kind IS 's a statement, t one that creates a table, c a file of rows, e a table that must be empty, l the large objects without their pages, v a table whose references must be whole, m a materialized view that is refreshed';
COMMENT ON COLUMN dbmazz.import_step.settings IS 'settings of the script that the statement is from, at its place';
COMMENT ON COLUMN dbmazz.import_step.state IS 'i waiting, r done, f failed without keeping the others from being done';
COMMENT ON COLUMN dbmazz.import_step.note IS 'why a statement was passed over, or has failed';
COMMENT ON COLUMN dbmazz.import_step.relid IS 'the table that was created, or that rows go into; they go into no other one of its name';
COMMENT ON COLUMN dbmazz.import_step.filenode IS 'the file of that table: another one when it was truncated or rewritten';

CREATE FUNCTION dbmazz_import(
    source text,
    tables text[] DEFAULT NULL,
    server text DEFAULT NULL,
    options jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_import_wrapper';
COMMENT ON FUNCTION dbmazz_import(text, text[], text, jsonb) IS
    'brings exported tables, or all of an export, into this database; takes effect at commit and goes on with an import that was interrupted';

CREATE FUNCTION dbmazz_verify_export(destination text, server text DEFAULT NULL)
RETURNS TABLE (file text, ok boolean, detail text)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dbmazz_verify_export_wrapper';
COMMENT ON FUNCTION dbmazz_verify_export(text, text) IS
    'reads every file of an export and compares it with the manifest: one row per file';

REVOKE ALL ON FUNCTION
    dbmazz_import(text, text[], text, jsonb),
    dbmazz_verify_export(text, text)
    FROM PUBLIC;
-- Who may read files of the server, or use a server of dbmazz_s3, is asked by the functions themselves.
GRANT EXECUTE ON FUNCTION
    dbmazz_import(text, text[], text, jsonb),
    dbmazz_verify_export(text, text)
    TO pg_database_owner, pg_read_server_files;
