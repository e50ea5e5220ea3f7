-- The tables of the extension. The mirror's worker is the only one that writes them, but for dbmazz.mirror and
-- dbmazz.mirror_table, where dbmazz_start_mirror and its kin write down what is wanted.

CREATE SCHEMA dbmazz;
COMMENT ON SCHEMA dbmazz IS 'tables of the dbmazz extension';

CREATE TABLE dbmazz.mirror (
    mirror        text PRIMARY KEY CHECK (mirror ~ '^[a-z0-9_]{1,40}$'),
    server        text NOT NULL,
    owner         oid NOT NULL,
    publication   text,
    copy_rows     boolean NOT NULL,
    all_tables    boolean NOT NULL DEFAULT false,
    options       jsonb NOT NULL DEFAULT '{}',
    enabled       boolean NOT NULL DEFAULT true,
    copy_lsn      pg_lsn,
    state         text NOT NULL DEFAULT 'starting' CHECK (state IN
                      ('starting', 'snapshot', 'streaming', 'paused', 'retrying', 'error', 'needs_resync')),
    last_error    text,
    last_error_at timestamptz,
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE dbmazz.mirror IS 'mirrors of this database and what is wanted of them';
COMMENT ON COLUMN dbmazz.mirror.server IS 'name of the foreign server that the rows go to';
COMMENT ON COLUMN dbmazz.mirror.owner IS 'role whose user mapping is used';
COMMENT ON COLUMN dbmazz.mirror.publication IS 'publication whose tables, row filters and column lists are followed; null for an own list of tables';
COMMENT ON COLUMN dbmazz.mirror.copy_rows IS 'whether the rows that are there already are copied';
COMMENT ON COLUMN dbmazz.mirror.all_tables IS 'whether it was started for all tables of the database; with new_tables = add those join that are created later';
COMMENT ON COLUMN dbmazz.mirror.copy_lsn IS 'where the slot begins, while the first copy is not done: a copy that was interrupted goes on from its chunks';
COMMENT ON COLUMN dbmazz.mirror.state IS 'state that the worker last wrote down; dbmazz_stat_mirror shows the present one';

CREATE TABLE dbmazz.mirror_table (
    mirror          text NOT NULL REFERENCES dbmazz.mirror ON DELETE CASCADE,
    relid           oid NOT NULL,
    source_name     text NOT NULL,
    known_as        text NOT NULL,
    target_database text NOT NULL,
    target_table    text NOT NULL,
    filtered        boolean NOT NULL DEFAULT false,
    partitioned     boolean NOT NULL DEFAULT false,
    published       text,
    definition      text,
    copy_table      text,
    copy_mark       text,
    state           "char" NOT NULL DEFAULT 'i' CHECK (state IN ('i', 'd', 's', 'r', 'e')),
    snapshot_lsn    pg_lsn,
    catch_up_lsn    pg_lsn,
    catch_up        text,
    defined_commit  pg_lsn,
    defined_change  pg_lsn,
    natts           smallint,
    relfilenode     oid,
    altering        text,
    inserts         bigint NOT NULL DEFAULT 0,
    updates         bigint NOT NULL DEFAULT 0,
    deletes         bigint NOT NULL DEFAULT 0,
    truncates       bigint NOT NULL DEFAULT 0,
    rows_loaded     bigint NOT NULL DEFAULT 0,
    bytes_loaded    bigint NOT NULL DEFAULT 0,
    last_load_at    timestamptz,
    unrecorded      bigint NOT NULL DEFAULT 0,
    last_error      text,
    PRIMARY KEY (mirror, relid),
    CHECK ((catch_up IS NULL) = (catch_up_lsn IS NULL)),
    CHECK ((copy_table IS NULL) = (copy_mark IS NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE dbmazz.mirror_table IS 'tables of the mirrors';
COMMENT ON COLUMN dbmazz.mirror_table.known_as IS 'the name that it had when it joined: column_map has it under this one';
COMMENT ON COLUMN dbmazz.mirror_table.filtered IS 'whether the publication has a row filter, a column list or leaves out operations: such tables are decoded by pgoutput';
COMMENT ON COLUMN dbmazz.mirror_table.partitioned IS 'whether its rows are those of its partitions';
COMMENT ON COLUMN dbmazz.mirror_table.published IS 'what the publication said of it when its copy was wanted; other terms make another copy';
COMMENT ON COLUMN dbmazz.mirror_table.definition IS 'the columns that the target table was made for; a change of the source is noticed by comparing with it';
COMMENT ON COLUMN dbmazz.mirror_table.copy_table IS 'table of the target database that the rows are copied into; it takes the place of the target table when it has all of them';
COMMENT ON COLUMN dbmazz.mirror_table.copy_mark IS 'what its comment says, and that of no other table';
COMMENT ON COLUMN dbmazz.mirror_table.defined_commit IS 'end of the commit of the first change that had this definition; earlier changes, when they are read again, had an earlier one';
COMMENT ON COLUMN dbmazz.mirror_table.defined_change IS 'place of that change in the log';
COMMENT ON COLUMN dbmazz.mirror_table.natts IS 'numbers of columns that the source had given by then';
COMMENT ON COLUMN dbmazz.mirror_table.relfilenode IS 'file of the source by then: another one says that it was rewritten';
COMMENT ON COLUMN dbmazz.mirror_table.unrecorded IS 'rows refused beyond those of dbmazz.rejected_row';
COMMENT ON COLUMN dbmazz.mirror_table.altering IS 'what may still have to be done at the target; written before it is done';
COMMENT ON COLUMN dbmazz.mirror_table.state IS 'i known, d being copied, s copied and catching up, r in step, e in error';
COMMENT ON COLUMN dbmazz.mirror_table.snapshot_lsn IS 'position of the snapshot that the copy read';
COMMENT ON COLUMN dbmazz.mirror_table.catch_up_lsn IS 'the stream brings the table into step here; null when it needs no treatment of its own';
COMMENT ON COLUMN dbmazz.mirror_table.catch_up IS 'what the stream does up to there: "behind" for nothing, a snapshot for only what that one does not see, "completing" for reading from the source what the log does not have';

CREATE TABLE dbmazz.abandoned_copy (
    mirror          text NOT NULL REFERENCES dbmazz.mirror ON DELETE CASCADE,
    target_database text NOT NULL,
    target_table    text NOT NULL,
    PRIMARY KEY (mirror, target_database, target_table)
);
COMMENT ON TABLE dbmazz.abandoned_copy IS 'tables of the target that were being filled for tables which have left their mirror since; they are about to be dropped';

CREATE TABLE dbmazz.checkpoint (
    mirror            text PRIMARY KEY REFERENCES dbmazz.mirror ON DELETE CASCADE,
    confirmed_lsn     pg_lsn NOT NULL,
    system_identifier bigint NOT NULL,
    timeline          integer NOT NULL,
    database_oid      oid NOT NULL,
    incarnation       text NOT NULL,
    label_number      bigint NOT NULL,
    confirmed_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    owner_lsn         pg_lsn
) WITH (fillfactor = 50);
COMMENT ON TABLE dbmazz.checkpoint IS 'for the tables in s and r, all that committed before confirmed_lsn is durable and visible at the target';
COMMENT ON COLUMN dbmazz.checkpoint.label_number IS 'loads of the incarnation up to this number are visible';
COMMENT ON COLUMN dbmazz.checkpoint.owner_lsn IS 'dbmazz_owner at the target said this position or a later one; a target that says an earlier one has been restored';

CREATE TABLE dbmazz.identity (
    mirror            text PRIMARY KEY REFERENCES dbmazz.mirror ON DELETE CASCADE,
    system_identifier bigint NOT NULL,
    database_oid      oid NOT NULL,
    data_directory    text NOT NULL,
    host              text NOT NULL,
    standing          text NOT NULL DEFAULT 'settled' CHECK (standing IN ('settled', 'contested', 'confirmed')),
    incarnations      text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE dbmazz.identity IS 'where each mirror runs: a copy of the server or of the database does not write to the target';
COMMENT ON COLUMN dbmazz.identity.standing IS 'settled: it runs there; contested: found elsewhere, or the target is another server''s; confirmed: an administrator says that it may go on';
COMMENT ON COLUMN dbmazz.identity.incarnations IS 'the last incarnations that claimed the target, newest last';

CREATE TABLE dbmazz.incarnation (
    mirror         text NOT NULL,
    incarnation    text NOT NULL CHECK (incarnation ~ '^[0-9a-f]{16}$'),
    reserved_until bigint NOT NULL,
    settled_until  bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (mirror, incarnation)
);
COMMENT ON TABLE dbmazz.incarnation IS 'numbers of load labels that workers may be using; a row goes when the fate of every number is known';
COMMENT ON COLUMN dbmazz.incarnation.mirror IS 'no reference: a mirror that was dropped while its target did not answer leaves its rows to the next one of its name';
COMMENT ON COLUMN dbmazz.incarnation.reserved_until IS 'no label has this number or a higher one';
COMMENT ON COLUMN dbmazz.incarnation.settled_until IS 'the fate of every label below this number is known';

CREATE TABLE dbmazz.snapshot_chunk (
    mirror      text NOT NULL REFERENCES dbmazz.mirror ON DELETE CASCADE,
    relid       oid NOT NULL,
    chunk       integer NOT NULL,
    leaf        oid NOT NULL,
    first_block bigint NOT NULL,
    end_block   bigint,
    bytes       bigint NOT NULL,
    relfilenode oid NOT NULL,
    state       "char" NOT NULL DEFAULT 'i' CHECK (state IN ('i', 'd', 'r')),
    rows_done   bigint NOT NULL DEFAULT 0,
    started_at  timestamptz,
    done_at     timestamptz,
    PRIMARY KEY (mirror, relid, chunk)
) WITH (fillfactor = 70);
CREATE INDEX snapshot_chunk_waiting ON dbmazz.snapshot_chunk (mirror, relid, chunk) WHERE state = 'i';
COMMENT ON TABLE dbmazz.snapshot_chunk IS 'block ranges of tables being copied';
COMMENT ON COLUMN dbmazz.snapshot_chunk.leaf IS 'whose blocks these are: the table itself, or a partition of it';
COMMENT ON COLUMN dbmazz.snapshot_chunk.end_block IS 'first block that is no longer part of the chunk; null for the last one, which has no end';
COMMENT ON COLUMN dbmazz.snapshot_chunk.relfilenode IS 'file that the blocks are counted in; after a rewrite of the table the plan is void';
COMMENT ON COLUMN dbmazz.snapshot_chunk.state IS 'i waiting, d being copied, r all of its rows are visible at the target';

CREATE TABLE dbmazz.event (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    mirror   text,
    relid    oid,
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
    message  text NOT NULL,
    detail   text,
    hint     text
);
COMMENT ON TABLE dbmazz.event IS 'what happened to the mirrors; kept for 30 days';

CREATE TABLE dbmazz.rejected_row (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mirror text NOT NULL REFERENCES dbmazz.mirror ON DELETE CASCADE,
    relid  oid NOT NULL,
    lsn    pg_lsn,
    key    text,
    reason text NOT NULL,
    "row"  jsonb,
    at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    skipped boolean NOT NULL DEFAULT false
);
CREATE INDEX rejected_row_of_key ON dbmazz.rejected_row (mirror, relid, pg_catalog.hashtext(key));
COMMENT ON TABLE dbmazz.rejected_row IS 'rows that the target refused, of each key the last one';
COMMENT ON COLUMN dbmazz.rejected_row.skipped IS 'an administrator does not want to see it any more; the target still has no such row';
COMMENT ON COLUMN dbmazz.rejected_row.key IS 'the key as a load has it, or null where it cannot be told';

-- Counts as a table of the catalogs when the log is decoded.
CREATE TABLE dbmazz.new_view (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    views bigint NOT NULL
) WITH (user_catalog_table = true);
INSERT INTO dbmazz.new_view (views) VALUES (0);
COMMENT ON TABLE dbmazz.new_view IS 'written to so that whoever decodes the log makes a new view of the catalogs';
